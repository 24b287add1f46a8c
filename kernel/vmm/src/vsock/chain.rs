//! Packets in the guest's memory: chains of the transmit queue, buffers of the receive queue.

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use virtio_vsock::packet::VsockPacket;
use vm_memory::bitmap::{AtomicBitmap, BS};
use vm_memory::{Address, Bytes};

use super::header::Header;
use super::limits::{CHAIN_DESCRIPTORS_MAX, PACKET_BYTES};
use super::spec::{HEADER_BYTES, OP_RW};
use crate::ram::Memory;

/// The guest's driver broke the rules of the queues; its machine cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// A ring is not in memory, not even where it begins.
    #[error("the rings of the vsock {queue} queue are not in the guest's memory")]
    Rings {
        /// `transmit` or `receive`.
        queue: &'static str,
    },
    /// The indices or the used ring cannot be what the driver says.
    #[error("the rings of the vsock {queue} queue contradict themselves")]
    Ring {
        /// `transmit` or `receive`.
        queue: &'static str,
        /// What the ring said.
        #[source]
        source: virtio_queue::Error,
    },
    /// A packet cannot be read.
    #[error("a chain of the vsock transmit queue {problem}")]
    Chain {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A packet cannot be written.
    #[error("a buffer of the vsock receive queue cannot hold a packet")]
    Buffer {
        /// Why.
        #[source]
        source: virtio_vsock::packet::Error,
    },
    /// A buffer for a header alone, while data waits.
    #[error("a buffer of the vsock receive queue has no room for data")]
    NoRoom,
}

/// One chain that the guest has made available.
pub(super) type Chain<'a> = DescriptorChain<&'a Memory>;
/// One receive buffer.
pub(super) type Packet<'a> = VsockPacket<'a, BS<'a, AtomicBitmap>>;

/// A queue of the guest under the name that errors give it.
#[derive(Debug)]
pub(super) struct Chains<'a> {
    name: &'static str,
    memory: &'a Memory,
    queue: &'a mut Queue,
}

impl<'a> Chains<'a> {
    /// `None` before the driver has set the queue up.
    pub(super) fn new(
        name: &'static str,
        memory: &'a Memory,
        queue: &'a mut Queue,
    ) -> Result<Option<Self>, Broken> {
        if !queue.ready() {
            return Ok(None);
        }
        if !queue.is_valid(memory) {
            return Err(Broken::Rings { queue: name });
        }
        Ok(Some(Self {
            name,
            memory,
            queue,
        }))
    }

    /// The most chains that can be under way at once.
    pub(super) fn size(&self) -> u16 {
        self.queue.size()
    }

    pub(super) fn pop(&mut self) -> Result<Option<Chain<'a>>, Broken> {
        let name = self.name;
        let mut available = self
            .queue
            .iter(self.memory)
            .map_err(|source| Broken::Ring {
                queue: name,
                source,
            })?;
        Ok(available.next())
    }

    /// Leaves the chain that was popped last for another time.
    pub(super) fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a chain back to the guest with this many bytes written into it.
    pub(super) fn put_used(&mut self, head: u16, written_bytes: u32) -> Result<(), Broken> {
        self.queue
            .add_used(self.memory, head, written_bytes)
            .map_err(|source| Broken::Ring {
                queue: self.name,
                source,
            })
    }
}

/// Copies a packet of the guest out of its memory, once, so that it cannot change any more. Only data
/// packets have a payload; it is `None` when there is less, or more, than the header says.
///
/// Linux spreads a packet over one descriptor, over two, or over one for each fragment of a socket
/// buffer, so any cut is taken.
pub(super) fn read_packet<'s>(
    memory: &Memory,
    chain: &mut Chain<'_>,
    scratch: &'s mut [u8; PACKET_BYTES],
) -> Result<(Header, Option<&'s [u8]>), Broken> {
    let first = chain.next().ok_or(Broken::Chain {
        problem: "has no first descriptor",
    })?;
    check_readable(first)?;
    let mut bytes = [0; HEADER_BYTES];
    let Some(rest_bytes) = (first.len() as usize).checked_sub(HEADER_BYTES) else {
        return Err(Broken::Chain {
            problem: "is too short for a header",
        });
    };
    copy(memory, first.addr(), &mut bytes)?;
    let header = Header::decode(&bytes);

    let len = header.len as usize;
    let believed = header.op == OP_RW && len <= PACKET_BYTES;
    let wanted = if believed { len } else { 0 };
    let mut filled = rest_bytes.min(wanted);
    if filled > 0 {
        let start = first.addr().checked_add(HEADER_BYTES as u64);
        let start = start.ok_or(OUTSIDE)?;
        copy(memory, start, &mut scratch[..filled])?;
    }
    let mut last = first;
    for _ in 1..CHAIN_DESCRIPTORS_MAX {
        if !last.has_next() {
            break;
        }
        last = chain.next().ok_or(Broken::Chain {
            problem: "loops or leaves its table",
        })?;
        check_readable(last)?;
        let take = (last.len() as usize).min(wanted - filled);
        copy(memory, last.addr(), &mut scratch[filled..filled + take])?;
        filled += take;
    }
    if last.has_next() {
        return Err(Broken::Chain {
            problem: "has too many descriptors",
        });
    }
    let complete = header.op != OP_RW || believed && filled == len;
    Ok((header, complete.then_some(&scratch[..filled])))
}

/// The buffer that a chain of the receive queue describes.
pub(super) fn receive_buffer<'a>(
    memory: &'a Memory,
    chain: &mut Chain<'a>,
) -> Result<Packet<'a>, Broken> {
    VsockPacket::from_rx_virtq_chain(memory, chain, u32::MAX)
        .map_err(|source| Broken::Buffer { source })
}

const OUTSIDE: Broken = Broken::Chain {
    problem: "points outside the guest's memory",
};

fn check_readable(descriptor: Descriptor) -> Result<(), Broken> {
    if descriptor.is_write_only() {
        return Err(Broken::Chain {
            problem: "is for writing only",
        });
    }
    Ok(())
}

fn copy(memory: &Memory, from: vm_memory::GuestAddress, into: &mut [u8]) -> Result<(), Broken> {
    memory.read_slice(into, from).map_err(|_| OUTSIDE)
}
