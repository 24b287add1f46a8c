//! A session that lasts: every cell is written down before it runs and leaves a checkpoint, and the session can go to
//! any of them, in this process or another.
//!
//! Ordering requirements:
//! 1. One checkpoint is stored before the next cell begins: each lies over the one before.
//! 2. A machine that is ahead of the record is thrown away: whatever left no checkpoint has not happened.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vmrepl_history::{Checkpoint, History, Outcome};
use vmrepl_machine::{Engine, Purpose};
use vmrepl_snapshots::{Collected, Policy, SnapshotId, Store};
use vmrepl_wire::cell::Answer;

use crate::book::{Book, Seed, open_history};
use crate::cell::{Cell, Sink};
use crate::checkpoint::{Ended, Frozen};
use crate::choice::{engine_for, find_engine};
use crate::error::SessionError;
use crate::fresh::{Begin, Order};
use crate::kind::{EngineChoice, EngineKind};
use crate::name::SessionName;
use crate::places::Places;
use crate::pool::Way;
use crate::recorder::Recorder;
use crate::session::Session;
use crate::stored::At;
use crate::template::{Template, TemplateName, open_store};

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

/// What makes a session last.
#[derive(Debug)]
pub(crate) struct Lasting {
    book: Book,
    store: Store,
    /// The checkpoint of the cell that the session stands at.
    at: At,
    /// The cell whose checkpoint is being stored.
    writing: Option<(u32, JoinHandle<Result<Checkpoint, SessionError>>)>,
    /// The machine is gone, or is not what the record says.
    is_stale: bool,
    /// Where the session fell back to, until somebody is told.
    fallen_back: Option<u32>,
}

impl Lasting {
    /// Waits until the last cell's checkpoint is stored.
    fn settle(&mut self) -> Result<(), SessionError> {
        let Some((number, writing)) = self.writing.take() else {
            return Ok(());
        };
        let lost = || SessionError::MachineLost {
            why: "the thread that stores its checkpoint is gone".to_owned(),
        };
        match writing.join().unwrap_or_else(|_| Err(lost())) {
            Ok(checkpoint) => {
                self.book.row.position = number;
                self.at = At {
                    snapshot: SnapshotId::from_bytes(checkpoint.snapshot),
                    generation: checkpoint.generation,
                };
                Ok(())
            }
            Err(source) => {
                self.fall_back();
                Err(SessionError::NotStored {
                    number,
                    position: self.book.row.position,
                    source: Box::new(source),
                })
            }
        }
    }

    fn fall_back(&mut self) {
        self.is_stale = true;
        self.fallen_back = Some(self.book.row.position);
    }

    fn begin(&mut self, code: &str) -> Result<u32, SessionError> {
        let number = self.book.history.begin(self.book.row.id, code);
        let number = number.map_err(SessionError::History)?;
        self.book.row.next = number + 1;
        Ok(number)
    }

    fn end_without(&mut self, number: u32, outcome: &Outcome) -> Result<(), SessionError> {
        self.fall_back();
        self.book
            .history
            .end(self.book.row.id, number, outcome, None)
            .map_err(SessionError::History)
    }

    /// Stores a checkpoint while whoever ran the cell reads its answer.
    fn write(&mut self, number: u32, outcome: Outcome, frozen: Frozen) -> Result<(), SessionError> {
        let (store, path) = (self.store.clone(), self.book.path().to_owned());
        let ended = Ended {
            session: self.book.row.id,
            number,
            outcome,
            frozen,
            before: self.at.snapshot,
        };
        let write = move || {
            let mut history = History::open(&path).map_err(SessionError::History)?;
            ended.write_down(&store, &mut history)
        };
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(write)
            .map_err(|source| SessionError::Guest {
                step: "start the thread that stores a checkpoint",
                source,
            });
        match thread {
            Ok(thread) => {
                self.writing = Some((number, thread));
                Ok(())
            }
            Err(error) => {
                self.fall_back();
                Err(error)
            }
        }
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        // Whoever wants to know how it went has asked before.
        drop(self.settle());
    }
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
        };
        let began = Instant::now();
        let fresh = order.fill(None, Begin::Running)?;
        let mut session = Self::begin(order, fresh, Way::Nothing, began)?;
        session.lasting = Some(Lasting {
            store: open_store(places)?,
            book,
            at,
            writing: None,
            is_stale: false,
            fallen_back: None,
        });
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
        let answer = self.run_cell(&format!("c{number}"), cell, &mut recorder);
        let outcome = recorder.outcome(&answer);
        if answer.is_err() || !self.is_alive() {
            self.lasting()?.end_without(number, &outcome)?;
            return answer;
        }
        match self.freeze() {
            Ok(frozen) => self.lasting()?.write(number, outcome, frozen)?,
            Err(error) => {
                self.lasting()?.end_without(number, &outcome)?;
                return Err(error);
            }
        }
        answer
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
        let began = Instant::now();
        let mut order = self.order.clone();
        order.at = Some(lasting.at);
        let fresh = order.fill(None, Begin::Running)?;
        let new = Self::begin(order, fresh, Way::Nothing, began)?;
        let mut old = std::mem::replace(self, new);
        self.lasting = old.lasting.take();
        self.limits = old.limits;
        self.pool = old.pool.take();
        if let Some(lasting) = &mut self.lasting {
            lasting.is_stale = false;
        }
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
        let lasting = self.lasting()?;
        lasting.settle()?;
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
        let lasting = self.lasting()?;
        lasting.settle()?;
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
        self.lasting.as_ref().map(|lasting| lasting.book.row.next)
    }

    /// The cell that the session has fallen back to, since the last one left no checkpoint. Told once.
    pub fn fallen_back(&mut self) -> Option<u32> {
        self.lasting.as_mut()?.fallen_back.take()
    }
}

fn seed(places: &Places, opening: &Opening<'_>) -> Result<Seed, SessionError> {
    let engine = engine_for(places, opening.engine, opening.template)?;
    let template = Template::open(places, opening.template, EngineKind::of(&engine))?;
    Ok(Seed {
        engine: engine.name(),
        template: opening.template.to_string(),
        base: At {
            snapshot: template.id(),
            generation: template.record.generation,
        },
    })
}

/// The engine that a session belongs to, if nobody wishes another.
fn engine_of(places: &Places, book: &Book, wish: EngineChoice) -> Result<Engine, SessionError> {
    let other = || SessionError::OtherEngine {
        name: book.row.name.clone(),
        engine: book.row.engine.clone(),
    };
    let own = match EngineKind::named(&book.row.engine) {
        Some(EngineKind::Kvm) => EngineChoice::Kvm,
        Some(EngineKind::Qemu) => EngineChoice::Qemu,
        None => return Err(other()),
    };
    if wish != EngineChoice::Auto && wish != own {
        return Err(other());
    }
    find_engine(places, own)
}

/// Removes every snapshot that no template, no session and no live machine needs, and that is older than `fresh`.
///
/// # Errors
/// When the record or the store cannot be read, or a step fails.
pub fn collect(places: &Places, fresh: Duration, dry_run: bool) -> Result<Collected, SessionError> {
    let roots = open_history(places)?
        .snapshots()
        .map_err(SessionError::History)?;
    let policy = Policy {
        roots: roots.into_iter().map(SnapshotId::from_bytes).collect(),
        fresh,
        dry_run,
    };
    open_store(places)?
        .collect(&policy)
        .map_err(SessionError::Store)
}
