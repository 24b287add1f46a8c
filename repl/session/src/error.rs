//! What can go wrong in a session, and the one table of what it means outside.

use std::path::PathBuf;

use vmrepl_history::HistoryError;
use vmrepl_machine::MachineError;
use vmrepl_snapshots::{SnapshotId, StoreError};
use vmrepl_wire::cell::Status;

use crate::kind::EngineKind;

/// What can go wrong in a session.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("there is no template {name:?}{}", place(*engine, *elsewhere))]
    NoTemplate {
        name: String,
        engine: EngineKind,
        elsewhere: Option<EngineKind>,
        known: Vec<String>,
    },
    #[error("template {name:?} is there for the engine kvm alone, which is not taken here: {why}")]
    OnlyKvm { name: String, why: String },
    #[error("{name:?} is no name: use letters, digits, and . _ + - (at most {max})", max = crate::limits::NAME_CHARS_MAX)]
    Name { name: String },
    #[error("could not use the engine qemu")]
    Engine(#[source] MachineError),
    #[error("could not use the engine kvm: {why}")]
    NoKvm { why: String, denied: bool },
    #[error("the store of snapshots failed")]
    Store(#[source] StoreError),
    #[error("template {name:?} belongs elsewhere: {differences}")]
    Foreign { name: String, differences: String },
    #[error("template {name:?} has no usable {section} section: {why}")]
    Section {
        name: String,
        section: &'static str,
        why: String,
    },
    #[error("template {name:?} needs its root file system {path}")]
    Root {
        name: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("could not {step}")]
    Machine {
        step: &'static str,
        #[source]
        source: MachineError,
    },
    #[error("could not make the machine's folder {path}")]
    RunFolder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("could not {step}")]
    Guest {
        step: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("the guest said {line:?}, which is no answer")]
    Answer {
        line: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the guest sent a line of more than {limit_bytes} bytes")]
    LongAnswer { limit_bytes: usize },
    #[error("the machine is lost: {why}")]
    MachineLost { why: String },
    #[error("the guest refused: {message}")]
    Refused { message: String },
    #[error("the guest did not {what} within {seconds} s; its console ends with: {console}")]
    Slow {
        what: &'static str,
        seconds: u64,
        console: String,
    },
    #[error("warm-up cell {number} failed: {error}")]
    WarmUp { number: usize, error: String },
    #[error("preparing was stopped")]
    Cancelled,
    #[error("stopped")]
    Stopped,
    #[error("could not {verb} {path}")]
    File {
        verb: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the guest could not {verb} {path}: {message}")]
    GuestFile {
        verb: &'static str,
        path: String,
        message: String,
    },
    #[error("the target {path} {why}")]
    Target { path: String, why: &'static str },
    #[error(
        "{path} is not what it was sent as: its sum is {host} on the host and {guest} in the guest"
    )]
    Damaged {
        path: String,
        host: String,
        guest: String,
    },
    #[error("could not unpack what the guest sent to {path}")]
    Unpack {
        path: String,
        #[source]
        source: vmrepl_copying::UnpackError,
    },
    #[error("{snapshot} is kept, since others depend on it: {dependents}")]
    InUse {
        snapshot: SnapshotId,
        dependents: String,
    },
    #[error("the section {section} of snapshot {snapshot} cannot be unpacked")]
    Unreadable {
        snapshot: SnapshotId,
        section: &'static str,
    },
    #[error(transparent)]
    History(HistoryError),
    #[error("session {name:?} is in use{}", holder(*pid, *for_s))]
    Busy {
        name: String,
        pid: Option<u32>,
        for_s: Option<u64>,
    },
    #[error("session {name:?} has no state after cell {number}: it left no checkpoint")]
    NoCheckpoint {
        name: String,
        number: u32,
        parent: u32,
    },
    #[error("{text:?}: say NAME@CELL, such as work@3")]
    Spot { text: String },
    #[error("{text:?}: say NAME=VALUES, such as lr=[0.1, 0.01]")]
    Axis { text: String },
    #[error("the values of {name}: {problem}")]
    Values { name: String, problem: String },
    #[error(
        "the interpreter died beside the cell, or another port of the guest was in use: nothing of it is kept"
    )]
    Busied,
    #[error("this session has no name, so nothing of it is kept")]
    Nameless,
    #[error("the cells of {what} are {has}, not {wanted}")]
    OtherLanguage {
        what: String,
        has: String,
        wanted: String,
    },
    #[error("session {name:?} belongs to the engine {engine}")]
    OtherEngine { name: String, engine: String },
    #[error(
        "the checkpoint of cell {number} could not be stored: the session stands at cell {position}"
    )]
    NotStored {
        number: u32,
        position: u32,
        #[source]
        source: Box<Self>,
    },
    #[error("could not carry the template")]
    Transfer(#[source] vmrepl_snapshots::TransferError),
    #[error("{path} is no exported template: {why}")]
    Export { path: String, why: String },
}

/// Where a template is missing while it is there for another engine.
fn place(engine: EngineKind, elsewhere: Option<EngineKind>) -> String {
    match elsewhere {
        Some(other) => format!(" for the engine {engine}; there is one for {other}"),
        None => String::new(),
    }
}

/// Who has a session, as far as its lock tells.
fn holder(pid: Option<u32>, for_s: Option<u64>) -> String {
    match (pid, for_s) {
        (Some(pid), Some(seconds)) => format!(" by process {pid}, for {seconds} s now"),
        _ => String::new(),
    }
}

/// What an error or a status means outside: one row a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The caller asked for something impossible.
    Usage,
    /// A thing that was named does not exist.
    NotFound,
    /// Time ran out.
    Timeout,
    /// Somebody stopped it.
    Interrupted,
    /// We, or the machine, failed.
    Internal,
}

impl Failure {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Timeout => 124,
            Self::Internal => 125,
            Self::Interrupted => 130,
        }
    }

    /// What a cell's status means, when it is not the code's own business.
    #[must_use]
    pub fn of_status(status: Status) -> Option<Self> {
        match status {
            Status::Ok | Status::Error => None,
            Status::Timeout => Some(Self::Timeout),
            Status::Interrupted => Some(Self::Interrupted),
            Status::MemoryExceeded
            | Status::OutputExceeded
            | Status::RunnerLost
            | Status::MachineLost
            | Status::Unknown => Some(Self::Internal),
        }
    }
}

impl SessionError {
    /// The row of this error.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::NoTemplate { .. } | Self::OnlyKvm { .. } => Failure::NotFound,
            Self::Name { .. }
            | Self::Spot { .. }
            | Self::Axis { .. }
            | Self::Values { .. }
            | Self::Nameless
            | Self::Target { .. }
            | Self::OtherEngine { .. }
            | Self::OtherLanguage { .. }
            | Self::History(HistoryError::Taken { .. } | HistoryError::TooFar { .. }) => {
                Failure::Usage
            }
            Self::History(HistoryError::NoSession { .. } | HistoryError::NoCell { .. })
            | Self::NoCheckpoint { .. } => Failure::NotFound,
            Self::Cancelled | Self::Stopped => Failure::Interrupted,
            _ => Failure::Internal,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.template_hint()
            .or_else(|| self.session_hint())
            .or_else(|| self.copy_hint())
    }

    /// Where a copy is the matter.
    fn copy_hint(&self) -> Option<String> {
        use std::io::ErrorKind;
        let hint = match self {
            Self::Target { .. } => "make it first, or leave the slash at its end away",
            Self::Damaged { .. } => "copy it again; see: vmrepl doctor",
            Self::Unpack {
                source: vmrepl_copying::UnpackError::Refused { .. },
                ..
            } => "nothing was written outside the target; do not trust what runs in this guest",
            Self::GuestFile { message, .. } if message.starts_with("request: ") => {
                "its template is older than this program; make it anew: vmrepl prepare --force"
            }
            Self::File { source, .. } => match source.kind() {
                ErrorKind::NotFound => "is the name right, and its folder there?",
                ErrorKind::PermissionDenied => "take a place that you may read or write",
                ErrorKind::StorageFull => "make room, and copy it again",
                _ => return None,
            },
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Where a session with a name is the matter.
    fn session_hint(&self) -> Option<String> {
        Some(match self {
            Self::Busy { .. } => {
                "wait for it with --wait, or work on a copy: vmrepl fork NAME NEW".to_owned()
            }
            Self::NoCheckpoint { name, parent, .. } => {
                format!("the cell before it is {parent}; see: vmrepl log {name}")
            }
            Self::Nameless => "begin with a name: vmrepl -s NAME".to_owned(),
            Self::OtherEngine { engine, .. } => {
                format!("leave --engine away (and VMREPL_ENGINE unset), or say --engine {engine}")
            }
            Self::OtherLanguage { wanted, .. } => {
                format!("take a template or a session of {wanted}; see: vmrepl templates")
            }
            Self::History(HistoryError::NoSession { .. }) => "see: vmrepl sessions".to_owned(),
            Self::History(HistoryError::Taken { name }) => {
                format!("take another name, or: vmrepl sessions rm {name}")
            }
            Self::History(HistoryError::NoCell { .. } | HistoryError::TooFar { .. }) => {
                "see: vmrepl log NAME".to_owned()
            }
            Self::History(error) if error.is_of_the_disk() => {
                "is the disk full, or the folder read-only? see: vmrepl doctor".to_owned()
            }
            Self::NotStored { .. } => {
                "is the disk full? see: vmrepl sessions, vmrepl gc".to_owned()
            }
            _ => return None,
        })
    }

    /// Where a template or its machine is.
    fn template_hint(&self) -> Option<String> {
        Some(match self {
            Self::NoTemplate {
                name,
                engine,
                elsewhere: Some(_),
                ..
            } => format!(
                "run: vmrepl prepare {name} --engine {engine}, or leave --engine away (and VMREPL_ENGINE unset)"
            ),
            Self::NoTemplate { name, known, .. } if known.is_empty() => {
                format!("run: vmrepl prepare {name}")
            }
            Self::NoTemplate { name, known, .. } => {
                format!(
                    "run: vmrepl prepare {name}, or take one of: {}",
                    known.join(", ")
                )
            }
            Self::OnlyKvm { name, .. } => format!(
                "run: vmrepl prepare {name}, or try it all the same with --engine kvm; see: vmrepl doctor"
            ),
            Self::NoKvm { denied: true, .. } => {
                "run: sudo usermod -aG kvm $USER, then log in again; or emulate: --engine qemu"
                    .to_owned()
            }
            Self::NoKvm { .. } => {
                "leave --engine away, or emulate: --engine qemu; see: vmrepl doctor".to_owned()
            }
            Self::Engine(_) => {
                "install QEMU (Debian: apt-get install qemu-system-x86), then see: vmrepl doctor"
                    .to_owned()
            }
            Self::Foreign { name, .. } => {
                format!("make it anew for this host: vmrepl prepare {name}")
            }
            Self::Section { name, .. } | Self::Root { name, .. } => {
                format!("make it anew: vmrepl prepare --force {name}")
            }
            Self::Store(StoreError::Disk { .. }) => {
                "is the disk full? see: vmrepl templates, vmrepl doctor".to_owned()
            }
            Self::Store(_) => {
                "see what is damaged: vmrepl verify; then make it anew: vmrepl prepare --force"
                    .to_owned()
            }
            Self::Slow { .. } => {
                "is this host too busy, or does the engine not run here? see: vmrepl doctor"
                    .to_owned()
            }
            Self::MachineLost { .. } => "run it again; see: vmrepl doctor".to_owned(),
            Self::RunFolder { .. } => {
                "set VMREPL_RUN_DIR to a folder that you may write".to_owned()
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_row() {
        let rows = [
            (Status::Ok, None),
            (Status::Error, None),
            (Status::Timeout, Some(124)),
            (Status::Interrupted, Some(130)),
            (Status::MemoryExceeded, Some(125)),
            (Status::OutputExceeded, Some(125)),
            (Status::RunnerLost, Some(125)),
            (Status::MachineLost, Some(125)),
        ];
        for (status, code) in rows {
            assert_eq!(
                Failure::of_status(status).map(Failure::exit_code),
                code,
                "{status:?}"
            );
        }
    }
}
