//! The ACPI tables that tell a stock Linux what the machine is made of: processors, the interrupt
//! controller, and virtio devices that it would find in no other way.
//!
//! Standard: ACPI 6.5, <https://uefi.org/specs/ACPI/6.5/>; chapter numbers below are of that text.

use acpi_tables::aml::{
    Device, EISAName, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule,
    Interrupt, Memory32Fixed, Method, Name, Notify, ONE, OpRegion, OpRegionSpace, Package, Path,
    ResourceTemplate, Return, Store, ZERO,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};

use crate::layout::{
    ACPI_TABLES, FIRST_VIRTIO_LINE, GENERATION_ASKED, GENERATION_ID, GENERATION_LINE, IOAPIC,
    LOCAL_APIC, SERIAL, SERIAL_LINE, SERIAL_PORTS, SLEEP_CONTROL, SLEEP_STATUS, VIRTIO_MMIO,
    VIRTIO_MMIO_BYTES,
};

const OEM: [u8; 6] = *b"VMREPL";
const TABLE: [u8; 8] = *b"MICROVM ";
const REVISION: u32 = 1;
/// Of the tables' own layouts.
const DSDT_REVISION: u8 = 2;

/// IA-PC boot flags (5.2.9.3): no VGA, no CMOS clock; the keyboard controller's bit is absent, too.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_CLOCK: u16 = 1 << 5;

/// The sleep type that means "off" here (16.1.7: the value is the platform's choice).
pub(crate) const SLEEP_TYPE_OFF: u8 = 5;
/// Bits of the sleep control register (4.8.3.7).
pub(crate) const SLEEP_ENABLE: u8 = 1 << 5;
pub(crate) const SLEEP_TYPE_SHIFT: u8 = 2;
pub(crate) const SLEEP_TYPE_MASK: u8 = 7;

/// The bytes that belong at [`ACPI_TABLES`], the pointer first.
pub(crate) fn tables(vcpus: u8, virtio_devices: u32) -> Vec<u8> {
    let mut area = Area {
        bytes: vec![0; Rsdp::len().next_multiple_of(64)],
    };
    let dsdt = area.add(&dsdt(virtio_devices));
    let fadt = area.add(&fadt(dsdt));
    let madt = area.add(&madt(vcpus));
    let mut index = XSDT::new(OEM, TABLE, REVISION);
    index.add_entry(fadt);
    index.add_entry(madt);
    let index = area.add(&index);
    let mut pointer = Vec::new();
    Rsdp::new(OEM, index).to_aml_bytes(&mut pointer);
    area.bytes[..pointer.len()].copy_from_slice(&pointer);
    area.bytes
}

struct Area {
    bytes: Vec<u8>,
}

impl Area {
    /// Appends a table and returns its guest physical address.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        let at = self.bytes.len().next_multiple_of(64);
        self.bytes.resize(at, 0);
        table.to_aml_bytes(&mut self.bytes);
        ACPI_TABLES + at as u64
    }
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_CLOCK).into();
    fadt.sleep_control_reg = port(SLEEP_CONTROL);
    fadt.sleep_status_reg = port(SLEEP_STATUS);
    fadt.finalize()
}

fn port(number: u16) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        u64::from(number),
    )
}

fn madt(vcpus: u8) -> MADT {
    let mut madt = MADT::new(
        OEM,
        TABLE,
        REVISION,
        LocalInterruptController::Address(LOCAL_APIC),
    );
    for number in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(
            number,
            number,
            EnabledStatus::Enabled,
        ));
    }
    let ioapic = u32::try_from(IOAPIC).expect("the IOAPIC lies below 4 GiB");
    madt.add_structure(IoApic::new(0, ioapic, 0));
    madt
}

fn dsdt(virtio_devices: u32) -> Sdt {
    let mut code = Code(Vec::new());
    serial().to_aml_bytes(&mut code);
    for number in 0..virtio_devices {
        virtio(number, &mut code);
    }
    generation(&mut code);
    let off = u32::from(SLEEP_TYPE_OFF);
    Name::new("_S5_".into(), &Package::new(vec![&off])).to_aml_bytes(&mut code);
    let mut table = Sdt::new(*b"DSDT", 36, DSDT_REVISION, OEM, TABLE, REVISION);
    table.append_slice(&code.0);
    table
}

struct Code(Vec<u8>);

impl AmlSink for Code {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

/// The console while Linux boots (`PNP0501`: a 16550A).
fn serial() -> impl Aml {
    struct Serial;
    impl Aml for Serial {
        fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
            let ports = u8::try_from(SERIAL_PORTS).expect("eight ports");
            Device::new(
                "_SB_.COM1".into(),
                vec![
                    &Name::new("_HID".into(), &EISAName::new("PNP0501")),
                    &Name::new("_UID".into(), &ZERO),
                    &Name::new(
                        "_CRS".into(),
                        &ResourceTemplate::new(vec![
                            &Interrupt::new(true, true, false, false, SERIAL_LINE),
                            &acpi_tables::aml::IO::new(SERIAL, SERIAL, 0, ports),
                        ]),
                    ),
                ],
            )
            .to_aml_bytes(sink);
        }
    }
    Serial
}

/// A virtio device (`LNRO0005`: virtio over memory-mapped registers). Its interrupt is edge-triggered, so
/// no end of interrupt ever leaves the guest.
fn virtio(number: u32, code: &mut Code) {
    let address = u32::try_from(VIRTIO_MMIO + u64::from(number) * VIRTIO_MMIO_BYTES)
        .expect("the devices lie below 4 GiB");
    let bytes = u32::try_from(VIRTIO_MMIO_BYTES).expect("a page");
    let name = format!("_SB_.VR{number:02}");
    Device::new(
        Path::new(&name),
        vec![
            &Name::new("_HID".into(), &"LNRO0005"),
            &Name::new("_UID".into(), &number),
            &Name::new("_CCA".into(), &1_u8),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &Memory32Fixed::new(true, address, bytes),
                    &Interrupt::new(true, true, false, false, FIRST_VIRTIO_LINE + number),
                ]),
            ),
        ],
    )
    .to_aml_bytes(code);
}

/// The generation identifier (`VMGENCTR`) for kernels that drive it: where it lies, which they say that they want to
/// know by asking, and the interrupt that tells them of a new one (a generic event device, 5.6.9).
fn generation(code: &mut Code) {
    let address = u32::try_from(GENERATION_ID).expect("below 1 MiB");
    let bits = vec![FieldEntry::Named(*b"GASK", 8)];
    Device::new(
        "_SB_.VGEN".into(),
        vec![
            &Name::new("_HID".into(), &"VMREPLGN"),
            &Name::new("_CID".into(), &"VM_Gen_Counter"),
            &Name::new("_DDN".into(), &"VM_Gen_Counter"),
            &OpRegion::new(
                "GIO_".into(),
                OpRegionSpace::SystemIO,
                &GENERATION_ASKED,
                &ONE,
            ),
            &Field::new(
                "GIO_".into(),
                FieldAccessType::Byte,
                FieldLockRule::NoLock,
                FieldUpdateRule::WriteAsZeroes,
                bits,
            ),
            &Method::new(
                "ADDR".into(),
                0,
                true,
                vec![
                    &Store::new(&Path::new("GASK"), &ONE),
                    &Return::new(&Package::new(vec![&address, &ZERO])),
                ],
            ),
        ],
    )
    .to_aml_bytes(code);
    let changed = 0x80_u8;
    Device::new(
        "_SB_.GED_".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&Interrupt::new(
                    true,
                    true,
                    false,
                    false,
                    GENERATION_LINE,
                )]),
            ),
            &Method::new(
                "_EVT".into(),
                1,
                true,
                vec![&Notify::new(&Path::new("\\_SB_.VGEN"), &changed)],
            ),
        ],
    )
    .to_aml_bytes(code);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_add_up_to_zero_and_fit() {
        let room = usize::try_from(GENERATION_ID - ACPI_TABLES).unwrap();
        assert!(tables(crate::limits::VCPUS_MAX, 2).len() <= room);
        let bytes = tables(4, 2);
        assert_eq!(&bytes[..8], b"RSD PTR ");
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum(&bytes[..20]), 0);
        let mut found = Vec::new();
        for at in (64..bytes.len()).step_by(64) {
            let name = &bytes[at..at + 4];
            if [b"DSDT", b"FACP", b"APIC", b"XSDT"]
                .iter()
                .any(|known| *known == name)
            {
                let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
                assert_eq!(sum(&bytes[at..at + length as usize]), 0);
                found.push(String::from_utf8_lossy(name).into_owned());
            }
        }
        assert_eq!(found, ["DSDT", "FACP", "APIC", "XSDT"]);
    }
}
