//! One live machine: boot, restore, reach its ports, pause and freeze it.
//!
//! Ordering requirements:
//! 1. A freeze happens between pause and resume: state and pages belong to one moment.
//! 2. Bytes in the channel are in no snapshot: the caller freezes only after the agent has said that
//!    it is quiet.

use std::os::unix::net::UnixStream;
use std::path::Path;

use vmrepl_vmm::Phases;

use crate::engine::Engine;
use crate::error::MachineError;
use crate::kvm::KvmMachine;
use crate::parts::{Boot, Frozen, Hardware, Mark, Page, Restore};
use crate::qemu::QemuMachine;
use crate::spare::{self, Spare};

/// Words of the command line that every engine wants: the console while booting, a reboot as exit,
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
    /// A worker of our own monitor.
    Kvm(KvmMachine),
}

/// A machine that was restored.
#[derive(Debug)]
pub struct Restored {
    /// It runs, or is about to.
    pub machine: Machine,
    /// A stream for each port that was asked for, in that order. They may be written to at once.
    pub streams: Vec<UnixStream>,
}

impl Machine {
    /// Boots a Linux. The memory file becomes a base when the machine is frozen with [`Paused::into_base`].
    ///
    /// The calling thread must outlive the machine: the engine dies with the thread that started it.
    ///
    /// # Errors
    /// When the engine cannot start.
    pub fn boot(engine: &Engine, hardware: &Hardware, boot: &Boot) -> Result<Self, MachineError> {
        let command_line = format!(
            "{COMMAND_LINE} {} {}",
            engine.command_line(),
            boot.command_line
        );
        let boot = Boot {
            command_line,
            ..boot.clone()
        };
        match engine {
            Engine::Qemu(binary) => QemuMachine::boot(binary, hardware, &boot).map(Self::Qemu),
            Engine::Kvm(kvm) => KvmMachine::boot(kvm, hardware, &boot).map(Self::Kvm),
        }
    }

    /// Restores a machine from its saved state and the pages that lie over its memory file, with streams to
    /// ports that are open from the first instruction on. It takes what is ready, if anything is. Under KVM the
    /// engine may still be at it when this returns: see [`Machine::settle`].
    ///
    /// The calling thread must outlive the machine.
    ///
    /// # Errors
    /// When the state does not validate, or the engine cannot start.
    pub fn restore<'a>(
        engine: &Engine,
        spare: Option<Spare>,
        hardware: &Hardware,
        restore: &Restore<'_>,
        pages: impl Iterator<Item = (u64, &'a Page)>,
    ) -> Result<Restored, MachineError> {
        match engine {
            Engine::Qemu(binary) => {
                let machine = QemuMachine::restore(binary, hardware, restore.state, pages)?;
                let machine = Self::Qemu(machine);
                let streams = restore
                    .ports
                    .iter()
                    .map(|port| machine.connect(*port))
                    .collect::<Result<_, _>>()?;
                Ok(Restored { machine, streams })
            }
            Engine::Kvm(kvm) => {
                let spare = spare::worker(spare, kvm)?;
                let (machine, streams) =
                    KvmMachine::restore(spare, hardware, restore, pages, true)?;
                let machine = Self::Kvm(machine);
                Ok(Restored { machine, streams })
            }
        }
    }

    /// As [`Machine::restore`], but the machine rests: until [`Machine::resume`], or a guard of [`Machine::pause`]
    /// is dropped, it is what a restore makes and nothing else. It has settled when this returns.
    ///
    /// # Errors
    /// As [`Machine::restore`]; under emulation a machine runs as soon as it is restored.
    pub fn restore_at_rest<'a>(
        engine: &Engine,
        spare: Option<Spare>,
        hardware: &Hardware,
        restore: &Restore<'_>,
        pages: impl Iterator<Item = (u64, &'a Page)>,
    ) -> Result<Restored, MachineError> {
        let Engine::Kvm(kvm) = engine else {
            return Err(MachineError::NotInPlace);
        };
        let spare = spare::worker(spare, kvm)?;
        let (mut machine, streams) = KvmMachine::restore(spare, hardware, restore, pages, false)?;
        machine.settle()?;
        let machine = Self::Kvm(machine);
        Ok(Restored { machine, streams })
    }

    /// Waits until a restored machine is known to stand. Its streams can be written to before; under emulation it
    /// stands already.
    ///
    /// # Errors
    /// When the engine refuses what it was to restore.
    pub fn settle(&mut self) -> Result<(), MachineError> {
        match self {
            Self::Qemu(_) => Ok(()),
            Self::Kvm(machine) => machine.settle(),
        }
    }

    /// Lets a machine run that was restored at rest.
    pub fn resume(&mut self) {
        // A machine that does not resume has ended, and the next use of it says so.
        match self {
            Self::Qemu(machine) => machine.resume(),
            Self::Kvm(machine) => machine.resume(),
        }
    }

    /// Opens a stream to a guest port. Returns at once: what is written before the guest has accepted
    /// waits for it, and a refusal shows as the end of the stream.
    ///
    /// # Errors
    /// When the machine is gone or all streams are in use.
    pub fn connect(&self, port: u32) -> Result<UnixStream, MachineError> {
        match self {
            Self::Qemu(machine) => machine.connect(port),
            Self::Kvm(machine) => machine.connect(port),
        }
    }

    /// Opens the machine's socket, which takes `CONNECT <port>\n`, at `path` with mode 0600.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(&mut self, path: &Path) -> Result<(), MachineError> {
        match self {
            Self::Qemu(machine) => machine.listen(path),
            Self::Kvm(machine) => machine.listen(path),
        }
    }

    /// Has nothing reach the guest but what is on its way, and what the control streams of [`Machine::connect`] and of the
    /// restore say, until [`Machine::go`]. Under kvm streams do not share a channel, and there is nothing to hold.
    ///
    /// # Errors
    /// When the channel is gone.
    pub fn hold(&self) -> Result<(), MachineError> {
        match self {
            Self::Qemu(machine) => machine.hold(),
            Self::Kvm(_) => Ok(()),
        }
    }

    /// Streams go on.
    pub fn go(&self) {
        match self {
            Self::Qemu(machine) => machine.go(),
            Self::Kvm(_) => {}
        }
    }

    /// Stops the processors until the guard is dropped.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn pause(&mut self) -> Result<Paused<'_>, MachineError> {
        match self {
            Self::Qemu(machine) => machine.pause()?,
            Self::Kvm(machine) => machine.pause()?,
        }
        Ok(Paused { machine: self })
    }

    /// Ends the machine for a process that ends, too: under KVM without a wait until all of it is cleared away.
    pub fn leave(self) {
        match self {
            Self::Qemu(machine) => drop(machine),
            Self::Kvm(machine) => machine.leave(),
        }
    }

    /// When the parts of a restore were done, where the engine tells it.
    #[must_use]
    pub fn phases(&self) -> Option<Phases> {
        match self {
            Self::Qemu(_) => None,
            Self::Kvm(machine) => Some(machine.phases()),
        }
    }

    /// What it was restored from, as a moment to go back to in place, where the engine does that.
    #[must_use]
    pub fn beginning(&self) -> Option<Mark> {
        match self {
            Self::Qemu(_) => None,
            Self::Kvm(_) => Some(Mark::RESTORED),
        }
    }

    /// The process that runs the machine.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        match self {
            Self::Qemu(machine) => machine.process_id(),
            Self::Kvm(machine) => machine.process_id(),
        }
    }

    /// Why the machine is lost: how it ended and what it said. `None` while it lives.
    pub fn lost(&mut self) -> Option<String> {
        match self {
            Self::Qemu(machine) => machine.lost(),
            Self::Kvm(machine) => machine.lost(),
        }
    }

    /// Where the machine stands, in words, as far as its engine can tell: for an error that nobody expected.
    pub fn condition(&mut self) -> Option<String> {
        match self {
            Self::Qemu(_) => None,
            Self::Kvm(machine) => machine.condition(),
        }
    }

    /// The end of what the guest wrote to its console while booting.
    #[must_use]
    pub fn console(&self) -> String {
        match self {
            Self::Qemu(machine) => machine.console(),
            Self::Kvm(machine) => machine.console(),
        }
    }
}

/// A machine that stands still. It runs on when this is dropped.
#[derive(Debug)]
pub struct Paused<'a> {
    machine: &'a mut Machine,
}

impl Paused<'_> {
    /// Freezes the machine: its state, and the pages that have changed, each given to `each` in order of its
    /// index. Under kvm these are the pages written since the freeze before (or the restore); emulation gives
    /// all that were written since the restore, laid ones included, and whoever stores them compares with the
    /// parent.
    ///
    /// # Errors
    /// When the engine cannot save it.
    pub fn freeze(&mut self, each: impl FnMut(u64, &Page)) -> Result<Frozen, MachineError> {
        match self.machine {
            Machine::Qemu(machine) => machine.freeze(each),
            Machine::Kvm(machine) => machine.freeze(each),
        }
    }

    /// Brings the machine back to a moment that it was frozen at, in place. Streams to the ports that were open
    /// then stay. Returns how many pages were copied back.
    ///
    /// # Errors
    /// When the engine cannot do it in place (emulation restores instead), or refuses.
    pub fn roll_back(&mut self, mark: Mark) -> Result<u64, MachineError> {
        match self.machine {
            Machine::Qemu(_) => Err(MachineError::NotInPlace),
            Machine::Kvm(machine) => machine.roll_back(mark),
        }
    }

    /// A BLAKE3 sum of all guest memory.
    ///
    /// # Errors
    /// When the engine cannot tell it.
    pub fn sum(&mut self) -> Result<[u8; 32], MachineError> {
        match self.machine {
            Machine::Qemu(_) => Err(MachineError::NotInPlace),
            Machine::Kvm(machine) => machine.sum(),
        }
    }

    /// Where the machine stands, in words, as far as its engine can tell.
    pub fn condition(&mut self) -> Option<String> {
        match self.machine {
            Machine::Qemu(_) => None,
            Machine::Kvm(machine) => machine.condition_at_rest(),
        }
    }

    /// The state of everything but memory, as [`Paused::freeze`] gives it.
    ///
    /// # Errors
    /// When the engine cannot save it.
    pub fn save_state(&mut self) -> Result<Vec<u8>, MachineError> {
        match self.machine {
            Machine::Qemu(machine) => machine.save_state(),
            Machine::Kvm(machine) => machine.save_state(),
        }
    }

    /// Ends a booted machine for good and returns its state; its memory file is then the base.
    ///
    /// # Errors
    /// When the engine cannot save its state.
    pub fn into_base(self) -> Result<Vec<u8>, MachineError> {
        match self.machine {
            Machine::Qemu(machine) => {
                let state = machine.save_state()?;
                machine.kill();
                Ok(state)
            }
            Machine::Kvm(machine) => {
                let state = machine.save_state()?;
                machine.write_base()?;
                machine.kill();
                Ok(state)
            }
        }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.machine.resume();
    }
}
