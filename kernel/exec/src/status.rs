//! The one table from what went wrong to the status that a client hears.

use tonic::{Code, Status};

use crate::core::CoreError;

impl From<CoreError> for Status {
    fn from(error: CoreError) -> Self {
        let code = match &error {
            CoreError::Connect(_) | CoreError::Gone | CoreError::Read(_) => Code::Unavailable,
            CoreError::TooLong(_) | CoreError::Refused(_) => Code::InvalidArgument,
            CoreError::Request(_)
            | CoreError::Frame(_)
            | CoreError::OutOfTurn(_)
            | CoreError::Reply(_) => Code::Internal,
        };
        Self::new(code, crate::chain(&error))
    }
}
