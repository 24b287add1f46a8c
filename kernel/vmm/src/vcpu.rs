//! The state of one virtual processor: saved from KVM, and given back to it.
//!
//! Ordering requirements of a restore:
//! 1. CPUID first: it decides which registers exist.
//! 2. MP_STATE before the local APIC, whose state it may change.
//! 3. SREGS before XSAVE, XCRS after it: both depend on CR4.
//! 4. The local APIC before the MSRs: the TSC deadline is refused (in silence) while the timer's mode is unset.
//! 5. VCPU_EVENTS after them: it may hold an interrupt that all else must be in place for.
//! 6. The TSC and then its deadline last of all, when the guest is let run: in the other order the timer would
//!    fire at a moment of the old clock.

use std::os::fd::AsRawFd as _;

use kvm_bindings::{
    CpuId, KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW,
    KVM_VCPUEVENT_VALID_SIPI_VECTOR, Msrs, kvm_cpuid_entry2, kvm_msr_entry, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::cpuid;
use crate::lapic;
use crate::spec::{lapic as reg, msr};
use crate::state::VcpuState;

/// How many registers one call takes.
const MSRS_AT_ONCE: usize = 128;

/// A virtual processor that KVM refuses to read or to set.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    #[error("could not {verb} the {what} of a virtual processor")]
    Kvm {
        verb: &'static str,
        what: &'static str,
        #[source]
        source: kvm_ioctls::Error,
    },
    #[error("KVM did not take the value {value:#x} of the model-specific register {index:#x}")]
    Msr { index: u32, value: u64 },
    #[error("the {what} of a virtual processor have {found} bytes or entries, KVM's have {known}")]
    Size {
        what: &'static str,
        found: usize,
        known: usize,
    },
}

fn get(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> VcpuError {
    move |source| VcpuError::Kvm {
        verb: "read",
        what,
        source,
    }
}

fn set(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> VcpuError {
    move |source| VcpuError::Kvm {
        verb: "set",
        what,
        source,
    }
}

/// Gives a processor its table of features.
pub(crate) fn set_cpuid(
    vcpu: &VcpuFd,
    table: &[kvm_cpuid_entry2],
    number: u8,
    vcpus: u8,
) -> Result<(), VcpuError> {
    let table = cpuid::for_vcpu(table, number, vcpus);
    let found = table.len();
    let table = CpuId::from_entries(&table).map_err(|_| VcpuError::Size {
        what: "CPUID entries",
        found,
        known: kvm_bindings::KVM_MAX_CPUID_ENTRIES,
    })?;
    vcpu.set_cpuid2(&table).map_err(set("CPUID"))
}

/// Registers that a Linux expects otherwise than KVM leaves them.
pub(crate) fn set_boot_msrs(vcpu: &VcpuFd) -> Result<(), VcpuError> {
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    set_msrs(
        vcpu,
        &[
            entry(msr::MISC_ENABLE, msr::MISC_ENABLE_FAST_STRING),
            entry(msr::MTRR_DEF_TYPE, msr::MTRR_WRITE_BACK),
        ],
    )
}

/// Lets XCR0 begin with all states that the guest is told of, instead of one. Linux sets it to these before it uses
/// any, so on hardware nothing differs. QEMU's emulation of nested SVM (7.2) executes a guest's XSETBV without an
/// exit: KVM would not learn of it, its CPUID would tell the guest a wrong size, and the guest would give up AVX.
pub(crate) fn set_boot_xcrs(vcpu: &VcpuFd, table: &[kvm_cpuid_entry2]) -> Result<(), VcpuError> {
    let value = cpuid::extended_states(table);
    if value == 0 {
        return Ok(());
    }
    let mut xcrs = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    xcrs.xcrs[0].value = value;
    vcpu.set_xcrs(&xcrs)
        .map_err(set("extended control registers"))
}

/// The registers of `known` that can be read here, in the order of a restore.
pub(crate) fn readable_msrs(vcpu: &VcpuFd, known: &[u32]) -> Result<Vec<u32>, VcpuError> {
    let mut wanted: Vec<u32> = known
        .iter()
        .copied()
        .filter(|index| msr::is_saved(*index))
        .chain([msr::TSC, msr::TSC_DEADLINE])
        .chain(msr::UNLISTED.into_iter().flatten())
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    // TSC first, its deadline last.
    wanted.sort_by_key(|index| match *index {
        msr::TSC => 0,
        msr::TSC_ADJUST => 1,
        msr::TSC_DEADLINE => 3,
        _ => 2,
    });
    let mut readable = Vec::with_capacity(wanted.len());
    let mut rest = wanted.as_slice();
    while !rest.is_empty() {
        let batch = &rest[..rest.len().min(MSRS_AT_ONCE)];
        let mut msrs = entries(batch)?;
        let read = vcpu.get_msrs(&mut msrs).map_err(get("MSRs"))?;
        readable.extend_from_slice(&batch[..read]);
        // The first that was not read cannot be; go on behind it.
        let used = if read < batch.len() { read + 1 } else { read };
        rest = &rest[used..];
    }
    Ok(readable)
}

fn entries(indices: &[u32]) -> Result<Msrs, VcpuError> {
    let entries: Vec<kvm_msr_entry> = indices
        .iter()
        .map(|&index| kvm_msr_entry {
            index,
            ..Default::default()
        })
        .collect();
    list(&entries)
}

fn list(entries: &[kvm_msr_entry]) -> Result<Msrs, VcpuError> {
    Msrs::from_entries(entries).map_err(|_| VcpuError::Size {
        what: "MSRs",
        found: entries.len(),
        known: MSRS_AT_ONCE,
    })
}

fn get_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, VcpuError> {
    let mut all = Vec::with_capacity(indices.len());
    for batch in indices.chunks(MSRS_AT_ONCE) {
        let mut msrs = entries(batch)?;
        let read = vcpu.get_msrs(&mut msrs).map_err(get("MSRs"))?;
        if read != batch.len() {
            return Err(VcpuError::Size {
                what: "MSRs",
                found: read,
                known: batch.len(),
            });
        }
        all.extend_from_slice(msrs.as_slice());
    }
    Ok(all)
}

pub(crate) fn set_msrs(vcpu: &VcpuFd, all: &[kvm_msr_entry]) -> Result<(), VcpuError> {
    for batch in all.chunks(MSRS_AT_ONCE) {
        let msrs = list(batch)?;
        // KVM stops at the first that it refuses, and says only how many it took.
        let taken = vcpu.set_msrs(&msrs).map_err(set("MSRs"))?;
        if let Some(refused) = batch.get(taken) {
            return Err(VcpuError::Msr {
                index: refused.index,
                value: refused.data,
            });
        }
    }
    Ok(())
}

/// Reads a processor that stands still between two instructions.
pub(crate) fn save(vcpu: &VcpuFd, msrs: &[u32]) -> Result<VcpuState, VcpuError> {
    // Before the local APIC: reading it may settle a pending INIT or SIPI.
    let mp_state = vcpu.get_mp_state().map_err(get("run state"))?;
    let regs = vcpu.get_regs().map_err(get("registers"))?;
    let sregs = vcpu.get_sregs().map_err(get("special registers"))?;
    let xsave = vcpu.get_xsave().map_err(get("extended state"))?;
    let xcrs = vcpu.get_xcrs().map_err(get("extended control registers"))?;
    let debug = vcpu.get_debug_regs().map_err(get("debug registers"))?;
    let mut lapic = vcpu.get_lapic().map_err(get("local APIC"))?;
    lapic::settle_priority(&mut lapic);
    let mut msrs = get_msrs(vcpu, msrs)?;
    let tsc = msrs.iter().find(|entry| entry.index == msr::TSC);
    if let Some(tsc) = tsc.map(|entry| entry.data)
        && let Some(deadline) = msrs.last_mut()
        && deadline.index == msr::TSC_DEADLINE
        && deadline.data == 0
        && lapic::timer_waits(&lapic)
    {
        // The deadline has passed and its interrupt is on the way: it must not be lost.
        deadline.data = tsc;
    }
    let mut events = vcpu.get_vcpu_events().map_err(get("events"))?;
    events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING
        | KVM_VCPUEVENT_VALID_SIPI_VECTOR
        | KVM_VCPUEVENT_VALID_SHADOW;
    Ok(VcpuState {
        tsc_khz: vcpu.get_tsc_khz().map_err(get("clock rate"))?,
        mp_state,
        regs,
        sregs,
        xsave: xsave.as_bytes().to_vec(),
        xcrs,
        debug,
        lapic,
        msrs,
        events,
    })
}

/// Sets a processor to a saved state, but for CPUID, which comes before: see [`set_cpuid`].
pub(crate) fn restore(vcpu: &VcpuFd, state: &VcpuState) -> Result<(), VcpuError> {
    vcpu.set_mp_state(state.mp_state)
        .map_err(set("run state"))?;
    vcpu.set_regs(&state.regs).map_err(set("registers"))?;
    vcpu.set_sregs(&state.sregs)
        .map_err(set("special registers"))?;
    set_xsave(vcpu, &state.xsave)?;
    vcpu.set_xcrs(&state.xcrs)
        .map_err(set("extended control registers"))?;
    vcpu.set_debug_regs(&state.debug)
        .map_err(set("debug registers"))?;
    vcpu.set_lapic(&state.lapic).map_err(set("local APIC"))?;
    // The clocks stand still until the guest is let run, and are set then.
    let still = |entry: &&kvm_msr_entry| !msr::is_time(entry.index);
    let msrs: Vec<kvm_msr_entry> = state.msrs.iter().filter(still).copied().collect();
    set_msrs(vcpu, &msrs)?;
    vcpu.set_vcpu_events(&state.events).map_err(set("events"))
}

#[expect(
    unsafe_code,
    reason = "the call reads as many bytes as the host's processors have"
)]
fn set_xsave(vcpu: &VcpuFd, bytes: &[u8]) -> Result<(), VcpuError> {
    let xsave = kvm_xsave::read_from_bytes(bytes).map_err(|_| VcpuError::Size {
        what: "bytes of extended state",
        found: bytes.len(),
        known: size_of::<kvm_xsave>(),
    })?;
    // SAFETY: KVM_SET_XSAVE reads more than `kvm_xsave` only when this process has asked for states that are
    // enabled one by one (AMX), and it never does.
    unsafe { vcpu.set_xsave(&xsave) }.map_err(set("extended state"))
}

/// Where a processor stands, in words.
pub(crate) fn condition(state: &VcpuState) -> String {
    const INTERRUPTS_ON: u64 = 1 << 9;
    let vectors = |first| lapic::vectors(&state.lapic, first).collect::<Vec<u8>>();
    let time = |index| {
        let entry = state.msrs.iter().find(|entry| entry.index == index);
        entry.map_or(0, |entry| entry.data)
    };
    format!(
        "a processor at {:#x}, run state {}, interrupts {}, requested {:?}, in service {:?}, counter {}, deadline {}",
        state.regs.rip,
        state.mp_state.mp_state,
        if state.regs.rflags & INTERRUPTS_ON == 0 {
            "off"
        } else {
            "on"
        },
        vectors(reg::REQUESTED),
        vectors(reg::IN_SERVICE),
        time(msr::TSC),
        time(msr::TSC_DEADLINE),
    )
}

/// `struct kvm_pre_fault_memory` of `linux/kvm.h`.
#[repr(C)]
struct PreFault {
    address: u64,
    bytes: u64,
    flags: u64,
    padding: [u64; 5],
}

/// `KVM_PRE_FAULT_MEMORY`.
const PRE_FAULT_MEMORY: libc::Ioctl = 0xc040_aed5_u32 as libc::Ioctl;

/// Maps a range into the guest, which its first touch would do page by page. False where KVM cannot.
#[expect(unsafe_code, reason = "the call has no wrapper yet")]
pub(crate) fn prefault(vcpu: &VcpuFd, address: u64, bytes: u64) -> bool {
    let mut range = PreFault {
        address,
        bytes,
        flags: 0,
        padding: [0; 5],
    };
    // The call says how far it came by changing the range; it comes further each time.
    while range.bytes > 0 {
        // SAFETY: the call reads and writes one structure of this layout, which is alive.
        let status = unsafe { libc::ioctl(vcpu.as_raw_fd(), PRE_FAULT_MEMORY, &raw mut range) };
        if status == 0 {
            continue;
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => {}
            _ => return false,
        }
    }
    true
}
