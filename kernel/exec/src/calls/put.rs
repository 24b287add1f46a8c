//! `CopyToGuest`: one file, as `put_file` takes it.

use bytes::Bytes;
use tonic::{Status, Streaming};
use vmrepl_wire::files::{FilesOp, Tag};

use crate::core::{Core, CoreError, Receiver, Said, Sender};
use crate::proto::guest::copy_to_guest_request::Request;
use crate::proto::guest::{CopyToGuestRequest, CopyToGuestResponse, CopyToGuestStart};

/// The bits of a mode that mean permissions: clients may send more.
const PERMISSIONS: u32 = 0o7777;

/// What the agent refuses is told in the response, the rest as a status.
pub(super) async fn put(
    core: &Core,
    mut requests: Streaming<CopyToGuestRequest>,
) -> Result<CopyToGuestResponse, Status> {
    let first = requests.message().await?;
    let Some(Request::Start(start)) = first.and_then(|message| message.request) else {
        return Err(Status::invalid_argument(
            "the first message must be a start",
        ));
    };
    if start.is_dir {
        return Err(Status::unimplemented("folders are not made yet"));
    }
    let size_bytes = u64::try_from(start.size)
        .map_err(|_| Status::invalid_argument(format!("size: {} is negative", start.size)))?;
    match copy(core, requests, start, size_bytes).await? {
        Ok(()) => Ok(CopyToGuestResponse {
            success: true,
            error: String::new(),
            bytes_written: i64::try_from(size_bytes).unwrap_or(i64::MAX),
        }),
        Err(CoreError::Refused(error)) => Ok(CopyToGuestResponse {
            success: false,
            error,
            bytes_written: 0,
        }),
        Err(error) => Err(error.into()),
    }
}

/// The core takes a file as soon as it has all bytes. So the request of an empty file, and the last bytes of any other, are
/// held back until the client has said that there are no more: a file that turns out longer is not written at all.
async fn copy(
    core: &Core,
    mut requests: Streaming<CopyToGuestRequest>,
    start: CopyToGuestStart,
    size_bytes: u64,
) -> Result<Result<(), CoreError>, Status> {
    let mode = start.mode & PERMISSIONS;
    let mut op = Some(FilesOp::PutFile {
        path: start.path,
        name: None,
        mode: Some(mode).filter(|mode| *mode != 0),
        size: size_bytes,
    });
    let mut target: Option<(Sender, Receiver)> = None;
    let mut held = Bytes::new();
    let mut came_bytes: u64 = 0;
    loop {
        let data = match requests.message().await?.map(|message| message.request) {
            None | Some(Some(Request::End(_))) => break,
            Some(Some(Request::Data(data))) => data,
            Some(Some(Request::Start(_))) => {
                return Err(Status::invalid_argument("a call copies one file"));
            }
            // A kind of a later version.
            Some(None) => continue,
        };
        came_bytes = came_bytes.saturating_add(data.len() as u64);
        if came_bytes > size_bytes {
            let error = format!("more than the {size_bytes} bytes that were announced came");
            return Ok(Err(CoreError::Refused(error)));
        }
        if let Some(op) = op.take() {
            target = Some(core.open(op).await?);
        }
        if let Some((sender, _)) = &target {
            sender.data(Tag::File, &held).await?;
        }
        held = data;
    }
    let (sender, mut receiver) = match (target, op) {
        (Some(target), _) => target,
        (None, Some(op)) => core.open(op).await?,
        (None, None) => return Err(Status::internal("a file was neither begun nor not begun")),
    };
    sender.data(Tag::File, &held).await?;
    if came_bytes < size_bytes {
        sender.end().await?;
    }
    Ok(match receiver.next().await {
        Ok(Said::Reply(_)) => Ok(()),
        Ok(Said::Bytes(tag, _)) => Err(CoreError::OutOfTurn(tag)),
        Ok(Said::End) => Err(CoreError::OutOfTurn(Tag::End)),
        Err(error) => Err(error),
    })
}
