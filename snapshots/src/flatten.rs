//! Flattening: a base that holds what a chain held.

use crate::disk;
use crate::draft::OWN_SECTIONS;
use crate::error::StoreError;
use crate::limits::SUM_CHUNK_BYTES;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::sums::chunk_range;
use crate::{PAGE_BYTES, SnapshotId, memory, verify};

impl Store {
    /// Publishes a base with the memory and the sections of `id`, and without parents; `id` stays. Of the base below, the
    /// sections of these names come along where `id` has none.
    ///
    /// # Errors
    /// When the chain cannot be read or is damaged, or a step fails; then the store is as before, with the exception of
    /// [`crate::BaseDraft::publish`].
    pub fn flatten(&self, id: &SnapshotId, of_base: &[&str]) -> Result<SnapshotId, StoreError> {
        let chain = self.chain(id)?;
        let _hold = chain.tip().hold()?;
        // The new base gets checksums of its own: over damage, they would call it sound.
        chain.snapshots().iter().try_for_each(verify::check_bulk)?;
        let facts = chain.tip().header().facts.clone();
        let mut draft = self.base_draft(facts.memory_bytes)?;
        for entry in &chain.tip().header().sections {
            if !OWN_SECTIONS.contains(&entry.name.as_str()) {
                let section = chain.tip().read_section(&entry.name)?;
                draft.section(&entry.name, section.version, &section.bytes)?;
            }
        }
        for name in of_base {
            let has = |one: &Snapshot| one.header().section(name).is_some();
            if has(chain.base()) && !has(chain.tip()) {
                let section = chain.base().read_section(name)?;
                draft.section(name, section.version, &section.bytes)?;
            }
        }
        let path = draft.memory_path();
        let memory = self.disk().open_filled(&path)?;
        let from = disk::open(chain.memory_path())?;
        memory::for_each_data_chunk(
            &from,
            chain.memory_path(),
            facts.memory_bytes,
            |chunk, content| {
                let offset = chunk_range(chunk, facts.memory_bytes).0;
                memory::write_sparse(self.disk(), &memory, &path, content, offset)
            },
        )?;
        chain
            .pages()?
            .for_each_run(SUM_CHUNK_BYTES / PAGE_BYTES, |first, bytes| {
                self.disk()
                    .write_at(&memory, &path, bytes, first * PAGE_BYTES as u64)
            })?;
        draft.publish(&facts)
    }
}
