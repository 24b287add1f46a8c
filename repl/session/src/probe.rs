//! Preparing on the engine that a wish comes to. Where nobody has named one, a template that gets ready on
//! KVM is the proof that KVM works here, and one that does not is made by emulation instead.

use std::error::Error;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use vmrepl_machine::Engine;

use crate::choice::find_engine;
use crate::error::SessionError;
use crate::kind::EngineChoice;
use crate::kvm::{self, KvmStanding, kvm_standing};
use crate::limits::{BOOT_DEADLINE, PROBE_DEADLINE, REASON_CHARS_MAX};
use crate::places::Places;
use crate::prepare::{
    BuiltImage, NotMade, Plan, PrepareStep, Prepared, find_prepared, make, prove,
};
use crate::qemu::find_qemu;
use crate::template::TemplateName;

/// Which template somebody wants.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Its name.
    pub name: &'a TemplateName,
    /// What it is made of.
    pub image: &'a BuiltImage,
    /// What it is for.
    pub engine: EngineChoice,
    /// Make it anew even if it is there.
    pub force: bool,
}

/// Whether there is an engine to prepare on: known before an image is built.
///
/// # Errors
/// When there is none.
pub fn can_prepare(places: &Places, choice: EngineChoice) -> Result<(), SessionError> {
    if choice == EngineChoice::Auto && kvm_standing(places).is_promising() {
        return Ok(());
    }
    find_engine(places, choice).map(drop)
}

/// Boots, warms, freezes and publishes an image as a template.
///
/// # Errors
/// When a step fails or `cancel` is set; templates are then as before.
pub fn prepare(
    places: &Places,
    wish: &Wish<'_>,
    progress: &mut dyn FnMut(PrepareStep),
    cancel: &AtomicBool,
) -> Result<Prepared, SessionError> {
    let mut work = Work {
        places,
        wish,
        progress,
        cancel,
    };
    match wish.engine {
        EngineChoice::Auto => {
            let standing = kvm_standing(places);
            if standing.is_promising() {
                work.on_kvm_or_else(&standing)
            } else {
                Ok(work.on(&find_qemu(places)?)?)
            }
        }
        EngineChoice::Qemu => Ok(work.on(&find_qemu(places)?)?),
        EngineChoice::Kvm => {
            let engine = kvm::find_kvm(places)?;
            Ok(work.on_kvm(&engine, &kvm_standing(places), BOOT_DEADLINE)?)
        }
    }
}

struct Work<'a> {
    places: &'a Places,
    wish: &'a Wish<'a>,
    progress: &'a mut dyn FnMut(PrepareStep),
    cancel: &'a AtomicBool,
}

impl Work<'_> {
    /// The template, if it need not be made.
    fn there(&self, plan: &Plan<'_>) -> Result<Option<Prepared>, SessionError> {
        if self.wish.force {
            return Ok(None);
        }
        find_prepared(self.places, plan, self.wish.name)
    }

    fn on(&mut self, engine: &Engine) -> Result<Prepared, NotMade> {
        let plan = Plan {
            engine,
            image: self.wish.image,
            boot_deadline: BOOT_DEADLINE,
        };
        if let Some(there) = self.there(&plan)? {
            return Ok(there);
        }
        make(
            self.places,
            &plan,
            self.wish.name,
            self.progress,
            self.cancel,
        )
    }

    fn on_kvm_or_else(&mut self, standing: &KvmStanding) -> Result<Prepared, SessionError> {
        let engine = kvm::engine(self.places);
        let error = match self.on_kvm(&engine, standing, PROBE_DEADLINE) {
            Ok(prepared) => return Ok(prepared),
            Err(NotMade::Other(error)) => return Err(error),
            Err(NotMade::Unready(error)) => error,
        };
        let why = told(&error);
        let Ok(qemu) = find_qemu(self.places) else {
            kvm::remember(self.places, Err(&why));
            return Err(error);
        };
        (self.progress)(PrepareStep::Emulate { why: why.clone() });
        let made = self.on(&qemu);
        // What gets ready nowhere says nothing about KVM.
        if !matches!(made, Err(NotMade::Unready(_))) {
            kvm::remember(self.places, Err(&why));
        }
        Ok(made?)
    }

    /// On KVM, and whoever comes next need not try again. A template that is there proves nothing: it may be
    /// from another host, or from before this one was changed.
    fn on_kvm(
        &mut self,
        engine: &Engine,
        standing: &KvmStanding,
        boot_deadline: Duration,
    ) -> Result<Prepared, NotMade> {
        let plan = Plan {
            engine,
            image: self.wish.image,
            boot_deadline,
        };
        let prepared = match self.there(&plan)? {
            Some(there) if matches!(standing, KvmStanding::Works { .. }) => return Ok(there),
            Some(there) => {
                prove(self.places, &plan, self.progress, self.cancel)?;
                there
            }
            None => make(
                self.places,
                &plan,
                self.wish.name,
                self.progress,
                self.cancel,
            )?,
        };
        kvm::remember(self.places, Ok(()));
        Ok(prepared)
    }
}

/// An error with its causes in one line that a terminal may be shown: a guest's console may be in it.
fn told(error: &SessionError) -> String {
    let mut text = match error {
        SessionError::Slow { what, seconds, .. } => {
            format!("the guest did not {what} within {seconds} s")
        }
        error => error.to_string(),
    };
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(shown).take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        let slow = SessionError::Slow {
            what: "come up",
            seconds: 60,
            console: "\x1b[2J".to_owned(),
        };
        assert_eq!(told(&slow), "the guest did not come up within 60 s");
        let lost = SessionError::MachineLost {
            why: format!("a\nb\x1b{}", "x".repeat(1000)),
        };
        let told = told(&lost);
        assert!(told.starts_with("the machine is lost: a b "), "{told}");
        assert_eq!(told.chars().count(), REASON_CHARS_MAX);
    }
}
