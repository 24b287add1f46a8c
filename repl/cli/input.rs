//! Lines of stdin for cells that ask, interruptible.

use std::io::{self, IsTerminal};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use vmrepl_session::Input;

use crate::signals::Signals;

const LOOK_EVERY: Duration = Duration::from_millis(100);
const LINE_BYTES_MAX: usize = 16 << 20;

/// Stdin, read by ourselves so that a wait for a line can be ended by a signal.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    ended: bool,
}

impl Lines {
    /// The next line.
    pub(crate) fn next(&mut self, signals: &Signals) -> Input {
        self.wait(signals).unwrap_or(Input::End)
    }

    fn wait(&mut self, signals: &Signals) -> io::Result<Input> {
        loop {
            if let Some(at) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Ok(Input::Line(
                    String::from_utf8_lossy(&line[..at]).into_owned(),
                ));
            }
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                let text = String::from_utf8_lossy(&rest).into_owned();
                return Ok(if rest.is_empty() {
                    Input::End
                } else {
                    Input::Last(text)
                });
            }
            if signals.were_seen() {
                return Ok(Input::Interrupt);
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let stdin = io::stdin();
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: LOOK_EVERY.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&patience)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut chunk = [0; 4096];
        match rustix::io::read(&stdin, &mut chunk) {
            Ok(0) => self.ended = true,
            Ok(count) if self.buffer.len() < LINE_BYTES_MAX => {
                self.buffer.extend_from_slice(&chunk[..count]);
            }
            Ok(_) => self.ended = true,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}

/// While it lives, a terminal does not show what is typed. It comes before the prompt: switching the echo off
/// drops what was typed before.
#[derive(Debug)]
pub(crate) struct Hidden(Option<Termios>);

impl Hidden {
    /// Hides what is typed when it is a password and stdin a terminal.
    pub(crate) fn when(password: bool) -> Self {
        let stdin = io::stdin();
        if !password || !stdin.is_terminal() {
            return Self(None);
        }
        let Ok(before) = tcgetattr(&stdin) else {
            return Self(None);
        };
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        let is_hidden = tcsetattr(&stdin, OptionalActions::Flush, &hidden).is_ok();
        Self(is_hidden.then_some(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that is gone needs no repair.
            let (Ok(()) | Err(_)) = tcsetattr(io::stdin(), OptionalActions::Flush, before);
            drop(crate::out::raw(b"\n"));
        }
    }
}
