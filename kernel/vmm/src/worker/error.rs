//! What can go wrong between a worker and its parent.

use std::io;
use std::path::PathBuf;

use crate::limits::STATE_BYTES;

/// What can go wrong with a worker.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("could not open {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not make the socket and files of a worker")]
    Descriptors(#[source] io::Error),
    #[error("could not start {path}")]
    Spawn {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not speak with the worker")]
    Speak(#[source] io::Error),
    #[error("the worker ended{}", of(said))]
    Ended { said: String },
    #[error("{}", chain.join(": "))]
    Refused { chain: Vec<String> },
    #[error("the worker did not answer within {seconds} s and was ended")]
    Silent { seconds: u64 },
    #[error("the worker has not read what it was told before")]
    Deaf,
    #[error("the worker answered what it was not asked")]
    Answer,
    #[error("the worker handed over {bytes} bytes of state, the limit is {STATE_BYTES}")]
    State { bytes: u64 },
    #[error("could not read what the worker handed over")]
    Read(#[source] io::Error),
}

fn of(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}
