//! Collection: removing what nothing can reach.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime};

use crate::SnapshotId;
use crate::error::StoreError;
use crate::snapshot::FILE;
use crate::staging::is_held;
use crate::store::{Listed, Size, Store};

/// What a collection must keep, besides everything that a name or a live machine needs.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Snapshots that something outside of the store refers to.
    pub roots: Vec<SnapshotId>,
    /// A snapshot published or encoded within this time is kept: whoever made it may not have written down yet that it
    /// needs it.
    pub fresh: Duration,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The snapshots that went, layers before what they lay on.
    pub removed: Vec<SnapshotId>,
    /// What they took up.
    pub size: Size,
    /// How many stayed.
    pub kept: usize,
    /// Snapshots whose header cannot be read. They stay: what they hold may be worth a repair.
    pub damaged: Vec<SnapshotId>,
    /// Roots that are not in the store.
    pub missing: Vec<SnapshotId>,
    /// Leftovers of dead processes that were removed.
    pub swept: usize,
}

impl Store {
    /// Removes every snapshot that no root, no name, no live machine and no fresh snapshot needs.
    ///
    /// # Errors
    /// When the store cannot be read, something reachable is damaged, or a step fails.
    pub fn collect(&self, policy: &Policy) -> Result<Collected, StoreError> {
        let _lock = self.lock_to_remove()?;
        let listed: BTreeMap<SnapshotId, Listed> =
            self.list()?.into_iter().map(|one| (one.id, one)).collect();
        let mut collected = Collected::default();
        let mut roots: BTreeSet<SnapshotId> = policy.roots.iter().copied().collect();
        collected
            .missing
            .extend(roots.iter().filter(|id| !listed.contains_key(id)));
        roots.extend(self.all_names()?.into_iter().map(|named| named.id));
        for id in listed.keys() {
            if self.is_fresh(id, policy.fresh) || is_held(&self.snapshot_folder(id))? {
                roots.insert(*id);
            }
        }
        let reachable = reach(roots, &listed)?;
        let mut garbage: Vec<(u32, &Listed)> = Vec::new();
        for one in listed.values().filter(|one| !reachable.contains(&one.id)) {
            match &one.header {
                Ok(header) => garbage.push((header.depth(), one)),
                Err(_) => collected.damaged.push(one.id),
            }
        }
        // Deeper layers first: killed at any point, the store holds no layer without its parent.
        garbage.sort_by_key(|(depth, one)| (std::cmp::Reverse(*depth), one.id));
        let mut needed = BTreeSet::new();
        for (_, one) in garbage {
            if needed.contains(&one.id) {
                continue;
            }
            if !policy.dry_run {
                let Some(claim) = self.claim(&one.id)? else {
                    // A machine took hold of it since the look above: it stays, and so does all that it lies on.
                    needed.extend(reach(BTreeSet::from([one.id]), &listed)?);
                    continue;
                };
                self.unpublish(&claim)?;
            }
            collected.removed.push(one.id);
            collected.size += one.size;
        }
        collected.kept = listed.len() - collected.removed.len();
        if !policy.dry_run {
            collected.swept = self.sweep()? + self.sweep_pages()?;
        }
        Ok(collected)
    }

    /// Removes the pages that death left beside a layer when it came between two steps of its encoding. To be called
    /// under the lock for removal, so that nobody is between them now.
    fn sweep_pages(&self) -> Result<usize, StoreError> {
        let mut removed = 0;
        for snapshot in self.ids()?.iter().filter_map(|id| self.snapshot(id).ok()) {
            removed += usize::from(self.remove_other_pages(&snapshot)?);
        }
        Ok(removed)
    }

    /// By the time of the file and not of the header: an imported snapshot is as fresh as its import.
    fn is_fresh(&self, id: &SnapshotId, fresh: Duration) -> bool {
        let written =
            fs::metadata(self.snapshot_folder(id).join(FILE)).and_then(|data| data.modified());
        // Nobody knows when, or in the future: better kept.
        let Ok(Ok(age)) = written.map(|written| SystemTime::now().duration_since(written)) else {
            return true;
        };
        age < fresh
    }
}

/// The roots and all that lies under them.
fn reach(
    roots: BTreeSet<SnapshotId>,
    listed: &BTreeMap<SnapshotId, Listed>,
) -> Result<BTreeSet<SnapshotId>, StoreError> {
    let mut reachable = BTreeSet::new();
    for root in roots {
        let mut next = Some(root);
        while let Some(one) = next
            .and_then(|id| listed.get(&id))
            .filter(|one| reachable.insert(one.id))
        {
            let Ok(header) = &one.header else {
                // Its parents are unknown, so anything might be needed.
                return Err(StoreError::ReachableDamaged { id: one.id });
            };
            next = header.parent();
        }
    }
    Ok(reachable)
}
