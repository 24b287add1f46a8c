//! Going back in place: the machine itself returns to a moment that it was frozen at, and none is restored.
//!
//! Ordering requirements:
//! 1. The guest is quiet before: what is on its way to it would reach a past that never asked.
//! 2. What it said after that moment is taken from the streams before it runs.

use std::time::Instant;

use vmrepl_machine::{Machine, Mark};
use vmrepl_wire::control::ControlReply;

use crate::error::SessionError;
use crate::fresh::micros;
use crate::hygiene;
use crate::limits::{GRACE, RESUME_DEADLINE};
use crate::session::Session;

/// The cells whose states the present machine can go back to, the oldest first. Empty under an engine that cannot.
#[derive(Debug, Default)]
pub(crate) struct Moments(Vec<(u32, Mark)>);

/// What going back took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WentBack {
    pub(crate) pages: u64,
    pub(crate) took_us: u64,
}

impl Moments {
    /// Those of a machine that was restored where the session stands.
    pub(crate) fn begin(machine: &Machine, position: u32) -> Self {
        Self(
            machine
                .beginning()
                .map(|mark| (position, mark))
                .into_iter()
                .collect(),
        )
    }

    /// The machine was frozen after a cell.
    pub(crate) fn push(&mut self, number: u32, mark: Option<Mark>) {
        self.0.extend(mark.map(|mark| (number, mark)));
    }

    /// The machine is not to go back.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    fn of(&self, number: u32) -> Option<Mark> {
        let found = self.0.iter().find(|(known, _)| *known == number);
        found.map(|(_, mark)| *mark)
    }

    /// The machine has gone back to a cell: later moments are no more.
    fn forget_after(&mut self, number: u32) {
        if let Some(place) = self.0.iter().position(|(known, _)| *known == number) {
            self.0.truncate(place + 1);
        }
    }
}

impl Session {
    /// Brings the machine to a cell that it was frozen after, if it can. Where not, it is of no use any more.
    pub(crate) fn went_back_to(&mut self, number: u32) -> bool {
        let known = self
            .lasting
            .as_ref()
            .and_then(|lasting| lasting.moments.of(number));
        let Some(mark) = known.filter(|_| self.is_alive()) else {
            return false;
        };
        let gone = self
            .await_resumed(Instant::now())
            .and_then(|()| self.go_back(mark));
        if let Some(lasting) = &mut self.lasting {
            match gone {
                Ok(_) => lasting.moments.forget_after(number),
                Err(_) => lasting.moments.clear(),
            }
        }
        gone.is_ok()
    }

    /// Brings the machine to a moment, and tells the guest that it is a copy.
    pub(crate) fn go_back(&mut self, mark: Mark) -> Result<WentBack, SessionError> {
        let failed = |step| move |source| SessionError::Machine { step, source };
        self.control.quiesce_within(GRACE)?;
        let began = Instant::now();
        let mut paused = self.machine.pause().map_err(failed("pause"))?;
        let pages = paused.roll_back(mark).map_err(failed("roll back"))?;
        let took_us = micros(began);
        self.cells.forget()?;
        self.control.forget()?;
        drop(paused);
        self.generation += 1;
        let resumed = hygiene::resumed(self.generation, self.order.rng).map_err(|source| {
            SessionError::Guest {
                step: "draw entropy for the guest",
                source,
            }
        })?;
        self.control.tell(&resumed)?;
        let generation = self.generation;
        let acknowledged = self.control.wait(RESUME_DEADLINE, |reply| {
            matches!(reply, ControlReply::Resumed { generation: told } if told == generation)
                .then_some(())
        })?;
        if acknowledged.is_none() {
            return Err(self.slow_to_resume());
        }
        Ok(WentBack { pages, took_us })
    }
}
