//! What `bench` measures beyond a cell's way: a freeze and the way back, of a session that runs on.
//!
//! Ordering requirements: the guest is quiet before it is paused, and told that it is a copy after it went back.

use std::time::Instant;

use vmrepl_machine::Phases;
use vmrepl_snapshots::{Form, SnapshotId, Store};

use crate::cell::{Cell, Sink};
use crate::error::SessionError;
use crate::fresh::micros;
use crate::gathered::Gathered;
use crate::session::Session;
use crate::state;
use crate::template::open_store;

/// What one freeze and one way back took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turn {
    /// From the word to be quiet until the guest goes on: state and changed pages are taken.
    pub freeze_us: u64,
    /// Pages that the cell before had left.
    pub pages: u64,
    /// Bytes of the layer's files.
    pub stored_bytes: u64,
    /// What they took to encode, to write and to sync.
    pub publish_us: u64,
    /// From the pause until memory, processors and devices are as they were.
    pub roll_back_us: u64,
    /// Pages that were copied back.
    pub copied_back: u64,
}

/// The layers of a measurement, each over the one before, over the session's template. They are removed when this is
/// dropped.
#[derive(Debug)]
pub struct Layers {
    store: Store,
    /// The template, then the layers.
    chain: Vec<SnapshotId>,
}

impl Layers {
    /// Over what a session was restored from.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub fn over(session: &Session) -> Result<Self, SessionError> {
        Ok(Self {
            store: open_store(&session.order.places)?,
            chain: vec![session.restored],
        })
    }

    fn write(
        &mut self,
        state: &[u8],
        mut pages: Gathered,
        turn: &mut Turn,
    ) -> Result<(), SessionError> {
        let parent = self.chain.last().expect("the template is there");
        let failed = SessionError::Store;
        let began = Instant::now();
        let mut draft = self.store.layer_draft(parent).map_err(failed)?;
        state::add(&mut draft, state).map_err(failed)?;
        let id = draft
            .publish_from(Form::Encoded, |layer| {
                pages.for_each(|index, page| layer.push(index, page).map(drop))
            })
            .map_err(failed)?;
        turn.publish_us = micros(began);
        turn.stored_bytes = self.store.size(&id).map_err(failed)?.apparent_bytes;
        Ok(())
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        // What cannot be removed belongs to nobody, and is collected one day.
        for id in self.chain.drain(1..).rev() {
            self.store.remove(&id).ok();
        }
    }
}

impl Session {
    /// When the parts of the restore were done, where the engine tells it.
    #[must_use]
    pub fn phases(&self) -> Option<Phases> {
        self.machine.phases()
    }

    /// Freezes into a layer, runs one more cell, and goes back to the freeze. None under an engine that does not go back in
    /// place.
    ///
    /// # Errors
    /// When the machine is lost.
    pub fn measure_turn(
        &mut self,
        cell: &Cell,
        sink: &mut dyn Sink,
        layers: &mut Layers,
    ) -> Result<Option<Turn>, SessionError> {
        if self.phases().is_none() {
            return Ok(None);
        }
        let mut turn = Turn::default();
        let began = Instant::now();
        let frozen = self.freeze()?;
        turn.freeze_us = micros(began);
        turn.pages = frozen.pages.len() as u64;
        layers.write(&frozen.state, frozen.pages, &mut turn)?;
        let Some(mark) = frozen.mark else {
            return Ok(None);
        };
        self.run(cell, sink)?;
        let back = self.go_back(mark)?;
        (turn.copied_back, turn.roll_back_us) = (back.pages, back.took_us);
        Ok(Some(turn))
    }
}
