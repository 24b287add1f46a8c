//! Taking and giving folders.

use std::error::Error;
use std::ffi::OsStr;
use std::io::BufWriter;

use vmrepl_copying::{Ground, Tally, Trust, landing, measure, pack, unpack};
use vmrepl_wire::copying::{PutTree, Skipped, Tree};
use vmrepl_wire::files::FilesReply;
use vmrepl_wire::limits::FILES_CHUNK_BYTES;

use super::connection::Connection;
use super::content::{Fault, Incoming, Outgoing};
use super::put::{folder_if_said, told};
use super::{absolute, failure};
use crate::exec::Hangup;

pub(super) fn put(connection: &mut Connection, order: &PutTree) -> Result<(), Hangup> {
    let mut incoming = Incoming::new(connection);
    let taken = take(&mut incoming, order);
    incoming.answer(taken)
}

fn take(incoming: &mut Incoming<'_>, order: &PutTree) -> Result<FilesReply, Fault> {
    let path = folder_if_said(&order.path).map_err(Fault::Told)?;
    let target = match &order.name {
        Some(name) => landing(&path, OsStr::new(name)),
        // The content of a folder may go through a link that its user has named.
        None if path.is_dir() => path.canonicalize(),
        None => Ok(path.clone()),
    };
    let target = target.map_err(|error| Fault::Told(told(&path, &error)))?;
    let told = |error| Fault::Told(told(&target, &error));
    let ground = Ground::begin(&target).map_err(told)?;
    let root = ground.root().map_err(told)?;
    let unpacked = unpack(&mut *incoming, root, Trust::Own, &mut |_, _| {});
    let tally = unpacked.map_err(|error| {
        if incoming.is_broken() {
            return Fault::Hangup;
        }
        Fault::Told(format!("{}: {}", target.display(), chain(&error)))
    })?;
    // Behind the archive's own end there may be more, and a draft is whole when all has come.
    let reply = incoming.finish()?;
    ground.publish().map_err(told)?;
    Ok(FilesReply {
        tree: Some(counted(tally)),
        ..reply
    })
}

pub(super) fn get(connection: &mut Connection, path: &str) -> Result<(), Hangup> {
    let path = absolute(path);
    let size = match measure(&path) {
        Ok(size) => size,
        Err(error) => return connection.reply(&failure(told(&path, &error))),
    };
    connection.reply(&FilesReply {
        ok: true,
        size: Some(size),
        ..FilesReply::default()
    })?;
    let mut outgoing = Outgoing::new(connection);
    let mut buffer = BufWriter::with_capacity(FILES_CHUNK_BYTES, &mut outgoing);
    let packed = pack(&path, &mut buffer, &mut |_, _| {});
    drop(buffer);
    if outgoing.is_broken() {
        return Err(Hangup);
    }
    let done = packed.map(|tally| FilesReply {
        tree: Some(counted(tally)),
        ..FilesReply::default()
    });
    outgoing.finish(done.map_err(|error| told(&path, &error)))
}

fn counted(tally: Tally) -> Tree {
    let Tally {
        files,
        folders,
        links,
        bytes,
        skipped_count,
        skipped,
    } = tally;
    let skipped = skipped
        .into_iter()
        .map(|one| Skipped {
            path: one.path,
            why: one.why,
        })
        .collect();
    Tree {
        files,
        folders,
        links,
        bytes,
        skipped_count,
        skipped,
    }
}

/// An error with those behind it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
