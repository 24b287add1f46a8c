//! The record of sessions and their cells.
//!
//! In: what a session was made of, cells as they begin and end, moves between them. Out: sessions, cells, ways
//! between cells, the snapshots that they need. Never here: a snapshot's content, a machine, a terminal.

mod error;
mod schema;

mod record;

mod cells;
mod forks;
mod history;
mod moves;

pub use error::HistoryError;
pub use history::History;
pub use record::{
    CellRow, CellState, Checkpoint, NewSession, Outcome, ROOT, SessionId, SessionRow, SnapshotKey,
};
