//! A read-only disk: the guest's root file system.
//!
//! Standard: virtio 1.2, 5.2, <https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html>. Requests are
//! served at once by the processor that notified: the file is in the page cache or about to be, and nothing is
//! ever in flight when the machine is paused.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT as _, QueueT as _};
use vm_memory::{Address as _, Bytes as _, GuestAddress, GuestMemoryBackend as _};

use crate::devices::Broken;
use crate::ram::Memory;

const SECTOR_BYTES: u64 = 512;
const HEADER_BYTES: u32 = 16;
const ID_BYTES: usize = 20;
/// One request reads at most this; Linux asks for less.
const REQUEST_BYTES_MAX: u64 = 64 << 20;

const READ: u32 = 0;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

const OK: u8 = 0;
const FAILED: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// `VIRTIO_BLK_F_RO`.
pub(crate) const FEATURE_READ_ONLY: u64 = 1 << 5;

#[derive(Debug)]
pub(crate) struct Block {
    file: File,
    sectors: u64,
    buffer: Vec<u8>,
}

/// One part of a request's buffers.
#[derive(Debug, Clone, Copy)]
struct Part {
    address: GuestAddress,
    bytes: u32,
}

impl Block {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let sectors = file.metadata()?.len() / SECTOR_BYTES;
        Ok(Self {
            file,
            sectors,
            buffer: Vec::new(),
        })
    }

    /// The device's configuration: its capacity in sectors.
    pub(crate) fn config(&self) -> [u8; 8] {
        self.sectors.to_le_bytes()
    }

    /// Serves all requests in the queue. True when one was.
    pub(crate) fn serve(&mut self, memory: &Memory, queue: &mut Queue) -> Result<bool, Broken> {
        let mut served = false;
        loop {
            // Taken out one by one: the iterator holds the queue.
            let next = queue
                .iter(memory)
                .map_err(|error| Broken::queue("block", &error))?
                .next();
            let Some(chain) = next else {
                return Ok(served);
            };
            let head = chain.head_index();
            let written = self.request(memory, chain);
            queue
                .add_used(memory, head, written)
                .map_err(|error| Broken::queue("block", &error))?;
            served = true;
        }
    }

    /// Serves one request and returns how many bytes of its buffers were written. A request that makes no
    /// sense fails by its own status, or, when it has no place for one, in silence.
    fn request(&mut self, memory: &Memory, chain: DescriptorChain<&Memory>) -> u32 {
        let mut parts = Vec::with_capacity(8);
        let mut header = None;
        for descriptor in chain {
            let part = Part {
                address: descriptor.addr(),
                bytes: descriptor.len(),
            };
            if !descriptor.is_write_only() {
                // The header is the one part that the device reads; a disk that is only read has no other.
                if header.is_some() || !parts.is_empty() {
                    return 0;
                }
                header = Some(part);
            } else {
                parts.push(part);
            }
        }
        let Some(status) = parts.pop().filter(|part| part.bytes >= 1) else {
            return 0;
        };
        let (status_address, extra) = (
            status.address.unchecked_add(u64::from(status.bytes - 1)),
            status.bytes - 1,
        );
        if extra > 0 {
            parts.push(Part {
                bytes: extra,
                ..status
            });
        }
        let (code, written) = match header {
            Some(header) if header.bytes >= HEADER_BYTES => self.act(memory, header, &parts),
            _ => (FAILED, 0),
        };
        match memory.write_obj(code, status_address) {
            Ok(()) => written.saturating_add(1),
            Err(_) => 0,
        }
    }

    fn act(&mut self, memory: &Memory, header: Part, parts: &[Part]) -> (u8, u32) {
        let mut bytes = [0; HEADER_BYTES as usize];
        if memory.read_slice(&mut bytes, header.address).is_err() {
            return (FAILED, 0);
        }
        let (kind, rest) = bytes.split_first_chunk::<4>().expect("sixteen bytes");
        let sector = rest.last_chunk::<8>().expect("twelve bytes");
        match u32::from_le_bytes(*kind) {
            READ => self.read(memory, u64::from_le_bytes(*sector), parts),
            FLUSH => (OK, 0),
            GET_ID => {
                let mut id = [0; ID_BYTES];
                id[..11].copy_from_slice(b"vmrepl-root");
                let Some(part) = parts.first() else {
                    return (FAILED, 0);
                };
                let count = ID_BYTES.min(part.bytes as usize);
                match memory.write_slice(&id[..count], part.address) {
                    Ok(()) => (OK, u32::try_from(count).unwrap_or(0)),
                    Err(_) => (FAILED, 0),
                }
            }
            _ => (UNSUPPORTED, 0),
        }
    }

    fn read(&mut self, memory: &Memory, sector: u64, parts: &[Part]) -> (u8, u32) {
        let total: u64 = parts.iter().map(|part| u64::from(part.bytes)).sum();
        let end = sector
            .checked_mul(SECTOR_BYTES)
            .and_then(|start| start.checked_add(total));
        let fits = end.is_some_and(|end| end <= self.sectors * SECTOR_BYTES);
        if !fits || total > REQUEST_BYTES_MAX || !total.is_multiple_of(SECTOR_BYTES) {
            return (FAILED, 0);
        }
        let mut at = sector * SECTOR_BYTES;
        let mut written = 0_u32;
        for part in parts {
            let count = part.bytes as usize;
            if !memory.check_range(part.address, count) {
                return (FAILED, written);
            }
            if self.buffer.len() < count {
                self.buffer.resize(count, 0);
            }
            let buffer = &mut self.buffer[..count];
            if self.file.read_exact_at(buffer, at).is_err()
                || memory.write_slice(buffer, part.address).is_err()
            {
                return (FAILED, written);
            }
            at += u64::from(part.bytes);
            written = written.saturating_add(part.bytes);
        }
        (OK, written)
    }
}
