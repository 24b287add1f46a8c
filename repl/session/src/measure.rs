//! What `bench` measures beyond a cell's way: a freeze and the way back, of a session that runs on.
//!
//! Ordering requirements: the guest is quiet before it is paused, and told that it is a copy after it went back.

use std::time::Instant;

use vmrepl_machine::Phases;
use vmrepl_wire::control::{ControlReply, ControlRequest};

use crate::cell::{Cell, Sink};
use crate::error::SessionError;
use crate::fresh::micros;
use crate::hygiene;
use crate::session::Session;

/// What one freeze and one way back took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turn {
    /// From the word to be quiet until the guest may run again: state and changed pages are taken.
    pub freeze_us: u64,
    /// Pages that the cell before had left.
    pub pages: u64,
    /// Bytes of them as they would be stored, raw.
    pub page_bytes: u64,
    /// Bytes of the state beside them.
    pub state_bytes: u64,
    /// From the pause until memory, processors and devices are as they were.
    pub roll_back_us: u64,
    /// Pages that were copied back.
    pub copied_back: u64,
}

impl Session {
    /// When the parts of the restore were done, where the engine tells it.
    #[must_use]
    pub fn phases(&self) -> Option<Phases> {
        self.machine.phases()
    }

    /// Freezes, runs one more cell, and goes back to the freeze. None under an engine that does not go back in
    /// place.
    ///
    /// # Errors
    /// When the machine is lost.
    pub fn measure_turn(
        &mut self,
        cell: &Cell,
        sink: &mut dyn Sink,
    ) -> Result<Option<Turn>, SessionError> {
        if self.phases().is_none() {
            return Ok(None);
        }
        let failed = |step| move |source| SessionError::Machine { step, source };
        let mut turn = Turn::default();
        let began = Instant::now();
        self.quiesce()?;
        let mut paused = self.machine.pause().map_err(failed("pause"))?;
        let frozen = paused.freeze(|_, _| {}).map_err(failed("freeze"))?;
        drop(paused);
        turn.freeze_us = micros(began);
        turn.pages = frozen.pages;
        turn.page_bytes = frozen.pages * vmrepl_machine::PAGE_BYTES as u64;
        turn.state_bytes = frozen.state.len() as u64;
        let Some(mark) = frozen.mark else {
            return Ok(None);
        };
        self.control.tell(&ControlRequest::Wake)?;
        self.run(cell, sink)?;
        self.quiesce()?;
        let began = Instant::now();
        let mut paused = self.machine.pause().map_err(failed("pause"))?;
        turn.copied_back = paused.roll_back(mark).map_err(failed("roll back"))?;
        turn.roll_back_us = micros(began);
        drop(paused);
        self.generation += 1;
        let resumed = hygiene::resumed(self.generation).map_err(|source| SessionError::Guest {
            step: "draw entropy for the guest",
            source,
        })?;
        let generation = self.generation;
        self.control.ask(&resumed, |reply| {
            matches!(reply, ControlReply::Resumed { generation: told } if told == generation)
                .then_some(())
        })?;
        Ok(Some(turn))
    }

    fn quiesce(&self) -> Result<(), SessionError> {
        self.control.ask(&ControlRequest::Quiesce, |reply| {
            matches!(reply, ControlReply::Quiesced { busy: false }).then_some(())
        })
    }
}
