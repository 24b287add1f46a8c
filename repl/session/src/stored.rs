//! What a machine is restored from: a template, or a checkpoint with the template that it lies over.

use vmrepl_machine::Page;
use vmrepl_snapshots::{Chain, SnapshotId};

use crate::error::SessionError;
use crate::kind::EngineKind;
use crate::places::Places;
use crate::state;
use crate::template::{Template, TemplateName, open_store};

/// A checkpoint as a session names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) snapshot: SnapshotId,
    /// The last resume that its guest has seen.
    pub(crate) generation: u64,
}

/// What is to be restored: found, and checked to fit together.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) template: Template,
    pub(crate) snapshot: SnapshotId,
    pub(crate) generation: u64,
    /// A checkpoint, with all that it lies over.
    chain: Option<Chain>,
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
    /// Finds a template by its name, or a checkpoint.
    pub(crate) fn find(
        places: &Places,
        name: &TemplateName,
        kind: EngineKind,
        at: Option<&At>,
    ) -> Result<Self, SessionError> {
        let Some(at) = at else {
            let template = Template::open(places, name, kind)?;
            return Ok(Self {
                snapshot: template.id(),
                generation: template.record.generation,
                template,
                chain: None,
            });
        };
        let store = open_store(places)?;
        let chain = store.chain(&at.snapshot).map_err(SessionError::Store)?;
        Ok(Self {
            template: Template::load(places, &store, name.clone(), &chain.base().id())?,
            snapshot: at.snapshot,
            generation: at.generation,
            chain: Some(chain),
        })
    }

    /// The machine's state, and what lies over the template's memory.
    pub(crate) fn read(&self) -> Result<(Vec<u8>, Laid), SessionError> {
        let failed = SessionError::Store;
        let Some(chain) = &self.chain else {
            return Ok((self.template.machine_state()?, Laid::default()));
        };
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
        let state = state::read(chain.tip())?;
        Ok((state, laid))
    }
}
