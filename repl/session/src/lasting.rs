//! A session that lasts: every cell is written down before it runs and leaves a checkpoint, and the session can go to
//! any of them, in this process or another.
//!
//! A machine that is ahead of the record is thrown away: whatever left no checkpoint has not happened.

use std::time::{Duration, Instant};

use vmrepl_history::Outcome;
use vmrepl_machine::{Engine, Purpose};
use vmrepl_wire::cell::Answer;
use vmrepl_wire::control::RngPolicy;
use vmrepl_wire::languages::Language;

use crate::apart::{self, Spot};
use crate::book::{Book, Seed};
use crate::cell::{Cell, Sink};
use crate::checkpoint::Manner;
use crate::choice::engine_for;
use crate::diff::Difference;
use crate::error::SessionError;
use crate::fresh::{Begin, Order, micros};
use crate::kind::{EngineChoice, EngineKind};
use crate::name::SessionName;
use crate::places::Places;
use crate::policy::{OnFailure, Policy};
use crate::pool::Way;
use crate::recorder::Recorder;
use crate::session::{Session, is_of_a_lost_runner};
use crate::standing::{FellBack, Lasting};
use crate::stored::At;
use crate::template::{Template, TemplateName, expect_language, open_store};

/// Which session to open, and how.
#[derive(Debug, Clone)]
pub struct Opening<'a> {
    /// Its name.
    pub name: &'a SessionName,
    /// What a new one grows from.
    pub template: &'a TemplateName,
    /// What runs it: one that is there belongs to an engine.
    pub engine: EngineChoice,
    /// Begin at this cell instead of where it stands.
    pub at: Option<u32>,
    /// How long to wait for another process that has it.
    pub patience: Duration,
    /// What happens to generators that the user has seeded.
    pub rng: RngPolicy,
    /// What its cells must be written in, if that is not all the same.
    pub language: Option<Language>,
}

/// What was found when a session was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// There was none of this name.
    pub is_new: bool,
    /// The template that it grew from.
    pub template: String,
    /// Cells that were running when an earlier process ended without a word; what they did is gone.
    pub lost: Vec<u32>,
    /// The cell that it stands at.
    pub position: u32,
}

/// Something that changes the machine beside its cells; to be ended by [`Session::end_aside`].
#[derive(Debug)]
#[must_use]
pub struct Aside {
    number: Option<u32>,
    began: Instant,
}

impl Session {
    /// Opens a session of this name, or makes one, and restores the machine where it stands.
    ///
    /// The calling thread must outlive the session.
    ///
    /// # Errors
    /// When another process has it, it belongs to another engine, or its checkpoint cannot be restored.
    pub fn open(places: &Places, opening: &Opening<'_>) -> Result<(Self, Opened), SessionError> {
        let (mut book, is_new) =
            Book::open_or_create(places, opening.name, opening.patience, || {
                seed(places, opening)
            })?;
        let engine = engine_of(places, &book, opening.engine)?;
        if let Some(wanted) = opening.language {
            let what = format!("session {:?}", book.row.name);
            expect_language(&what, &book.row.language, wanted.name())?;
        }
        if let Some(number) = opening.at {
            book.go(number)?;
        }
        let at = book.checkpoint(book.row.position)?;
        let opened = Opened {
            is_new,
            template: book.row.template.clone(),
            lost: book.lost().to_vec(),
            position: book.row.position,
        };
        let order = Order {
            places: places.clone(),
            engine,
            name: TemplateName::new(&book.row.template)?,
            at: Some(at),
            purpose: Purpose::Freeze,
            rng: opening.rng,
        };
        let began = Instant::now();
        let fresh = order.fill(None, Begin::Running)?;
        let mut session = Self::begin(order, fresh, Way::Nothing, began)?;
        let lasting = Lasting::new(book, open_store(places)?, at);
        session.lasting = Some(lasting.awake(&session.machine));
        Ok((session, opened))
    }

    /// Runs a cell that is written down and leaves a checkpoint.
    pub(crate) fn run_recorded(
        &mut self,
        cell: &Cell,
        sink: &mut dyn Sink,
    ) -> Result<Answer, SessionError> {
        self.stand_up()?;
        let number = self.lasting()?.begin(&cell.code)?;
        let mut recorder = Recorder::new(sink);
        let cell = Cell {
            number: Some(number),
            ..cell.clone()
        };
        let answer = self.run_cell(&format!("c{number}"), &cell, &mut recorder);
        let outcome = recorder.outcome(&answer);
        if answer.is_err() || !self.is_alive() {
            self.lasting()?.end_without(number, &outcome)?;
            return match answer {
                // By an interpreter that had none of the session's names, or one that died behind the answer.
                Ok(answer) if !is_of_a_lost_runner(&answer) => Err(SessionError::Busied),
                answer => answer,
            };
        }
        self.keep(number, outcome)?;
        answer
    }

    /// Writes a cell down that has ended, with the checkpoint that its policy gives it.
    fn keep(&mut self, number: u32, outcome: Outcome) -> Result<(), SessionError> {
        let has_failed = outcome.status != "ok";
        let policy = self.lasting()?.policy;
        if !policy.stores(has_failed) {
            return self.lasting()?.pass(number, &outcome);
        }
        let before = self.lasting()?.book.row.position;
        match self.freeze() {
            Ok(frozen) => {
                let control = self.control.clone();
                let lasting = self.lasting()?;
                lasting.write(number, outcome, frozen, Manner::Here, control)?;
            }
            Err(error) => {
                self.lasting()?.end_without(number, &outcome)?;
                return Err(error);
            }
        }
        if has_failed && policy.on_failure == OnFailure::Rollback {
            self.go_to(before)?;
            self.lasting()?.fallen_back = Some(FellBack {
                position: before,
                kept: Some(number),
            });
        }
        Ok(())
    }

    /// Something other than a cell is about to change the machine: a terminal, a copied file. In a session with a name it
    /// is written down as a cell whose code is these words, and can be undone like one.
    ///
    /// # Errors
    /// When it cannot be written down, or the machine is not there.
    pub fn begin_aside(&mut self, words: &str) -> Result<Aside, SessionError> {
        self.stand_up()?;
        self.await_resumed(Instant::now())?;
        let number = match &mut self.lasting {
            Some(lasting) => Some(lasting.begin(words)?),
            None => None,
        };
        let began = Instant::now();
        Ok(Aside { number, began })
    }

    /// It has ended, with this exit code; `said` is what the record keeps of its output.
    ///
    /// # Errors
    /// When its checkpoint cannot be made or stored.
    pub fn end_aside(
        &mut self,
        aside: &Aside,
        exit_code: i32,
        said: String,
    ) -> Result<(), SessionError> {
        let Some(number) = aside.number else {
            return Ok(());
        };
        let outcome = Outcome {
            status: if exit_code == 0 { "ok" } else { "error" }.to_owned(),
            exit_code: exit_code.into(),
            took_us: micros(aside.began),
            output: said,
            output_dropped: 0,
            answer: "{}".to_owned(),
        };
        if !self.is_alive() {
            return self.lasting()?.end_without(number, &outcome);
        }
        self.keep(number, outcome)
    }

    /// Which cells leave a checkpoint from now on, and what follows one that fails.
    ///
    /// # Errors
    /// When the session has no name.
    pub fn set_policy(&mut self, policy: Policy) -> Result<(), SessionError> {
        self.lasting()?.policy = policy;
        Ok(())
    }

    /// What applies now; none in a session without a name.
    #[must_use]
    pub fn policy(&self) -> Option<Policy> {
        self.lasting.as_ref().map(|lasting| lasting.policy)
    }

    /// Stores the state that only the machine has, if there is one.
    pub(crate) fn store_now(&mut self) -> Result<(), SessionError> {
        let Some(lasting) = &mut self.lasting else {
            return Ok(());
        };
        lasting.settle()?;
        if !lasting.unstored {
            return Ok(());
        }
        if !self.is_alive() {
            self.lasting()?.fall_back();
            return Ok(());
        }
        let frozen = self.freeze()?;
        let control = self.control.clone();
        let lasting = self.lasting()?;
        let number = lasting.book.row.position;
        lasting.write(number, Outcome::default(), frozen, Manner::Late, control)?;
        lasting.settle()
    }

    /// The machine is what the record says, when this returns.
    pub(crate) fn stand_up(&mut self) -> Result<(), SessionError> {
        let Some(lasting) = &mut self.lasting else {
            return Ok(());
        };
        lasting.settle()?;
        if !lasting.is_stale {
            return Ok(());
        }
        let (at, position) = (lasting.at, lasting.book.row.position);
        if self.went_back_to(position) {
            self.lasting()?.is_stale = false;
            return Ok(());
        }
        let began = Instant::now();
        let mut order = self.order.clone();
        order.at = Some(at);
        let fresh = order.fill(None, Begin::Running)?;
        let new = Self::begin(order, fresh, Way::Nothing, began)?;
        let mut old = std::mem::replace(self, new);
        self.lasting = old
            .lasting
            .take()
            .map(|lasting| lasting.awake(&self.machine));
        self.limits = old.limits;
        self.pool = old.pool.take();
        // KVM takes milliseconds to clear a machine away. Without a thread for it, they are waited for.
        std::thread::Builder::new().spawn(move || drop(old)).ok();
        Ok(())
    }

    fn lasting(&mut self) -> Result<&mut Lasting, SessionError> {
        self.lasting.as_mut().ok_or(SessionError::Nameless)
    }

    /// Goes back so many cells. Returns the cell that the session stands at.
    ///
    /// # Errors
    /// When there are fewer, or the checkpoint there cannot be restored.
    pub fn undo(&mut self, steps: u32) -> Result<u32, SessionError> {
        self.go(|book| book.undo(steps))
    }

    /// Goes forward again so many cells, towards where the session stood before it moved.
    ///
    /// # Errors
    /// When there are fewer, or the checkpoint there cannot be restored.
    pub fn redo(&mut self, steps: u32) -> Result<u32, SessionError> {
        self.go(|book| book.redo(steps))
    }

    /// Goes to a cell.
    ///
    /// # Errors
    /// When there is none of this number, it left no checkpoint, or that cannot be restored.
    pub fn go_to(&mut self, number: u32) -> Result<u32, SessionError> {
        self.go(|book| book.go(number))
    }

    fn go(
        &mut self,
        choose: impl FnOnce(&mut Book) -> Result<u32, SessionError>,
    ) -> Result<u32, SessionError> {
        self.store_now()?;
        let lasting = self.lasting()?;
        let number = choose(&mut lasting.book)?;
        lasting.at = lasting.book.checkpoint(number)?;
        lasting.is_stale = true;
        self.stand_up()?;
        Ok(number)
    }

    /// Writes down a session of another name that stands where this one stands.
    ///
    /// # Errors
    /// When the name is taken, or the record cannot be written.
    pub fn fork(&mut self, name: &SessionName) -> Result<(), SessionError> {
        self.store_now()?;
        let lasting = self.lasting()?;
        let Book { history, row, .. } = &mut lasting.book;
        history
            .fork(row, row.position, name.as_str())
            .map_err(SessionError::History)?;
        Ok(())
    }

    /// The session's record, once all of it is written; none for one without a name.
    ///
    /// # Errors
    /// When the last cell's checkpoint could not be stored.
    pub fn book(&mut self) -> Result<Option<&Book>, SessionError> {
        let Some(lasting) = &mut self.lasting else {
            return Ok(None);
        };
        lasting.settle()?;
        Ok(Some(&lasting.book))
    }

    /// What differs between two cells of this session.
    ///
    /// # Errors
    /// As [`diff`](fn@crate::diff).
    pub fn diff(&mut self, before: u32, after: u32) -> Result<Vec<Difference>, SessionError> {
        self.store_now()?;
        let places = self.order.places.clone();
        let spot = |number| {
            let session = self.name().ok_or(SessionError::Nameless)?.to_owned();
            let number = Some(number);
            Ok::<_, SessionError>(Spot { session, number })
        };
        crate::diff::diff(&places, &spot(before)?, &spot(after)?)
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.lasting
            .as_ref()
            .map(|lasting| lasting.book.row.name.as_str())
    }

    /// Has the machine ready for the next cell: in a session with a name, one that stands where the record says.
    ///
    /// # Errors
    /// When the last cell's checkpoint could not be stored, or a checkpoint cannot be restored.
    pub fn make_ready(&mut self) -> Result<(), SessionError> {
        self.stand_up()
    }

    /// The number of the next cell, in a session with a name.
    #[must_use]
    pub fn next_number(&self) -> Option<u32> {
        self.lasting.as_ref().map(Lasting::next_number)
    }

    /// That the session stands where it stood before its last cell. Told once.
    pub fn fallen_back(&mut self) -> Option<FellBack> {
        self.lasting.as_mut()?.fallen_back.take()
    }
}

fn seed(places: &Places, opening: &Opening<'_>) -> Result<Seed, SessionError> {
    let engine = engine_for(places, opening.engine, opening.template)?;
    let template = Template::open(places, opening.template, EngineKind::of(&engine))?;
    if let Some(wanted) = opening.language {
        template.expect_language(wanted.name())?;
    }
    Ok(Seed {
        engine: engine.name(),
        template: opening.template.to_string(),
        language: template.record.language,
        base: At {
            snapshot: template.id(),
            generation: template.record.generation,
        },
    })
}

/// The engine that a session belongs to, if nobody wishes another.
fn engine_of(places: &Places, book: &Book, wish: EngineChoice) -> Result<Engine, SessionError> {
    let is_own = |choice: &str| book.row.engine == choice;
    let fits = match wish {
        EngineChoice::Auto => true,
        EngineChoice::Kvm => is_own(EngineKind::Kvm.name()),
        EngineChoice::Qemu => is_own(EngineKind::Qemu.name()),
    };
    if !fits {
        return Err(SessionError::OtherEngine {
            name: book.row.name.clone(),
            engine: book.row.engine.clone(),
        });
    }
    apart::engine_of(places, &book.row)
}
