//! Machines of 16 MiB that run a program of the test, on this host's KVM.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use kvm_ioctls::Kvm;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::program::{ENTRY, Program};
use crate::boot;
use crate::cpuid;
use crate::devices::Devices;
use crate::limits::{MEMORY_BYTES_MIN, PAGE_BYTES};
use crate::machine::{Machine, MachineError};
use crate::parts::Parts;
use crate::processors::MachineEnd;
use crate::shell::{self, Shape, Shell, Tracking};
use crate::state::MachineState;
use crate::vcpu;

pub(super) const MEMORY_BYTES: u64 = MEMORY_BYTES_MIN;
/// Until then everything has happened, on an emulated processor, too.
const DEADLINE: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};

/// This host's KVM. Without it a test is skipped, unless all is required.
pub(super) fn kvm() -> Option<Kvm> {
    match Kvm::new() {
        Ok(kvm) => Some(kvm),
        Err(error) => {
            let all = std::env::var_os("VMREPL_REQUIRE_ALL").is_some_and(|all| !all.is_empty());
            assert!(!all, "/dev/kvm is required here: {error}");
            eprintln!("SKIPPED: /dev/kvm: {error}");
            None
        }
    }
}

/// What tiny machines are restored from: a memory with a program, and the state of a processor at its start.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) memory: File,
    pub(super) state: Vec<u8>,
}

impl Template {
    pub(super) fn new(kvm: &Kvm, program: &Program) -> Self {
        Self::with_vcpus(kvm, program, 1)
    }

    /// The first processor runs the program; the others wait to be started.
    pub(super) fn with_vcpus(kvm: &Kvm, program: &Program, vcpus: u8) -> Self {
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(MEMORY_BYTES).unwrap();
        memory.write_all_at(program.bytes(), ENTRY.into()).unwrap();
        let shape = Shape {
            memory_bytes: MEMORY_BYTES,
            vcpus,
            tracking: Tracking::Off,
        };
        let mut shell = Shell::build(kvm, shape).unwrap();
        let table = cpuid::stable(&shell.supported);
        shell.ram.map(&memory).unwrap();
        for (number, fd) in (0..).zip(&shell.vcpus) {
            vcpu::set_cpuid(fd, &table, number, vcpus).unwrap();
            vcpu::set_boot_msrs(fd).unwrap();
        }
        boot::set_registers(&shell.vcpus[0], ENTRY.into()).unwrap();
        let known = shell::msr_indices(kvm).unwrap();
        let msrs = vcpu::readable_msrs(&shell.vcpus[0], &known).unwrap();
        let saved = shell.vcpus.iter().map(|fd| vcpu::save(fd, &msrs).unwrap());
        let parts = parts(&memory);
        let devices = Devices::new(
            Arc::clone(&shell.vm),
            shell.ram.memory().clone(),
            parts.root,
            parts.console,
        );
        let state = MachineState {
            memory_bytes: MEMORY_BYTES,
            clock_ns: shell.vm.get_clock().unwrap().clock,
            cpuid: table,
            vcpus: saved.collect(),
            devices: devices.unwrap().state(),
        };
        Self {
            memory,
            state: state.encode(),
        }
    }

    pub(super) fn restore(&self, kvm: &Kvm) -> Machine {
        self.restore_state(kvm, &self.state).unwrap()
    }

    pub(super) fn restore_state(&self, kvm: &Kvm, state: &[u8]) -> Result<Machine, MachineError> {
        let laid = tempfile::tempfile().unwrap();
        let saved = crate::Saved {
            state,
            laid: &laid,
            laid_pages: 0,
            hot: &[],
            purpose: crate::Purpose::Freeze,
        };
        let mut phases = crate::Phases::default();
        Machine::restore(
            kvm,
            None,
            &saved,
            parts(&self.memory),
            Vec::new(),
            &mut phases,
        )
    }
}

pub(super) fn parts(memory: &File) -> Parts {
    Parts {
        memory: memory.try_clone().unwrap(),
        root: tempfile::tempfile().unwrap(),
        console: tempfile::tempfile().unwrap(),
    }
}

/// Runs a machine to its end.
pub(super) fn end(machine: &mut Machine) -> MachineEnd {
    machine.run().unwrap();
    let ended = machine.ended().as_fd().try_clone_to_owned().unwrap();
    let mut fds = [PollFd::new(&ended, PollFlags::IN)];
    let count = poll(&mut fds, Some(&DEADLINE)).unwrap();
    assert_eq!(count, 1, "the machine ends");
    machine.rest();
    machine.end().expect("a reason")
}

/// Runs a template's program to its end.
pub(super) fn run(kvm: &Kvm, program: &Program) -> (MachineEnd, Machine) {
    let mut machine = Template::new(kvm, program).restore(kvm);
    (end(&mut machine), machine)
}

/// Freezes a resting machine and returns the pages that have changed with their contents.
pub(super) fn changed(machine: &mut Machine) -> Vec<(u64, Vec<u8>)> {
    let slab = tempfile::tempfile().unwrap();
    let (_, frozen) = machine.freeze(&slab).unwrap();
    let mut bytes = vec![0; frozen.pages * (PAGE_BYTES + 8)];
    slab.read_exact_at(&mut bytes, 0).unwrap();
    let (contents, indices) = bytes.split_at(frozen.pages * PAGE_BYTES);
    let indices = indices.as_chunks::<8>().0;
    let contents = contents.chunks(PAGE_BYTES).map(<[u8]>::to_vec);
    indices
        .iter()
        .map(|index| u64::from_le_bytes(*index))
        .zip(contents)
        .collect()
}

/// A word among changed pages.
pub(super) fn word(changed: &[(u64, Vec<u8>)], address: u32) -> u32 {
    let (page, at) = (u64::from(address) / 4096, address as usize % 4096);
    let (_, content) = changed
        .iter()
        .find(|(index, _)| *index == page)
        .expect("the page has changed");
    u32::from_le_bytes(content[at..at + 4].try_into().unwrap())
}
