//! Answers to requests that run no cell. Each carries `exit_code` and the request's `id`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Answers [`Op::Complete`](super::Op::Complete).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Completions {
    /// 0, or 2 when the request failed.
    pub exit_code: i32,
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why the request failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What could stand there, best first.
    pub matches: Vec<Match>,
    /// Start of what a match replaces, in code points.
    pub cursor_start: u64,
    /// End of what a match replaces, in code points.
    pub cursor_end: u64,
}

/// One completion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The text to put in.
    pub text: String,
    /// What it is: `function`, `module`, `keyword`, ...
    #[serde(rename = "type", default)]
    pub type_name: String,
    /// How it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// Answers [`Op::Inspect`](super::Op::Inspect).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Inspection {
    /// 0, or 2 when the request failed.
    pub exit_code: i32,
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why the request failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether there is anything at the cursor.
    pub found: bool,
    /// What is known, by MIME type.
    #[serde(default)]
    pub data: BTreeMap<String, Value>,
}

/// Answers [`Op::IsComplete`](super::Op::IsComplete).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completeness {
    /// 0, or 2 when the request failed.
    pub exit_code: i32,
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why the request failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether the code is a whole cell.
    pub status: CompletenessStatus,
    /// How the next line starts when it is not.
    #[serde(default)]
    pub indent: String,
}

/// Whether a piece of code is a whole cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompletenessStatus {
    /// It can run.
    Complete,
    /// More lines must follow.
    Incomplete,
    /// No line that follows can mend it.
    Invalid,
    /// The request failed, or the status is one of a later runner.
    #[serde(other)]
    Unknown,
}

/// Answers [`Op::Variables`](super::Op::Variables).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Variables {
    /// 0, or 2 when the request failed.
    pub exit_code: i32,
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why the request failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The user's names.
    pub variables: Vec<Variable>,
}

/// One of the user's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// The name.
    pub name: String,
    /// The type of its value.
    #[serde(rename = "type")]
    pub type_name: String,
    /// A short `repr`.
    pub repr: String,
    /// Memory of the value, where it can be told, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Its dimensions, for arrays and tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u64>>,
    /// Its rows, for tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_count: Option<u64>,
    /// A sum of its content, where it was asked for and can be told. Equal sums mean equal values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Answers [`Op::Ping`](super::Op::Ping).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pong {
    /// 0, or 2 when the request failed.
    pub exit_code: i32,
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why the request failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Always true.
    pub pong: bool,
}

/// Answers [`Op::Interrupt`](super::Op::Interrupt).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Acted {
    /// 0, or 2 when the request failed.
    pub exit_code: i32,
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why the request failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether the cell was running and was told to stop.
    pub acted: bool,
}
