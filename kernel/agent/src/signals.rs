//! Signals as a source of events.
#![expect(unsafe_code, reason = "signal masks and signalfd have no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

/// SIGCHLD, and the signals that ask the agent to leave.
const WATCHED: [libc::c_int; 4] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// A descriptor that becomes readable when a watched signal arrives.
#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: OwnedFd,
}

/// What arrived since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// A child has ended.
    pub(crate) child: bool,
    /// Somebody asks the agent to leave.
    pub(crate) leave: bool,
}

impl Signals {
    /// Blocks the watched signals for this process and those it starts; see [`unblock_all`].
    pub(crate) fn new() -> io::Result<Self> {
        let mut set = empty_set();
        for signal in WATCHED {
            // SAFETY: `set` is an initialised signal set and the number is a signal's.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        set_mask(&set)?;
        // SAFETY: `set` is an initialised signal set; -1 asks for a new descriptor.
        let number =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd has just returned this descriptor; nobody else has it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(Self { descriptor })
    }

    /// Takes all that has arrived.
    pub(crate) fn take(&self) -> Arrived {
        let mut arrived = Arrived::default();
        let mut record = [0_u8; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.descriptor, &mut record)
            .is_ok_and(|count| count == record.len())
        {
            // The record begins with the signal's number.
            let [n0, n1, n2, n3, ..] = record;
            if u32::from_ne_bytes([n0, n1, n2, n3]) == libc::SIGCHLD.cast_unsigned() {
                arrived.child = true;
            } else {
                arrived.leave = true;
            }
        }
        arrived
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Gives a new process the signals back that the agent has blocked. For use between fork and exec.
pub(crate) fn unblock_all() -> io::Result<()> {
    set_mask(&empty_set())
}

fn empty_set() -> libc::sigset_t {
    // SAFETY: a signal set is made of numbers, for which all bytes zero is valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable.
    unsafe { libc::sigemptyset(&raw mut set) };
    set
}

fn set_mask(set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: `set` is initialised, and nobody asks for the old mask.
    let result =
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, ptr::from_ref(set), ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
