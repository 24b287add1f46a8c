//! What a machine is restored from: a template, or a checkpoint with the template that it lies over.

use vmrepl_machine::Page;
use vmrepl_snapshots::{SnapshotId, Store};

use crate::error::SessionError;
use crate::kind::EngineKind;
use crate::places::Places;
use crate::template::{MACHINE, Template, TemplateName, open_store};

/// A checkpoint as a session names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) snapshot: SnapshotId,
    /// The last resume that its guest has seen.
    pub(crate) generation: u64,
}

/// All that a restore reads.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) template: Template,
    pub(crate) snapshot: SnapshotId,
    pub(crate) state: Vec<u8>,
    /// What lies over the template's memory, in page order.
    pub(crate) laid: Laid,
    pub(crate) generation: u64,
}

/// Pages with their places.
#[derive(Debug, Default)]
pub(crate) struct Laid {
    indices: Vec<u64>,
    pages: Vec<Page>,
}

impl Laid {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Page)> {
        self.indices.iter().copied().zip(&self.pages)
    }
}

impl Stored {
    /// Reads a template by its name, or a checkpoint.
    pub(crate) fn open(
        places: &Places,
        name: &TemplateName,
        kind: EngineKind,
        at: Option<&At>,
    ) -> Result<Self, SessionError> {
        let Some(at) = at else {
            let template = Template::open(places, name, kind)?;
            return Ok(Self {
                snapshot: template.id(),
                state: template.machine_state()?,
                laid: Laid::default(),
                generation: template.record.generation,
                template,
            });
        };
        Self::read(places, &open_store(places)?, name, at)
    }

    fn read(
        places: &Places,
        store: &Store,
        name: &TemplateName,
        at: &At,
    ) -> Result<Self, SessionError> {
        let failed = SessionError::Store;
        let chain = store.chain(&at.snapshot).map_err(failed)?;
        let template = Template::load(places, store, name.clone(), &chain.base().id())?;
        let pages = chain.sound_pages().map_err(failed)?;
        let mut laid = Laid {
            indices: Vec::with_capacity(pages.count()),
            pages: Vec::with_capacity(pages.count()),
        };
        pages
            .for_each(|index, page| {
                laid.indices.push(index);
                laid.pages.push(*page);
                Ok(())
            })
            .map_err(failed)?;
        Ok(Self {
            template,
            snapshot: at.snapshot,
            state: chain.tip().read_section(MACHINE).map_err(failed)?.bytes,
            laid,
            generation: at.generation,
        })
    }
}
