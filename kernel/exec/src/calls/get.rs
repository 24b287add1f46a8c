//! `CopyFromGuest`: one file, as `get_file` gives it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::Stream;
use tonic::Status;
use vmrepl_wire::files::{FilesOp, FilesReply, Tag};

use crate::core::{Core, CoreError, Receiver, Said};
use crate::proto::guest::copy_from_guest_response::Response;
use crate::proto::guest::{
    CopyFromGuestEnd, CopyFromGuestError, CopyFromGuestHeader, CopyFromGuestResponse,
};

/// The responses of one call.
pub(super) struct Answers {
    receiver: Receiver,
    path: String,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

impl Answers {
    /// Asks the core for the file.
    pub(super) async fn new(
        core: &Core,
        path: String,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, CoreError> {
        let op = FilesOp::GetFile { path: path.clone() };
        let (_, receiver) = core.open(op).await?;
        Ok(Self {
            receiver,
            path,
            is_over: false,
            _place: place,
        })
    }

    fn header(&self, reply: &FilesReply) -> CopyFromGuestHeader {
        let name = self.path.trim_end_matches('/').rsplit('/').next();
        CopyFromGuestHeader {
            path: name.unwrap_or_default().to_owned(),
            mode: reply.mode.unwrap_or_default(),
            size: i64::try_from(reply.size.unwrap_or_default()).unwrap_or(i64::MAX),
            ..CopyFromGuestHeader::default()
        }
    }
}

impl Stream for Answers {
    type Item = Result<CopyFromGuestResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let answer = match ready!(self.receiver.poll(context)) {
            Ok(Said::Reply(reply)) => Ok(Response::Header(self.header(&reply))),
            Ok(Said::Bytes(Tag::File, bytes)) => Ok(Response::Data(bytes)),
            Ok(Said::End) => Ok(Response::End(CopyFromGuestEnd { r#final: true })),
            Ok(Said::Bytes(tag, _)) => Err(CoreError::OutOfTurn(tag)),
            Err(CoreError::Refused(message)) => Ok(Response::Error(CopyFromGuestError {
                message,
                path: self.path.clone(),
            })),
            Err(error) => Err(error),
        };
        self.is_over = !matches!(answer, Ok(Response::Header(_) | Response::Data(_)));
        let answer = answer.map(|response| CopyFromGuestResponse {
            response: Some(response),
        });
        Poll::Ready(Some(answer.map_err(Status::from)))
    }
}
