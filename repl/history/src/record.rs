//! What is written and read back, as plain data.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Row, ToSql};

/// A snapshot's name: what it means is known elsewhere.
pub type SnapshotKey = [u8; 16];

/// The number of the cell that stands for the template.
pub const ROOT: u32 = 0;

/// A session of the record, good for as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub(crate) i64);

/// What a new session begins with.
#[derive(Debug, Clone, Copy)]
pub struct NewSession<'a> {
    /// Its name, which nobody has.
    pub name: &'a str,
    /// The engine that its machines need.
    pub engine: &'a str,
    /// The name of its template.
    pub template: &'a str,
    /// What its cells are written in.
    pub language: &'a str,
    /// The template itself.
    pub base: Checkpoint,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Its key.
    pub id: SessionId,
    /// Its name.
    pub name: String,
    /// The engine that its machines need.
    pub engine: String,
    /// The name that its template had.
    pub template: String,
    /// What its cells are written in.
    pub language: String,
    /// Where it was forked from, as `NAME@CELL`.
    pub origin: Option<String>,
    /// The cell that it stands at.
    pub position: u32,
    /// The number that the next cell gets.
    pub next: u32,
    /// How many cells were run in it, undone ones and those of its past in another session included.
    pub cells: u32,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When a cell ended or a move was made last, likewise.
    pub used_ms: i64,
    /// Whether it is kept whatever the budget.
    pub is_pinned: bool,
}

/// The stored state after a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The snapshot.
    pub snapshot: SnapshotKey,
    /// The last resume that its guest has seen.
    pub generation: u64,
    /// Pages that the cell changed.
    pub pages: u64,
    /// Resident memory of the interpreter after the cell, in bytes, where it is known.
    pub memory_bytes: Option<u64>,
}

/// How far a cell has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellState {
    /// It runs, or whoever ran it is gone.
    Running,
    /// It ended.
    Ended,
    /// It ran when its session ended without a word.
    Lost,
}

impl CellState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ended => "ended",
            Self::Lost => "lost",
        }
    }
}

impl ToSql for CellState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for CellState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        [Self::Running, Self::Ended, Self::Lost]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(FromSqlError::InvalidType)
    }
}

/// How a cell ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The status, by its name on the wire.
    pub status: String,
    /// The exit code.
    pub exit_code: i64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// What it printed, both streams in the order of their arrival, up to a bound.
    pub output: String,
    /// How many bytes of that are not kept.
    pub output_dropped: u64,
    /// Its answer and its displays, as JSON.
    pub answer: String,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellRow {
    /// Its number in the session.
    pub number: u32,
    /// The cell that it ran after; none at the root.
    pub parent: Option<u32>,
    /// How far it has come.
    pub state: CellState,
    /// Its code.
    pub code: String,
    /// When it began, in milliseconds since 1970.
    pub began_ms: i64,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// What it left. A cell without one ran, and nobody can go back to the state after it.
    pub checkpoint: Option<Checkpoint>,
}

impl CellRow {
    /// Whether it did not end as it should, or not at all.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        let outcome = self.outcome.as_ref();
        self.state == CellState::Lost || outcome.is_some_and(|outcome| outcome.status != "ok")
    }
}

/// The columns of [`CellRow::of`].
pub(crate) const CELL_COLUMNS: &str = "number, parent, state, code, began_ms, status, exit_code, \
    took_us, output, output_dropped, answer, snapshot, generation, pages, memory_bytes";

impl CellRow {
    pub(crate) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let status: Option<String> = row.get(5)?;
        let snapshot: Option<SnapshotKey> = row.get(11)?;
        Ok(Self {
            number: row.get(0)?,
            parent: row.get(1)?,
            state: row.get(2)?,
            code: row.get(3)?,
            began_ms: row.get(4)?,
            outcome: match status {
                None => None,
                Some(status) => Some(Outcome {
                    status,
                    exit_code: row.get(6)?,
                    took_us: count(row, 7)?,
                    output: row.get(8)?,
                    output_dropped: count(row, 9)?,
                    answer: row.get(10)?,
                }),
            },
            checkpoint: match snapshot {
                None => None,
                Some(snapshot) => Some(Checkpoint {
                    snapshot,
                    generation: count(row, 12)?,
                    pages: count(row, 13)?,
                    memory_bytes: row.get::<_, Option<i64>>(14)?.map(i64::cast_unsigned),
                }),
            },
        })
    }
}

/// SQLite's integers have a sign; what we count has none.
fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}
