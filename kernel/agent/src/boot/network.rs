//! The one network interface of a guest: loopback.
#![expect(
    unsafe_code,
    reason = "the ioctl that sets interface flags has no safe wrapper"
)]

use std::os::fd::AsRawFd as _;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::log;

/// Programs in the guest talk to each other through 127.0.0.1.
pub(super) fn loopback_up() {
    let socket = match socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    ) {
        Ok(socket) => socket,
        Err(error) => return log::warn(format_args!("loopback: {error}")),
    };
    // SAFETY: all bytes zero is a valid ifreq: numbers and characters only.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = FLAGS;
    // SAFETY: the descriptor is open, and SIOCSIFFLAGS reads one ifreq, which lives until the end.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    if result != 0 {
        log::warn(format_args!(
            "loopback: {}",
            std::io::Error::last_os_error()
        ));
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "two of the lowest seven bits"
)]
const FLAGS: i16 = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
