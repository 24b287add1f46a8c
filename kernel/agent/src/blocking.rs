//! Sockets that block: what has come, and all that is to go.

use std::os::fd::AsFd;

use rustix::io::{Errno, read, write};

use crate::exec::Hangup;

/// Waits for bytes, and takes what there is; none are the peer's end.
pub(crate) fn read_some(socket: impl AsFd, into: &mut [u8]) -> Result<usize, Hangup> {
    loop {
        match read(&socket, &mut *into) {
            Ok(count) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(_) => return Err(Hangup),
        }
    }
}

/// Sends all of it.
pub(crate) fn write_all(socket: impl AsFd, mut bytes: &[u8]) -> Result<(), Hangup> {
    while !bytes.is_empty() {
        match write(&socket, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(_) => return Err(Hangup),
        }
    }
    Ok(())
}
