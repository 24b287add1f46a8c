//! What the running cell may take, and the steps against one that takes more: it is interrupted, then what it has
//! started is killed, then the runner. A second lies between two steps.

use std::time::{Duration, Instant};

use vmrepl_wire::cell::CellLimits;

use crate::limits;

/// What is due against a cell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Interrupt(Over),
    KillChildren,
    KillRunner,
}

/// A limit that a cell went over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) status: &'static str,
    pub(crate) message: String,
}

/// The limits of one cell and what it has taken.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) limits: CellLimits,
    written_bytes: u64,
    /// What the runner and its processes had used when the cell was first looked at.
    cpu_before: Option<Duration>,
    look_at: Option<Instant>,
    over: Option<Over>,
    steps: u32,
    step_at: Option<Instant>,
}

impl Bounds {
    pub(crate) fn new(limits: CellLimits) -> Self {
        Self {
            look_at: limits.cpu_ms.map(|_| Instant::now()),
            limits,
            ..Self::default()
        }
    }

    /// The cell has written so much more.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written_bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        if let Some(most) = self.limits.written_bytes
            && self.written_bytes > most
        {
            self.exceed("output_exceeded", || {
                format!("the cell wrote more than {most} bytes")
            });
        }
    }

    fn exceed(&mut self, status: &'static str, message: impl FnOnce() -> String) {
        if self.over.is_none() {
            self.step_at = Some(Instant::now());
            self.over = Some(Over {
                status,
                message: message(),
            });
        }
    }

    /// The limit for which the runner was killed.
    pub(crate) fn verdict(&self) -> Option<&Over> {
        self.over.as_ref().filter(|_| self.steps > 2)
    }

    /// When [`due`](Self::due) has something to do.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        if self.over.is_some() {
            self.step_at
        } else {
            self.look_at
        }
    }

    /// The next step, when its time has come. `used` tells the processor time of the runner and its processes.
    pub(crate) fn due(&mut self, used: impl FnOnce() -> Option<Duration>) -> Option<Step> {
        if self.over.is_none() && self.look_at.is_some_and(|at| at <= Instant::now()) {
            self.look(used());
        }
        // Behind the look, which may have made a step due.
        let now = Instant::now();
        let over = self.over.as_ref()?;
        if self.step_at.is_none_or(|at| at > now) {
            return None;
        }
        self.steps += 1;
        self.step_at = Some(now + limits::STEP).filter(|_| self.steps < 3);
        Some(match self.steps {
            1 => Step::Interrupt(over.clone()),
            2 => Step::KillChildren,
            _ => Step::KillRunner,
        })
    }

    fn look(&mut self, used: Option<Duration>) {
        let (Some(most_ms), Some(used)) = (self.limits.cpu_ms, used) else {
            self.look_at = None;
            return;
        };
        let before = *self.cpu_before.get_or_insert(used);
        let left = Duration::from_millis(most_ms).saturating_sub(used.saturating_sub(before));
        if left.is_zero() {
            self.exceed("timeout", || {
                format!("the cell used more than {most_ms} ms of processor time")
            });
        }
        // Several processors may use it up sooner: it is looked at again before.
        self.look_at = Some(Instant::now() + (left / 2).max(limits::CPU_LOOK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_above_the_limit_is_answered_step_by_step() {
        let mut bounds = Bounds::new(CellLimits {
            written_bytes: Some(10),
            ..CellLimits::default()
        });
        bounds.wrote(10);
        assert_eq!(bounds.due(|| None), None);
        assert_eq!(bounds.wake_at(), None);
        bounds.wrote(1);
        let Some(Step::Interrupt(over)) = bounds.due(|| None) else {
            panic!("it is over its limit");
        };
        assert_eq!(over.status, "output_exceeded");
        assert_eq!(over.message, "the cell wrote more than 10 bytes");
        assert_eq!(bounds.due(|| None), None);
        assert_eq!(bounds.verdict(), None);
        bounds.step_at = Some(Instant::now());
        assert_eq!(bounds.due(|| None), Some(Step::KillChildren));
        assert_eq!(bounds.due(|| None), None);
        bounds.step_at = Some(Instant::now());
        assert_eq!(bounds.due(|| None), Some(Step::KillRunner));
        assert_eq!(bounds.verdict(), Some(&over));
        assert_eq!(bounds.wake_at(), None);
    }

    #[test]
    fn processor_time_counts_from_the_cells_start() {
        let mut bounds = Bounds::new(CellLimits {
            cpu_ms: Some(100),
            ..CellLimits::default()
        });
        let hour = Duration::from_secs(3600);
        assert_eq!(bounds.due(|| Some(hour)), None);
        assert!(bounds.wake_at().is_some_and(|at| at > Instant::now()));
        bounds.look_at = Some(Instant::now());
        assert_eq!(bounds.due(|| Some(hour + Duration::from_millis(99))), None);
        bounds.look_at = Some(Instant::now());
        let step = bounds.due(|| Some(hour + Duration::from_millis(100)));
        assert!(matches!(step, Some(Step::Interrupt(over)) if over.status == "timeout"));
    }

    #[test]
    fn where_nobody_counts_processor_time_it_is_not_looked_at() {
        let mut bounds = Bounds::new(CellLimits {
            cpu_ms: Some(1),
            ..CellLimits::default()
        });
        assert_eq!(bounds.due(|| None), None);
        assert_eq!(bounds.wake_at(), None);
    }
}
