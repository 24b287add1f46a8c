//! Giving a file.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{Mode, OFlags, open};
use vmrepl_wire::files::{FilesReply, Tag};
use vmrepl_wire::limits::FILES_CHUNK_BYTES;

use super::connection::Connection;
use super::{absolute, failure};
use crate::exec::Hangup;

pub(super) fn get(connection: &mut Connection, path: &str) -> Result<(), Hangup> {
    let (mut file, header) = match look(path) {
        Ok(found) => found,
        Err(error) => return connection.reply(&failure(error)),
    };
    connection.reply(&header)?;
    // What is appended meanwhile is not sent: the receiver counts on the size that it was told.
    let mut rest = header.size.unwrap_or(0);
    let mut chunk = vec![0; FILES_CHUNK_BYTES];
    while rest > 0 {
        let wanted = usize::try_from(rest).map_or(chunk.len(), |rest| rest.min(chunk.len()));
        match file.read(&mut chunk[..wanted]) {
            Ok(0) => break,
            Ok(count) => {
                connection.send(Tag::File, &chunk[..count])?;
                rest -= u64::try_from(count).unwrap_or(rest);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // The receiver learns it from the missing bytes.
            Err(_) => break,
        }
    }
    connection.send(Tag::End, &[])
}

/// Opens a regular file. Anything else might block or have no end.
fn look(path: &str) -> Result<(File, FilesReply), String> {
    let path = absolute(path);
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(open(&path, flags, Mode::empty()).map_err(|error| told(&error))?);
    let metadata = file.metadata().map_err(|error| told(&error))?;
    if !metadata.is_file() {
        return Err(told(&"not a regular file"));
    }
    let header = FilesReply {
        ok: true,
        mode: Some(metadata.mode() & 0o7777),
        size: Some(metadata.len()),
        ..FilesReply::default()
    };
    Ok((file, header))
}
