//! `CopyToGuest`: one file, as `put_file` takes it, or one folder, as a tar stream of nothing else is taken.

use bytes::Bytes;
use tonic::{Status, Streaming};
use vmrepl_wire::copying::PutTree;
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
        return folder(core, start).await;
    }
    let size_bytes = u64::try_from(start.size)
        .map_err(|_| Status::invalid_argument(format!("size: {} is negative", start.size)))?;
    let copied = copy(core, requests, start, size_bytes).await?;
    response(copied, size_bytes)
}

fn response(copied: Result<(), CoreError>, size_bytes: u64) -> Result<CopyToGuestResponse, Status> {
    match copied {
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

/// A folder that is there stays as it is.
async fn folder(core: &Core, start: CopyToGuestStart) -> Result<CopyToGuestResponse, Status> {
    let mode = match start.mode & PERMISSIONS {
        0 => 0o755,
        mode => mode,
    };
    let op = FilesOp::PutTree(PutTree {
        path: start.path,
        name: None,
    });
    let (sender, mut receiver) = core.open(op).await?;
    sender
        .data(Tag::File, &bare_folder(mode, start.mtime))
        .await?;
    sender.end().await?;
    response(done(receiver.next().await), 0)
}

/// A tar stream of the folder `./` and its end. See `tar(5)`, the form `ustar`.
fn bare_folder(mode: u32, mtime: i64) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut stream = vec![0; 3 * BLOCK];
    let mut field =
        |at: usize, text: &str| stream[at..][..text.len()].copy_from_slice(text.as_bytes());
    field(0, "./");
    field(100, &format!("{mode:07o}"));
    field(108, "0000000");
    field(116, "0000000");
    field(124, "00000000000");
    field(136, &format!("{:011o}", mtime.clamp(0, 0o77_777_777_777)));
    field(156, "5");
    field(257, "ustar");
    field(263, "00");
    // The sum counts its own place as spaces.
    field(148, "        ");
    let sum: u32 = stream[..BLOCK].iter().copied().map(u32::from).sum();
    stream[148..][..7].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    stream
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
    Ok(done(receiver.next().await))
}

fn done(said: Result<Said, CoreError>) -> Result<(), CoreError> {
    match said {
        Ok(Said::Reply(_)) => Ok(()),
        Ok(Said::Bytes(tag, _)) => Err(CoreError::OutOfTurn(tag)),
        Ok(Said::End) => Err(CoreError::OutOfTurn(Tag::End)),
        Err(error) => Err(error),
    }
}
