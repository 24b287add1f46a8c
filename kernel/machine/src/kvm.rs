//! A machine that our own monitor runs: its worker, and the door to its ports.

use std::os::unix::net::UnixStream;
use std::path::Path;

use vmrepl_vmm::{Config, Phases, Program, SpareWorker, Worker, WorkerError};

use crate::door::Doorkeeper;
use crate::error::MachineError;
use crate::parts::{Boot, Frozen, Hardware, Mark, Page, Restore};

/// The engine: the program that runs one machine.
#[derive(Debug, Clone)]
pub struct Kvm {
    pub(crate) program: Program,
    pub(crate) vendor: String,
}

/// A worker with its machine.
///
/// The doorkeeper is dropped first: whoever still comes is turned away before the machine ends.
#[derive(Debug)]
pub struct KvmMachine {
    door: Option<Doorkeeper>,
    worker: Worker,
    opener: vmrepl_vmm::Opener,
}

pub(crate) fn failed(step: &'static str) -> impl Fn(WorkerError) -> MachineError {
    move |source| MachineError::Worker { step, source }
}

impl KvmMachine {
    pub(crate) fn boot(kvm: &Kvm, hardware: &Hardware, boot: &Boot) -> Result<Self, MachineError> {
        let boot = vmrepl_vmm::Boot {
            vmlinux: boot.vmlinux.clone(),
            initramfs: boot.initramfs.clone(),
            command_line: boot.command_line.clone(),
        };
        let worker =
            Worker::boot(&kvm.program, &config(hardware), &boot).map_err(failed("boot"))?;
        Self::join(worker)
    }

    pub(crate) fn restore<'a>(
        spare: SpareWorker,
        hardware: &Hardware,
        restore: &Restore<'_>,
        pages: impl Iterator<Item = (u64, &'a Page)>,
        run: bool,
    ) -> Result<(Self, Vec<UnixStream>), MachineError> {
        let mut ours = Vec::with_capacity(restore.ports.len());
        let mut theirs = Vec::with_capacity(restore.ports.len());
        for port in restore.ports {
            let (our_end, their_end) = UnixStream::pair().map_err(MachineError::Stream)?;
            ours.push(our_end);
            theirs.push((*port, their_end));
        }
        let restore = vmrepl_vmm::Restore {
            state: restore.state,
            hot: restore.hot,
            purpose: restore.purpose,
            claims: &theirs,
            run,
        };
        let worker = spare
            .restore(&config(hardware), &restore, pages)
            .map_err(failed("restore"))?;
        Ok((Self::join(worker)?, ours))
    }

    pub(crate) fn settle(&mut self) -> Result<(), MachineError> {
        self.worker.settle().map_err(failed("restore"))
    }

    fn join(worker: Worker) -> Result<Self, MachineError> {
        let opener = worker.opener().map_err(failed("reach"))?;
        Ok(Self {
            door: None,
            worker,
            opener,
        })
    }

    pub(crate) fn connect(&self, port: u32) -> Result<UnixStream, MachineError> {
        let (ours, theirs) = UnixStream::pair().map_err(MachineError::Stream)?;
        self.opener
            .open(port, &theirs, false, Vec::new())
            .map_err(MachineError::Stream)?;
        Ok(ours)
    }

    pub(crate) fn listen(&mut self, path: &Path) -> Result<(), MachineError> {
        let opener = self.worker.opener().map_err(failed("reach"))?;
        let door = Doorkeeper::start(path, opener).map_err(|source| MachineError::Door {
            path: path.to_owned(),
            source,
        })?;
        self.door = Some(door);
        Ok(())
    }

    pub(crate) fn pause(&mut self) -> Result<(), MachineError> {
        self.worker.rest().map_err(failed("pause"))
    }

    pub(crate) fn resume(&mut self) {
        if self.worker.ended().is_none()
            && let Err(error) = self.worker.run()
        {
            self.worker.give_up(&error);
        }
    }

    pub(crate) fn save_state(&mut self) -> Result<Vec<u8>, MachineError> {
        self.worker
            .save_state()
            .map_err(failed("save the state of"))
    }

    pub(crate) fn write_base(&mut self) -> Result<(), MachineError> {
        self.worker
            .write_base()
            .map_err(failed("write the memory of"))
    }

    pub(crate) fn freeze(
        &mut self,
        mut each: impl FnMut(u64, &Page),
    ) -> Result<Frozen, MachineError> {
        let (state, changed) = self.worker.freeze().map_err(failed("freeze"))?;
        let pages = changed.for_each(&mut each).map_err(failed("freeze"))?;
        Ok(Frozen {
            state,
            pages,
            mark: Some(Mark(changed.mark)),
        })
    }

    pub(crate) fn roll_back(&mut self, mark: Mark) -> Result<u64, MachineError> {
        self.worker.roll_back(mark.0).map_err(failed("roll back"))
    }

    pub(crate) fn sum(&mut self) -> Result<[u8; 32], MachineError> {
        self.worker.sum().map_err(failed("read the memory of"))
    }

    pub(crate) fn condition(&mut self) -> Option<String> {
        self.worker.rest().ok()?;
        let said = self.condition_at_rest();
        self.worker.run().ok();
        said
    }

    pub(crate) fn condition_at_rest(&mut self) -> Option<String> {
        self.worker.condition().ok()
    }

    pub(crate) fn phases(&self) -> Phases {
        self.worker.phases()
    }

    pub(crate) fn kill(&mut self) {
        self.worker.kill();
    }

    pub(crate) fn leave(self) {
        self.worker.leave();
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.worker.pid()
    }

    pub(crate) fn lost(&mut self) -> Option<String> {
        self.worker.ended()
    }

    pub(crate) fn console(&self) -> String {
        self.worker.console()
    }
}

fn config(hardware: &Hardware) -> Config {
    Config {
        memory_bytes: hardware.memory_bytes,
        vcpus: hardware.vcpus,
        memory_file: hardware.memory_file.clone(),
        root: hardware.root.clone(),
    }
}
