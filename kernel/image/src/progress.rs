//! What a build tells while it goes on, and how it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One step of a build, as it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// A short fixed name, such as `debian` or `linux`.
    pub name: &'static str,
    /// What is being made, for people.
    pub detail: String,
    /// How many units [`Progress::advanced`] will count, when that is known.
    pub total: Option<u64>,
}

/// Hears how a build goes on. Steps never overlap: each `started` is followed by its `finished`, unless the build fails.
pub trait Progress {
    /// A step starts.
    fn started(&mut self, step: &Step);
    /// The running step has done `done` units; `note` says what it is at.
    fn advanced(&mut self, done: u64, note: &str);
    /// The running step is done; `cached` when its result was already there.
    fn finished(&mut self, cached: bool, took: Duration);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn started(&mut self, _step: &Step) {}
    fn advanced(&mut self, _done: u64, _note: &str) {}
    fn finished(&mut self, _cached: bool, _took: Duration) {}
}

/// Asks a running build to stop; clones share one flag, which stays set.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Makes a flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the build to stop: its tools are ended, nothing half made is published.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
