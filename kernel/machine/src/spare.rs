//! What can be made before it is known what will be restored: under KVM a worker and an empty machine in it. A QEMU
//! gets all that it needs when it is started, so emulation has nothing to spare.

use vmrepl_vmm::{Purpose, SpareWorker};

use crate::engine::Engine;
use crate::error::MachineError;
use crate::kvm::{Kvm, failed};
use crate::parts::Hardware;

/// What one restore can take instead of beginning from nothing.
#[derive(Debug)]
pub struct Spare(pub(crate) Option<SpareWorker>);

impl Spare {
    /// Starts what the engine can start for any machine. Nothing is waited for.
    ///
    /// # Errors
    /// When the engine cannot start.
    pub fn start(engine: &Engine) -> Result<Self, MachineError> {
        match engine {
            Engine::Qemu(_) => Ok(Self(None)),
            Engine::Kvm(kvm) => {
                let worker = SpareWorker::start(&kvm.program).map_err(failed("start"))?;
                Ok(Self(Some(worker)))
            }
        }
    }

    /// Builds what a machine of this hardware can use. Nothing is waited for.
    ///
    /// # Errors
    /// When the engine is gone.
    pub fn prepare(&mut self, hardware: &Hardware, purpose: Purpose) -> Result<(), MachineError> {
        match &mut self.0 {
            Some(worker) => worker
                .prepare(hardware.memory_bytes, hardware.vcpus, purpose)
                .map_err(failed("prepare")),
            None => Ok(()),
        }
    }

    /// Waits until all that can be built is built.
    ///
    /// # Errors
    /// When the engine is gone, or cannot build it.
    pub fn settle(&mut self) -> Result<(), MachineError> {
        match &mut self.0 {
            Some(worker) => worker.settle().map_err(failed("prepare")),
            None => Ok(()),
        }
    }

    /// Whether it can still be used.
    #[must_use]
    pub fn is_alive(&mut self) -> bool {
        self.0.as_mut().is_some_and(SpareWorker::is_alive)
    }
}

/// The worker that is there, or else a new one.
pub(crate) fn worker(spare: Option<Spare>, kvm: &Kvm) -> Result<SpareWorker, MachineError> {
    match spare.and_then(|spare| spare.0) {
        Some(worker) => Ok(worker),
        None => SpareWorker::start(&kvm.program).map_err(failed("start")),
    }
}
