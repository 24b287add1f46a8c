//! What a worker is told and what it answers: one datagram each, with the descriptors that belong to it.
//!
//! Both ends are this program, started from the same file, so the form is nobody else's and has no version.
//! The worker's end is untrusted all the same: it runs a guest, and what it says is checked for its length and
//! its form before it is believed.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::parts::Purpose;
use crate::phases::Phases;

/// The longest message: a command line, or what a client sent before it had its stream.
const MESSAGE_BYTES: usize = 64 << 10;

/// Descriptors that come with one message, at most.
pub(crate) const DESCRIPTORS: usize = 16;

/// What a worker is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Boot a Linux and run it. Descriptors: KVM, memory, root, console, saved, vmlinux, initramfs.
    Boot {
        memory_bytes: u64,
        vcpus: u8,
        command_line: String,
    },
    /// Build what a restore of this shape can use. Descriptor: KVM.
    Prepare {
        memory_bytes: u64,
        vcpus: u8,
        purpose: Purpose,
    },
    /// Restore the state that stands in the saved file with the pages that stand in the laid file over it, and
    /// run, or rest. Descriptors: KVM, memory, root, console, saved, laid, and a socket for each claimed port.
    Restore {
        /// The saved file begins with the state; the pages to map ahead follow it.
        state_bytes: u64,
        laid_pages: u64,
        claims: Vec<u32>,
        purpose: Purpose,
        run: bool,
    },
    /// Open a stream. Descriptor: its socket.
    Open {
        port: u32,
        answer: bool,
        early: Vec<u8>,
    },
    /// Let the guest run.
    Run,
    /// Bring the guest to rest.
    Rest,
    /// Write the state of the resting machine into the saved file.
    Save,
    /// Write the memory of the resting machine, which was booted, into its memory file.
    WriteBase,
    /// As `Save`, and write the pages that have changed since the freeze before. Descriptor: their file.
    Freeze,
    /// Bring the resting machine back to a moment that it was frozen at.
    RollBack { mark: u64 },
    /// Sum up the memory of the resting machine.
    Sum,
    /// Say where the resting machine stands.
    Condition,
}

/// What a worker answers, or says unasked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Done,
    Restored(Phases),
    Saved {
        bytes: u64,
    },
    Frozen {
        bytes: u64,
        mark: u64,
        pages: u64,
    },
    RolledBack {
        pages: u64,
    },
    Sum([u8; 32]),
    Condition(String),
    /// The order failed: the error and its causes.
    Failed {
        chain: Vec<String>,
    },
    /// Unasked: the machine has ended by itself.
    Ended {
        why: String,
    },
}

/// What came of a wait for a message.
#[derive(Debug)]
pub(crate) enum Heard<T> {
    Message(T, Vec<OwnedFd>),
    /// The other end is closed.
    Closed,
}

/// Sends one message; with `SendFlags::DONTWAIT` it fails where the other end has let too many wait.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if bytes.len() > MESSAGE_BYTES || descriptors.len() > DESCRIPTORS {
        return Err(io::Error::other("the message is too long"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("the descriptors do not fit"));
    }
    loop {
        match sendmsg(
            socket,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL | flags,
        ) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Receives one message; without `flags` it waits for it.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    flags: RecvFlags,
) -> io::Result<Heard<T>> {
    let mut bytes = vec![0; MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            flags | RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(Heard::Closed),
            Err(errno) => return Err(errno.into()),
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(taken) = message {
            descriptors.extend(taken);
        }
    }
    if received.bytes == 0 {
        return Ok(Heard::Closed);
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::other("a message was cut off"));
    }
    let message = postcard::from_bytes(&bytes[..received.bytes]).map_err(io::Error::other)?;
    Ok(Heard::Message(message, descriptors))
}
