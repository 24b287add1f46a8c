//! What a client asks for.

use serde::{Deserialize, Serialize};

/// One request line. Only the fields that are set are written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// What to do; absent means [`Op::Run`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<Op>,
    /// The client's name for this request, echoed in every line about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The source (run, complete, inspect, is_complete).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Describe the tables that the cell binds.
    #[serde(skip_serializing_if = "is_false")]
    pub show_tables: bool,
    /// Put the columns before the rows in a table's text.
    #[serde(skip_serializing_if = "is_false")]
    pub show_table_meta: bool,
    /// Send events as they happen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Wall time of the cell, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Limits of this cell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<CellLimits>,
    /// The cell's number in its session; without it the runner counts on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_count: Option<u64>,
    /// The name shown in tracebacks and set as `__file__`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// What the code sees as its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// How much to tell (inspect): 0 or 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<u8>,
    /// Where the cursor stands (complete, inspect), in code points from the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
    /// Folders of modules, looked in first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Vec<String>>,
    /// The client can answer when the cell asks for input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_stdin: Option<bool>,
    /// Keep the value under `_` and `Out`; absent means yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<bool>,
    /// The cell to interrupt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cell: Option<String>,
    /// Tell a sum of each value's content (variables).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<bool>,
    /// Input for a waiting cell (stdin).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The input has ended (stdin).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eof: Option<bool>,
}

/// What a [`Request`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Runs a cell.
    Run,
    /// Names that could stand at the cursor.
    Complete,
    /// What stands at the cursor.
    Inspect,
    /// Whether the code is a whole cell.
    IsComplete,
    /// The user's names.
    Variables,
    /// Stops the named cell.
    Interrupt,
    /// Are you there?
    Ping,
    /// Input for a waiting cell; has no answer.
    Stdin,
    /// Runs a cell before the template is frozen; leaves no trace in the numbering.
    Warm,
}

/// Limits of one cell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CellLimits {
    /// Output of each stream that is kept or sent, in bytes. What is above is counted and left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Output, both streams together, above which the cell is stopped, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
    /// Processor time, of its processes together, above which the cell is stopped, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Memory that the runner and what cells have started may hold together, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads at once, the runner's own included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

impl Request {
    /// A cell in the plain form.
    #[must_use]
    pub fn plain(code: impl Into<String>) -> Self {
        Self {
            code: Some(code.into()),
            ..Self::default()
        }
    }

    /// A cell whose events are streamed under `id`.
    #[must_use]
    pub fn streamed(id: impl Into<String>, code: impl Into<String>) -> Self {
        Self {
            stream: Some(true),
            ..Self::plain(code)
        }
        .with_id(id)
    }

    /// A request for something other than running a cell.
    #[must_use]
    pub fn of(op: Op) -> Self {
        Self {
            op: Some(op),
            ..Self::default()
        }
    }

    /// Input for the cell that runs as request `id`; `None` ends it.
    #[must_use]
    pub fn stdin(id: impl Into<String>, data: Option<String>) -> Self {
        let eof = data.is_none().then_some(true);
        Self {
            data,
            eof,
            ..Self::of(Op::Stdin)
        }
        .with_id(id)
    }

    /// The last input for the cell that runs as request `id`, exactly as it is: no newline is added to it.
    #[must_use]
    pub fn last_stdin(id: impl Into<String>, data: impl Into<String>) -> Self {
        Self {
            data: Some(data.into()),
            eof: Some(true),
            ..Self::of(Op::Stdin)
        }
        .with_id(id)
    }

    /// Names the request.
    #[must_use]
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self {
            id: Some(id.into()),
            ..self
        }
    }

    /// Sets the source.
    #[must_use]
    pub fn with_code(self, code: impl Into<String>) -> Self {
        Self {
            code: Some(code.into()),
            ..self
        }
    }

    /// The request as a line, newline included.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        crate::line::to_line(self)
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}
