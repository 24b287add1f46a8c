//! A machine that QEMU runs: its process, and the multiplexer on its serial port.
//!
//! Ordering requirement: the epoch of a restore is larger than the one the guest knows, or its end drops our
//! frames.

use std::os::unix::net::UnixStream;
use std::path::Path;

use vmrepl_qemu::{Binary, Config, Process, ProcessError};

use crate::error::MachineError;
use crate::link::Link;
use crate::parts::{Boot, Frozen, Hardware, Page};
use crate::state;

/// The epoch of a fresh boot.
const FIRST_EPOCH: u32 = 1;

/// A QEMU process and the multiplexer on its serial port.
///
/// The link is dropped first: a channel that ends while the process lives is a reset, not a loss.
#[derive(Debug)]
pub struct QemuMachine {
    link: Link,
    process: Process,
    epoch: u32,
}

fn failed(step: &'static str) -> impl Fn(ProcessError) -> MachineError {
    move |source| MachineError::Process { step, source }
}

impl QemuMachine {
    pub(crate) fn boot(
        binary: &Binary,
        hardware: &Hardware,
        boot: &Boot,
    ) -> Result<Self, MachineError> {
        let boot = vmrepl_qemu::Boot {
            vmlinux: boot.vmlinux.clone(),
            initramfs: boot.initramfs.clone(),
            command_line: boot.command_line.clone(),
        };
        let process = Process::boot(binary, &config(hardware), &boot).map_err(failed("boot"))?;
        Self::join(process, FIRST_EPOCH)
    }

    pub(crate) fn restore<'a>(
        binary: &Binary,
        hardware: &Hardware,
        state: &[u8],
        pages: impl Iterator<Item = (u64, &'a Page)>,
    ) -> Result<Self, MachineError> {
        let (epoch, devices) = state::decode(state)?;
        let process = Process::restore(binary, &config(hardware), devices, pages)
            .map_err(failed("restore"))?;
        Self::join(process, epoch.saturating_add(1))
    }

    fn join(mut process: Process, epoch: u32) -> Result<Self, MachineError> {
        let channel = process
            .take_channel()
            .expect("a process that was just started has its channel");
        let link = Link::start(channel, epoch).map_err(MachineError::Link)?;
        Ok(Self {
            link,
            process,
            epoch,
        })
    }

    pub(crate) fn connect(&self, port: u32) -> Result<UnixStream, MachineError> {
        self.link.connect(port).map_err(MachineError::Link)
    }

    pub(crate) fn listen(&self, path: &Path) -> Result<(), MachineError> {
        self.link
            .listen(path)
            .map_err(|source| MachineError::Socket {
                path: path.to_owned(),
                source,
            })
    }

    pub(crate) fn hold(&self) -> Result<(), MachineError> {
        self.link.hold().map_err(MachineError::Link)
    }

    pub(crate) fn go(&self) {
        self.link.go();
    }

    pub(crate) fn pause(&mut self) -> Result<(), MachineError> {
        self.process.stop().map_err(failed("pause"))
    }

    pub(crate) fn resume(&mut self) {
        if self.process.ended().is_none() {
            drop(self.process.resume());
        }
    }

    pub(crate) fn save_state(&mut self) -> Result<Vec<u8>, MachineError> {
        let devices = self
            .process
            .save_state()
            .map_err(failed("save the state of"))?;
        Ok(state::encode(self.epoch, &devices))
    }

    pub(crate) fn freeze(
        &mut self,
        mut each: impl FnMut(u64, &Page),
    ) -> Result<Frozen, MachineError> {
        let state = self.save_state()?;
        let memory = self.process.memory().map_err(MachineError::Pages)?;
        let written = memory.written().map_err(MachineError::Pages)?;
        let mut page = [0; vmrepl_qemu::PAGE_BYTES];
        for &index in &written {
            memory.read(index, &mut page).map_err(MachineError::Pages)?;
            each(index, &page);
        }
        Ok(Frozen {
            state,
            pages: written.len() as u64,
            mark: None,
        })
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn lost(&mut self) -> Option<String> {
        if let Some(exit) = self.process.ended() {
            let said = self.process.said();
            let said = if said.is_empty() {
                "it said nothing".to_owned()
            } else {
                said
            };
            return Some(format!("QEMU ended ({exit}): {said}"));
        }
        self.link.lost().map(|reason| reason.to_string())
    }

    pub(crate) fn console(&self) -> String {
        self.process.console()
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
