//! What goes on by itself: KVM's clock, and each processor's counter with the deadline of its timer. While a
//! machine rests they are held, and set when it is let run.
//!
//! Ordering requirements:
//! 1. KVM's clock before the counters: what the guest reads is derived from both at the next entry.
//! 2. A counter before the deadline that is compared with it.
#![expect(
    unsafe_code,
    reason = "one call of KVM and one instruction have no safe wrapper"
)]

use std::ops::DerefMut;
use std::os::fd::AsRawFd as _;

use kvm_bindings::{
    KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, kvm_clock_data, kvm_device_attr, kvm_msr_entry,
};
use kvm_ioctls::{VcpuFd, VmFd};

use crate::spec::msr;
use crate::state::MachineState;
use crate::vcpu::{self, VcpuError};

/// `KVM_SET_DEVICE_ATTR` of a processor, `linux/kvm.h`.
const SET_DEVICE_ATTR: libc::Ioctl = 0x4018_aee1;

/// A clock that KVM does not take.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    #[error("could not set the clock")]
    Clock(#[source] kvm_ioctls::Error),
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
}

/// The clocks of one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Clocks {
    clock_ns: u64,
    counters: Vec<Vec<kvm_msr_entry>>,
}

impl Clocks {
    pub(crate) fn of(state: &MachineState) -> Self {
        let time = |entry: &&kvm_msr_entry| msr::is_time(entry.index);
        let counters = state.vcpus.iter();
        Self {
            clock_ns: state.clock_ns,
            counters: counters
                .map(|vcpu| vcpu.msrs.iter().filter(time).copied().collect())
                .collect(),
        }
    }

    /// Puts these clocks in the place of what a later look has read.
    pub(crate) fn put_into(&self, state: &mut MachineState) {
        state.clock_ns = self.clock_ns;
        for (vcpu, held) in state.vcpus.iter_mut().zip(&self.counters) {
            for entry in &mut vcpu.msrs {
                if let Some(held) = held.iter().find(|held| held.index == entry.index) {
                    *entry = *held;
                }
            }
        }
    }

    /// Lets the clocks go on from here; `is_scaled` when KVM makes a counter of another rate than the host's.
    pub(crate) fn set(
        &self,
        vm: &VmFd,
        processors: impl Iterator<Item = impl DerefMut<Target = VcpuFd>>,
        is_scaled: bool,
    ) -> Result<(), ClockError> {
        let clock = kvm_clock_data {
            clock: self.clock_ns,
            ..Default::default()
        };
        vm.set_clock(&clock).map_err(ClockError::Clock)?;
        // One offset for all: counters that ran together go on together.
        let first = self.counters.first().into_iter().flatten();
        let counter = first
            .filter(|entry| entry.index == msr::TSC)
            .map(|entry| entry.data)
            .next();
        let offset = counter.map(|counter| counter.wrapping_sub(host_counter()));
        for (fd, counters) in processors.zip(&self.counters) {
            let is_set = !is_scaled && offset.is_some_and(|offset| set_offset(&fd, offset));
            let rest: Vec<kvm_msr_entry> = counters
                .iter()
                .filter(|entry| !is_set || entry.index != msr::TSC)
                .copied()
                .collect();
            vcpu::set_msrs(&fd, &rest)?;
        }
        Ok(())
    }
}

/// Sets a counter by its distance from the host's, where both have one rate. Writing the counter itself is no exact
/// way: KVM takes a value that is within a second of what it would be for an attempt to bring processors into step,
/// and leaves it as it was. False where KVM has no such call.
fn set_offset(fd: &VcpuFd, offset: u64) -> bool {
    let attribute = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: (&raw const offset) as u64,
        flags: 0,
    };
    // SAFETY: the call reads one kvm_device_attr and the eight bytes at its address, both alive here.
    let status = unsafe { libc::ioctl(fd.as_raw_fd(), SET_DEVICE_ATTR, &raw const attribute) };
    status == 0
}

fn host_counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { std::arch::x86_64::_rdtsc() }
}
