//! All devices as a guest's processor sees them: ports and addresses.

use std::sync::{Arc, Mutex};

use vm_memory::GuestAddress;

use super::disk::image;
use crate::devices::ioapic::Message;
use crate::devices::{Broken, Devices, LocalApics};
use crate::layout::{IOAPIC, VIRTIO_MMIO, VIRTIO_MMIO_BYTES};
use crate::processors::lock;
use crate::ram::Memory;

pub(super) const MEMORY_BYTES: usize = 4 << 20;

pub(super) const BLOCK: u64 = VIRTIO_MMIO;
pub(super) const VSOCK: u64 = VIRTIO_MMIO + VIRTIO_MMIO_BYTES;

/// Keeps the messages that devices send.
#[derive(Debug, Clone, Default)]
pub(super) struct Sent(Arc<Mutex<Vec<Message>>>);

impl LocalApics for Sent {
    fn send(&self, message: Message) -> Result<(), Broken> {
        lock(&self.0).push(message);
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct Board {
    pub(super) devices: Devices,
    pub(super) memory: Memory,
    pub(super) content: Vec<u8>,
    sent: Sent,
}

impl Board {
    pub(super) fn new() -> Self {
        let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap();
        Self::with_memory(memory)
    }

    pub(super) fn with_memory(memory: Memory) -> Self {
        let (root, content) = image();
        let sent = Sent::default();
        let console = tempfile::tempfile().unwrap();
        let apics = Box::new(sent.clone());
        Self {
            devices: Devices::with_apics(apics, memory.clone(), root, console).unwrap(),
            memory,
            content,
            sent,
        }
    }

    pub(super) fn read(&mut self, address: u64) -> u32 {
        let mut bytes = [0; 4];
        self.devices.read_memory(address, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(super) fn write(&mut self, address: u64, value: u32) {
        self.try_write(address, value).unwrap();
    }

    pub(super) fn try_write(&mut self, address: u64, value: u32) -> Result<(), Broken> {
        self.devices.write_memory(address, &value.to_le_bytes())
    }

    /// Points a line of the IOAPIC at the first processor.
    pub(super) fn unmask(&mut self, line: u32, vector: u8) {
        for (register, value) in [(0x11 + 2 * line, 0), (0x10 + 2 * line, u32::from(vector))] {
            self.write(IOAPIC, register);
            self.write(IOAPIC + 0x10, value);
        }
    }

    /// The data of the messages since the last call.
    pub(super) fn interrupts(&self) -> Vec<u32> {
        let sent = std::mem::take(&mut *lock(&self.sent.0));
        sent.iter().map(|message| message.data).collect()
    }

    /// Says what a driver says up to "features OK", wanting these of the upper 32 features.
    pub(super) fn negotiate(&mut self, device: u64, upper: u32) -> u32 {
        self.write(device + 0x70, 0);
        self.write(device + 0x70, 1);
        self.write(device + 0x70, 3);
        self.write(device + 0x24, 1);
        self.write(device + 0x20, upper);
        self.write(device + 0x24, 0);
        self.write(device + 0x20, 0);
        self.write(device + 0x70, 11);
        self.read(device + 0x70)
    }

    /// Describes a queue of 128 whose rings lie behind `base`, as the rings of the tests do.
    pub(super) fn set_queue(&mut self, device: u64, queue: u32, base: u32) {
        for (register, value) in [
            (0x30, queue),
            (0x38, 128),
            (0x80, base),
            (0x84, 0),
            (0x90, base + 0x4000),
            (0x94, 0),
            (0xa0, base + 0x5000),
            (0xa4, 0),
            (0x44, 1),
        ] {
            self.write(device + register, value);
        }
    }

    pub(super) fn driver_ok(&mut self, device: u64) -> Result<(), Broken> {
        self.try_write(device + 0x70, 15)
    }
}
