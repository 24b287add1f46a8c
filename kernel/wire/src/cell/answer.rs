//! What a cell comes to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::table::Table;

/// The end of a cell. The first six fields are the plain answer, in this order; the rest is only
/// there when the request was an extended one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Answer {
    /// 0; 1 when the code raised; the code's own number when it left; 2 when the request or the
    /// runner failed.
    pub exit_code: i32,
    /// What the cell wrote to standard output; empty when it was streamed.
    pub stdout: String,
    /// What the cell wrote to standard error; empty when it was streamed.
    pub stderr: String,
    /// `repr` of the last expression's value.
    pub result_repr: Option<String>,
    /// The traceback, or what failed.
    pub error: Option<String>,
    /// The tables that the cell bound, when they were asked for.
    pub tables: Vec<Table>,
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How the cell ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// What the cell did to the user's names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Names>,
    /// What the cell displayed, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub displays: Option<Vec<Bundle>>,
    /// The last expression's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Bundle>,
    /// Whether `stdout` and `stderr` are whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncated>,
    /// Phases by name, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<BTreeMap<String, f64>>,
    /// The cell's number in this runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_count: Option<u64>,
    /// The exception's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_name: Option<String>,
    /// The exception's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_value: Option<String>,
    /// What it took to end a cell that did not end by itself. Set on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_by: Option<StoppedBy>,
}

/// The step that ended a cell, each after a second of grace for the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoppedBy {
    /// It was interrupted, and ended by itself.
    Interrupt,
    /// The processes that it had started were killed.
    Kill,
    /// Its state was thrown away: a session with a name is back where it was before the cell.
    Rollback,
    /// A step of a later version.
    #[serde(other)]
    Unknown,
}

/// How a cell ended: tells a timeout from a code that exits with 124.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It ran to its end.
    Ok,
    /// It raised, or the request was no cell.
    Error,
    /// Its wall time ran out.
    Timeout,
    /// It was stopped.
    Interrupted,
    /// The guest's memory ran out.
    MemoryExceeded,
    /// It wrote more than it may.
    OutputExceeded,
    /// The runner died.
    RunnerLost,
    /// The machine died.
    MachineLost,
    /// A status of a later runner.
    #[serde(other)]
    Unknown,
}

/// What a cell did to the user's names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// Bound, in order of first appearance.
    pub bound: Vec<String>,
    /// Deleted.
    pub deleted: Vec<String>,
}

/// One value in as many forms as it has, by MIME type.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bundle {
    /// Text as a string, binary as base64, JSON types as they are.
    pub data: BTreeMap<String, Value>,
    /// Notes for whoever shows it.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

impl Bundle {
    /// The `text/plain` form.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.data.get("text/plain")?.as_str()
    }

    /// The table that it is, when it is one.
    #[must_use]
    pub fn table(&self) -> Option<Table> {
        Table::deserialize(self.data.get(super::table::TABLE_MIME)?).ok()
    }

    /// The form of this MIME type, when it is a string.
    #[must_use]
    pub fn get_str(&self, mime: &str) -> Option<&str> {
        self.data.get(mime)?.as_str()
    }
}

/// Which outputs in an [`Answer`] have lost their middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Truncated {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}
