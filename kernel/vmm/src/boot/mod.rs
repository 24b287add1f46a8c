//! A machine's first moment: Linux, its initial file system, its command line and the tables that describe
//! the machine lie in memory, and the first processor stands at Linux's entry.
//!
//! Protocol: PVH, <https://xenbits.xen.org/docs/unstable/misc/pvh.html>: flat 32-bit segments, paging off,
//! EBX holds the address of `hvm_start_info`.

mod acpi;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{Seek as _, SeekFrom};

use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator as _, BootParams};
use linux_loader::loader::KernelLoader as _;
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{Bytes as _, GuestAddress};

use crate::layout::{
    ACPI_TABLES, COMMAND_LINE, COMMAND_LINE_BYTES, LOW_HOLE, LOW_MEMORY_END, MEMORY_MAP,
    MODULE_LIST, ONE_MIB, START_INFO,
};
use crate::limits::PAGE_BYTES;
use crate::ram::Ram;

pub(crate) use acpi::{SLEEP_ENABLE, SLEEP_TYPE_MASK, SLEEP_TYPE_OFF, SLEEP_TYPE_SHIFT};

const START_MAGIC: u32 = 0x336e_c578;
const START_VERSION: u32 = 1;
/// Kinds of memory in the map.
const RAM: u32 = 1;

/// CR0.PE, and CR0.ET, which is always one.
const PROTECTED_MODE: u64 = 0x11;
/// Bit 1 of RFLAGS is always one.
const FLAGS: u64 = 2;

/// What can go wrong before the first instruction.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("could not load the linux: {0}")]
    Linux(String),
    #[error("the linux has no PVH entry")]
    NoEntry,
    #[error("could not read the initial file system")]
    InitramfsRead(#[source] std::io::Error),
    #[error("the initial file system has {bytes} bytes, too many for the guest's memory")]
    InitramfsSize { bytes: u64 },
    #[error("the command line has {bytes} bytes, the limit is {}", COMMAND_LINE_BYTES - 1)]
    CommandLine { bytes: usize },
    #[error("could not write the {what} into guest memory")]
    Write {
        what: &'static str,
        #[source]
        source: vm_memory::GuestMemoryError,
    },
    #[error("could not describe the machine to the linux: {0}")]
    StartInfo(String),
    #[error("could not set the first processor's registers")]
    Registers(#[source] kvm_ioctls::Error),
}

/// What is booted.
#[derive(Debug)]
pub(crate) struct Boot<'a> {
    pub(crate) vmlinux: &'a File,
    pub(crate) initramfs: &'a File,
    pub(crate) command_line: &'a str,
    pub(crate) vcpus: u8,
    pub(crate) virtio_devices: u32,
}

impl Boot<'_> {
    /// Fills guest memory and returns the address of the first instruction.
    pub(crate) fn load(&self, ram: &Ram) -> Result<u64, BootError> {
        let memory = ram.memory();
        let mut vmlinux = self.vmlinux;
        let loaded = Elf::load(memory, None, &mut vmlinux, Some(GuestAddress(ONE_MIB)))
            .map_err(|error| BootError::Linux(error.to_string()))?;
        let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
            return Err(BootError::NoEntry);
        };
        let initramfs = self.load_initramfs(ram, loaded.kernel_end)?;
        let text = self.command_line.as_bytes();
        if text.len() >= COMMAND_LINE_BYTES {
            return Err(BootError::CommandLine { bytes: text.len() });
        }
        let write = |what, bytes: &[u8], address| {
            memory
                .write_slice(bytes, GuestAddress(address))
                .map_err(|source| BootError::Write { what, source })
        };
        write("command line", &[text, &[0]].concat(), COMMAND_LINE)?;
        let tables = acpi::tables(self.vcpus, self.virtio_devices);
        write("ACPI tables", &tables, ACPI_TABLES)?;
        describe(ram, initramfs)?;
        Ok(entry.0)
    }

    /// Puts the initial file system at the upper end of low memory. Returns its address and size.
    fn load_initramfs(&self, ram: &Ram, linux_end: u64) -> Result<(u64, u64), BootError> {
        let mut file = self.initramfs;
        let end_of_file = file.seek(SeekFrom::End(0));
        let bytes = end_of_file.map_err(BootError::InitramfsRead)?;
        file.rewind().map_err(BootError::InitramfsRead)?;
        let end = ram.bytes().min(LOW_MEMORY_END);
        let page = PAGE_BYTES as u64;
        let wrong = || BootError::InitramfsSize { bytes };
        let start = end.checked_sub(bytes).ok_or_else(wrong)? / page * page;
        if start < linux_end {
            return Err(wrong());
        }
        let count = usize::try_from(bytes).map_err(|_| wrong())?;
        ram.memory()
            .read_exact_volatile_from(GuestAddress(start), &mut file, count)
            .map_err(|source| BootError::Write {
                what: "initial file system",
                source,
            })?;
        Ok((start, bytes))
    }
}

/// Writes the start information, the one module and the memory map.
fn describe(ram: &Ram, (initramfs, initramfs_bytes): (u64, u64)) -> Result<(), BootError> {
    let entry = |addr, size| hvm_memmap_table_entry {
        addr,
        size,
        type_: RAM,
        reserved: 0,
    };
    let mut map = vec![entry(0, LOW_HOLE)];
    for (number, stretch) in ram.stretches().into_iter().enumerate() {
        // Memory begins at zero, but its first MiB is ours.
        let start = if number == 0 {
            ONE_MIB
        } else {
            stretch.address
        };
        let end = stretch.address + stretch.bytes;
        map.push(entry(start, end - start));
    }
    let module = hvm_modlist_entry {
        paddr: initramfs,
        size: initramfs_bytes,
        ..Default::default()
    };
    let info = hvm_start_info {
        magic: START_MAGIC,
        version: START_VERSION,
        nr_modules: 1,
        modlist_paddr: MODULE_LIST,
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: ACPI_TABLES,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: u32::try_from(map.len()).expect("three entries"),
        ..Default::default()
    };
    let mut parameters = BootParams::new(&info, GuestAddress(START_INFO));
    parameters.set_sections(&map, GuestAddress(MEMORY_MAP));
    parameters.set_modules(&[module], GuestAddress(MODULE_LIST));
    PvhBootConfigurator::write_bootparams(&parameters, ram.memory())
        .map_err(|error| BootError::StartInfo(error.to_string()))
}

/// Puts the first processor at the entry.
pub(crate) fn set_registers(vcpu: &VcpuFd, entry: u64) -> Result<(), BootError> {
    let mut sregs = vcpu.get_sregs().map_err(BootError::Registers)?;
    let flat = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let code = kvm_segment {
        selector: 8,
        type_: 0xb,
        ..flat
    };
    let data = kvm_segment {
        selector: 16,
        type_: 0x3,
        ..flat
    };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        limit: 0x67,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    sregs.cr0 = PROTECTED_MODE;
    sregs.cr4 = 0;
    sregs.efer = 0;
    vcpu.set_sregs(&sregs).map_err(BootError::Registers)?;
    let regs = kvm_regs {
        rip: entry,
        rbx: START_INFO,
        rflags: FLAGS,
        ..Default::default()
    };
    vcpu.set_regs(&regs).map_err(BootError::Registers)
}
