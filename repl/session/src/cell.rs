//! One cell and what comes back from it.

use std::time::Duration;

use crate::exec::ExecInputs;

pub use vmrepl_wire::cell::{
    Answer, Bundle, Column, Completeness, CompletenessStatus, Event, InputRequest, Match, Names,
    Output, Raised, Status, StoppedBy, TABLE_MIME, Table, Truncated, Variable,
};

/// One piece of code to run, with how to run it.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// The source.
    pub code: String,
    /// Wall time that it may take.
    pub timeout: Option<Duration>,
    /// Describe the tables that it binds.
    pub show_tables: bool,
    /// Put a table's columns before its rows.
    pub show_table_meta: bool,
    /// The name shown in tracebacks and set as `__file__`.
    pub filename: Option<String>,
    /// What the code sees as `sys.argv`.
    pub argv: Option<Vec<String>>,
    /// Folders in the guest that modules are looked for first.
    pub path: Option<Vec<String>>,
    /// Its number, shown in tracebacks and the place of its value in `Out`; without one the guest counts on. A session with a
    /// name sets it.
    pub number: Option<u32>,
    /// Ask the sink when the cell wants input; otherwise `input()` raises `EOFError`.
    pub allow_input: bool,
    /// Of a cell that is no Python: what gives its program input, in a thread of its own. Without it the input is empty.
    pub feed: Option<fn(&ExecInputs)>,
}

impl Cell {
    /// A cell with nothing special about it.
    #[must_use]
    pub fn new(code: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            ..Self::default()
        }
    }
}

/// What the sink answers when a cell asks for input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// One line, without its newline.
    Line(String),
    /// What came last, without a newline behind it.
    Last(String),
    /// There is no more.
    End,
    /// The person wants the cell to stop.
    Interrupt,
}

/// Takes what a cell says while it runs.
pub trait Sink {
    /// One event, in order. `Done` is not among them: it is what `run` returns.
    fn event(&mut self, event: &Event);

    /// The cell waits for a line of input.
    fn input(&mut self, request: &InputRequest) -> Input;
}

/// Rows of a table that its preview shows.
const PREVIEW_ROWS: u64 = 10;

/// The size of a table in words: `[20 rows x 3 columns, the first 10 shown]`.
#[must_use]
pub fn table_size(table: &Table) -> String {
    let count = |count: u64, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let columns = count(table.columns.len() as u64, "column");
    match table.row_count {
        Some(rows) if rows > PREVIEW_ROWS => format!(
            "[{} x {columns}, the first {PREVIEW_ROWS} shown]",
            count(rows, "row")
        ),
        Some(rows) => format!("[{} x {columns}]", count(rows, "row")),
        None => format!("[{columns}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_its_size() {
        let table = |row_count| Table {
            name: "t".to_owned(),
            row_count,
            is_refreshing: false,
            columns: Vec::new(),
            preview: String::new(),
        };
        assert_eq!(table_size(&table(Some(1))), "[1 row x 0 columns]");
        assert_eq!(table_size(&table(Some(10))), "[10 rows x 0 columns]");
        assert_eq!(
            table_size(&table(Some(11))),
            "[11 rows x 0 columns, the first 10 shown]"
        );
        assert_eq!(table_size(&table(None)), "[0 columns]");
    }
}
