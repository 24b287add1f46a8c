//! A live session's state as a layer over the checkpoint before.
//!
//! Ordering requirements:
//! 1. The guest is quiet before it is paused: bytes on their way are in no snapshot.
//! 2. A layer is published before the record names it.

use std::collections::BTreeMap;

use vmrepl_history::{Checkpoint, History, Outcome, SessionId};
use vmrepl_machine::Mark;
use vmrepl_snapshots::{Form, SnapshotId, Store, StoreError};
use vmrepl_wire::control::ControlRequest;

use crate::error::SessionError;
use crate::gathered::Gathered;
use crate::limits::{LAID_PAGES_MAX, LAYERS_MAX};
use crate::session::Session;
use crate::standing::Lasting;
use crate::state;
use crate::template::{HOT, RECORD};

/// A machine's state between two cells, not stored yet.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) state: Vec<u8>,
    /// At least all that changed since the checkpoint before.
    pub(crate) pages: Gathered,
    pub(crate) generation: u64,
    /// Resident memory of the interpreter.
    pub(crate) memory_bytes: Option<u64>,
    /// By which the machine can come back here in place, where its engine does that.
    pub(crate) mark: Option<Mark>,
}

impl Session {
    /// Freezes the machine, which goes on at once.
    ///
    /// Streams to other ports may be under way: what they carry waits on both sides, and is lost in whoever is restored from
    /// here, whose streams all end.
    pub(crate) fn freeze(&mut self) -> Result<Frozen, SessionError> {
        let failed = |step| move |source| SessionError::Machine { step, source };
        self.machine.hold().map_err(failed("hold the streams of"))?;
        let frozen = self.freeze_held();
        self.machine.go();
        frozen
    }

    fn freeze_held(&mut self) -> Result<Frozen, SessionError> {
        let failed = |step| move |source| SessionError::Machine { step, source };
        let memory_bytes = self.control.quiesce()?;
        let mut paused = self.machine.pause().map_err(failed("pause"))?;
        let store = self.lasting.as_ref().map(Lasting::store);
        let mut pages = Gathered::new(store.cloned());
        let frozen = paused
            .freeze(|index, page| pages.push(index, page))
            .map_err(failed("freeze"))?;
        drop(paused);
        self.control.tell(&ControlRequest::Wake)?;
        Ok(Frozen {
            state: frozen.state,
            pages,
            generation: self.generation,
            memory_bytes,
            mark: frozen.mark,
        })
    }
}

impl Frozen {
    /// Stores what differs from the checkpoint before.
    pub(crate) fn publish(
        mut self,
        store: &Store,
        before: &SnapshotId,
    ) -> Result<Published, StoreError> {
        let draft = store.layer_draft(before)?;
        let is_long = draft.parent_depth() as usize >= LAYERS_MAX;
        if is_long || self.pages.len() > LAID_PAGES_MAX {
            drop(draft);
            return self.publish_anew(store, before, is_long);
        }
        let mut draft = draft;
        state::add(&mut draft, &self.state)?;
        let (mut changed, mut below) = (0, 0);
        let id = draft.publish_from(Form::Encoded, |layer| {
            below = layer.laid_below();
            self.pages.for_each(|index, page| {
                changed += usize::from(layer.push(index, page)?);
                Ok::<_, StoreError>(())
            })
        })?;
        Ok(self.published(id, changed, below + changed))
    }

    /// The same for a way that is long, over the base itself and with all that differs from that, so that a restore reads a
    /// bounded number of layers however many cells there were; and for much that changed, which is not worth the time that
    /// making it smaller takes: it becomes a base.
    fn publish_anew(
        mut self,
        store: &Store,
        before: &SnapshotId,
        is_long: bool,
    ) -> Result<Published, StoreError> {
        let chain = store.chain(before)?;
        let laid = chain.pages()?;
        let mut below = BTreeMap::new();
        if is_long {
            laid.for_each(|index, page| {
                below.insert(index, Box::new(*page));
                Ok::<(), StoreError>(())
            })?;
        }
        let parent = if is_long { chain.base().id() } else { *before };
        let mut draft = store.layer_draft(&parent)?;
        state::add(&mut draft, &self.state)?;
        let form = match self.pages.len() > LAID_PAGES_MAX {
            true => Form::Plain,
            false => Form::Encoded,
        };
        let mut below = below.into_iter().peekable();
        let (mut changed, mut kept) = (0, 0);
        let id = draft.publish_from(form, |layer| {
            self.pages.for_each(|index, page| {
                while let Some((index, page)) = below.next_if(|(laid, _)| *laid < index) {
                    kept += 1;
                    layer.push(index, &page)?;
                }
                if chain.read_page(&laid, index)? != *page {
                    changed += 1;
                    below.next_if(|(laid, _)| *laid == index);
                    layer.push(index, page)?;
                }
                Ok(())
            })?;
            below.try_for_each(|(index, page)| {
                kept += 1;
                layer.push(index, &page).map(drop)
            })
        })?;
        let laid_pages = if is_long { kept } else { laid.count() } + changed;
        Ok(self.published(id, changed, laid_pages))
    }

    fn published(&self, id: SnapshotId, changed: usize, laid_pages: usize) -> Published {
        Published {
            checkpoint: Checkpoint {
                snapshot: *id.as_bytes(),
                generation: self.generation,
                pages: changed as u64,
                memory_bytes: self.memory_bytes,
            },
            laid_pages,
        }
    }
}

/// A stored state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    pub(crate) checkpoint: Checkpoint,
    /// At most so many pages lie over the base then.
    laid_pages: usize,
}

/// What was written down of a cell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) checkpoint: Checkpoint,
    /// The machine has so much of its own by now that one which is restored from here is better.
    pub(crate) is_heavy: bool,
}

/// A cell that has ended and is not written down yet.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) session: SessionId,
    pub(crate) number: u32,
    pub(crate) outcome: Outcome,
    pub(crate) frozen: Frozen,
    /// The checkpoint that it ran after.
    pub(crate) before: SnapshotId,
    pub(crate) manner: Manner,
}

/// How the record is to know of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The session stands there from now on.
    Here,
    /// It stays where it is.
    Beside,
    /// It has been standing there, and its end is written down already.
    Late,
}

impl Ended {
    /// Writes down how the cell ended, and that nothing of it is left.
    pub(crate) fn give_up(self, history: &mut History) -> Result<(), SessionError> {
        if self.manner == Manner::Late {
            return Ok(());
        }
        history
            .end(self.session, self.number, &self.outcome, None)
            .map_err(SessionError::History)
    }

    /// Stores the checkpoint, then writes down how the cell ended. Where the first fails the second says so: the cell
    /// then has no checkpoint, and the session stands where it stood.
    pub(crate) fn write_down(
        self,
        store: &Store,
        history: &mut History,
    ) -> Result<Written, SessionError> {
        let own_pages = self.frozen.pages.len();
        let published = self.frozen.publish(store, &self.before);
        let (session, number) = (self.session, self.number);
        let left = published.as_ref().ok().map(|left| &left.checkpoint);
        let noted = match (self.manner, left) {
            (Manner::Here, left) => history.end(session, number, &self.outcome, left),
            (Manner::Beside, left) => history.end_beside(session, number, &self.outcome, left),
            (Manner::Late, Some(left)) => history.store(session, number, left),
            (Manner::Late, None) => Ok(()),
        };
        // Where both fail, the first is why.
        let published = published.map_err(SessionError::Store)?;
        noted.map_err(SessionError::History)?;
        let is_large = published.laid_pages > LAID_PAGES_MAX;
        // Where there is no room for a base, the layer does as well.
        let flattened = is_large
            .then(|| flatten(store, history, (session, number), published.checkpoint).ok())
            .flatten();
        Ok(Written {
            checkpoint: flattened.unwrap_or(published.checkpoint),
            is_heavy: flattened.is_some() || own_pages > LAID_PAGES_MAX,
        })
    }
}

/// Makes a checkpoint a base of its own, by which the record knows it from then on.
fn flatten(
    store: &Store,
    history: &mut History,
    cell: (SessionId, u32),
    checkpoint: Checkpoint,
) -> Result<Checkpoint, SessionError> {
    let layer = SnapshotId::from_bytes(checkpoint.snapshot);
    let base = store
        .flatten(&layer, &[RECORD, HOT])
        .map_err(SessionError::Store)?;
    let flat = Checkpoint {
        snapshot: *base.as_bytes(),
        ..checkpoint
    };
    history
        .store(cell.0, cell.1, &flat)
        .map_err(SessionError::History)?;
    // A session that was forked meanwhile may know it by the layer. Otherwise a collection takes what stays here.
    if history
        .sessions_with(layer.as_bytes())
        .is_ok_and(|sessions| sessions.is_empty())
    {
        store.remove(&layer).ok();
    }
    Ok(flat)
}
