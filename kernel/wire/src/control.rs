//! Messages of port 9: one JSON object a line, named by `op`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::limits::ENTROPY_BYTES;
pub use crate::stats::{LogLevel, LogLine, Stats, Tally};

/// What the host asks of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum ControlRequest {
    /// The machine is a fresh copy. The agent makes it differ from its siblings, then acknowledges;
    /// no byte for a cell passes before that.
    Resumed {
        /// Counts the resumes of this lineage.
        generation: u64,
        /// Seeds every generator of random numbers.
        entropy: Entropy,
        /// The wall clock, in nanoseconds since 1970.
        realtime_ns: u64,
        /// The name of this copy; `None` keeps the old one.
        #[serde(default)]
        hostname: Option<String>,
        /// What happens to generators that the user seeded.
        rng: RngPolicy,
    },
    /// Fall silent, so that the machine can be frozen. Cells are held back from then on, until the host speaks
    /// on this port again: a copy must have been told so before a cell runs in it.
    Quiesce,
    /// The machine that was frozen goes on. Not answered.
    Wake,
    /// Stop the named cell, and no other, as Ctrl-C would.
    Interrupt {
        /// The cell's id.
        cell: String,
    },
    /// End processes by force.
    Kill {
        /// The cell that it is meant for; `None` for whichever runs.
        #[serde(default)]
        cell: Option<String>,
        /// Which processes.
        target: KillTarget,
    },
    /// Figures about the guest.
    Stats,
    /// The last lines of the agent's log.
    Logs,
    /// Keep log lines of this level, and those that weigh more, from now on.
    LogLevel {
        /// The level.
        level: LogLevel,
    },
    /// Power off, or leave when the agent runs without a machine.
    Shutdown,
}

/// What the agent answers, and what it says unasked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum ControlReply {
    /// The copy differs from its siblings; cells may pass.
    Resumed {
        /// The generation that was asked for.
        generation: u64,
    },
    /// The agent is silent until it is spoken to, unless `busy`.
    Quiesced {
        /// A cell runs; nothing was held back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        busy: bool,
        /// Resident memory of the runner, in bytes, unless `busy`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        runner_rss_bytes: Option<u64>,
    },
    /// Answers [`ControlRequest::Interrupt`].
    Interrupt {
        /// The cell that was named.
        cell: String,
        /// Whether it was running and got the signal.
        acted: bool,
    },
    /// Answers [`ControlRequest::Kill`].
    Kill {
        /// Whether anything was ended.
        acted: bool,
        /// How many processes.
        killed: u32,
    },
    /// Answers [`ControlRequest::Stats`].
    Stats(Stats),
    /// Answers [`ControlRequest::Logs`].
    Logs {
        /// The oldest first.
        lines: Vec<LogLine>,
    },
    /// Answers [`ControlRequest::LogLevel`].
    LogLevel {
        /// The level from now on.
        level: LogLevel,
    },
    /// Unasked: the runner is warm and waits for cells.
    RunnerReady {
        /// The generation of the last resume.
        generation: u64,
    },
    /// Unasked: the runner has died.
    RunnerLost {
        /// The cell that ran.
        #[serde(default)]
        cell: Option<String>,
        /// Its exit code, when it left by itself.
        #[serde(default)]
        exit_code: Option<i32>,
        /// The signal that ended it.
        #[serde(default)]
        signal: Option<i32>,
        /// Whether the guest had run out of memory.
        #[serde(default)]
        out_of_memory: bool,
    },
    /// The request was not understood or could not be done.
    Error {
        /// Why.
        message: String,
    },
    /// A message of a later agent, to be passed over.
    #[serde(other)]
    Unknown,
}

/// What a resume does to generators of random numbers that the user has seeded. All others are
/// always seeded anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RngPolicy {
    /// They go on where they were: a seeded run stays reproducible.
    #[default]
    Keep,
    /// They are seeded anew too.
    Fresh,
}

/// Whom a kill ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillTarget {
    /// The processes that the running cell has started.
    Children,
    /// The runner itself.
    Runner,
}

/// Random bytes for one resume; base64 on the wire, never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Entropy([u8; ENTROPY_BYTES]);

/// Text that is not base64 of exactly [`ENTROPY_BYTES`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entropy must be base64 of {ENTROPY_BYTES} bytes")]
pub struct EntropyError;

impl Entropy {
    /// Wraps bytes from the host's generator.
    #[must_use]
    pub fn new(bytes: [u8; ENTROPY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; ENTROPY_BYTES] {
        &self.0
    }
}

impl TryFrom<String> for Entropy {
    type Error = EntropyError;

    fn try_from(text: String) -> Result<Self, EntropyError> {
        let bytes = STANDARD.decode(text).map_err(|_| EntropyError)?;
        bytes.try_into().map(Self).map_err(|_| EntropyError)
    }
}

impl From<Entropy> for String {
    fn from(entropy: Entropy) -> Self {
        STANDARD.encode(entropy.0)
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Entropy(..)")
    }
}
