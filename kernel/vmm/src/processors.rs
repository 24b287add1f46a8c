//! The threads that run virtual processors: started at rest, let run, brought to rest, ended.
//!
//! A processor is at rest when its thread waits at the gate and KVM has nothing half done for it. Bringing it
//! there: the phase is changed first, then KVM is told to leave at once, then a signal gets the thread out of
//! KVM. The thread takes the order back (a late one may still stand) before it looks at the phase again, so no
//! order is lost and none outlives its purpose.
#![expect(
    unsafe_code,
    reason = "another thread than the processor's own tells KVM to leave"
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{Killable as _, SIGRTMIN, register_signal_handler};

use crate::devices::{Broken, Devices, Ended};
use crate::worker::jail;

const STACK_BYTES: usize = 128 << 10;

/// Why a machine has ended by itself.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineEnd {
    #[error("the guest powered off")]
    PowerOff,
    #[error("the guest reset the machine")]
    Reset,
    #[error("the guest's processor shut down (a triple fault)")]
    Shutdown,
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("KVM could not enter the guest: reason {reason:#x}")]
    Entry { reason: u64 },
    #[error("KVM met an internal error ({what})")]
    Internal { what: String },
    #[error("KVM could not run the guest: {what}")]
    Run { what: String },
    #[error("the guest left to its host for a reason that is not handled: {what}")]
    Unhandled { what: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Rest,
    Run,
    Stop,
}

#[derive(Debug)]
struct Gate {
    phase: Phase,
    resting: usize,
    end: Option<MachineEnd>,
}

/// What the threads share with whoever commands them.
#[derive(Debug)]
struct Shared {
    gate: Mutex<Gate>,
    changed: Condvar,
    /// The gate's phase again, for a look without its lock.
    phase: AtomicU8,
    devices: Arc<Mutex<Devices>>,
    /// Readable once the machine has ended.
    ended: OwnedFd,
}

/// A processor, locked by its thread whenever it is not at rest.
type Slot = Arc<Mutex<VcpuFd>>;

/// KVM's flag to leave a processor at once: a byte of memory that it shares with us.
#[derive(Debug)]
struct Leave(*const AtomicU8);

// SAFETY: the byte is only accessed atomically; the mapping lives as long as the processor, which the same
// `Processor` keeps.
unsafe impl Send for Leave {}
// SAFETY: as above.
unsafe impl Sync for Leave {}

impl Leave {
    fn new(vcpu: &mut VcpuFd) -> Self {
        let byte: *mut u8 = &raw mut vcpu.get_kvm_run().immediate_exit;
        Self(byte.cast_const().cast())
    }

    fn set(&self, value: bool) {
        // SAFETY: see the type: the mapping is alive, and every access is atomic.
        let byte = unsafe { &*self.0 };
        byte.store(u8::from(value), Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Processor {
    thread: Option<JoinHandle<()>>,
    leave: Arc<Leave>,
    slot: Slot,
}

/// All processors of a machine.
#[derive(Debug)]
pub(crate) struct Processors {
    processors: Vec<Processor>,
    shared: Arc<Shared>,
}

impl Processors {
    /// Starts a thread for each processor. They rest.
    pub(crate) fn start(vcpus: Vec<VcpuFd>, devices: Arc<Mutex<Devices>>) -> io::Result<Self> {
        // The handler does nothing: the signal is for getting out of KVM.
        extern "C" fn out(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        register_signal_handler(SIGRTMIN(), out).map_err(io::Error::from)?;
        let ended = rustix::event::eventfd(
            0,
            rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
        )?;
        let shared = Arc::new(Shared {
            gate: Mutex::new(Gate {
                phase: Phase::Rest,
                resting: 0,
                end: None,
            }),
            changed: Condvar::new(),
            phase: AtomicU8::new(Phase::Rest as u8),
            devices,
            ended,
        });
        let mut all = Self {
            processors: Vec::new(),
            shared: Arc::clone(&shared),
        };
        for (number, mut vcpu) in vcpus.into_iter().enumerate() {
            let leave = Arc::new(Leave::new(&mut vcpu));
            let slot = Arc::new(Mutex::new(vcpu));
            let (own_slot, own_leave, shared) =
                (Arc::clone(&slot), Arc::clone(&leave), Arc::clone(&shared));
            let thread = std::thread::Builder::new()
                .name(format!("vcpu-{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || match jail::enter_processor() {
                    Ok(()) => shared.processor(&own_slot, &own_leave),
                    Err(error) => shared.never_ran(&error.to_string()),
                })?;
            all.processors.push(Processor {
                thread: Some(thread),
                leave,
                slot,
            });
        }
        all.wait_for_rest();
        Ok(all)
    }

    /// Lets all processors run.
    pub(crate) fn run(&self) {
        self.shared.set(Phase::Run);
    }

    /// Whether they were let run.
    pub(crate) fn may_run(&self) -> bool {
        self.shared.may_run()
    }

    /// Brings all processors to rest.
    pub(crate) fn rest(&self) {
        self.shared.set(Phase::Rest);
        self.kick();
        self.wait_for_rest();
    }

    /// The processors, which must rest.
    pub(crate) fn at_rest(&self) -> impl Iterator<Item = MutexGuard<'_, VcpuFd>> {
        self.processors
            .iter()
            .map(|processor| lock(&processor.slot))
    }

    /// Becomes readable when the machine ends by itself.
    pub(crate) fn ended_fd(&self) -> BorrowedFd<'_> {
        self.shared.ended.as_fd()
    }

    /// Why the machine has ended, if it has.
    pub(crate) fn end(&self) -> Option<MachineEnd> {
        lock(&self.shared.gate).end.clone()
    }

    /// Ends the machine for a reason found elsewhere.
    pub(crate) fn fail(&self, end: MachineEnd) {
        self.shared.end(end);
    }

    fn kick(&self) {
        for processor in &self.processors {
            processor.leave.set(true);
            if let Some(thread) = &processor.thread {
                // A thread that has ended needs no signal.
                thread.kill(SIGRTMIN()).ok();
            }
        }
    }

    fn wait_for_rest(&self) {
        let mut gate = lock(&self.shared.gate);
        while gate.resting < self.processors.len() {
            gate = self
                .shared
                .changed
                .wait(gate)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        self.shared.set(Phase::Stop);
        self.kick();
        for processor in &mut self.processors {
            if let Some(thread) = processor.thread.take() {
                drop(thread.join());
            }
        }
    }
}

impl Shared {
    fn set(&self, phase: Phase) {
        let mut gate = lock(&self.gate);
        // Once ended, a machine rests until it is dropped.
        if gate.end.is_some() && phase == Phase::Run {
            return;
        }
        gate.phase = phase;
        self.phase.store(phase as u8, Ordering::SeqCst);
        drop(gate);
        self.changed.notify_all();
    }

    fn end(&self, end: MachineEnd) {
        let mut gate = lock(&self.gate);
        gate.end.get_or_insert(end);
        if gate.phase == Phase::Run {
            gate.phase = Phase::Rest;
            self.phase.store(Phase::Rest as u8, Ordering::SeqCst);
        }
        drop(gate);
        // The counter cannot overflow by ones, and nobody waits for room.
        rustix::io::write(&self.ended, &1_u64.to_ne_bytes()).ok();
    }

    fn may_run(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == Phase::Run as u8
    }

    /// A processor without its jail does not run.
    fn never_ran(&self, why: &str) {
        self.end(MachineEnd::Internal {
            what: why.to_owned(),
        });
        while self.pass_gate() {}
    }

    /// A processor's life.
    fn processor(&self, slot: &Slot, leave: &Leave) {
        while self.pass_gate() {
            let mut vcpu = lock(slot);
            while self.may_run() {
                match self.step(&mut vcpu) {
                    Ok(Step::Again) => {}
                    Ok(Step::Left) => leave.set(false),
                    Err(end) => self.end(end),
                }
            }
            // What KVM has half done (an access whose answer it has not taken) is finished, without a
            // further instruction.
            leave.set(true);
            loop {
                match self.step(&mut vcpu) {
                    Ok(Step::Again) => {}
                    Ok(Step::Left) => break,
                    Err(end) => {
                        self.end(end);
                        break;
                    }
                }
            }
            leave.set(false);
        }
    }

    /// Waits at the gate until the processor may run; false when it is to end.
    fn pass_gate(&self) -> bool {
        let mut gate = lock(&self.gate);
        gate.resting += 1;
        self.changed.notify_all();
        while gate.phase == Phase::Rest {
            gate = self
                .changed
                .wait(gate)
                .unwrap_or_else(PoisonError::into_inner);
        }
        gate.resting -= 1;
        gate.phase == Phase::Run
    }

    /// Runs the guest until it wants something, and gives it that.
    fn step(&self, vcpu: &mut VcpuFd) -> Result<Step, MachineEnd> {
        let exit = match vcpu.run() {
            Ok(exit) => exit,
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return Ok(Step::Left);
            }
            Err(error) => {
                return Err(MachineEnd::Run {
                    what: error.to_string(),
                });
            }
        };
        match exit {
            VcpuExit::MmioWrite(address, data) => {
                lock(&self.devices).write_memory(address, data)?;
            }
            VcpuExit::MmioRead(address, data) => lock(&self.devices).read_memory(address, data),
            VcpuExit::IoOut(port, data) => match lock(&self.devices).write_port(port, data)? {
                None => {}
                Some(Ended::PowerOff) => return Err(MachineEnd::PowerOff),
                Some(Ended::Reset) => return Err(MachineEnd::Reset),
            },
            VcpuExit::IoIn(port, data) => lock(&self.devices).read_port(port, data),
            VcpuExit::Intr => return Ok(Step::Left),
            // Lines are edge-triggered: the end of an interrupt changes nothing here.
            VcpuExit::IoapicEoi(_) => {}
            VcpuExit::Shutdown | VcpuExit::SystemEvent(..) => return Err(MachineEnd::Shutdown),
            VcpuExit::FailEntry(reason, _) => return Err(MachineEnd::Entry { reason }),
            VcpuExit::InternalError => {
                return Err(MachineEnd::Internal {
                    what: internal_error(vcpu),
                });
            }
            other => {
                return Err(MachineEnd::Unhandled {
                    what: format!("{other:?}"),
                });
            }
        }
        Ok(Step::Again)
    }
}

/// How an entry into the guest came back.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The guest wanted something and got it.
    Again,
    /// KVM left without a reason of the guest's.
    Left,
}

/// What KVM says of an internal error, with where the guest stood.
fn internal_error(vcpu: &mut VcpuFd) -> String {
    let run = vcpu.get_kvm_run();
    // SAFETY: the exit reason is KVM_EXIT_INTERNAL_ERROR, for which KVM fills this member of the union.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let place = vcpu
        .get_regs()
        .map_or_else(|_| "?".to_owned(), |regs| format!("{:#x}", regs.rip));
    format!("kind {}, at {place}", internal.suberror)
}

/// A lock whose holder panicked protects state that is still whole: every change is one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
