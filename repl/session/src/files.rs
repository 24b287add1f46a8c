//! Files and folders into and out of a session's guest.
//!
//! `copy_in` and `copy_out` go by what the source is, as `cp -a` does: a file or a folder, with modes, times, links and
//! holes. The source itself may be a link and is followed; links below it stay links. A target that is a folder takes the copy under
//! the source's base name, and one that ends with a slash must be a folder; where the source ends with `.`, its
//! content goes into the target. A file, or a folder that was not there, appears when it is whole; into a folder that is there
//! each file goes whole. What the host writes is written beside its target, and the guest's archives cannot leave it.

mod content;
mod copy_in;
mod copy_out;
mod plain;
mod port;
mod progress;
#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::path::Path;

use vmrepl_wire::copying::Stat;

use crate::error::SessionError;
use crate::session::Session;
use port::Port;

pub use progress::Progress;

/// Copies a file or a folder of the host to `target` in the guest.
///
/// # Errors
/// When the source cannot be read, the guest refuses it, or what came there is not what was sent.
pub fn copy_in(
    session: &Session,
    source: &Path,
    target: &str,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<vmrepl_copying::Tally, SessionError> {
    let done = copy_in::copy(&Port::of(session), source, target, progress);
    done.map_err(|error| session.unless_given_up(error))
}

/// Copies what a stream gives to the file `target` in the guest.
///
/// # Errors
/// As of [`copy_in`](fn@copy_in).
pub fn copy_in_stream(
    session: &Session,
    source: &mut dyn Read,
    target: &str,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<vmrepl_copying::Tally, SessionError> {
    let done = copy_in::stream(&Port::of(session), source, target, progress);
    done.map_err(|error| session.unless_given_up(error))
}

/// Unpacks a tar stream in the guest: to the new folder `target`, or into the one that is there.
///
/// # Errors
/// As of [`copy_in`](fn@copy_in), and when an entry would leave the folder.
pub fn copy_in_archive(
    session: &Session,
    source: &mut dyn Read,
    target: &str,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<vmrepl_copying::Tally, SessionError> {
    let done = copy_in::archive(&Port::of(session), source, target, progress);
    done.map_err(|error| session.unless_given_up(error))
}

/// Copies a file or a folder of the guest to `target` on the host.
///
/// # Errors
/// When the guest cannot give it, the target cannot be written, what came is not what was sent, or an entry would leave
/// the target.
pub fn copy_out(
    session: &Session,
    source: &str,
    target: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<vmrepl_copying::Tally, SessionError> {
    let done = copy_out::copy(&Port::of(session), source, target, progress);
    done.map_err(|error| session.unless_given_up(error))
}

/// Writes a file of the guest to a stream, or a folder as a tar stream.
///
/// # Errors
/// As of [`copy_out`](fn@copy_out). What was written before cannot be taken back.
pub fn copy_out_stream(
    session: &Session,
    source: &str,
    target: &mut dyn Write,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<vmrepl_copying::Tally, SessionError> {
    let done = copy_out::stream(&Port::of(session), source, target, progress);
    done.map_err(|error| session.unless_given_up(error))
}

/// Tells what stands at a path in the guest. With `follow`, of a link what it leads to.
///
/// # Errors
/// When the guest may not look there.
pub fn guest_stat(session: &Session, path: &str, follow: bool) -> Result<Stat, SessionError> {
    let done = copy_out::stat(&Port::of(session), path, follow);
    done.map_err(|error| session.unless_given_up(error))
}

/// Copies a host file to `target` in the guest.
///
/// # Errors
/// When the file cannot be read or the guest refuses it.
pub fn put_file(session: &Session, source: &Path, target: &str) -> Result<(), SessionError> {
    let done = plain::put(&Port::of(session), source, target);
    done.map_err(|error| session.unless_given_up(error))
}

/// Makes the folder of a guest path, with those above it.
///
/// # Errors
/// When the guest cannot make it.
pub fn make_folder_of(session: &Session, target: &str) -> Result<(), SessionError> {
    let done = plain::make_folder(&Port::of(session), target);
    done.map_err(|error| session.unless_given_up(error))
}

/// Copies the guest's file `source` to the host, whole or not at all.
///
/// # Errors
/// When the guest cannot give it or the target cannot be written.
pub fn get_file(session: &Session, source: &str, target: &Path) -> Result<(), SessionError> {
    let done = plain::get(&Port::of(session), source, target);
    done.map_err(|error| session.unless_given_up(error))
}
