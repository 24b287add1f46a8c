//! Into the guest.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use vmrepl_copying::{Mtime, Skipped, Tally, base_name, measure, pack};
use vmrepl_wire::copying::{PutStream, PutTree, Tree};
use vmrepl_wire::files::FilesOp;
use vmrepl_wire::limits::FILES_CHUNK_BYTES;

use super::content::Outgoing;
use super::port::Port;
use super::progress::{Progress, watch};
use crate::error::SessionError;

type OnProgress<'a> = &'a mut dyn FnMut(Progress<'_>);

pub(super) fn copy(
    port: &Port<'_>,
    source: &Path,
    target: &str,
    progress: OnProgress<'_>,
) -> Result<Tally, SessionError> {
    let facts = fs::metadata(source).map_err(|error| read(source, error))?;
    if facts.is_dir() {
        folder(port, source, target, progress)
    } else if facts.is_file() {
        file(port, source, &facts, target, progress)
    } else {
        let what = io::Error::new(io::ErrorKind::InvalidInput, "it is neither file nor folder");
        Err(read(source, what))
    }
}

fn file(
    port: &Port<'_>,
    source: &Path,
    facts: &Metadata,
    target: &str,
    progress: OnProgress<'_>,
) -> Result<Tally, SessionError> {
    let mut file = File::open(source).map_err(|error| read(source, error))?;
    let name = base_name(source.as_os_str());
    let order = PutStream {
        path: target.to_owned(),
        name: name.map(|name| name.to_string_lossy().into_owned()),
        mode: Some(facts.permissions().mode() & 0o7777),
        mtime_ns: Some(Mtime::from(facts).0),
    };
    let mut watch = watch(progress, Some(facts.len()));
    let entry = Path::new(name.unwrap_or(source.as_os_str()));
    send(port, FilesOp::PutStream(order), target, |out| {
        let bytes = pump(&mut file, out, &mut |bytes| watch(entry, bytes));
        bytes.map_err(|error| read(source, error))
    })
}

fn folder(
    port: &Port<'_>,
    source: &Path,
    target: &str,
    progress: OnProgress<'_>,
) -> Result<Tally, SessionError> {
    let total = measure(source).map_err(|error| read(source, error))?;
    let name = base_name(source.as_os_str());
    let order = PutTree {
        path: target.to_owned(),
        name: name.map(|name| name.to_string_lossy().into_owned()),
    };
    let mut outgoing = Outgoing::new(port.ask(FilesOp::PutTree(order))?);
    let mut buffer = BufWriter::with_capacity(FILES_CHUNK_BYTES, &mut outgoing);
    let packed = pack(source, &mut buffer, &mut watch(progress, Some(total)));
    // What a broken connection did not take is not sent once more.
    drop(buffer.into_parts());
    let packed = packed.map_err(|error| read(source, error));
    let (mut tally, reply) = outgoing.finish(packed, target)?;
    // What the guest left out, too.
    let there = counted(reply.tree.unwrap_or_default());
    tally.skipped_count += there.skipped_count;
    tally.skipped.extend(there.skipped);
    Ok(tally)
}

pub(super) fn stream(
    port: &Port<'_>,
    source: &mut dyn Read,
    target: &str,
    progress: OnProgress<'_>,
) -> Result<Tally, SessionError> {
    let order = PutStream {
        path: target.to_owned(),
        ..PutStream::default()
    };
    let mut watch = watch(progress, None);
    send(port, FilesOp::PutStream(order), target, |out| {
        let bytes = pump(source, out, &mut |bytes| watch(Path::new(target), bytes));
        bytes.map_err(|error| read(Path::new("the stream"), error))
    })
}

pub(super) fn archive(
    port: &Port<'_>,
    source: &mut dyn Read,
    target: &str,
    progress: OnProgress<'_>,
) -> Result<Tally, SessionError> {
    let order = PutTree {
        path: target.to_owned(),
        name: None,
    };
    let mut watch = watch(progress, None);
    let mut outgoing = Outgoing::new(port.ask(FilesOp::PutTree(order))?);
    let sent = pump(source, &mut outgoing, &mut |bytes| {
        watch(Path::new(target), bytes);
    });
    let sent = sent.map_err(|error| read(Path::new("the archive"), error));
    let (_, reply) = outgoing.finish(sent, target)?;
    Ok(counted(reply.tree.unwrap_or_default()))
}

/// Sends one file.
fn send(
    port: &Port<'_>,
    op: FilesOp,
    target: &str,
    give: impl FnOnce(&mut dyn Write) -> Result<u64, SessionError>,
) -> Result<Tally, SessionError> {
    let mut outgoing = Outgoing::new(port.ask(op)?);
    let given = give(&mut outgoing);
    let (bytes, _) = outgoing.finish(given, target)?;
    Ok(Tally {
        files: 1,
        bytes,
        ..Tally::default()
    })
}

/// Moves everything in chunks of the wire; says how much it was.
fn pump(from: &mut dyn Read, to: &mut dyn Write, watch: &mut dyn FnMut(u64)) -> io::Result<u64> {
    let mut chunk = vec![0; FILES_CHUNK_BYTES];
    let mut bytes = 0;
    watch(bytes);
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&chunk[..count])?;
        bytes += count as u64;
        watch(bytes);
    }
}

fn read(path: &Path, source: io::Error) -> SessionError {
    SessionError::File {
        verb: "send",
        path: path.display().to_string(),
        source,
    }
}

/// What the guest counted.
pub(super) fn counted(tree: Tree) -> Tally {
    let skipped = tree.skipped.into_iter().map(|one| Skipped {
        path: one.path,
        why: one.why,
    });
    Tally {
        files: tree.files,
        folders: tree.folders,
        links: tree.links,
        bytes: tree.bytes,
        skipped_count: tree.skipped_count,
        skipped: skipped.collect(),
    }
}
