//! Out of the guest. Nothing that it says is believed.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use vmrepl_copying::{
    DraftFile, Ground, Mtime, Skipped, Tally, Trust, UnpackError, base_name, landing, unpack,
};
use vmrepl_wire::copying::{Kind, Stat};
use vmrepl_wire::files::{FilesOp, FilesReply};

use super::content::{Incoming, receive};
use super::copy_in::counted;
use super::port::{Frames, Port, expect_ok};
use super::progress::{Progress, watch};
use crate::error::SessionError;

type OnProgress<'a> = &'a mut dyn FnMut(Progress<'_>);

/// Permission bits of a file whose guest told none.
const MODE: u32 = 0o644;

pub(super) fn copy(
    port: &Port<'_>,
    source: &str,
    target: &Path,
    progress: OnProgress<'_>,
) -> Result<Tally, SessionError> {
    if target.as_os_str().as_bytes().ends_with(b"/") && !target.is_dir() {
        return Err(SessionError::Target {
            path: target.display().to_string(),
            why: "is no folder that is there",
        });
    }
    if is_folder(port, source)? {
        folder(port, source, target, progress)
    } else {
        file(port, source, target, progress)
    }
}

pub(super) fn stat(port: &Port<'_>, path: &str, follow: bool) -> Result<Stat, SessionError> {
    let order = FilesOp::Stat {
        path: path.to_owned(),
        follow,
    };
    let reply = port
        .ask(order)?
        .reply()
        .map_err(|error| receive(path, error))?;
    let reply = expect_ok(reply, "look at", path)?;
    reply
        .stat
        .ok_or_else(|| receive(path, io::Error::other("an answer that tells nothing")))
}

/// Whether a source is a folder; it is a file otherwise.
fn is_folder(port: &Port<'_>, source: &str) -> Result<bool, SessionError> {
    let refused = |message: &str| SessionError::GuestFile {
        verb: "give",
        path: source.to_owned(),
        message: message.to_owned(),
    };
    match stat(port, source, true)?.kind {
        Kind::Folder => Ok(true),
        Kind::File if source.ends_with('/') => Err(refused("it is no folder")),
        Kind::File => Ok(false),
        Kind::Missing => Err(refused("there is no such file or folder")),
        Kind::Link | Kind::Other => Err(refused("it is neither file nor folder")),
    }
}

/// Asks for a content. The answer stands before it.
fn ask(port: &Port<'_>, op: FilesOp, source: &str) -> Result<(Frames, FilesReply), SessionError> {
    let mut frames = port.ask(op)?;
    let header = frames.reply().map_err(|error| receive(source, error))?;
    Ok((frames, expect_ok(header, "give", source)?))
}

fn file_of(source: &str) -> FilesOp {
    FilesOp::GetStream {
        path: source.to_owned(),
    }
}

fn folder_of(source: &str) -> FilesOp {
    FilesOp::GetTree {
        path: source.to_owned(),
    }
}

fn file(
    port: &Port<'_>,
    source: &str,
    target: &Path,
    progress: OnProgress<'_>,
) -> Result<Tally, SessionError> {
    let target = landing(target, OsStr::new(source)).map_err(|error| write(target, error))?;
    let failed = |error| write(&target, error);
    let mut draft = DraftFile::begin(&target).map_err(failed)?;
    let (frames, header) = ask(port, file_of(source), source)?;
    let mut incoming = Incoming::new(frames);
    let entry = Path::new(source).file_name().unwrap_or(OsStr::new(source));
    let mut watch = watch(progress, header.size);
    let bytes = pour(&mut incoming, source, |bytes, done| {
        watch(Path::new(entry), done);
        draft.write_all(bytes).map_err(failed)
    })?;
    incoming.finish(source)?;
    let mode = header.mode.unwrap_or(MODE) & Trust::Foreign.mask();
    draft
        .publish(mode, header.mtime_ns.map(Mtime))
        .map_err(failed)?;
    Ok(Tally {
        files: 1,
        bytes,
        ..Tally::default()
    })
}

fn folder(
    port: &Port<'_>,
    source: &str,
    target: &Path,
    progress: OnProgress<'_>,
) -> Result<Tally, SessionError> {
    let target = landing_of_folder(source, target).map_err(|error| write(target, error))?;
    let failed = |error| write(&target, error);
    let (frames, header) = ask(port, folder_of(source), source)?;
    let ground = Ground::begin(&target).map_err(failed)?;
    let root = ground.root().map_err(failed)?;
    let mut incoming = Incoming::new(frames);
    let unpacked = unpack(
        &mut incoming,
        root,
        Trust::Foreign,
        &mut watch(progress, header.size),
    );
    let mut tally = unpacked.map_err(|error| match error {
        UnpackError::Stream(error) => receive(source, error),
        source => SessionError::Unpack {
            path: target.display().to_string(),
            source,
        },
    })?;
    let reply = incoming.finish(source)?;
    ground.publish().map_err(failed)?;
    let there = counted(reply.tree.unwrap_or_default());
    tally.skipped_count = tally.skipped_count.saturating_add(there.skipped_count);
    tally.skipped.extend::<Vec<Skipped>>(there.skipped);
    Ok(tally)
}

/// Where a folder goes. One whose name is `.` brings its content into a folder that is there, and a link that
/// the user names may lead to that.
fn landing_of_folder(source: &str, target: &Path) -> io::Result<PathBuf> {
    match base_name(OsStr::new(source)) {
        Some(_) => landing(target, OsStr::new(source)),
        None if target.is_dir() => target.canonicalize(),
        None => Ok(target.to_owned()),
    }
}

pub(super) fn stream(
    port: &Port<'_>,
    source: &str,
    target: &mut dyn Write,
    progress: OnProgress<'_>,
) -> Result<Tally, SessionError> {
    let is_folder = is_folder(port, source)?;
    let op = if is_folder {
        folder_of(source)
    } else {
        file_of(source)
    };
    let (frames, header) = ask(port, op, source)?;
    let mut incoming = Incoming::new(frames);
    // An archive is longer than its files.
    let total = header.size.filter(|_| !is_folder);
    let mut watch = watch(progress, total);
    let failed = |error| write(Path::new("the stream"), error);
    let bytes = pour(&mut incoming, source, |bytes, done| {
        watch(Path::new(source), done);
        target.write_all(bytes).map_err(failed)
    })?;
    let reply = incoming.finish(source)?;
    target.flush().map_err(failed)?;
    Ok(match reply.tree {
        Some(tree) => counted(tree),
        None => Tally {
            files: 1,
            bytes,
            ..Tally::default()
        },
    })
}

/// Hands every chunk on, with how much there was so far; says how much it was.
fn pour(
    incoming: &mut Incoming,
    source: &str,
    mut each: impl FnMut(&[u8], u64) -> Result<(), SessionError>,
) -> Result<u64, SessionError> {
    let mut done = 0;
    each(&[], done)?;
    while let Some(bytes) = incoming.chunk().map_err(|error| receive(source, error))? {
        done += bytes.len() as u64;
        each(bytes, done)?;
    }
    Ok(done)
}

fn write(path: &Path, source: io::Error) -> SessionError {
    SessionError::File {
        verb: "write",
        path: path.display().to_string(),
        source,
    }
}
