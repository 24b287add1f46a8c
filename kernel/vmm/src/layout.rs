//! Where things lie in the guest's physical address space. Part of what a snapshot is: a change here is a
//! new version of the state.

use crate::limits::PAGE_BYTES;

/// End of the first stretch of memory; what does not fit continues at [`HIGH_MEMORY`].
pub(crate) const LOW_MEMORY_END: u64 = 3 << 30;
/// Start of the second stretch.
pub(crate) const HIGH_MEMORY: u64 = 4 << 30;

/// Usable memory below the first MiB ends here; from here to one MiB lie our tables.
pub(crate) const LOW_HOLE: u64 = 0x9_f000;
/// Where usable memory goes on.
pub(crate) const ONE_MIB: u64 = 0x10_0000;

/// `hvm_start_info` of the PVH protocol, with its module list and memory map behind it.
pub(crate) const START_INFO: u64 = 0x6000;
pub(crate) const MODULE_LIST: u64 = 0x6800;
pub(crate) const MEMORY_MAP: u64 = 0x7000;
/// Linux's command line, at most [`COMMAND_LINE_BYTES`] with its NUL.
pub(crate) const COMMAND_LINE: u64 = 0x2_0000;
pub(crate) const COMMAND_LINE_BYTES: usize = 2048;

/// The ACPI tables: the pointer to them first, then the tables one behind the other.
pub(crate) const ACPI_TABLES: u64 = 0xe_0000;
/// A page of its own for the generation identifier.
pub(crate) const GENERATION_ID: u64 = 0xf_0000;

/// Registers of the virtio devices, one page each.
pub(crate) const VIRTIO_MMIO: u64 = 0xd000_0000;
pub(crate) const VIRTIO_MMIO_BYTES: u64 = PAGE_BYTES as u64;

pub(crate) const IOAPIC: u64 = 0xfec0_0000;
pub(crate) const IOAPIC_BYTES: u64 = 0x1000;
pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;

/// Pages that KVM needs for itself on Intel processors, above all devices.
pub(crate) const IDENTITY_MAP: u64 = 0xfffb_c000;
pub(crate) const TASK_STATE: usize = 0xfffb_d000;

/// I/O ports.
pub(crate) const SERIAL: u16 = 0x3f8;
pub(crate) const SERIAL_PORTS: u16 = 8;
/// The register that ACPI's sleep states are written to.
pub(crate) const SLEEP_CONTROL: u16 = 0x600;
pub(crate) const SLEEP_STATUS: u16 = 0x601;
/// Written when the guest asks where the generation identifier lies.
pub(crate) const GENERATION_ASKED: u16 = 0x602;
/// The keyboard controller, by whose command port a PC is reset.
pub(crate) const KEYBOARD_COMMAND: u16 = 0x64;
pub(crate) const KEYBOARD_RESET: u8 = 0xfe;

/// Lines of the IOAPIC.
pub(crate) const SERIAL_LINE: u32 = 4;
pub(crate) const FIRST_VIRTIO_LINE: u32 = 5;
/// Above those of the virtio devices.
pub(crate) const GENERATION_LINE: u32 = 7;

/// One stretch of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Guest physical address.
    pub(crate) address: u64,
    /// Offset in the memory file.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// The stretches that `memory_bytes` are divided into, in rising order.
pub(crate) fn stretches(memory_bytes: u64) -> Vec<Stretch> {
    let low = memory_bytes.min(LOW_MEMORY_END);
    let mut all = vec![Stretch {
        address: 0,
        offset: 0,
        bytes: low,
    }];
    if memory_bytes > low {
        all.push(Stretch {
            address: HIGH_MEMORY,
            offset: low,
            bytes: memory_bytes - low,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_leaves_the_devices_free() {
        assert_eq!(stretches(512 << 20).len(), 1);
        let large = stretches(5 << 30);
        assert_eq!(large[0].bytes, LOW_MEMORY_END);
        assert_eq!(large[1].address, HIGH_MEMORY);
        assert_eq!(large[1].offset, LOW_MEMORY_END);
        assert_eq!(
            large.iter().map(|stretch| stretch.bytes).sum::<u64>(),
            5 << 30
        );
        const { assert!(LOW_MEMORY_END <= VIRTIO_MMIO && IOAPIC < HIGH_MEMORY) };
    }
}
