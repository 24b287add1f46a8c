//! Why the order of a restore is what it is.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd};

use super::tiny::kvm;
use crate::cpuid;
use crate::limits::MEMORY_BYTES_MIN;
use crate::shell::{self, Shape, Shell, Tracking};
use crate::spec::msr;
use crate::vcpu;

const DEADLINE: u64 = 1 << 62;

fn shell(kvm: &Kvm) -> Shell {
    let shape = Shape {
        memory_bytes: MEMORY_BYTES_MIN,
        vcpus: 1,
        tracking: Tracking::Off,
    };
    let shell = Shell::build(kvm, shape).unwrap();
    let table = cpuid::stable(&shell.supported);
    vcpu::set_cpuid(&shell.vcpus[0], &table, 0, 1).unwrap();
    shell
}

fn deadline(fd: &VcpuFd) -> u64 {
    let entry = kvm_msr_entry {
        index: msr::TSC_DEADLINE,
        ..Default::default()
    };
    let mut msrs = Msrs::from_entries(&[entry]).unwrap();
    assert_eq!(fd.get_msrs(&mut msrs).unwrap(), 1);
    msrs.as_slice()[0].data
}

fn set_deadline(fd: &VcpuFd) {
    let entry = kvm_msr_entry {
        index: msr::TSC_DEADLINE,
        data: DEADLINE,
        ..Default::default()
    };
    let msrs = Msrs::from_entries(&[entry]).unwrap();
    assert_eq!(fd.set_msrs(&msrs).unwrap(), 1, "it is never refused");
}

/// Lets the timer of a local APIC compare the counter with a deadline (Intel SDM volume 3, 11.5.4).
fn set_mode(fd: &VcpuFd) {
    let mut lapic = fd.get_lapic().unwrap();
    for (register, value) in [(0xf0, 0x1ff_u32), (0x320, 0x4_0030)] {
        for (at, byte) in value.to_le_bytes().into_iter().enumerate() {
            lapic.regs[register + at] = byte.cast_signed();
        }
    }
    fd.set_lapic(&lapic).unwrap();
}

#[test]
fn a_deadline_before_its_local_apic_is_lost_in_silence() {
    let Some(kvm) = kvm() else { return };
    let right = shell(&kvm);
    set_mode(&right.vcpus[0]);
    set_deadline(&right.vcpus[0]);
    assert_eq!(deadline(&right.vcpus[0]), DEADLINE);
    let wrong = shell(&kvm);
    set_deadline(&wrong.vcpus[0]);
    set_mode(&wrong.vcpus[0]);
    assert_eq!(deadline(&wrong.vcpus[0]), 0);
}

#[test]
fn a_saved_deadline_comes_back() {
    let Some(kvm) = kvm() else { return };
    let first = shell(&kvm);
    set_mode(&first.vcpus[0]);
    set_deadline(&first.vcpus[0]);
    let known = shell::msr_indices(&kvm).unwrap();
    let msrs = vcpu::readable_msrs(&first.vcpus[0], &known).unwrap();
    let last = msrs.last().copied();
    assert_eq!((msrs[0], last), (msr::TSC, Some(msr::TSC_DEADLINE)));
    let saved = vcpu::save(&first.vcpus[0], &msrs).unwrap();
    let second = shell(&kvm);
    vcpu::restore(&second.vcpus[0], &saved).unwrap();
    // What goes on by itself comes when the guest is let run.
    let time = |entry: &&kvm_msr_entry| msr::is_time(entry.index);
    let times: Vec<_> = saved.msrs.iter().filter(time).copied().collect();
    vcpu::set_msrs(&second.vcpus[0], &times).unwrap();
    assert_eq!(deadline(&second.vcpus[0]), DEADLINE);
    let again = vcpu::save(&second.vcpus[0], &msrs).unwrap();
    for (one, other) in saved.msrs.iter().zip(&again.msrs) {
        assert!(one == other || msr::is_time(one.index), "{:#x}", one.index);
    }
    assert_eq!(again.lapic, saved.lapic);
    assert_eq!(again.regs, saved.regs);
    assert_eq!(again.sregs, saved.sregs);
    assert_eq!(again.events, saved.events);
}
