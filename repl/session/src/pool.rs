//! Machines made ready before anybody asks for them, in the process that will use them.
//!
//! Three ways lead to a machine: one that rests with the template restored (bound) is let run; an empty one of the
//! right shape (spare) is filled; else it is made from nothing. The pool fills up again by a thread of its own. What
//! it holds belongs to one template; a machine of a template that was replaced meanwhile is thrown away.
//!
//! Emulation has nothing to hold: a QEMU runs as soon as it is restored.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vmrepl_machine::{Engine, Spare};

use crate::error::SessionError;
use crate::fresh::{Begin, Fresh, Order};
use crate::kind::EngineKind;
use crate::template::{open_store, resolve};

/// How many machines are kept ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSize {
    /// With the template restored, at rest. Each takes a process and the template's hot pages.
    pub bound: usize,
    /// Empty ones. Each takes a process.
    pub spare: usize,
}

/// The way that a session's machine was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It rested with the template restored.
    Bound,
    /// It was there, empty.
    Spare,
    /// From nothing.
    Nothing,
}

#[derive(Debug, Default)]
struct Held {
    bound: VecDeque<Fresh>,
    spare: VecDeque<Spare>,
    /// Filling failed: it is tried again when something was taken.
    is_failed: bool,
    is_closed: bool,
}

#[derive(Debug)]
struct Shared {
    order: Order,
    size: PoolSize,
    held: Mutex<Held>,
    changed: Condvar,
}

/// The pool. Dropping it ends what it holds.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    filler: Option<JoinHandle<()>>,
}

impl Pool {
    /// Begins to fill a pool. Nothing is waited for. A pool that cannot get a thread stays empty.
    pub(crate) fn start(order: Order, size: PoolSize) -> Self {
        let holds = matches!(order.engine, Engine::Kvm(_));
        let shared = Arc::new(Shared {
            order,
            size,
            held: Mutex::default(),
            changed: Condvar::new(),
        });
        let filling = Arc::clone(&shared);
        let filler = holds.then(|| {
            std::thread::Builder::new()
                .name("vmrepl-pool".to_owned())
                .spawn(move || filling.fill())
        });
        Self {
            shared,
            filler: filler.and_then(Result::ok),
        }
    }

    /// A machine of the template, by the shortest way that there is. It runs, unless it is a bound one.
    pub(crate) fn take(&self) -> Result<(Fresh, Way), SessionError> {
        if let Some(fresh) = self.shared.take_bound() {
            return Ok((fresh, Way::Bound));
        }
        let order = &self.shared.order;
        if let Some(spare) = self.shared.take_spare()
            && let Ok(mut fresh) = order.fill(Some(spare), Begin::Running)
            && fresh.machine.settle().is_ok()
        {
            return Ok((fresh, Way::Spare));
        }
        // Whatever was wrong with what was ready: from nothing it works, or says why not.
        let fresh = order.fill(None, Begin::Running)?;
        Ok((fresh, Way::Nothing))
    }

    /// Waits until it is full. False when it did not get there in time.
    pub(crate) fn wait_full(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut held = self.shared.lock();
        while self.shared.missing(&held).is_some() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || held.is_failed || self.filler.is_none() {
                return false;
            }
            held = self
                .shared
                .changed
                .wait_timeout(held, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
        if let Some(filler) = self.filler.take() {
            // It does not panic; if it did, there is nothing left to end.
            drop(filler.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missing(&self, held: &Held) -> Option<Way> {
        if held.bound.len() < self.size.bound {
            Some(Way::Bound)
        } else if held.spare.len() < self.size.spare {
            Some(Way::Spare)
        } else {
            None
        }
    }

    /// The filler's work: makes what is missing, one after the other, and never under the lock.
    fn fill(&self) {
        let mut held = self.lock();
        while !held.is_closed {
            let missing = self.missing(&held).filter(|_| !held.is_failed);
            let Some(way) = missing else {
                held = self
                    .changed
                    .wait(held)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(held);
            let made = if way == Way::Bound {
                let fresh = self.order.fill(None, Begin::AtRest);
                fresh.map(|fresh| self.lock().bound.push_back(fresh))
            } else {
                self.order
                    .spare()
                    .map(|spare| self.lock().spare.push_back(spare))
            };
            held = self.lock();
            held.is_failed = made.is_err();
            self.changed.notify_all();
        }
    }

    fn take_bound(&self) -> Option<Fresh> {
        // A name that cannot be resolved has no machine that is up to date.
        let current = open_store(&self.order.places)
            .and_then(|store| resolve(&store, &self.order.name, EngineKind::of(&self.order.engine)))
            .ok();
        loop {
            let mut fresh = self.taken(|held| held.bound.pop_front())?;
            if Some(fresh.snapshot) == current && fresh.machine.lost().is_none() {
                return Some(fresh);
            }
        }
    }

    fn take_spare(&self) -> Option<Spare> {
        loop {
            let mut spare = self.taken(|held| held.spare.pop_front())?;
            if spare.is_alive() {
                return Some(spare);
            }
        }
    }

    fn taken<T>(&self, take: impl FnOnce(&mut Held) -> Option<T>) -> Option<T> {
        let mut held = self.lock();
        let taken = take(&mut held);
        held.is_failed = false;
        drop(held);
        self.changed.notify_all();
        taken
    }
}
