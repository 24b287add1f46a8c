//! The pages of a freeze until they are stored: in memory as long as they are few, then in a file of the store.

use vmrepl_machine::Page;
use vmrepl_snapshots::{Scratch, Store, StoreError};

use crate::limits::HELD_PAGES_MAX;

/// Pages in rising order.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Where there is room for those that are too many; nowhere, all stay in memory.
    store: Option<Store>,
    held: Vec<(u64, Box<Page>)>,
    rest: Option<Scratch>,
    /// There was no room for them.
    failure: Option<StoreError>,
}

impl Gathered {
    pub(crate) fn new(store: Option<Store>) -> Self {
        Self {
            store,
            ..Self::default()
        }
    }

    /// Adds a page. Whether there was room for it is told when they are read: the guest, which stands still, goes on first.
    pub(crate) fn push(&mut self, index: u64, page: &Page) {
        if self.failure.is_some() {
            return;
        }
        match &self.store {
            Some(store) if self.held.len() >= HELD_PAGES_MAX => {
                let store = store.clone();
                let pushed = match &mut self.rest {
                    Some(rest) => rest.push(index, page),
                    none => store
                        .scratch()
                        .and_then(|rest| none.insert(rest).push(index, page)),
                };
                self.failure = pushed.err();
            }
            _ => self.held.push((index, Box::new(*page))),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len() + self.rest.as_ref().map_or(0, Scratch::count)
    }

    /// Calls `each` with every page, and fails if one of them is missing.
    pub(crate) fn for_each<E: From<StoreError>>(
        &mut self,
        mut each: impl FnMut(u64, &Page) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(failure) = self.failure.take() {
            return Err(failure.into());
        }
        for (index, page) in &self.held {
            each(*index, page)?;
        }
        match &mut self.rest {
            Some(rest) => rest.for_each(each),
            None => Ok(()),
        }
    }
}
