//! Stopping: a running cell from any thread, a wait that nobody wants any more, a cell out of time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vmrepl_wire::cell::StoppedBy;
use vmrepl_wire::control::{ControlRequest, KillTarget};

use crate::error::SessionError;
use crate::exec::ExecInputs;
use crate::guest::Control;
use crate::limits::{GRACE, LOOK_EVERY};

/// Which cell runs, and whether anybody still wants the machine; shared with those who may stop it.
#[derive(Debug, Default)]
pub(crate) struct Running {
    runs: Mutex<Option<Runs>>,
    /// Set when the machine is to be given up; never taken back.
    given_up: AtomicBool,
    /// What the running cell has started was killed.
    has_killed: AtomicBool,
    /// The running cell was asked to stop.
    has_interrupted: AtomicBool,
}

/// What runs, by the name of its cell.
#[derive(Debug, Clone)]
struct Runs {
    cell: String,
    /// It is a program and none of the interpreter's cells.
    program: Option<ExecInputs>,
}

impl Running {
    /// Names the cell that runs; `None` at its end.
    pub(crate) fn set(&self, cell: Option<String>) {
        self.begin(cell.map(|cell| Runs {
            cell,
            program: None,
        }));
    }

    /// Names the cell that runs as a program of its own.
    pub(crate) fn set_program(&self, cell: &str, program: ExecInputs) {
        self.begin(Some(Runs {
            cell: cell.to_owned(),
            program: Some(program),
        }));
    }

    fn begin(&self, runs: Option<Runs>) {
        self.has_killed.store(false, Ordering::Relaxed);
        self.has_interrupted.store(false, Ordering::Relaxed);
        *self.lock() = runs;
    }

    pub(crate) fn was_interrupted(&self) -> bool {
        self.has_interrupted.load(Ordering::Relaxed)
    }

    /// Notes that what the cell has started is killed.
    fn kills(&self) {
        self.has_killed.store(true, Ordering::Relaxed);
    }

    /// The highest step that was taken against a cell which then ended by itself.
    pub(crate) fn highest_step(&self) -> StoppedBy {
        if self.has_killed.load(Ordering::Relaxed) {
            StoppedBy::Kill
        } else {
            StoppedBy::Interrupt
        }
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Fails when the machine was given up.
    pub(crate) fn check(&self) -> Result<(), SessionError> {
        if self.is_given_up() {
            return Err(SessionError::Stopped);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Runs>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops the running cell from another thread.
#[derive(Debug, Clone)]
pub struct Interrupter {
    control: Control,
    running: Arc<Running>,
}

impl Interrupter {
    pub(crate) fn new(control: Control, running: Arc<Running>) -> Self {
        Self { control, running }
    }

    /// The cell that runs now: a name that no other cell of the session has.
    #[must_use]
    pub fn cell(&self) -> Option<String> {
        self.running.lock().as_ref().map(|runs| runs.cell.clone())
    }

    /// Asks the running cell to stop, as Ctrl-C would. False when none runs.
    pub fn interrupt(&self) -> bool {
        self.running.has_interrupted.store(true, Ordering::Relaxed);
        self.with_cell(Signal::INT, |cell| ControlRequest::Interrupt { cell })
    }

    /// Kills the processes that the running cell has started. False when none runs.
    pub fn kill_children(&self) -> bool {
        self.running.kills();
        self.with_cell(Signal::KILL, |cell| ControlRequest::Kill {
            cell: Some(cell),
            target: KillTarget::Children,
        })
    }

    /// Gives the machine up, whatever it does: every wait for it ends.
    pub fn give_up(&self) {
        self.running.give_up();
    }

    /// Asks the agent about a cell, and signals a program.
    fn with_cell(&self, signal: Signal, request: impl FnOnce(String) -> ControlRequest) -> bool {
        // Not under the lock: a program that reads nothing would keep it.
        let runs = self.running.lock().clone();
        match runs {
            None => false,
            Some(Runs {
                program: Some(program),
                ..
            }) => program.signal_or_end(signal.as_raw()),
            Some(Runs { cell, .. }) => self.control.tell(&request(cell)).is_ok(),
        }
    }
}

/// The host's part of a timeout: the runner stops the cell by itself; when it does not, the agent interrupts it after
/// the grace and kills what it has started, and after another grace the cell is given up.
#[derive(Debug)]
pub(crate) struct Ladder {
    at: Option<Instant>,
    killed: bool,
}

impl Ladder {
    pub(crate) fn new(timeout: Option<Duration>, began: Instant) -> Self {
        Self {
            at: timeout.and_then(|time| began.checked_add(time + GRACE)),
            killed: false,
        }
    }

    /// When to look again: at the next step, or soon, to see whether somebody gave the cell up.
    pub(crate) fn deadline(&self) -> Instant {
        let soon = Instant::now() + LOOK_EVERY;
        self.at.map_or(soon, |at| at.min(soon))
    }

    /// Whether a step was taken.
    pub(crate) fn has_acted(&self) -> bool {
        self.killed
    }

    /// Takes the next step if it is due. True when the cell is to be given up.
    pub(crate) fn climb(
        &mut self,
        control: &Control,
        running: &Running,
        cell: &str,
    ) -> Result<bool, SessionError> {
        if self.at.is_none_or(|at| at > Instant::now()) {
            return Ok(false);
        }
        if self.killed {
            return Ok(true);
        }
        self.killed = true;
        running.kills();
        self.at = Some(Instant::now() + GRACE);
        control.tell(&ControlRequest::Kill {
            cell: Some(cell.to_owned()),
            target: KillTarget::Children,
        })?;
        control.tell(&ControlRequest::Interrupt {
            cell: cell.to_owned(),
        })?;
        Ok(false)
    }
}
