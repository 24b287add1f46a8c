//! What the guest answers.

use serde::{Deserialize, Serialize};

use super::request::base64_bytes;
use crate::cell::Truncated;

/// One message to the client. A request is answered by an `ack` and a `result`, or by an `error`; an `error` after the
/// `ack` tells that the guest failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// The request was read and is sound.
    Ack {
        /// The request's id.
        id: String,
        /// Always the same word.
        status: Received,
    },
    /// The program has ended.
    Result(Outcome),
    /// The request was not carried out.
    Error(Refusal),
    /// A message of a later agent, to be passed over.
    #[serde(other)]
    Unknown,
}

/// The word of an `ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Received {
    /// It was received.
    #[default]
    Received,
}

/// What came of a program. The last five fields are additions: a client may pass over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The request's id.
    pub id: String,
    /// How it ended.
    pub status: Status,
    /// What it wrote to standard output, or the compiler did when that refused it.
    #[serde(with = "base64_bytes")]
    pub stdout: Vec<u8>,
    /// What it, or the compiler, wrote to standard error.
    #[serde(with = "base64_bytes")]
    pub stderr: Vec<u8>,
    /// The program's own code, or the compiler's when that refused it; after a signal 128 and its number.
    pub exit_code: i32,
    /// Wall time of the program without its compilation, in milliseconds.
    #[serde(rename = "execution_time")]
    pub execution_time_ms: u64,
    /// The most memory that the program and all that it started held at any moment, in bytes.
    #[serde(rename = "memory_used")]
    pub memory_used_bytes: u64,
    /// Wall time of the compilation, in milliseconds; 0 when there was none to do.
    #[serde(rename = "compilation_time", default)]
    pub compilation_time_ms: u64,
    /// Processor time in the program, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_user_ms: Option<u64>,
    /// Processor time in Linux for the program, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_system_ms: Option<u64>,
    /// The layers that were between the program and the guest, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Vec<String>>,
    /// Which outputs are not whole; absent when both are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncated>,
    /// Whether what a compiler had made of the same source before was run; absent when not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<bool>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// By itself, with the code 0.
    Success,
    /// It was killed when its time was over.
    Timeout,
    /// It was killed because it wanted more memory than it may have.
    MemoryExceeded,
    /// With another code, or by a signal.
    RuntimeError,
    /// It never ran: the compiler refused it.
    CompilationError,
    /// A status of a later agent.
    #[serde(other)]
    Unknown,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The request's id; empty when none could be read.
    pub id: String,
    /// Whose fault it is.
    pub error: ErrorKind,
    /// What was wrong and what is right, for people.
    pub message: String,
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The client's: the message is no request, or a field of it is wrong.
    InvalidRequest,
    /// The guest's: it could not do what it should.
    InternalError,
    /// The client's: the language is not one that this guest runs.
    UnsupportedLanguage,
    /// A kind of a later agent.
    #[serde(other)]
    Unknown,
}

impl Reply {
    /// The acknowledgement of a request.
    #[must_use]
    pub fn ack(id: &str) -> Self {
        Self::Ack {
            id: id.to_owned(),
            status: Received::Received,
        }
    }

    /// The message as JSON: the payload of a frame.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("these messages hold only text keys and plain values")
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::Error(refusal)
    }
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        Self::Result(outcome)
    }
}
