//! A client's socket, with the bytes that it has not taken yet.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{self, RecvFlags, SendFlags};

/// A backlog of more is given back to the system once the client has taken it.
const KEPT_BYTES: usize = 64 << 10;

/// The host's half of a stream. No call blocks, whatever flags the descriptor has.
#[derive(Debug)]
pub(super) struct Socket {
    stream: UnixStream,
    pending: VecDeque<u8>,
    /// The client takes no more.
    deaf: bool,
}

impl Socket {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            pending: VecDeque::new(),
            deaf: false,
        }
    }

    /// Whether nobody reads at the other end any more.
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Gives the client one line that did not come from the guest, before anything that did.
    pub(super) fn answer(&mut self, line: &str) {
        // A socket without room for its first line has a client that will not read the rest either.
        self.deaf |= self.send(line.as_bytes()) != Ok(line.len());
    }

    /// Gives the client bytes of the guest; what it does not take waits. Returns how many are done with.
    pub(super) fn give(&mut self, bytes: &[u8]) -> u32 {
        let mut rest = bytes;
        while self.pending.is_empty() && !rest.is_empty() && !self.deaf {
            match self.send(rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::AGAIN) => break,
                Err(_) => self.deaf = true,
            }
        }
        if self.deaf {
            return counted(bytes.len());
        }
        self.pending.extend(rest);
        counted(bytes.len() - rest.len())
    }

    /// Gives the client what waits, as far as it takes it. Returns how many bytes are done with.
    pub(super) fn flush(&mut self) -> u32 {
        let mut done = 0;
        while !self.pending.is_empty() {
            let (front, _) = self.pending.as_slices();
            match self.send(front) {
                Ok(written) => {
                    self.pending.drain(..written);
                    done += counted(written);
                }
                Err(Errno::AGAIN) => return done,
                Err(_) => done += self.leave(),
            }
        }
        if self.pending.capacity() > KEPT_BYTES {
            self.pending = VecDeque::new();
        }
        done
    }

    /// The client takes no more. Returns how many bytes are done with by that.
    pub(super) fn leave(&mut self) -> u32 {
        self.deaf = true;
        self.drop_pending()
    }

    /// Forgets what waits. Returns how many bytes that were.
    pub(super) fn drop_pending(&mut self) -> u32 {
        counted(std::mem::take(&mut self.pending).len())
    }

    /// Reads what the client has sent; 0 at its end, `AGAIN` when there is nothing yet.
    pub(super) fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        let receive = || net::recv(&self.stream, &mut *into, RecvFlags::DONTWAIT);
        retry_on_intr(receive).map(|(_, count)| count)
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        retry_on_intr(|| net::send(&self.stream, bytes, flags))
    }

    /// Ends one direction towards the client. On a socket that is closed, or was ended, this does nothing.
    pub(super) fn end(&self, direction: Shutdown) {
        drop(self.stream.shutdown(direction));
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A count of bytes of one stream: at most a window and one packet.
fn counted(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a window is far below 4 GiB")
}
