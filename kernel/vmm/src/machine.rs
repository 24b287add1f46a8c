//! One live machine in this process: made from a shell, by a boot or a saved state.
//!
//! Ordering requirements of a restore:
//! 1. Memory before devices: a queue is checked against the memory that it lies in.
//! 2. Processors before the clock: the guest's clock continues from the saved value at the first entry.
//! 3. Devices last: an interrupt that they raise must find the local APICs as they were.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::{Kvm, VmFd};

use crate::boot::{self, BootError};
use crate::cpuid;
use crate::devices::{Broken, Devices, StateError, VIRTIO_DEVICES};
use crate::limits::PAGE_BYTES;
use crate::processors::{MachineEnd, Processors, lock};
use crate::ram::{Backing, Ram, RamError};
use crate::shell::{self, Shell, ShellError, Tracking};
use crate::state::MachineState;
use crate::vcpu::{self, VcpuError};
use crate::vsock::Greeting;

/// How far the rate of this host's counter may be from a snapshot's: parts in a million, as NTP slews.
const TSC_TOLERANCE_PPM: u64 = 250;

/// What can go wrong with a machine.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("could not open /dev/kvm")]
    Open(#[source] kvm_ioctls::Error),
    #[error(transparent)]
    Shell(#[from] ShellError),
    #[error("could not prepare guest memory")]
    Ram(#[from] RamError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    #[error("the machine's state does not hold")]
    State(#[from] StateError),
    #[error("this host's processors lack what the snapshot was made with: {}", names.join(", "))]
    Features { names: Vec<String> },
    #[error(
        "the snapshot's clock counts {saved} kHz, this host's {here} kHz, and KVM cannot scale it"
    )]
    Clock { saved: u32, here: u32 },
    #[error("the state is of a machine with {found} processors, this one has {vcpus}")]
    Vcpus { found: usize, vcpus: usize },
    #[error(transparent)]
    Devices(#[from] Broken),
    #[error("could not {step}")]
    Kvm {
        step: &'static str,
        #[source]
        source: kvm_ioctls::Error,
    },
    #[error("could not {step}")]
    Io {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

fn failed(step: &'static str) -> impl Fn(kvm_ioctls::Error) -> MachineError {
    move |source| MachineError::Kvm { step, source }
}

/// What a machine is made of.
#[derive(Debug)]
pub struct Parts {
    /// Guest memory: as long as the machine's memory.
    pub memory: File,
    /// The read-only disk image.
    pub root: File,
    /// Where the console's words go while the guest boots.
    pub console: File,
}

/// What a first boot needs.
#[derive(Debug)]
pub struct BootFiles<'a> {
    /// Uncompressed ELF with a PVH entry.
    pub vmlinux: &'a File,
    /// The initial RAM file system.
    pub initramfs: &'a File,
    /// Linux's command line.
    pub command_line: &'a str,
}

/// A live machine. It rests until [`Machine::run`]. Fields drop in this order: processors before what they
/// use, memory last.
#[derive(Debug)]
pub struct Machine {
    processors: Processors,
    devices: Arc<Mutex<Devices>>,
    poller: OwnedFd,
    vm: Arc<VmFd>,
    ram: Ram,
    cpuid: Vec<kvm_cpuid_entry2>,
    msrs: Vec<u32>,
}

impl Machine {
    /// Prepares a boot: the memory file gets all that the guest writes.
    ///
    /// # Errors
    /// When KVM, a file or the guest's Linux cannot be used.
    pub fn boot(
        kvm: &Kvm,
        memory_bytes: u64,
        vcpus: u8,
        parts: Parts,
        files: &BootFiles<'_>,
    ) -> Result<Self, MachineError> {
        shell::check(kvm)?;
        let cpuid = cpuid::stable(&shell::supported(kvm)?);
        let mut shell = Shell::build(kvm, memory_bytes, vcpus, Tracking::Off)?;
        shell.ram.map(&parts.memory, Backing::Shared)?;
        let entry = boot::Boot {
            vmlinux: files.vmlinux,
            initramfs: files.initramfs,
            command_line: files.command_line,
            vcpus,
            virtio_devices: VIRTIO_DEVICES,
        }
        .load(&shell.ram)?;
        for (number, fd) in (0..).zip(&shell.vcpus) {
            vcpu::set_cpuid(fd, &cpuid, number, vcpus)?;
            vcpu::set_boot_msrs(fd)?;
        }
        boot::set_registers(&shell.vcpus[0], entry)?;
        let msrs = vcpu::readable_msrs(&shell.vcpus[0], &shell::msr_indices(kvm)?)?;
        let devices = devices(&shell, parts)?;
        Self::join(shell, devices, cpuid, msrs)
    }

    /// Restores a machine from a saved state over its memory file, which is never changed. Streams of
    /// `claims` (a guest port and a socket each) go on where the saved ones were.
    ///
    /// # Errors
    /// When the state does not hold or belongs to another machine, or KVM refuses it.
    pub fn restore(
        kvm: &Kvm,
        state: &[u8],
        parts: Parts,
        claims: Vec<(u32, UnixStream)>,
    ) -> Result<Self, MachineError> {
        let state = MachineState::decode(state)?;
        let names = cpuid::lacking(&state.cpuid, &shell::supported(kvm)?);
        if !names.is_empty() {
            return Err(MachineError::Features { names });
        }
        let vcpus = u8::try_from(state.vcpus.len()).unwrap_or(u8::MAX);
        let mut shell = Shell::build(kvm, state.memory_bytes, vcpus, Tracking::On)?;
        shell.ram.map(&parts.memory, Backing::Private)?;
        let mut devices = devices(&shell, parts)?;
        for ((number, fd), saved) in (0..).zip(&shell.vcpus).zip(&state.vcpus) {
            vcpu::set_cpuid(fd, &state.cpuid, number, vcpus)?;
            set_rate(fd, saved.tsc_khz)?;
            vcpu::restore(fd, saved)?;
        }
        set_clock(&shell.vm, &state)?;
        devices.set_state(&state.devices, claims)?;
        devices.catch_up()?;
        let msrs = state.vcpus[0]
            .msrs
            .iter()
            .map(|entry| entry.index)
            .collect();
        Self::join(shell, devices, state.cpuid, msrs)
    }

    fn join(
        shell: Shell,
        devices: Devices,
        cpuid: Vec<kvm_cpuid_entry2>,
        msrs: Vec<u32>,
    ) -> Result<Self, MachineError> {
        let failed = |step| move |source| MachineError::Io { step, source };
        let poller = devices
            .vsock
            .poller()
            .try_clone_to_owned()
            .map_err(failed("watch the sockets of streams"))?;
        let devices = Arc::new(Mutex::new(devices));
        let processors = Processors::start(shell.vcpus, Arc::clone(&devices))
            .map_err(failed("start the processors' threads"))?;
        Ok(Self {
            processors,
            devices,
            poller,
            vm: shell.vm,
            ram: shell.ram,
            cpuid,
            msrs,
        })
    }

    /// Writes a page of a layer over what the memory file has. Only before the first instruction.
    ///
    /// # Errors
    /// When the page lies outside of memory.
    pub fn lay(&mut self, index: u64, page: &[u8; PAGE_BYTES]) -> Result<(), MachineError> {
        Ok(self.ram.write_page(index, page)?)
    }

    /// The pages that were written since the restore, by whomever, in rising order. The machine must rest.
    ///
    /// # Errors
    /// When KVM does not give its book.
    pub fn written_pages(&mut self) -> Result<Vec<u64>, MachineError> {
        self.ram
            .harvest(&self.vm)
            .map_err(failed("read which pages the guest has written"))?;
        Ok(self.ram.written())
    }

    /// Reads one page of guest memory.
    ///
    /// # Errors
    /// When the page lies outside of memory.
    pub fn read_page(&self, index: u64, page: &mut [u8; PAGE_BYTES]) -> Result<(), MachineError> {
        Ok(self.ram.read_page(index, page)?)
    }

    /// Lets the guest run.
    pub fn run(&mut self) {
        self.processors.run();
    }

    /// Brings the guest to rest between two instructions.
    pub fn rest(&mut self) {
        self.processors.rest();
    }

    /// The state of everything but memory. The machine must rest.
    ///
    /// # Errors
    /// When KVM does not give it.
    pub fn save(&mut self) -> Result<Vec<u8>, MachineError> {
        // Devices first: nothing of theirs may come between the processors' state and the end.
        let devices = lock(&self.devices).state();
        let mut vcpus = Vec::new();
        for fd in self.processors.at_rest() {
            vcpus.push(vcpu::save(&fd, &self.msrs)?);
        }
        let mut clock = self.vm.get_clock().map_err(failed("read the clock"))?;
        // Only the time counts: the flags say how it was read.
        clock = kvm_bindings::kvm_clock_data {
            clock: clock.clock,
            ..Default::default()
        };
        let state = MachineState {
            memory_bytes: self.ram.bytes(),
            clock,
            cpuid: self.cpuid.clone(),
            vcpus,
            devices,
        };
        Ok(state.encode())
    }

    /// Opens a stream to a guest port.
    pub fn open(&self, port: u32, socket: UnixStream, greeting: Greeting) {
        let mut devices = lock(&self.devices);
        devices.vsock.open(port, socket, greeting);
        let passed = devices.pass_on();
        drop(devices);
        self.unless_broken(passed);
    }

    /// Becomes readable when a stream's socket has something to read or to take.
    #[must_use]
    pub fn sockets(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }

    /// Serves the sockets of streams; called when [`Machine::sockets`] is readable.
    pub fn serve_sockets(&self) {
        let served = lock(&self.devices).sockets_ready();
        self.unless_broken(served);
    }

    /// Becomes readable when the machine has ended by itself.
    #[must_use]
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.processors.ended_fd()
    }

    /// Why the machine has ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<MachineEnd> {
        self.processors.end()
    }

    fn unless_broken(&self, result: Result<(), Broken>) {
        if let Err(broken) = result {
            self.processors.fail(broken.into());
        }
    }
}

/// Takes KVM from a descriptor that somebody else has opened.
#[expect(unsafe_code, reason = "the crate takes a descriptor by number")]
pub(crate) fn kvm_from(descriptor: OwnedFd) -> Kvm {
    // SAFETY: the descriptor is open and from here on belongs to the result alone.
    unsafe { Kvm::from_raw_fd(descriptor.into_raw_fd()) }
}

fn devices(shell: &Shell, parts: Parts) -> Result<Devices, MachineError> {
    Devices::new(
        Arc::clone(&shell.vm),
        shell.ram.memory().clone(),
        parts.root,
        parts.console,
    )
    .map_err(|source| MachineError::Io {
        step: "make the devices",
        source,
    })
}

/// Lets the guest's counter run at the saved rate, where it differs from the host's by more than clocks drift.
fn set_rate(fd: &kvm_ioctls::VcpuFd, saved_khz: u32) -> Result<(), MachineError> {
    let here = fd
        .get_tsc_khz()
        .map_err(failed("read the rate of the host's counter"))?;
    let apart = u64::from(here.abs_diff(saved_khz));
    if apart * 1_000_000 <= u64::from(saved_khz) * TSC_TOLERANCE_PPM {
        return Ok(());
    }
    fd.set_tsc_khz(saved_khz).map_err(|_| MachineError::Clock {
        saved: saved_khz,
        here,
    })
}

fn set_clock(vm: &VmFd, state: &MachineState) -> Result<(), MachineError> {
    vm.set_clock(&state.clock).map_err(failed("set the clock"))
}
