//! Descriptors that the agent has handed over by number.
#![expect(
    unsafe_code,
    reason = "a number on the command line becomes an owned descriptor"
)]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::Mutex;

use rustix::io::{Errno, FdFlags, fcntl_setfd};

/// Numbers that have an owner already.
static TAKEN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Takes an open descriptor, once, and lets it not block.
pub(crate) fn take(number: i32) -> io::Result<OwnedFd> {
    let refused = |error: Errno| io::Error::new(error.kind(), format!("fd:{number}: {error}"));
    let first = TAKEN.lock().is_ok_and(|mut taken| taken.insert(number));
    if number <= 2 || !first {
        return Err(refused(Errno::BADF));
    }
    {
        // SAFETY: the number is not negative; that nothing may be open there is what the call finds out.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(borrowed, FdFlags::CLOEXEC).map_err(refused)?;
        rustix::io::ioctl_fionbio(borrowed, true).map_err(refused)?;
    }
    // SAFETY: the descriptor is open, as the calls above have shown; it was inherited, so nothing in this process owns it;
    // and `TAKEN` makes sure that nothing gets it twice. Called before the process opens descriptors of its own.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
