//! A machine without content: what KVM needs time for, done before anybody waits.
//!
//! Ordering requirements:
//! 1. The interrupt controller's mode before processors: they are made for it.
//! 2. Memory slots before processors: adding a slot to a machine with processors waits for all of them.

use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_CAP_SPLIT_IRQCHIP, KVM_MEM_LOG_DIRTY_PAGES,
    kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};

use crate::devices::LINES;
use crate::layout::{IDENTITY_MAP, TASK_STATE};
use crate::limits::VCPUS_MAX;
use crate::ram::{Ram, RamError};

/// What KVM must offer.
const NEEDED: [(Cap, &str); 9] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SplitIrqchip, "KVM_CAP_SPLIT_IRQCHIP"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
    (Cap::Xsave, "KVM_CAP_XSAVE"),
    (Cap::AdjustClock, "KVM_CAP_ADJUST_CLOCK"),
];

/// The version of KVM's interface; it has been this one since 2007.
const API: i32 = 12;

/// How often making a machine is tried when a signal comes in between.
const TRIES: u32 = 5;

/// What can go wrong while a shell is made.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    #[error("{found} virtual processors were asked for, the limit is {VCPUS_MAX}")]
    Vcpus { found: u8 },
    #[error("KVM speaks version {found} of its interface, this program {API}")]
    Api { found: i32 },
    #[error("this host's KVM lacks {name}")]
    Lacks { name: &'static str },
    #[error("could not {step}")]
    Kvm {
        step: &'static str,
        #[source]
        source: kvm_ioctls::Error,
    },
    #[error("could not prepare guest memory")]
    Ram(#[from] RamError),
}

fn failed(step: &'static str) -> impl Fn(kvm_ioctls::Error) -> ShellError {
    move |source| ShellError::Kvm { step, source }
}

/// Whether guest memory keeps book of what the guest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracking {
    On,
    Off,
}

/// What must be known before a shell is built: a machine of another shape needs another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) memory_bytes: u64,
    pub(crate) vcpus: u8,
    pub(crate) tracking: Tracking,
}

/// A machine without content. Fields drop in this order: processors before the machine, memory last.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) vcpus: Vec<VcpuFd>,
    pub(crate) vm: Arc<VmFd>,
    pub(crate) ram: Ram,
    pub(crate) shape: Shape,
    /// What this host's KVM can give a guest.
    pub(crate) supported: CpuId,
}

/// Says what of KVM is missing, if anything is.
fn check(kvm: &Kvm) -> Result<(), ShellError> {
    let found = kvm.get_api_version();
    if found != API {
        return Err(ShellError::Api { found });
    }
    match NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        Some((_, name)) => Err(ShellError::Lacks { name }),
        None => Ok(()),
    }
}

impl Shell {
    pub(crate) fn build(kvm: &Kvm, shape: Shape) -> Result<Self, ShellError> {
        let Shape {
            memory_bytes,
            vcpus,
            tracking,
        } = shape;
        check(kvm)?;
        if vcpus == 0 || vcpus > VCPUS_MAX {
            return Err(ShellError::Vcpus { found: vcpus });
        }
        let vm = create(kvm)?;
        let mut split = kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            ..Default::default()
        };
        split.args[0] = LINES as u64;
        vm.enable_cap(&split)
            .map_err(failed("split the interrupt controller"))?;
        vm.set_identity_map_address(IDENTITY_MAP)
            .map_err(failed("place the identity map"))?;
        vm.set_tss_address(TASK_STATE)
            .map_err(failed("place the task state"))?;
        let ram = Ram::reserve(memory_bytes)?;
        for (slot, stretch) in (0..).zip(ram.stretches()) {
            let region = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: stretch.address,
                memory_size: stretch.bytes,
                userspace_addr: ram.host_address(stretch.offset),
                flags: match tracking {
                    Tracking::On => KVM_MEM_LOG_DIRTY_PAGES,
                    Tracking::Off => 0,
                },
            };
            add_slot(&vm, region)?;
        }
        let vcpus: Vec<VcpuFd> = (0..u64::from(vcpus))
            .map(|number| vm.create_vcpu(number))
            .collect::<Result<_, _>>()
            .map_err(failed("make a virtual processor"))?;
        // What the guest is not told of KVM's own interfaces it cannot use either, and no state holds any of it.
        if kvm.check_extension_raw(u64::from(KVM_CAP_ENFORCE_PV_FEATURE_CPUID)) > 0 {
            let mut told = kvm_enable_cap {
                cap: KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
                ..Default::default()
            };
            told.args[0] = 1;
            for vcpu in &vcpus {
                vcpu.enable_cap(&told)
                    .map_err(failed("confine a guest to the features that it is told of"))?;
            }
        }
        Ok(Self {
            vcpus,
            vm: Arc::new(vm),
            ram,
            shape,
            supported: supported(kvm)?,
        })
    }
}

fn create(kvm: &Kvm) -> Result<VmFd, ShellError> {
    let mut tries = 0;
    loop {
        match kvm.create_vm() {
            Ok(vm) => return Ok(vm),
            Err(error) if error.errno() == libc::EINTR && tries < TRIES => tries += 1,
            Err(error) => return Err(failed("make a virtual machine")(error)),
        }
    }
}

#[expect(unsafe_code, reason = "KVM is told an address of ours")]
fn add_slot(vm: &VmFd, region: kvm_userspace_memory_region) -> Result<(), ShellError> {
    // SAFETY: the range was reserved by `Ram`, which outlives the machine: see the order of `Shell`'s fields.
    unsafe { vm.set_user_memory_region(region) }.map_err(failed("give the machine its memory"))
}

/// Slow where KVM itself runs in a virtual machine.
fn supported(kvm: &Kvm) -> Result<CpuId, ShellError> {
    kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .map_err(failed("ask KVM for the processor's features"))
}

/// The registers that KVM says belong to a machine's state.
pub(crate) fn msr_indices(kvm: &Kvm) -> Result<Vec<u32>, ShellError> {
    let list = kvm
        .get_msr_index_list()
        .map_err(failed("ask KVM for its model-specific registers"))?;
    Ok(list.as_slice().to_vec())
}
