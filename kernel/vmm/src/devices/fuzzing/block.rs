//! Requests to a disk, in rings and descriptors that may say anything.

use virtio_queue::QueueT as _;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::disk;
use crate::devices::block::Block;
use crate::fuzzing::{INDIRECT, NEXT, Ring, Script, WRITE};
use crate::ram::Memory;

const STRETCH_BYTES: usize = 0x1_0000;
/// Two stretches with a hole between them, as a large machine has it.
const STRETCHES: [u64; 2] = [0, 2 * STRETCH_BYTES as u64];
const RING: u32 = 0x1000;
const HEADERS: u64 = 0x2000;
const DATA: u64 = 0x4000;

/// Rounds of requests that the input describes. Only bytes that were offered change; chains come back once each, and
/// with no more bytes than they had room for.
pub fn block(input: &[u8]) {
    let mut script = Script::new(input);
    let ranges = STRETCHES.map(|start| (GuestAddress(start), STRETCH_BYTES));
    let memory = Memory::from_ranges(&ranges).expect("memory");
    let mut block = Block::new(disk()).expect("a file");
    let mut ring = Ring::new(RING);
    let mut queue = ring.queue();
    while !script.is_over() {
        describe(&mut script, &memory, &ring);
        let mut heads = Vec::new();
        for _ in 0..=script.byte() % 16 {
            let head = script.byte();
            heads.push(u32::from(head));
            ring.offer(&memory, u16::from(head));
        }
        if script.byte() == 0xff {
            heads.extend(0..256);
            ring.set_index(&memory, script.u16());
        }
        let before = Before::new(&memory, &ring);
        let outcome = block.serve(&memory, &mut queue);
        let is_plain = before.check(&memory);
        if outcome.is_err() || !is_plain {
            return;
        }
        assert_eq!(
            queue.next_avail(),
            queue.next_used(),
            "what was taken came back"
        );
        let mut count = 0;
        while let Some((head, written)) = ring.take_used(&memory) {
            count += 1;
            assert!(count <= heads.len() && heads.contains(&head));
            assert!(
                u64::from(written) <= before.room(head),
                "{written} of {head}"
            );
        }
    }
}

/// Headers and descriptors.
fn describe(script: &mut Script<'_>, memory: &Memory, ring: &Ring) {
    let write = |at: u64, bytes: &[u8]| {
        let written = memory.write_slice(bytes, GuestAddress(at));
        written.expect("headers lie in memory");
    };
    for slot in 0..u64::from(script.byte() % 16) {
        let (kind, near) = (script.byte(), script.byte());
        let kind = if kind & 0x80 == 0 {
            u32::from(kind % 12)
        } else {
            script.u32()
        };
        let sector = if near < 0xf0 {
            u64::from(near) % 48
        } else {
            script.u64()
        };
        write(HEADERS + 16 * slot, &kind.to_le_bytes());
        write(HEADERS + 16 * slot + 8, &sector.to_le_bytes());
    }
    for _ in 0..script.byte() % 64 {
        let (slot, how, near) = (script.byte(), script.byte(), u64::from(script.u16()));
        let at = match how >> 2 & 7 {
            0 | 1 => HEADERS + 16 * (near % 16),
            2 | 3 => DATA + near % 0xa000,
            4 => (STRETCHES[1] + near).saturating_sub(0x100),
            5 => STRETCH_BYTES as u64 - near % 0x200,
            6 => near,
            _ => script.u64(),
        };
        let bytes = match how >> 5 {
            0 | 1 => 16,
            2 => 1,
            3 => 512 * u32::from(script.byte() % 48),
            4 => 512 * u32::from(script.byte() % 48) + 1,
            5 => u32::from(script.u16()),
            6 => 20,
            _ => script.u32(),
        };
        let odd = script.byte();
        let flags = u16::from(how & 3) | if odd & 0x80 == 0 { 0 } else { INDIRECT };
        let next = u16::from(odd & 0x7f);
        let descriptor = Descriptor::new(at, bytes, flags, next);
        ring.describe(memory, u16::from(slot), descriptor);
    }
}

fn bytes(memory: &Memory) -> [Vec<u8>; 2] {
    STRETCHES.map(|start| {
        let mut bytes = vec![0; STRETCH_BYTES];
        let read = memory.read_slice(&mut bytes, GuestAddress(start));
        read.expect("a stretch");
        bytes
    })
}

/// Memory and table before a round.
#[derive(Debug)]
struct Before {
    bytes: [Vec<u8>; 2],
    table: Vec<Descriptor>,
}

impl Before {
    fn new(memory: &Memory, ring: &Ring) -> Self {
        let table = (0..Ring::SIZE).map(|slot| ring.descriptor(memory, slot));
        Self {
            bytes: bytes(memory),
            table: table.collect(),
        }
    }

    /// Compares memory with what it was. False when the round may have changed its own table, or offered a table
    /// elsewhere.
    fn check(&self, memory: &Memory) -> bool {
        let rings = u64::from(RING)..u64::from(RING + Ring::USED) + Ring::USED_BYTES;
        let used = u64::from(RING + Ring::USED);
        let mut offered = vec![(used, used + Ring::USED_BYTES)];
        for descriptor in &self.table {
            let start = descriptor.addr().0;
            let end = start.saturating_add(u64::from(descriptor.len()));
            if descriptor.flags() & INDIRECT != 0 {
                return false;
            }
            if descriptor.is_write_only() {
                if start < rings.end && end > rings.start {
                    return false;
                }
                offered.push((start, end));
            }
        }
        offered.sort_unstable();
        for ((start, before), after) in STRETCHES.iter().zip(&self.bytes).zip(bytes(memory)) {
            let mut at = 0;
            for (from, to) in &offered {
                let place = |address: u64| {
                    let inside = address.saturating_sub(*start).min(STRETCH_BYTES as u64);
                    usize::try_from(inside).expect("in the stretch")
                };
                let (from, to) = (place(*from), place(*to));
                if from > at {
                    assert!(before[at..from] == after[at..from], "{at:#x}..{from:#x}");
                }
                at = at.max(to);
            }
            assert!(before[at..] == after[at..], "{at:#x}..");
        }
        true
    }

    /// How many bytes a chain has for the device to write.
    fn room(&self, head: u32) -> u64 {
        let mut room = 0;
        let mut slot = head as usize;
        for _ in 0..Ring::SIZE {
            let Some(descriptor) = self.table.get(slot) else {
                break;
            };
            if descriptor.flags() & WRITE != 0 {
                room += u64::from(descriptor.len());
            }
            if descriptor.flags() & NEXT == 0 {
                break;
            }
            slot = usize::from(descriptor.next());
        }
        room
    }
}
