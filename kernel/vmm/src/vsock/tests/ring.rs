//! The driver's half of one virtqueue.

use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::ram::Memory;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

const AVAILABLE: u64 = 0x4000;
const USED: u64 = 0x5000;

/// One queue of 128 descriptors whose rings lie behind `base`.
#[derive(Debug)]
pub(crate) struct Ring {
    base: u64,
    pub(crate) queue: Queue,
    offered: u16,
    seen: u16,
}

impl Ring {
    pub(crate) const SIZE: u16 = 128;

    pub(crate) fn new(base: u32) -> Self {
        let mut queue = Queue::new(Self::SIZE).unwrap();
        queue.set_desc_table_address(Some(base), Some(0));
        queue.set_avail_ring_address(Some(base + 0x4000), Some(0));
        queue.set_used_ring_address(Some(base + 0x5000), Some(0));
        queue.set_ready(true);
        Self {
            base: base.into(),
            queue,
            offered: 0,
            seen: 0,
        }
    }

    pub(crate) fn describe(&self, memory: &Memory, index: u16, descriptor: Descriptor) {
        let at = GuestAddress(self.base + 16 * u64::from(index));
        memory
            .write_obj(RawDescriptor::from(descriptor), at)
            .unwrap();
    }

    /// Makes the chain at `head` available.
    pub(crate) fn offer(&mut self, memory: &Memory, head: u16) {
        let slot = u64::from(self.offered % Self::SIZE);
        let available = self.base + AVAILABLE;
        memory
            .write_obj(head, GuestAddress(available + 4 + 2 * slot))
            .unwrap();
        self.offered = self.offered.wrapping_add(1);
        self.set_index(memory, self.offered);
    }

    pub(crate) fn set_index(&mut self, memory: &Memory, index: u16) {
        memory
            .write_obj(index, GuestAddress(self.base + AVAILABLE + 2))
            .unwrap();
    }

    /// The next chain that came back: its head and how many bytes were written into it.
    pub(crate) fn take_used(&mut self, memory: &Memory) -> Option<(u16, u32)> {
        let used = self.base + USED;
        let index: u16 = memory.read_obj(GuestAddress(used + 2)).unwrap();
        if index == self.seen {
            return None;
        }
        let element = used + 4 + 8 * u64::from(self.seen % Self::SIZE);
        self.seen = self.seen.wrapping_add(1);
        let head: u32 = memory.read_obj(GuestAddress(element)).unwrap();
        let written: u32 = memory.read_obj(GuestAddress(element + 4)).unwrap();
        Some((u16::try_from(head).unwrap(), written))
    }
}
