//! Ctrl-C and SIGTERM: first a request, then an order.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use vmrepl_session::{GRACE, Interrupter};

/// What signals do, shared with the handler.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    seen: Arc<AtomicUsize>,
    /// Set at the first signal.
    pub(crate) stop: Arc<AtomicBool>,
    target: Arc<Mutex<Option<Interrupter>>>,
}

impl Signals {
    /// Takes the signals of this process over.
    pub(crate) fn install() -> Result<Self> {
        let signals = Self::default();
        let handler = signals.clone();
        ctrlc::set_handler(move || handler.handle()).context("could not take over Ctrl-C")?;
        Ok(signals)
    }

    /// The first signal asks this cell to stop; a second one, or the grace, gives it up.
    pub(crate) fn aim(&self, interrupter: Interrupter) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(interrupter);
    }

    /// Forgets the signals of the past, for a face that goes on after them.
    pub(crate) fn rearm(&self) {
        self.seen.store(0, Ordering::Relaxed);
        self.stop.store(false, Ordering::Relaxed);
    }

    pub(crate) fn were_seen(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Gives the running cell up: nobody waits for it any more.
    pub(crate) fn give_up(&self) {
        if let Some(target) = &*self.target.lock().unwrap_or_else(PoisonError::into_inner) {
            target.abandon();
        }
    }

    fn handle(&self) {
        let before = self.seen.fetch_add(1, Ordering::Relaxed);
        self.stop.store(true, Ordering::Relaxed);
        let target = self
            .target
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some(target) = target else { return };
        if before > 0 {
            return target.abandon();
        }
        target.interrupt();
        let (patience, signals) = (target, self.clone());
        // A thread of its own, so that the next signal is heard meanwhile.
        let _detached = std::thread::spawn(move || {
            std::thread::sleep(GRACE + Duration::from_millis(100));
            // A cell that has ended meanwhile is not the one that was meant.
            if signals.were_seen() {
                patience.abandon();
            }
        });
    }
}
