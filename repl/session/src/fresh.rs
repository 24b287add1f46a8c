//! A machine of a template, up to where it becomes somebody's session.

use std::os::unix::net::UnixStream;
use std::time::Instant;

use vmrepl_machine::{CounterWatch, Engine, Machine, Purpose, Restore, Spare};
use vmrepl_snapshots::SnapshotId;
use vmrepl_wire::control::RngPolicy;
use vmrepl_wire::languages::Language;
use vmrepl_wire::port;

use crate::cell_limits::Limits;
use crate::error::SessionError;
use crate::kind::EngineKind;
use crate::places::Places;
use crate::stored::{At, Stored};
use crate::template::{Template, TemplateName};

/// What to restore, and what for.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) places: Places,
    pub(crate) engine: Engine,
    pub(crate) name: TemplateName,
    /// A checkpoint over the template, instead of the template of this name itself.
    pub(crate) at: Option<At>,
    pub(crate) purpose: Purpose,
    /// What happens to generators that the user has seeded.
    pub(crate) rng: RngPolicy,
}

/// A restored machine with its first two streams. Nobody has spoken on them yet. One that runs may not have settled.
#[derive(Debug)]
pub(crate) struct Fresh {
    // The streams are dropped before the machine.
    pub(crate) control: UnixStream,
    pub(crate) cells: UnixStream,
    pub(crate) machine: Machine,
    /// What it was restored from.
    pub(crate) snapshot: SnapshotId,
    pub(crate) memory_bytes: u64,
    pub(crate) linux: String,
    pub(crate) limits: Limits,
    pub(crate) language: Language,
    /// Of what was restored; a machine of it has a higher one.
    pub(crate) generation: u64,
    /// When the template was opened and when the machine stood, in microseconds since the beginning.
    pub(crate) opened_us: u64,
    pub(crate) process_us: u64,
}

/// Whether a machine runs at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Running,
    /// It waits for [`Machine::resume`]; under KVM alone.
    AtRest,
}

impl Order {
    /// Restores the template, in what is ready if anything is.
    pub(crate) fn fill(&self, ready: Option<Spare>, begin: Begin) -> Result<Fresh, SessionError> {
        let began = Instant::now();
        let counter = CounterWatch::start();
        let failed = |step| move |source| SessionError::Machine { step, source };
        let is_ready = ready.is_some();
        // The engine's process comes up while the template is read.
        let mut spare = match ready {
            Some(spare) => spare,
            None => Spare::start(&self.engine).map_err(failed("start the engine"))?,
        };
        let kind = EngineKind::of(&self.engine);
        let stored = Stored::find(&self.places, &self.name, kind, self.at.as_ref())?;
        let template = &stored.template;
        let hardware = template.hardware(&self.engine)?;
        if !is_ready {
            spare
                .prepare(&hardware, self.purpose)
                .map_err(failed("prepare a machine"))?;
        }
        // While the engine prepares.
        let (state, laid) = stored.read()?;
        let hot = template.hot_pages();
        let opened_us = micros(began);
        let restore = Restore {
            state: &state,
            hot: &hot,
            purpose: self.purpose,
            ports: &[port::CONTROL, port::CELLS],
        };
        let make = match begin {
            Begin::Running => Machine::restore,
            Begin::AtRest => Machine::restore_at_rest,
        };
        let restored = make(&self.engine, Some(spare), &hardware, &restore, laid.iter())
            .map_err(failed("restore the template"))?;
        let process_us = micros(began);
        // By now enough time has passed to tell the rate of this host's counter.
        let khz = template.record.counter_khz;
        if self.engine.counts_host_clock() && khz > 0 && !counter.agrees_with(khz) {
            let differences =
                format!("its clock counts {khz} kHz, and this host's counter runs at another rate");
            return Err(SessionError::Foreign {
                name: self.name.to_string(),
                differences,
            });
        }
        let [control, cells] = restored.streams.try_into().expect("a stream for each port");
        Ok(Fresh {
            control,
            cells,
            machine: restored.machine,
            snapshot: stored.snapshot,
            memory_bytes: template.memory_bytes(),
            linux: template.record.linux.clone(),
            limits: self.limits(&template.record.limits),
            language: template.record.language,
            generation: stored.generation,
            opened_us,
            process_us,
        })
    }

    /// What its cells may take: what the template says, over what is good for its purpose.
    fn limits(&self, of_template: &[String]) -> Limits {
        let mut limits = match self.purpose {
            Purpose::Freeze => Limits::SESSION,
            Purpose::Run | Purpose::Record => Limits::default(),
        };
        for wish in of_template {
            // It was understood when the template was made: what is not is of a later version.
            limits.set(wish).ok();
        }
        limits
    }

    /// An engine that has all ready for this template, but the template.
    pub(crate) fn spare(&self) -> Result<Spare, SessionError> {
        let failed = |step| move |source| SessionError::Machine { step, source };
        let template = Template::open(&self.places, &self.name, EngineKind::of(&self.engine))?;
        let hardware = template.hardware(&self.engine)?;
        let mut spare = Spare::start(&self.engine).map_err(failed("start the engine"))?;
        spare
            .prepare(&hardware, self.purpose)
            .and_then(|()| spare.settle())
            .map_err(failed("prepare a machine"))?;
        Ok(spare)
    }
}

pub(crate) fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
