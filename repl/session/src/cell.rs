//! One cell and what comes back from it.

use std::time::Duration;

pub use vmrepl_wire::cell::{
    Answer, Bundle, Column, Completeness, CompletenessStatus, Event, InputRequest, Match, Names,
    Output, Raised, Status, TABLE_MIME, Table, Truncated, Variable,
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
    /// Ask the sink when the cell wants input; otherwise `input()` raises `EOFError`.
    pub allow_input: bool,
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
