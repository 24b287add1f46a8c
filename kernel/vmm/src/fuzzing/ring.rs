//! The driver's half of a virtqueue, for drivers without rules.

use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::{Queue, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};

use crate::limits::QUEUE_SIZE;
use crate::ram::Memory;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A queue in one page of memory: the table, the available ring, the used ring.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) base: u32,
    offered: u16,
    seen: u16,
}

impl Ring {
    pub(crate) const SIZE: u16 = 64;
    pub(crate) const AVAILABLE: u32 = 0x400;
    pub(crate) const USED: u32 = 0x800;
    pub(crate) const USED_BYTES: u64 = 6 + 8 * Self::SIZE as u64;

    pub(crate) fn new(base: u32) -> Self {
        Self {
            base,
            offered: 0,
            seen: 0,
        }
    }

    /// The device's half, as its registers would set it up.
    pub(crate) fn queue(&self) -> Queue {
        let mut queue = Queue::new(QUEUE_SIZE).expect("a power of two");
        queue.set_size(Self::SIZE);
        queue.set_desc_table_address(Some(self.base), Some(0));
        queue.set_avail_ring_address(Some(self.base + Self::AVAILABLE), Some(0));
        queue.set_used_ring_address(Some(self.base + Self::USED), Some(0));
        queue.set_ready(true);
        queue
    }

    fn at(&self, offset: u64) -> GuestAddress {
        GuestAddress(u64::from(self.base) + offset)
    }

    pub(crate) fn describe(&self, memory: &Memory, slot: u16, descriptor: Descriptor) {
        let slot = u64::from(slot % Self::SIZE);
        memory
            .write_obj(RawDescriptor::from(descriptor), self.at(16 * slot))
            .expect("the table lies in memory");
    }

    pub(crate) fn descriptor(&self, memory: &Memory, slot: u16) -> Descriptor {
        let slot = u64::from(slot % Self::SIZE);
        let raw: RawDescriptor = memory
            .read_obj(self.at(16 * slot))
            .expect("the table lies in memory");
        raw.into()
    }

    /// Makes the chain at `head` available.
    pub(crate) fn offer(&mut self, memory: &Memory, head: u16) {
        let slot = u64::from(self.offered % Self::SIZE);
        let available = self.at(u64::from(Self::AVAILABLE) + 4 + 2 * slot);
        memory
            .write_obj(head, available)
            .expect("the ring lies in memory");
        self.set_index(memory, self.offered.wrapping_add(1));
    }

    pub(crate) fn set_index(&mut self, memory: &Memory, index: u16) {
        self.offered = index;
        memory
            .write_obj(index, self.at(u64::from(Self::AVAILABLE) + 2))
            .expect("the ring lies in memory");
    }

    /// The next chain that came back: its head and how many bytes were written into it.
    pub(crate) fn take_used(&mut self, memory: &Memory) -> Option<(u32, u32)> {
        let read = |offset: u64| -> [u8; 8] {
            let used = self.at(u64::from(Self::USED) + offset);
            memory.read_obj(used).expect("the ring lies in memory")
        };
        let [_, _, low, high, ..] = read(0);
        if u16::from_le_bytes([low, high]) == self.seen {
            return None;
        }
        let element = read(4 + 8 * u64::from(self.seen % Self::SIZE));
        self.seen = self.seen.wrapping_add(1);
        let [h0, h1, h2, h3, written @ ..] = element;
        let head = u32::from_le_bytes([h0, h1, h2, h3]);
        Some((head, u32::from_le_bytes(written)))
    }
}
