//! The program on a terminal of its own, with keys and a screen.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, test_kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::ground::{DEADLINE, TEMPLATE};
use crate::process::{VMREPL, engine};

const ENTER: &str = "\r";

/// The program on a terminal of its own.
pub(crate) struct Terminal {
    pub(crate) child: Child,
    screen: File,
    /// The other end, so that its settings can be looked at when the program is gone.
    pub(crate) keyboard: OwnedFd,
    /// What has come and was not yet looked for, without escape sequences.
    pub(crate) unseen: String,
    escapes: Escapes,
}

/// Takes escape sequences out of what a terminal is told.
#[derive(Default)]
enum Escapes {
    #[default]
    Text,
    Escape,
    Sequence,
}

impl Escapes {
    fn text(&mut self, bytes: &[u8]) -> String {
        let mut text = Vec::new();
        for byte in bytes {
            *self = match (&self, byte) {
                (Self::Text, 0x1b) => Self::Escape,
                (Self::Escape, b'[') => Self::Sequence,
                (Self::Sequence, 0x40..=0x7e) | (Self::Escape, _) => Self::Text,
                (Self::Sequence, _) => Self::Sequence,
                (Self::Text, _) => {
                    text.push(*byte);
                    Self::Text
                }
            };
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Terminal {
    /// The REPL.
    pub(crate) fn open(state: &Path, args: &[&str]) -> Self {
        Self::of(state, &[&["--template", TEMPLATE], args].concat())
    }

    /// The program with these arguments and no others.
    pub(crate) fn of(state: &Path, args: &[&str]) -> Self {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&screen).unwrap();
        unlockpt(&screen).unwrap();
        let path = ptsname(&screen, Vec::new()).unwrap();
        let keyboard: OwnedFd = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path.to_str().unwrap())
            .unwrap()
            .into();
        tcsetwinsize(&keyboard, window(40, 100)).unwrap();
        let end = || Stdio::from(keyboard.try_clone().unwrap());
        // Ctrl-C comes as a signal to whom the terminal belongs.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(VMREPL)
            .args(args)
            .env("VMREPL_HOME", state)
            .env("TERM", "xterm")
            .env(
                "VMREPL_ENGINE",
                engine().unwrap_or_else(|| "auto".to_owned()),
            )
            .env_remove("VMREPL_RUN_DIR")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        Self {
            child,
            screen: screen.into(),
            keyboard,
            unseen: String::new(),
            escapes: Escapes::default(),
        }
    }

    /// The terminal gets another size, as when its window is drawn larger.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.keyboard, window(rows, columns)).unwrap();
    }

    pub(crate) fn keys(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).unwrap();
    }

    /// Types so much that it must be read from meanwhile.
    pub(crate) fn paste(&mut self, text: &[u8]) {
        for chunk in text.chunks(1024) {
            let mut ready = [PollFd::new(&self.screen, PollFlags::OUT)];
            let wait = Timespec::try_from(DEADLINE).unwrap();
            assert_eq!(poll(&mut ready, Some(&wait)), Ok(1), "it takes no more");
            self.screen.write_all(chunk).unwrap();
            self.read(Duration::ZERO);
        }
    }

    /// Waits for a prompt with this number, then types a line.
    pub(crate) fn line(&mut self, number: usize, line: &str) {
        self.shows(&format!(" [{number}]> "));
        self.keys(line);
        self.keys(ENTER);
        // What was typed is echoed, over and over; what comes behind the last is the answer.
        self.shows("\n");
    }

    /// Waits for a text behind what was shown before.
    pub(crate) fn shows(&mut self, text: &str) {
        let began = Instant::now();
        loop {
            if let Some(at) = self.unseen.find(text) {
                self.unseen.drain(..at + text.len());
                return;
            }
            let left = DEADLINE.saturating_sub(began.elapsed());
            assert!(!left.is_zero(), "no {text:?} in {:?}", self.unseen);
            assert!(self.read(left), "ended without {text:?}: {:?}", self.unseen);
        }
    }

    /// Presses keys, now and then again, until a text is shown.
    pub(crate) fn keys_until(&mut self, keys: &str, text: &str) {
        let began = Instant::now();
        while !self.unseen.contains(text) {
            assert!(
                began.elapsed() < DEADLINE,
                "no {text:?} in {:?}",
                self.unseen
            );
            self.keys(keys);
            let pressed = Instant::now();
            while pressed.elapsed() < Duration::from_secs(1) && !self.unseen.contains(text) {
                assert!(
                    self.read(Duration::from_millis(100)),
                    "ended: {:?}",
                    self.unseen
                );
            }
        }
        self.shows(text);
    }

    /// Reads what comes within a time; false at the end.
    pub(crate) fn read(&mut self, time: Duration) -> bool {
        let mut ready = [PollFd::new(&self.screen, PollFlags::IN)];
        let wait = Timespec::try_from(time).unwrap();
        if poll(&mut ready, Some(&wait)).unwrap() == 0 {
            return true;
        }
        let mut chunk = [0; 4096];
        let Ok(count) = self.screen.read(&mut chunk) else {
            return false;
        };
        self.unseen += &self.escapes.text(&chunk[..count]);
        count > 0
    }

    /// Its exit code.
    pub(crate) fn ends(&mut self) -> i32 {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(began.elapsed() < DEADLINE, "it goes on: {:?}", self.unseen);
            self.read(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        if test_kill_process(pid).is_ok() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn window(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
