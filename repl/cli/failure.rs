//! From errors to exit codes: the last step of every command.

use std::process::ExitCode;

use vmrepl_session::{Failure, SessionError};

use crate::out;

/// Bad input that the argument parser could not see.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct UsageError {
    pub(crate) message: String,
}

/// A thing that was named does not exist.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct MissingError {
    pub(crate) message: String,
    #[source]
    pub(crate) source: std::io::Error,
}

/// Tells an error with its hint and gives its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    out::error(error.as_ref());
    if let Some(hint) = error
        .downcast_ref::<SessionError>()
        .and_then(SessionError::hint)
    {
        out::hint(&hint);
    }
    ExitCode::from(code_of(error))
}

/// The exit code of an error.
pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    let failure = if let Some(error) = error.downcast_ref::<SessionError>() {
        error.failure()
    } else if error.is::<UsageError>() || error.is::<vmrepl_image::RecipeError>() {
        Failure::Usage
    } else if error.is::<MissingError>() {
        Failure::NotFound
    } else {
        match error.downcast_ref::<vmrepl_image::ImageError>() {
            Some(vmrepl_image::ImageError::Cancelled) => Failure::Interrupted,
            _ => Failure::Internal,
        }
    };
    failure.exit_code()
}
