//! Care of the store: what sessions take up, what they need, and what may go.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vmrepl_history::{Checkpoint, History, SessionRow};
use vmrepl_snapshots::{Collected, Policy, SnapshotId, Store};

use crate::book::{Book, open_history};
use crate::error::SessionError;
use crate::name::SessionName;
use crate::places::Places;
use crate::state;
use crate::template::open_store;

/// Removes every snapshot that no template, no session and no live machine needs, and that is older than `fresh`. What stays
/// as it was written, for want of room or time, is made smaller.
///
/// # Errors
/// When the record or the store cannot be read, or a step fails.
pub fn collect(places: &Places, fresh: Duration, dry_run: bool) -> Result<Collected, SessionError> {
    let roots = open_history(places)?
        .snapshots()
        .map_err(SessionError::History)?;
    let policy = Policy {
        roots: roots.into_iter().map(SnapshotId::from_bytes).collect(),
        fresh,
        dry_run,
    };
    let store = open_store(places)?;
    let collected = store.collect(&policy).map_err(SessionError::Store)?;
    if !dry_run {
        for id in store.ids().map_err(SessionError::Store)? {
            // What cannot be read is told by `verify`.
            store.encode(&id).ok();
        }
    }
    Ok(collected)
}

/// What a checkpoint takes of disk, without those that it lies over; nothing where it is not to be found.
#[must_use]
pub fn checkpoint_bytes(places: &Places, checkpoint: &Checkpoint) -> Option<u64> {
    let id = SnapshotId::from_bytes(checkpoint.snapshot);
    let size = open_store(places).ok()?.size(&id).ok()?;
    Some(size.disk_bytes)
}

/// What the checkpoints of each session take up on the disk, in bytes: those that it shares with others count for each of
/// them, templates for none.
///
/// # Errors
/// When the record or the store cannot be read.
pub fn session_sizes(places: &Places) -> Result<BTreeMap<String, u64>, SessionError> {
    let history = open_history(places)?;
    let sizes = Sizes::new(open_store(places)?);
    let sessions = history.sessions().map_err(SessionError::History)?;
    let sized = sessions.into_iter().map(|session| {
        let states = states_of(&history, &session, |_| true)?;
        let bytes = sizes.together(std::iter::once(&states))?;
        Ok((session.name, bytes))
    });
    sized.collect()
}

/// The sessions that can go to a state: those that grow on a template, among others.
pub(crate) fn needed_by(places: &Places, id: &SnapshotId) -> Result<Vec<String>, SessionError> {
    open_history(places)?
        .sessions_with(id.as_bytes())
        .map_err(SessionError::History)
}

/// What was given up to keep within a budget.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thinned {
    /// Sessions with the number of their cells that nobody can go to any more.
    pub sessions: BTreeMap<String, usize>,
    /// What checkpoints take up then, in bytes.
    pub bytes: u64,
}

/// Gives checkpoints up until all of them together take no more than `budget` bytes: first those of branches that no
/// session stands on, then those on the way to where one stands, of sessions that were used longest ago first. Where a
/// session stands is kept, and so is all of a pinned one and of one that another process has. What the cells said stays in
/// the record. [`collect`] then frees the room.
///
/// # Errors
/// When the record or the store cannot be read or written.
pub fn thin(places: &Places, budget: u64, dry_run: bool) -> Result<Thinned, SessionError> {
    let mut history = open_history(places)?;
    let sizes = Sizes::new(open_store(places)?);
    let mut sessions = history.sessions().map_err(SessionError::History)?;
    sessions.reverse();
    let mut states: BTreeMap<String, Vec<SnapshotId>> = BTreeMap::new();
    for session in &sessions {
        states.insert(
            session.name.clone(),
            states_of(&history, session, |_| true)?,
        );
    }
    let mut thinned = Thinned {
        bytes: sizes.together(states.values())?,
        ..Thinned::default()
    };
    let mut lost: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for branches_only in [true, false] {
        for session in sessions.iter().filter(|session| !session.is_pinned) {
            if thinned.bytes <= budget {
                break;
            }
            let name = SessionName::new(&session.name)?;
            // One that runs is left alone.
            let Ok(_book) = Book::open(places, &name, Duration::ZERO) else {
                continue;
            };
            let way = history
                .way_to(session.id, session.position)
                .map_err(SessionError::History)?;
            let stays = |number: u32| {
                number == session.position || (branches_only && way.contains(&number))
            };
            let cells = history.cells(session.id).map_err(SessionError::History)?;
            let goes: Vec<u32> = cells
                .iter()
                .filter(|cell| cell.checkpoint.is_some() && !stays(cell.number))
                .map(|cell| cell.number)
                .collect();
            if goes.is_empty() {
                continue;
            }
            states.insert(session.name.clone(), states_of(&history, session, stays)?);
            thinned.bytes = sizes.together(states.values())?;
            if !dry_run {
                history
                    .forget_states(session.id, &goes)
                    .map_err(SessionError::History)?;
            }
            // A dry run sees those of the branches again.
            lost.entry(session.name.clone()).or_default().extend(goes);
        }
    }
    thinned.sessions = lost
        .into_iter()
        .map(|(name, cells)| (name, cells.len()))
        .collect();
    Ok(thinned)
}

/// The states that a session can go to, of these cells.
fn states_of(
    history: &History,
    session: &SessionRow,
    of: impl Fn(u32) -> bool,
) -> Result<Vec<SnapshotId>, SessionError> {
    let cells = history.cells(session.id).map_err(SessionError::History)?;
    Ok(cells
        .iter()
        .filter(|cell| of(cell.number))
        .filter_map(|cell| cell.checkpoint)
        .map(|checkpoint| SnapshotId::from_bytes(checkpoint.snapshot))
        .collect())
}

/// What a checkpoint lies over, and what it takes up in bytes.
type Weighed = (Option<SnapshotId>, u64);

/// What checkpoints take up, looked at once each.
struct Sizes {
    store: Store,
    known: RefCell<BTreeMap<SnapshotId, Option<Weighed>>>,
}

impl Sizes {
    fn new(store: Store) -> Self {
        Self {
            store,
            known: RefCell::default(),
        }
    }

    /// What all these states and the layers below them take up.
    fn together<'a>(
        &self,
        states: impl Iterator<Item = &'a Vec<SnapshotId>>,
    ) -> Result<u64, SessionError> {
        let mut seen = BTreeSet::new();
        let mut total = 0;
        for state in states.flatten() {
            let mut next = Some(*state);
            while let Some(id) = next
                && let Some((parent, bytes)) = self.look(id)?
                && seen.insert(id)
            {
                total += bytes;
                next = parent;
            }
        }
        Ok(total)
    }

    /// What a checkpoint lies over and takes up; none for a template, and for one that is gone: a restore says so.
    fn look(&self, id: SnapshotId) -> Result<Option<Weighed>, SessionError> {
        if let Some(known) = self.known.borrow().get(&id) {
            return Ok(*known);
        }
        let found = match self.store.snapshot(&id) {
            Ok(snapshot) if state::is_of_a_cell(&snapshot) => {
                let size = self.store.size(&id).map_err(SessionError::Store)?;
                Some((snapshot.header().parent(), size.disk_bytes))
            }
            _ => None,
        };
        self.known.borrow_mut().insert(id, found);
        Ok(found)
    }
}
