//! The session between the face, the keys that ask it things, and the thread that gives its machine back when nobody uses
//! it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmrepl_session::{Language, Parked, Session, SessionError};

use crate::typed::{Typed, decide};

/// The session, shared with the keys that ask it things.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Slot>>);

/// Where the session is. Empty only while it is restored afresh.
struct Slot {
    live: Option<Session>,
    /// Its machine was given back while nobody used it.
    parked: Option<Parked>,
    used: Instant,
    language: Language,
}

/// The session, woken, while nobody else has it.
pub(crate) struct Held<'a>(MutexGuard<'a, Slot>);

impl Deref for Held<'_> {
    type Target = Option<Session>;

    fn deref(&self) -> &Self::Target {
        &self.0.live
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0.live
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let slot = &mut *self.0;
        slot.used = Instant::now();
        if let Some(session) = &slot.live {
            slot.language = session.language();
        }
    }
}

impl Shared {
    pub(crate) fn new(session: Session) -> Self {
        Self(Arc::new(Mutex::new(Slot {
            language: session.language(),
            live: Some(session),
            parked: None,
            used: Instant::now(),
        })))
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session; one that was parked is woken. To be called on the thread that outlives it.
    pub(crate) fn lock(&self) -> Held<'_> {
        self.wake().ok();
        Held(self.slot())
    }

    /// Wakes the session if it was parked. One that cannot be woken stays parked.
    pub(crate) fn wake(&self) -> Result<(), SessionError> {
        let mut slot = self.slot();
        let Some(parked) = slot.parked.take() else {
            return Ok(());
        };
        match parked.wake() {
            Ok(session) => {
                slot.live = Some(session);
                Ok(())
            }
            Err((parked, error)) => {
                slot.parked = Some(*parked);
                Err(error)
            }
        }
    }

    /// Gives the session's machine back whenever nobody has used it for so long, from a thread of its own that ends with
    /// the face.
    pub(crate) fn park_when_idle(&self, idle: Duration) {
        let slot = Arc::downgrade(&self.0);
        let look_every = (idle / 4).clamp(Duration::from_millis(50), Duration::from_secs(10));
        // Without a thread the machine stays.
        drop(
            std::thread::Builder::new()
                .name("idle".to_owned())
                .spawn(move || {
                    loop {
                        std::thread::sleep(look_every);
                        let Some(slot) = slot.upgrade() else {
                            return;
                        };
                        // Who has it uses it.
                        if let Ok(mut slot) = slot.try_lock()
                            && slot.used.elapsed() >= idle
                            && let Some(session) = slot.live.take()
                        {
                            match session.park() {
                                Ok(parked) => slot.parked = Some(parked),
                                Err(session) => {
                                    slot.live = Some(*session);
                                    slot.used = Instant::now();
                                }
                            }
                        }
                    }
                }),
        );
    }

    /// Ends the session; one that is parked needs no machine for that.
    pub(crate) fn leave(&self) -> Result<(), SessionError> {
        let live = self.slot().live.take();
        live.map_or(Ok(()), Session::leave)
    }

    /// The number of the next cell, in a session with a name. Wakes nobody.
    pub(crate) fn next_number(&self) -> Option<u32> {
        let slot = self.slot();
        match (&slot.live, &slot.parked) {
            (Some(live), _) => live.next_number(),
            (None, Some(parked)) => Some(parked.next_number()),
            (None, None) => None,
        }
    }

    /// What its cells are written in. Wakes nobody.
    pub(crate) fn language(&self) -> Language {
        self.slot().language
    }

    /// What Enter means for this text.
    pub(crate) fn decide(&self, text: &str) -> Typed {
        let language = self.language();
        decide(text, language, |text| {
            self.lock().as_mut()?.completeness(text).ok()
        })
    }
}
