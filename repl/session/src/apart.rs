//! Machines beside a session: restored from one of its checkpoints, for a look or a trial. The session itself does not
//! move, and may run meanwhile.

use std::time::Instant;

use vmrepl_history::{Checkpoint, History, ROOT, SessionRow};
use vmrepl_machine::{Engine, Purpose};
use vmrepl_snapshots::SnapshotId;
use vmrepl_wire::cell::Event;
use vmrepl_wire::control::RngPolicy;

use crate::cell::{Input, InputRequest, Sink};
use crate::choice::find_engine;
use crate::error::SessionError;
use crate::fresh::{Begin, Order};
use crate::kind::{EngineChoice, EngineKind};
use crate::places::Places;
use crate::pool::Way;
use crate::session::Session;
use crate::stored::At;
use crate::template::TemplateName;

/// A cell of a session, by name: `work@3`, or `work` for where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The session.
    pub session: String,
    /// The cell.
    pub number: Option<u32>,
}

impl Spot {
    /// Reads `NAME@CELL` or `NAME`.
    ///
    /// # Errors
    /// When the cell is no number.
    pub fn new(text: &str) -> Result<Self, SessionError> {
        let (session, number) = match text.split_once('@') {
            None => (text, None),
            Some((session, number)) => {
                let number = number.parse().map_err(|_| SessionError::Spot {
                    text: text.to_owned(),
                })?;
                (session, Some(number))
            }
        };
        Ok(Self {
            session: session.to_owned(),
            number,
        })
    }

    /// The session and the cell's number, as the record has them.
    pub(crate) fn find(&self, history: &History) -> Result<(SessionRow, u32), SessionError> {
        let row = history
            .session(&self.session)
            .map_err(SessionError::History)?;
        let number = self.number.unwrap_or(row.position);
        Ok((row, number))
    }
}

/// The checkpoint of a cell.
pub(crate) fn checkpoint(
    history: &History,
    row: &SessionRow,
    number: u32,
) -> Result<At, SessionError> {
    let cell = history
        .cell(row.id, number)
        .map_err(SessionError::History)?;
    let none = SessionError::NoCheckpoint {
        name: row.name.clone(),
        number,
        parent: cell.parent.unwrap_or(ROOT),
    };
    cell.checkpoint.map(|left| at(&left)).ok_or(none)
}

/// A checkpoint as machines are restored from it.
pub(crate) fn at(checkpoint: &Checkpoint) -> At {
    At {
        snapshot: SnapshotId::from_bytes(checkpoint.snapshot),
        generation: checkpoint.generation,
    }
}

/// The engine that a session belongs to.
pub(crate) fn engine_of(places: &Places, row: &SessionRow) -> Result<Engine, SessionError> {
    let choice = match EngineKind::named(&row.engine) {
        Some(EngineKind::Kvm) => EngineChoice::Kvm,
        Some(EngineKind::Qemu) => EngineChoice::Qemu,
        None => {
            return Err(SessionError::OtherEngine {
                name: row.name.clone(),
                engine: row.engine.clone(),
            });
        }
    };
    find_engine(places, choice)
}

/// A machine of a session's own.
///
/// The calling thread must outlive it.
pub(crate) fn restore(
    places: &Places,
    engine: &Engine,
    row: &SessionRow,
    at: At,
    purpose: Purpose,
) -> Result<Session, SessionError> {
    let order = Order {
        places: places.clone(),
        engine: engine.clone(),
        name: TemplateName::new(&row.template)?,
        at: Some(at),
        purpose,
        rng: RngPolicy::Keep,
    };
    let began = Instant::now();
    let fresh = order.fill(None, Begin::Running)?;
    Session::begin(order, fresh, Way::Nothing, began)
}

/// A sink for cells that nobody watches.
#[derive(Debug)]
pub(crate) struct Unwatched;

impl Sink for Unwatched {
    fn event(&mut self, _: &Event) {}

    fn input(&mut self, _: &InputRequest) -> Input {
        Input::End
    }
}

/// Keeps what a cell prints.
#[derive(Debug, Default)]
pub(crate) struct Heard(pub(crate) Vec<u8>);

impl Sink for Heard {
    fn event(&mut self, event: &Event) {
        if let Event::Stdout(output) = event {
            self.0.extend_from_slice(output.as_bytes());
        }
    }

    fn input(&mut self, _: &InputRequest) -> Input {
        Input::End
    }
}
