//! Ctrl-C is a request, then an order; SIGTERM and SIGHUP end the program.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGTERM};
use vmrepl_session::Interrupter;

use crate::out;

/// How long building may take to stop what it has started.
const LAST_WORK: Duration = Duration::from_secs(10);
/// How long a program that was interrupted may take to clear up before it is killed. Ctrl-C again does not wait for it.
pub(crate) const PROGRAM_GRACE: Duration = Duration::from_secs(5);
/// How long a run may take to end in its own way.
const LAST_WORDS: Duration = Duration::from_millis(1500);

/// What signals do, shared with their handlers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals(Arc<State>);

#[derive(Debug)]
struct State {
    /// Set at the first signal.
    stop: Arc<AtomicBool>,
    /// Says so at the same moment, for work that waits.
    heard: (Sender<()>, Receiver<()>),
    /// Presses of Ctrl-C since the last `rearm`.
    presses: AtomicUsize,
    /// The signal that ended the program, or 0.
    ended_by: AtomicI32,
    target: Mutex<Option<Target>>,
    /// Told when there is a target.
    aimed: Condvar,
    terminal: Mutex<Option<Termios>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            stop: Arc::default(),
            heard: bounded(1),
            presses: AtomicUsize::new(0),
            ended_by: AtomicI32::new(0),
            target: Mutex::default(),
            aimed: Condvar::new(),
            terminal: Mutex::default(),
        }
    }
}

/// Whose cell it is, and how patient its user.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) interrupter: Interrupter,
    pub(crate) manner: Manner,
    /// What each step against it waits.
    pub(crate) grace: Duration,
    /// The session has a name: without its machine it stands where it stood before the cell.
    pub(crate) is_kept: bool,
    /// Removed when the program must end at once.
    pub(crate) run_folder: PathBuf,
}

/// What follows when a cell does not stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// After the grace it is given up: nothing but this cell is lost.
    Hasty,
    /// It goes on until it is asked for more: a session would be lost.
    Patient,
}

impl Signals {
    /// Takes the signals of this process over, once.
    pub(crate) fn install() -> Result<Self> {
        static INSTALLED: OnceLock<Signals> = OnceLock::new();
        if let Some(signals) = INSTALLED.get() {
            return Ok(signals.clone());
        }
        let signals = Self::default();
        *lock(&signals.0.terminal) = tcgetattr(io::stdin()).ok();
        let handler = signals.clone();
        ctrlc::set_handler(move || handler.press()).context("could not take over Ctrl-C")?;
        let mut ends = signal_hook::iterator::Signals::new([SIGTERM, SIGHUP])
            .context("could not take over SIGTERM and SIGHUP")?;
        let handler = signals.clone();
        // Ends with the process.
        let _detached = thread::spawn(move || {
            if let Some(signal) = ends.forever().next() {
                handler.end(signal);
            }
        });
        Ok(INSTALLED.get_or_init(|| signals).clone())
    }

    /// Says whom signals are for from now on, and passes on the one that came before there was anybody.
    pub(crate) fn aim(&self, target: &Target) {
        *lock(&self.0.target) = Some(target.clone());
        self.0.aimed.notify_all();
        // Looked at behind the lock: a handler that found no target has noted its signal before that.
        let for_a_run = target.manner == Manner::Hasty && self.were_seen();
        if for_a_run || self.ended_by().is_some() {
            target.interrupter.give_up();
        }
    }

    /// Forgets the presses of the past, for a face that goes on after them.
    pub(crate) fn rearm(&self) {
        self.0.presses.store(0, Ordering::Relaxed);
        if self.ended_by().is_none() {
            self.0.stop.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn were_seen(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }

    /// Set at the first signal, for work that looks at it now and then.
    pub(crate) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.stop)
    }

    /// Says something at the first signal, also at one that came before.
    pub(crate) fn heard(&self) -> Receiver<()> {
        self.0.heard.1.clone()
    }

    /// The exit code of a program that SIGTERM or SIGHUP has ended.
    pub(crate) fn ended_by(&self) -> Option<u8> {
        match self.0.ended_by.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
        }
    }

    /// Gives the running cell up: nobody waits for it any more.
    pub(crate) fn give_up(&self) {
        if let Some(target) = self.target() {
            target.interrupter.give_up();
        }
    }

    fn target(&self) -> Option<Target> {
        lock(&self.0.target).clone()
    }

    fn tell(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
        // One that nobody has taken yet says the same.
        let (Ok(()) | Err(_)) = self.0.heard.0.try_send(());
    }

    fn press(&self) {
        let before = self.0.presses.fetch_add(1, Ordering::Relaxed);
        self.tell();
        let Some(target) = self.target() else { return };
        match (target.manner, before) {
            (Manner::Hasty, 0) => {
                if target.interrupter.interrupt() {
                    after_grace(target, |target| {
                        target.interrupter.kill_children();
                        target.interrupter.interrupt();
                        after_grace(target.clone(), |target| target.interrupter.give_up());
                    });
                } else {
                    // No cell runs yet: there is nothing to ask.
                    target.interrupter.give_up();
                }
            }
            (Manner::Patient, 0) => {
                target.interrupter.interrupt();
                after_grace(target, |_| {
                    out::note(
                        "the cell has not stopped; Ctrl-C again kills the processes that it started",
                    );
                });
            }
            (Manner::Patient, 1) => {
                target.interrupter.kill_children();
                target.interrupter.interrupt();
                after_grace(target, |target| {
                    out::note(if target.is_kept {
                        "the cell has not stopped; Ctrl-C again takes it back: the session then stands before it"
                    } else {
                        "the cell has not stopped; Ctrl-C again gives its machine up, with all names"
                    });
                });
            }
            _ => target.interrupter.give_up(),
        }
    }

    fn end(&self, signal: i32) {
        self.0.ended_by.store(signal, Ordering::Relaxed);
        self.tell();
        // A machine that is being restored becomes the target soon; a build never does.
        // The lock is not kept: a second signal and the run's own end want it.
        let target = self
            .0
            .aimed
            .wait_timeout_while(lock(&self.0.target), LAST_WORK, |target| target.is_none())
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .clone();
        if let Some(target) = &target {
            target.interrupter.give_up();
            if target.manner == Manner::Hasty {
                thread::sleep(LAST_WORDS);
            }
        }
        // Whatever still waits (a prompt, a write to a stopped reader) is not waited for.
        if let Some(before) = &*lock(&self.0.terminal) {
            // A terminal that is gone needs no repair.
            let (Ok(()) | Err(_)) = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
        if let Some(target) = target {
            // The next run sweeps what stays.
            drop(std::fs::remove_dir_all(target.run_folder));
        }
        std::process::exit(128 + signal);
    }
}

/// Acts when the cell that runs now still runs after the grace.
fn after_grace(target: Target, act: impl FnOnce(&Target) + Send + 'static) {
    let (cell, grace) = (target.interrupter.cell(), target.grace);
    // A thread of its own, so that the next press is heard meanwhile.
    let _detached = thread::spawn(move || {
        thread::sleep(grace);
        if cell.is_some() && target.interrupter.cell() == cell {
            act(&target);
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
