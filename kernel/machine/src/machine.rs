//! One live machine: boot, restore, reach its ports, pause and freeze it.
//!
//! Ordering requirements:
//! 1. The epoch of a restore is larger than the one the guest knows, or its end drops our frames.
//! 2. A freeze happens between `stop` and `cont`: state and pages belong to one moment.
//! 3. Bytes in the channel are in no snapshot: the caller freezes only after the agent has said that
//!    it is quiet.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use vmrepl_qemu::{Config, PAGE_BYTES, Process};

use crate::engine::Engine;
use crate::error::MachineError;
use crate::link::Link;
use crate::state;

/// The content of one page.
pub type Page = [u8; PAGE_BYTES];

/// The epoch of a fresh boot.
const FIRST_EPOCH: u32 = 1;

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Guest memory in bytes; the size of `memory_file`.
    pub memory_bytes: u64,
    /// Number of virtual processors.
    pub vcpus: u8,
    /// The file behind guest memory: written to when booting, mapped private when restoring.
    pub memory_file: PathBuf,
    /// The read-only disk image.
    pub root: PathBuf,
}

/// What a first boot needs beside the hardware.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Uncompressed ELF with a PVH entry.
    pub vmlinux: PathBuf,
    /// The initial RAM file system.
    pub initramfs: PathBuf,
    /// Words for Linux's command line beside the engine's own.
    pub command_line: String,
}

/// Words of the command line that belong to the engine: the console while booting, a reboot as exit,
/// and no work that only hardware, other tenants or an administrator need. The statistics of memory are
/// folded every hour instead of every second: a restore would find the second over, each time.
const COMMAND_LINE: &str = "console=ttyS0 quiet reboot=t panic=-1 mitigations=off init_on_alloc=0 \
    random.trust_cpu=on psi=0 audit=0 nowatchdog lsm=landlock,yama hardened_usercopy=off \
    sysctl.vm.stat_interval=3600";

/// One live machine, whichever engine runs it.
#[derive(Debug)]
pub enum Machine {
    /// A QEMU process.
    Qemu(QemuMachine),
}

/// A QEMU process and the multiplexer on its serial port.
///
/// The link is dropped first: a channel that ends while the process lives is a reset, not a loss.
#[derive(Debug)]
pub struct QemuMachine {
    link: Link,
    process: Process,
    epoch: u32,
}

/// How long the parts of a restore took, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct RestoreTimes {
    /// Starting the process and laying the pages.
    pub process_us: u64,
    /// Starting the multiplexer.
    pub link_us: u64,
}

impl Machine {
    /// Boots a Linux. The memory file becomes a base when the machine is frozen with [`Paused::into_base`].
    ///
    /// The calling thread must outlive the machine: the engine dies with the thread that started it.
    ///
    /// # Errors
    /// When the engine cannot start.
    pub fn boot(engine: &Engine, hardware: &Hardware, boot: &Boot) -> Result<Self, MachineError> {
        let Engine::Qemu(binary) = engine;
        let boot = vmrepl_qemu::Boot {
            vmlinux: boot.vmlinux.clone(),
            initramfs: boot.initramfs.clone(),
            command_line: format!(
                "{COMMAND_LINE} tsc_early_khz={} tsc=reliable {}",
                vmrepl_qemu::counter_khz(),
                boot.command_line
            ),
        };
        let process = Process::boot(binary, &config(hardware), &boot).map_err(|source| {
            MachineError::Process {
                step: "boot",
                source,
            }
        })?;
        QemuMachine::join(process, FIRST_EPOCH).map(Self::Qemu)
    }

    /// Restores a machine from saved state and the pages that lie over its memory file. It runs when
    /// this returns, or is about to; connections may be opened and written to at once.
    ///
    /// The calling thread must outlive the machine.
    ///
    /// # Errors
    /// When the state does not validate, or the engine cannot start or refuses it.
    pub fn restore<'a>(
        engine: &Engine,
        hardware: &Hardware,
        state: &[u8],
        pages: impl Iterator<Item = (u64, &'a Page)>,
    ) -> Result<(Self, RestoreTimes), MachineError> {
        let Engine::Qemu(binary) = engine;
        let (epoch, devices) = state::decode(state)?;
        let started = Instant::now();
        let process =
            Process::restore(binary, &config(hardware), devices, pages).map_err(|source| {
                MachineError::Process {
                    step: "restore",
                    source,
                }
            })?;
        let process_us = micros(started);
        let machine = QemuMachine::join(process, epoch.saturating_add(1))?;
        let times = RestoreTimes {
            process_us,
            link_us: micros(started).saturating_sub(process_us),
        };
        Ok((Self::Qemu(machine), times))
    }

    /// Opens a stream to a guest port. Returns at once: what is written before the guest has accepted
    /// waits for it, and a refusal shows as the end of the stream.
    ///
    /// # Errors
    /// When the machine is gone or all streams are in use.
    pub fn connect(&self, port: u32) -> Result<UnixStream, MachineError> {
        let Self::Qemu(machine) = self;
        machine.link.connect(port).map_err(MachineError::Link)
    }

    /// Opens the machine's socket, which takes `CONNECT <port>\n`, at `path` with mode 0600.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(&self, path: &Path) -> Result<(), MachineError> {
        let Self::Qemu(machine) = self;
        machine
            .link
            .listen(path)
            .map_err(|source| MachineError::Socket {
                path: path.to_owned(),
                source,
            })
    }

    /// Stops the processors until the guard is dropped.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn pause(&mut self) -> Result<Paused<'_>, MachineError> {
        let Self::Qemu(machine) = self;
        machine
            .process
            .stop()
            .map_err(|source| MachineError::Process {
                step: "pause",
                source,
            })?;
        Ok(Paused { machine })
    }

    /// The process that runs the machine.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        let Self::Qemu(machine) = self;
        machine.process.pid()
    }

    /// Why the machine is lost: how its process ended and what it said. `None` while it lives.
    pub fn lost(&mut self) -> Option<String> {
        let Self::Qemu(machine) = self;
        if let Some(exit) = machine.process.ended() {
            let said = machine.process.said();
            let said = if said.is_empty() {
                "it said nothing".to_owned()
            } else {
                said
            };
            return Some(format!("QEMU ended ({exit}): {said}"));
        }
        machine.link.lost().map(|reason| reason.to_string())
    }

    /// The end of what the guest wrote to its console while booting.
    #[must_use]
    pub fn console(&self) -> String {
        let Self::Qemu(machine) = self;
        machine.process.console()
    }
}

impl QemuMachine {
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
}

/// A machine that stands still. It runs on when this is dropped.
#[derive(Debug)]
pub struct Paused<'a> {
    machine: &'a mut QemuMachine,
}

impl Paused<'_> {
    /// The state of everything but memory, as bytes for a later restore.
    ///
    /// # Errors
    /// When the engine cannot save it.
    pub fn save_state(&mut self) -> Result<Vec<u8>, MachineError> {
        let devices =
            self.machine
                .process
                .save_state()
                .map_err(|source| MachineError::Process {
                    step: "save the state of",
                    source,
                })?;
        Ok(state::encode(self.machine.epoch, &devices))
    }

    /// Gives every page written since the machine was restored to `each`, in order of its index. Pages
    /// that were laid at the restore are among them; whoever stores them compares with the parent.
    ///
    /// # Errors
    /// When guest memory cannot be read.
    pub fn written_pages(&self, mut each: impl FnMut(u64, &Page)) -> Result<u64, MachineError> {
        let memory = self.machine.process.memory().map_err(MachineError::Pages)?;
        let written = memory.written().map_err(MachineError::Pages)?;
        let mut page = [0; PAGE_BYTES];
        for &index in &written {
            memory.read(index, &mut page).map_err(MachineError::Pages)?;
            each(index, &page);
        }
        Ok(written.len() as u64)
    }

    /// Ends a booted machine for good and returns its state; its memory file is then the base.
    ///
    /// # Errors
    /// When the engine cannot save its state.
    pub fn into_base(mut self) -> Result<Vec<u8>, MachineError> {
        let state = self.save_state()?;
        self.machine.process.kill();
        Ok(state)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        // A machine that does not resume has ended, and the next use of it says so.
        if self.machine.process.ended().is_none() {
            drop(self.machine.process.resume());
        }
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

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
