//! One live machine in this process: made from a shell, by a boot or a saved state.
//!
//! Ordering requirements of a restore, and of a way back in place:
//! 1. Memory before devices: a queue is checked against the memory that it lies in.
//! 2. Processors before devices: an interrupt that these raise must find the local APICs as they were.
//! 3. The clocks last, when the guest is let run: they stand still while it rests.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::{Kvm, VmFd};

use crate::boot::{self, BootError};
use crate::clocks::{ClockError, Clocks};
use crate::cpuid;
use crate::devices::{Broken, Devices, StateError, VIRTIO_DEVICES};
use crate::hot::{self, Extent};
use crate::limits::PAGE_BYTES;
use crate::mapping::{Mapping, length};
use crate::marks::{Mark, Marks, Slab};
use crate::parts::{BootFiles, EmptyMachine, Parts, Purpose, Saved};
use crate::phases::{Phases, now_ns};
use crate::processors::{MachineEnd, Processors, lock};
use crate::ram::{Ram, RamError};
use crate::shell::{self, Shape, Shell, ShellError, Tracking};
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
    #[error(
        "no book is kept of what this machine writes: it was booted, or restored to be thrown away"
    )]
    Booted,
    #[error("the machine was restored: its base is there already")]
    NotBooted,
    #[error("the machine has no moment {mark} to go back to")]
    NoMark { mark: usize },
    #[error(transparent)]
    Clocks(#[from] ClockError),
    #[error("could not hand pages over")]
    Slab(#[from] io::Error),
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
    /// The clocks as they stood when the guest came to rest, from the first look at them on.
    held: Option<Clocks>,
    /// KVM scales the processors' counters: the host's has another rate.
    is_scaled: bool,
    /// It was restored or went back, and has not run since.
    is_copy: bool,
    /// Where the machine can go back to; none when it was booted.
    marks: Option<Marks>,
    /// The file that the memory of a booted machine is to be written to.
    base: Option<File>,
}

/// What a freeze gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frozen {
    /// The number of the moment, by which the machine goes back to it.
    pub mark: usize,
    /// How many pages had changed since the moment before.
    pub pages: usize,
}

impl Machine {
    /// Prepares a boot. The memory file stays as it is until [`Machine::write_base`].
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
        let shape = Shape {
            memory_bytes,
            vcpus,
            tracking: Tracking::Off,
        };
        let mut shell = Shell::build(kvm, shape)?;
        let cpuid = cpuid::stable(&shell.supported);
        shell.ram.map_zeroes()?;
        let base = parts
            .memory
            .try_clone()
            .map_err(|source| MachineError::Io {
                step: "keep the memory file",
                source,
            })?;
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
            vcpu::set_boot_xcrs(fd, &cpuid)?;
        }
        boot::set_registers(&shell.vcpus[0], entry)?;
        let msrs = vcpu::readable_msrs(&shell.vcpus[0], &shell::msr_indices(kvm)?)?;
        let devices = devices(&shell, parts)?;
        let mut machine = Self::join(shell, devices, cpuid, msrs)?;
        machine.base = Some(base);
        Ok(machine)
    }

    /// Writes the memory of a resting machine that was booted into its memory file, which is then a base.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_base(&mut self) -> Result<(), MachineError> {
        match &self.base {
            Some(base) => Ok(self.ram.write_to(base)?),
            None => Err(MachineError::NotBooted),
        }
    }

    /// Restores a machine over its memory file, which is never changed, in an empty machine of the
    /// same shape if there is one. Streams of `claims` (a guest port and a socket each) go on where the saved ones were.
    ///
    /// # Errors
    /// When the state does not hold or belongs to another machine, or KVM refuses it.
    pub fn restore(
        kvm: &Kvm,
        empty: Option<EmptyMachine>,
        saved: &Saved<'_>,
        parts: Parts,
        claims: Vec<(u32, UnixStream)>,
        phases: &mut Phases,
    ) -> Result<Self, MachineError> {
        let io = |step| move |source| MachineError::Io { step, source };
        let state = MachineState::decode(saved.state)?;
        // Before anything is reserved for what a state says.
        let bytes = length(&parts.memory).map_err(io("look at the memory file"))?;
        if bytes != state.memory_bytes {
            return Err(MachineError::State(StateError::Memory {
                found: state.memory_bytes,
                bytes,
            }));
        }
        let shape = Shape {
            memory_bytes: state.memory_bytes,
            vcpus: u8::try_from(state.vcpus.len()).unwrap_or(u8::MAX),
            tracking: saved.purpose.tracking(),
        };
        let mut shell = match empty {
            Some(EmptyMachine(shell)) if shell.shape == shape => shell,
            _ => {
                let shell = Shell::build(kvm, shape)?;
                phases.built_ns = now_ns();
                shell
            }
        };
        let names = cpuid::lacking(&state.cpuid, &shell.supported);
        if !names.is_empty() {
            return Err(MachineError::Features { names });
        }
        shell.ram.map(&parts.memory)?;
        let pages = shell.ram.bytes() / PAGE_BYTES as u64;
        let laid = Slab::open(saved.laid, saved.laid_pages, pages).map_err(io("read the pages"))?;
        for index in laid.indices() {
            let page = laid.page(*index).expect("a page for each index");
            shell.ram.write_page(*index, page)?;
        }
        // What lies there is the machine's beginning, not a change.
        shell.ram.forget_written();
        let base = Mapping::read_only(&parts.memory, usize::try_from(pages).unwrap_or(0))
            .map_err(io("map the base"))?;
        if saved.purpose == Purpose::Record {
            shell.ram.no_read_ahead();
        }
        let hot = hot::decode(saved.hot, pages);
        for extent in &hot {
            shell.ram.populate(extent);
        }
        phases.mapped_ns = now_ns();
        let mut devices = devices(&shell, parts)?;
        let mut is_scaled = false;
        for ((number, fd), saved) in (0..).zip(&shell.vcpus).zip(&state.vcpus) {
            vcpu::set_cpuid(fd, &state.cpuid, number, shape.vcpus)?;
            is_scaled |= set_rate(fd, saved.tsc_khz)?;
            vcpu::restore(fd, saved)?;
        }
        prefault(&shell, &hot);
        devices.set_state(&state.devices, claims)?;
        devices.catch_up()?;
        phases.set_ns = now_ns();
        let msrs = state.vcpus[0].msrs.iter().map(|entry| entry.index);
        let mut machine = Self::join(shell, devices, state.cpuid.clone(), msrs.collect())?;
        machine.held = Some(Clocks::of(&state));
        machine.is_scaled = is_scaled;
        machine.is_copy = true;
        if saved.purpose == Purpose::Freeze {
            machine.marks = Some(Marks::new(base, laid, state));
        }
        Ok(machine)
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
            held: None,
            is_scaled: false,
            is_copy: false,
            marks: None,
            base: None,
        })
    }

    /// Lets the guest run. Its clocks go on from where they stood when they were last looked at. One that is a copy
    /// hears so before its first instruction.
    ///
    /// # Errors
    /// When KVM does not take the clocks.
    pub fn run(&mut self) -> Result<(), MachineError> {
        if let Some(held) = self.held.take() {
            held.set(&self.vm, self.processors.at_rest(), self.is_scaled)?;
        }
        let mut devices = lock(&self.devices);
        if std::mem::take(&mut self.is_copy) {
            devices.become_copy()?;
        }
        // What has come while it rested is there before its first instruction.
        devices.sockets_ready()?;
        drop(devices);
        self.processors.run();
        Ok(())
    }

    /// Brings the guest to rest between two instructions.
    pub fn rest(&mut self) {
        self.processors.rest();
    }

    /// Whether the guest was brought to rest, or was not let run yet.
    #[must_use]
    pub fn rests(&self) -> bool {
        !self.processors.may_run()
    }

    /// The state of everything but memory, as bytes. The machine must rest.
    ///
    /// # Errors
    /// When KVM does not give it.
    pub fn save(&mut self) -> Result<Vec<u8>, MachineError> {
        Ok(self.state()?.encode())
    }

    fn state(&mut self) -> Result<MachineState, MachineError> {
        // Devices first: nothing of theirs may come between the processors' state and the end.
        let devices = lock(&self.devices).state();
        let mut vcpus = Vec::new();
        for fd in self.processors.at_rest() {
            vcpus.push(vcpu::save(&fd, &self.msrs)?);
        }
        let clock = self.vm.get_clock().map_err(failed("read the clock"))?;
        let mut state = MachineState {
            memory_bytes: self.ram.bytes(),
            clock_ns: clock.clock,
            cpuid: self.cpuid.clone(),
            vcpus,
            devices,
        };
        match &self.held {
            Some(held) => held.put_into(&mut state),
            None => self.held = Some(Clocks::of(&state)),
        }
        Ok(state)
    }

    /// Freezes the resting machine: its state, and the pages that have changed since the last freeze or the
    /// restore, which are written into `slab`, contents first and then their indices.
    ///
    /// # Errors
    /// When the machine was booted and not restored, or KVM does not give its state.
    pub fn freeze(&mut self, slab: &File) -> Result<(Vec<u8>, Frozen), MachineError> {
        if self.marks.is_none() {
            return Err(MachineError::Booted);
        }
        let state = self.state()?;
        let bytes = state.encode();
        let written = self
            .ram
            .written(&self.vm)
            .map_err(failed("read which pages the guest has written"))?
            .to_vec();
        let pages = written.len();
        let ram = &self.ram;
        let changed = Slab::create(slab, written, |index, page| {
            ram.read_page(index, page).map_err(MachineError::from)
        })?;
        self.ram.forget_written();
        let marks = self.marks.as_mut().ok_or(MachineError::Booted)?;
        let mark = marks.push(Mark { state, changed });
        Ok((bytes, Frozen { mark, pages }))
    }

    /// Brings the resting machine back to a moment that it was frozen at, or restored from (0): memory,
    /// processors, devices and clocks. Streams of that moment stay with their sockets, later ones end.
    /// Returns how many pages were copied back.
    ///
    /// # Errors
    /// When there is no such moment, or KVM refuses its state.
    pub fn roll_back(&mut self, mark: usize) -> Result<usize, MachineError> {
        let marks = self.marks.as_mut().ok_or(MachineError::Booted)?;
        if marks.state(mark).is_none() {
            return Err(MachineError::NoMark { mark });
        }
        let written = self
            .ram
            .written(&self.vm)
            .map_err(failed("read which pages the guest has written"))?;
        let mut changed = marks.changed_since(mark);
        changed.extend(written);
        changed.sort_unstable();
        changed.dedup();
        let gone_back = self.go_back(mark, &changed);
        if let Err(error) = &gone_back {
            // Half of one moment and half of another must never run.
            self.processors.fail(MachineEnd::Internal {
                what: format!("it could not go back: {error}"),
            });
        }
        gone_back.map(|()| changed.len())
    }

    /// Forgets moments that are many freezes ago: one that lives long must not grow with each.
    pub fn forget_old_marks(&mut self) {
        if let Some(marks) = &mut self.marks {
            marks.forget_old();
        }
    }

    fn go_back(&mut self, mark: usize, changed: &[u64]) -> Result<(), MachineError> {
        let marks = self.marks.as_mut().ok_or(MachineError::Booted)?;
        for index in changed {
            let page = marks
                .page_at(mark, *index)
                .ok_or(RamError::Page { index: *index })?;
            self.ram.write_page(*index, page)?;
        }
        self.ram.forget_written();
        marks.forget_after(mark);
        let state = marks.state(mark).expect("it was there");
        for (fd, saved) in self.processors.at_rest().zip(&state.vcpus) {
            vcpu::restore(&fd, saved)?;
        }
        let mut devices = lock(&self.devices);
        devices.roll_back(&state.devices)?;
        devices.catch_up()?;
        drop(devices);
        self.held = Some(Clocks::of(state));
        self.is_copy = true;
        Ok(())
    }

    /// Where the guest stands and what waits for whom, in words, for an error that nobody expected.
    ///
    /// # Errors
    /// When KVM does not give it.
    pub fn condition(&mut self) -> Result<String, MachineError> {
        let state = self.state()?;
        let mut said: Vec<String> = state.vcpus.iter().map(vcpu::condition).collect();
        said.push(lock(&self.devices).condition());
        Ok(said.join("; "))
    }

    /// A BLAKE3 sum of all guest memory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn sum(&self) -> Result<[u8; 32], MachineError> {
        let mut hasher = blake3::Hasher::new();
        let mut page = [0; PAGE_BYTES];
        for index in 0..self.ram.bytes() / PAGE_BYTES as u64 {
            self.ram.read_page(index, &mut page)?;
            hasher.update(&page);
        }
        Ok(hasher.finalize().into())
    }

    /// Opens a stream to a guest port.
    pub fn open(&self, port: u32, socket: UnixStream, greeting: Greeting) {
        let mut devices = lock(&self.devices);
        devices.vsock.open(port, socket, greeting);
        // At rest the guest's memory stays as it is: it hears of the stream when it is let run.
        let passed = if self.rests() {
            Ok(())
        } else {
            devices.pass_on()
        };
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

    /// Ends all streams, so that nobody waits for a guest that has ended.
    pub fn close_streams(&self) {
        lock(&self.devices).vsock.close_all();
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

/// Has KVM map pages into the guest before it touches them, where KVM can (Linux 6.11): each is a fault less.
fn prefault(shell: &Shell, hot: &[Extent]) {
    let Some(vcpu) = shell.vcpus.first() else {
        return;
    };
    for extent in hot {
        let Some(address) = shell.ram.guest_address(extent.first) else {
            continue;
        };
        if !vcpu::prefault(vcpu, address, extent.pages * PAGE_BYTES as u64) {
            return;
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

/// Lets the guest's counter run at the saved rate, where it differs from the host's by more than clocks drift. Whether
/// it does.
fn set_rate(fd: &kvm_ioctls::VcpuFd, saved_khz: u32) -> Result<bool, MachineError> {
    let here = fd
        .get_tsc_khz()
        .map_err(failed("read the rate of the host's counter"))?;
    let apart = u64::from(here.abs_diff(saved_khz));
    if apart * 1_000_000 <= u64::from(saved_khz) * TSC_TOLERANCE_PPM {
        return Ok(false);
    }
    fd.set_tsc_khz(saved_khz).map_err(|_| MachineError::Clock {
        saved: saved_khz,
        here,
    })?;
    Ok(true)
}
