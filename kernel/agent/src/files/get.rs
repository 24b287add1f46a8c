//! Giving a file: as other clients ask for it, and with its time and a sum.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{Mode, OFlags, open};
use vmrepl_copying::Mtime;
use vmrepl_wire::files::{FilesReply, Tag};
use vmrepl_wire::limits::FILES_CHUNK_BYTES;

use super::connection::Connection;
use super::content::Outgoing;
use super::{absolute, failure};
use crate::exec::Hangup;

pub(super) fn get(connection: &mut Connection, path: &str) -> Result<(), Hangup> {
    let (mut file, header) = match look(path) {
        Ok(found) => found,
        Err(error) => return connection.reply(&failure(error)),
    };
    let size = header.size.unwrap_or(0);
    // Its clients know no time.
    connection.reply(&FilesReply {
        mtime_ns: None,
        ..header
    })?;
    // The receiver learns from missing bytes that the file could not be read to its end.
    read(&mut file, size, |bytes| connection.send(Tag::File, bytes))?.ok();
    connection.send(Tag::End, &[])
}

pub(super) fn get_stream(connection: &mut Connection, path: &str) -> Result<(), Hangup> {
    let (mut file, header) = match look(path) {
        Ok(found) => found,
        Err(error) => return connection.reply(&failure(error)),
    };
    connection.reply(&header)?;
    let size = header.size.unwrap_or(0);
    let mut outgoing = Outgoing::new(connection);
    let given = read(&mut file, size, |bytes| {
        outgoing.write_all(bytes).map_err(|_| Hangup)
    })?;
    let path = absolute(path);
    let done = match given {
        Ok(given) if given == size => Ok(FilesReply::default()),
        Ok(given) => Err(format!(
            "{}: ended after {given} of {size} bytes",
            path.display()
        )),
        Err(error) => Err(format!("{}: {error}", path.display())),
    };
    outgoing.finish(done)
}

/// Reads up to `size` bytes and says how many there were. What is appended meanwhile is not sent: the receiver counts on the
/// size that it was told.
fn read(
    file: &mut File,
    size: u64,
    mut send: impl FnMut(&[u8]) -> Result<(), Hangup>,
) -> Result<io::Result<u64>, Hangup> {
    let mut rest = size;
    let mut chunk = vec![0; FILES_CHUNK_BYTES];
    while rest > 0 {
        let wanted = usize::try_from(rest).map_or(chunk.len(), |rest| rest.min(chunk.len()));
        match file.read(&mut chunk[..wanted]) {
            Ok(0) => break,
            Ok(count) => {
                send(&chunk[..count])?;
                rest -= u64::try_from(count).unwrap_or(rest);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(size - rest))
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
        mtime_ns: Some(Mtime::from(&metadata).0),
        ..FilesReply::default()
    };
    Ok((file, header))
}
