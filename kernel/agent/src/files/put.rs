//! Taking a file: written beside its target under another name, then renamed.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use vmrepl_copying::{DraftFile, Mtime, landing};
use vmrepl_wire::copying::PutStream;
use vmrepl_wire::files::{FilesReply, Tag};

use super::connection::Connection;
use super::content::{Fault, Incoming};
use super::{absolute, failure};
use crate::exec::Hangup;

const MODE: u32 = 0o644;

/// What the request says.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) path: String,
    pub(super) name: Option<String>,
    pub(super) mode: Option<u32>,
    pub(super) size_bytes: u64,
}

pub(super) fn put(connection: &mut Connection, order: &Order) -> Result<(), Hangup> {
    // The bytes come whether the file can be made or not: they are taken either way, so that the
    // sender is not left in the middle of them.
    let mut draft = Draft::begin(&absolute(&order.path), order.name.as_deref());
    let (mut rest, mut has_ended) = (order.size_bytes, false);
    while rest > 0 {
        match connection.frame()? {
            Some((Tag::File, bytes)) => {
                let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let Some(left) = rest.checked_sub(count) else {
                    draft = draft.and(Err(format!("more than {} bytes came", order.size_bytes)));
                    break;
                };
                rest = left;
                draft = draft.and_then(|draft| draft.write(&bytes));
            }
            Some((Tag::End, _)) => {
                let came = order.size_bytes - rest;
                draft = draft.and(Err(format!("{came} of {} bytes came", order.size_bytes)));
                has_ended = true;
                break;
            }
            Some(_) => return Err(Hangup),
            None => return Err(Hangup),
        }
    }
    let reply = match draft.and_then(|draft| draft.publish(order.mode, None)) {
        Ok(()) => FilesReply {
            ok: true,
            ..FilesReply::default()
        },
        Err(error) => failure(error),
    };
    connection.reply(&reply)?;
    if !has_ended {
        connection.linger();
    }
    Ok(())
}

/// Takes a file whose length is not known before its end.
pub(super) fn put_stream(connection: &mut Connection, order: &PutStream) -> Result<(), Hangup> {
    let mut incoming = Incoming::new(connection);
    let taken = take(&mut incoming, order);
    incoming.answer(taken)
}

fn take(incoming: &mut Incoming<'_>, order: &PutStream) -> Result<FilesReply, Fault> {
    let path = folder_if_said(&order.path).map_err(Fault::Told)?;
    let mut draft = Draft::begin(&path, order.name.as_deref()).map_err(Fault::Told)?;
    while let Some(bytes) = incoming.chunk()? {
        draft = draft.write(bytes).map_err(Fault::Told)?;
    }
    let mtime = order.mtime_ns.map(Mtime);
    draft.publish(order.mode, mtime).map_err(Fault::Told)?;
    Ok(incoming.finish()?)
}

/// A path; one that ends with a slash must be a folder.
pub(super) fn folder_if_said(path: &str) -> Result<PathBuf, String> {
    let absolute = absolute(path);
    if path.ends_with('/') && !absolute.is_dir() {
        return Err(told(&absolute, &"is no folder that is there"));
    }
    Ok(absolute)
}

/// A file that is removed unless it is published, and the name for its errors.
#[derive(Debug)]
struct Draft {
    file: DraftFile,
    target: PathBuf,
}

impl Draft {
    /// A folder takes the file under the base name of `name`.
    fn begin(path: &Path, name: Option<&str>) -> Result<Self, String> {
        let name = OsStr::new(name.unwrap_or(""));
        let target = landing(path, name).map_err(|error| told(path, &error))?;
        match DraftFile::begin(&target) {
            Ok(file) => Ok(Self { file, target }),
            Err(error) => Err(told(&target, &error)),
        }
    }

    fn write(mut self, bytes: &[u8]) -> Result<Self, String> {
        match self.file.write_all(bytes) {
            Ok(()) => Ok(self),
            Err(error) => Err(told(&self.target, &error)),
        }
    }

    fn publish(self, mode: Option<u32>, mtime: Option<Mtime>) -> Result<(), String> {
        let published = self.file.publish(mode.unwrap_or(MODE), mtime);
        published.map_err(|error| told(&self.target, &error))
    }
}

pub(super) fn told(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}
