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
use crate::limits::QUEUE_SIZE;
use crate::ram::Memory;

const SECTOR_BYTES: u64 = 512;
const HEADER_BYTES: u32 = 16;
const ID_BYTES: usize = 20;
/// One request reads at most this, which is what Linux asks for at most. Together with the queue's size it
/// bounds how long one notification keeps a processor.
const REQUEST_BYTES_MAX: u64 = 4 << 20;
/// Descriptors of one request: a chain outside of indirect tables, which are not offered, cannot be longer.
const DESCRIPTORS_MAX: usize = QUEUE_SIZE as usize;
/// What is read from the file at once, whatever a request asks for.
const PIECE_BYTES: usize = 256 << 10;

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
    piece: Box<[u8]>,
}

/// One part of a request's buffers.
#[derive(Debug, Clone, Copy)]
struct Part {
    address: GuestAddress,
    bytes: u32,
}

/// A request's buffers: the one that the device reads, and those that it writes.
#[derive(Debug)]
struct Request {
    header: Part,
    parts: Vec<Part>,
}

impl Request {
    /// `None` for a chain that cannot be a request to a disk that is only read.
    fn read(chain: DescriptorChain<&Memory>) -> Option<Self> {
        let mut header = None;
        let mut parts = Vec::with_capacity(8);
        let mut is_whole = false;
        for descriptor in chain {
            let part = Part {
                address: descriptor.addr(),
                bytes: descriptor.len(),
            };
            match (descriptor.is_write_only(), header) {
                // The header comes first, and the device reads nothing else.
                (false, None) => header = Some(part),
                (true, Some(_)) if parts.len() < DESCRIPTORS_MAX => parts.push(part),
                _ => return None,
            }
            is_whole = !descriptor.has_next();
        }
        let header = header.filter(|_| is_whole)?;
        Some(Self { header, parts })
    }
}

impl Block {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        // By a call that takes no path: a worker needs none that does.
        let bytes = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
        let sectors = bytes / SECTOR_BYTES;
        Ok(Self {
            file,
            sectors,
            piece: vec![0; PIECE_BYTES].into_boxed_slice(),
        })
    }

    /// The device's configuration: its capacity in sectors.
    pub(crate) fn config(&self) -> [u8; 8] {
        self.sectors.to_le_bytes()
    }

    /// Serves the requests in the queue. True when one was.
    ///
    /// One call takes at most one ring's worth: what another processor of the guest adds meanwhile comes
    /// with a notification of its own.
    pub(crate) fn serve(&mut self, memory: &Memory, queue: &mut Queue) -> Result<bool, Broken> {
        let broken = |error| Broken::queue("block", &error);
        let mut served = false;
        for _ in 0..queue.size() {
            // Taken out one by one: the iterator holds the queue.
            let Some(chain) = queue.iter(memory).map_err(broken)?.next() else {
                break;
            };
            let head = chain.head_index();
            let written = self.request(memory, chain);
            queue.add_used(memory, head, written).map_err(broken)?;
            served = true;
        }
        Ok(served)
    }

    /// Serves one request and returns how many bytes of its buffers were written. A request that makes no
    /// sense fails by its own status, or, when it has no place for one, in silence.
    fn request(&mut self, memory: &Memory, chain: DescriptorChain<&Memory>) -> u32 {
        let Some(Request { header, mut parts }) = Request::read(chain) else {
            return 0;
        };
        let Some(status) = parts.pop() else {
            return 0;
        };
        // The status is the last byte that the driver gave; what lies before it is for data.
        let Some(data_bytes) = status.bytes.checked_sub(1) else {
            return 0;
        };
        let Some(status_address) = status.address.checked_add(u64::from(data_bytes)) else {
            return 0;
        };
        if data_bytes > 0 {
            parts.push(Part {
                bytes: data_bytes,
                ..status
            });
        }
        let (code, written) = if header.bytes >= HEADER_BYTES {
            self.act(memory, header, &parts)
        } else {
            (FAILED, 0)
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
            if !memory.check_range(part.address, part.bytes as usize) {
                return (FAILED, written);
            }
            let Ok(()) = self.copy(memory, *part, at) else {
                return (FAILED, written);
            };
            at += u64::from(part.bytes);
            written = written.saturating_add(part.bytes);
        }
        (OK, written)
    }

    /// Fills one part from the file's byte `at` on.
    fn copy(&mut self, memory: &Memory, part: Part, at: u64) -> io::Result<()> {
        let mut done = 0;
        while done < u64::from(part.bytes) {
            let left = usize::try_from(u64::from(part.bytes) - done).unwrap_or(PIECE_BYTES);
            let piece = &mut self.piece[..left.min(PIECE_BYTES)];
            self.file.read_exact_at(piece, at + done)?;
            let address = part.address.checked_add(done);
            let address = address.ok_or(io::ErrorKind::InvalidInput)?;
            memory
                .write_slice(piece, address)
                .map_err(io::Error::other)?;
            done += piece.len() as u64;
        }
        Ok(())
    }
}
