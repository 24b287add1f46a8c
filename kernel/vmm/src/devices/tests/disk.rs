//! A disk with its queue, as a driver sees them, and without registers.

use std::fs::File;
use std::io::Write as _;

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use crate::devices::Broken;
use crate::devices::block::Block;
use crate::ram::Memory;
use crate::vsock::tests::ring::{NEXT, Ring, WRITE};

pub(super) const SECTORS: u64 = 3000;
pub(super) const MEMORY_BYTES: usize = 8 << 20;
pub(super) const RING: u32 = 0x1_0000;
/// Headers of requests, 16 bytes each.
const HEADERS: u64 = 0x2_0000;
/// Where drivers that keep the rules have their data.
pub(super) const DATA: u64 = 0x10_0000;

pub(super) const READ: u32 = 0;
pub(super) const WRITE_DISK: u32 = 1;
pub(super) const FLUSH: u32 = 4;
pub(super) const GET_ID: u32 = 8;

/// A file whose every sector says which one it is.
pub(super) fn image() -> (File, Vec<u8>) {
    let mut bytes = Vec::new();
    for word in 0..SECTORS * 64 {
        bytes.extend_from_slice(&(word ^ 0x5a5a_0000_0000_0000).to_le_bytes());
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    (file, bytes)
}

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) memory: Memory,
    pub(super) block: Block,
    pub(super) ring: Ring,
    pub(super) content: Vec<u8>,
    next: u16,
}

impl Disk {
    pub(super) fn new() -> Self {
        let (file, content) = image();
        // In two stretches, as a large machine has it, with a hole between them.
        let half = MEMORY_BYTES / 2;
        let stretches = [
            (GuestAddress(0), half),
            (GuestAddress(MEMORY_BYTES as u64), half),
        ];
        Self {
            memory: Memory::from_ranges(&stretches).unwrap(),
            block: Block::new(file).unwrap(),
            ring: Ring::new(RING),
            content,
            next: 0,
        }
    }

    /// Writes a request's header and returns the descriptor for it.
    pub(super) fn header(&self, kind: u32, sector: u64, slot: u16) -> Descriptor {
        let at = HEADERS + 16 * u64::from(slot);
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
        Descriptor::new(at, 16, 0, 0)
    }

    /// Offers a request: a header, then these buffers, the last of which ends in the status.
    pub(super) fn ask(&mut self, kind: u32, sector: u64, parts: &[(u64, u32)]) -> u16 {
        let header = self.header(kind, sector, self.next);
        let mut chain = vec![header];
        chain.extend(
            parts
                .iter()
                .map(|(at, bytes)| Descriptor::new(*at, *bytes, WRITE, 0)),
        );
        self.offer(&chain)
    }

    /// Offers a chain of these descriptors one behind the other and returns its head.
    pub(super) fn offer(&mut self, chain: &[Descriptor]) -> u16 {
        let head = self.next;
        for (number, descriptor) in chain.iter().enumerate() {
            let place = self.next;
            self.next = (self.next + 1) % Ring::SIZE;
            let more = number + 1 < chain.len();
            let flags = descriptor.flags() | if more { NEXT } else { 0 };
            let linked = Descriptor::new(
                descriptor.addr().0,
                descriptor.len(),
                flags,
                if more { self.next } else { 0 },
            );
            self.ring.describe(&self.memory, place, linked);
        }
        self.ring.offer(&self.memory, head);
        head
    }

    pub(super) fn serve(&mut self) -> Result<bool, Broken> {
        self.block.serve(&self.memory, &mut self.ring.queue)
    }

    /// Serves the one request that is there and returns how many bytes were written.
    pub(super) fn serve_one(&mut self) -> u32 {
        assert_eq!(self.serve(), Ok(true));
        let (_, written) = self.ring.take_used(&self.memory).expect("a used chain");
        assert_eq!(self.ring.take_used(&self.memory), None);
        written
    }

    pub(super) fn bytes(&self, at: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .unwrap();
        bytes
    }
}
