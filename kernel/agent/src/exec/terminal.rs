//! A pseudo-terminal for a program.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};
use vmrepl_wire::exec::WindowSize;

use crate::spawn::Identity;

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    /// Ours: what is typed goes in, what is shown comes out.
    pub(super) master: OwnedFd,
    /// The program's.
    pub(super) slave: OwnedFd,
}

impl Terminal {
    /// Opens one that belongs to `identity`, so that programs can open it again by its name.
    pub(super) fn open(size: WindowSize, identity: Identity) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = open(name, flags, Mode::empty())?;
        if let Identity::User { user, .. } = identity {
            // The group stays that of terminals.
            fchown(&slave, Some(Uid::from_raw(user)), None::<Gid>)?;
        }
        resize(&slave, size)?;
        Ok(Self { master, slave })
    }
}

/// Tells the programs on a terminal its size; they hear of it by a signal.
pub(super) fn resize(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

/// What is typed to end the input.
pub(super) fn end_of_input(terminal: impl AsFd) -> u8 {
    const CONTROL_D: u8 = 4;
    tcgetattr(terminal).map_or(CONTROL_D, |settings| {
        settings.special_codes[SpecialCodeIndex::VEOF]
    })
}
