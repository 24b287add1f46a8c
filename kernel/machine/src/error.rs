//! What can go wrong with a machine.

use std::path::PathBuf;

use vmrepl_qemu::{BinaryError, MemoryError, ProcessError};

use vmrepl_vmm::WorkerError;

use crate::link::LinkError;

/// What can go wrong with a machine.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("no engine")]
    NoQemu(#[source] BinaryError),
    #[error("could not {step} the machine")]
    Process {
        step: &'static str,
        #[source]
        source: ProcessError,
    },
    #[error("could not {step} the machine")]
    Worker {
        step: &'static str,
        #[source]
        source: WorkerError,
    },
    #[error("an emulated machine cannot go back in place")]
    NotInPlace,
    #[error("could not open a stream to the guest")]
    Stream(#[source] std::io::Error),
    #[error("could not open the machine's socket {path}")]
    Door {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("could not reach the guest's ports")]
    Link(#[source] LinkError),
    #[error("could not open the machine's socket {path}")]
    Socket {
        path: PathBuf,
        #[source]
        source: LinkError,
    },
    #[error("could not read the pages that the guest changed")]
    Pages(#[source] MemoryError),
    #[error("the saved machine state has {bytes} bytes, too few for its header")]
    State { bytes: usize },
    #[error("the saved machine state has version {found}, this program knows {known}")]
    StateVersion { found: u32, known: u32 },
}
