//! Drivers without rules: no panic, no byte changed that the driver did not offer, no state that cannot be
//! saved and taken back.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::board::{BLOCK, Board, VSOCK};
use super::disk::{DATA, Disk, MEMORY_BYTES, READ, RING, SECTORS};
use super::long;
use crate::layout::IOAPIC;
use crate::vsock::tests::ring::{Ring, WRITE};

/// A request of a driver that keeps the rules: where, and how its buffers are cut.
type Read = (u64, Vec<u32>, bool);

fn read() -> impl Strategy<Value = Read> {
    let cuts = proptest::collection::vec(prop_oneof![1_u32..600, 512_u32..40_000], 1..12);
    (0..SECTORS - 1, cuts, any::<bool>())
}

/// Reads give the file's bytes, wherever they are cut.
fn reads((sector, cuts, apart): Read) -> TestCaseResult {
    let mut disk = Disk::new();
    let room = (SECTORS - sector) * 512;
    let mut left = u32::try_from(room.min(256 << 10)).unwrap();
    let (mut at, mut parts, mut total) = (DATA, Vec::new(), 0);
    for cut in cuts {
        let bytes = cut.min(left);
        left -= bytes;
        total += bytes;
        parts.push((at, bytes));
        at += u64::from(bytes);
    }
    // Whole sectors.
    let rest = total.next_multiple_of(512) - total;
    parts.push((at, rest));
    at += u64::from(rest);
    total += rest;
    if apart {
        parts.push((at, 1));
    } else if let Some(last) = parts.last_mut() {
        last.1 += 1;
    }
    disk.ask(READ, sector, &parts);
    prop_assert_eq!(disk.serve_one(), total + 1);
    let bytes = disk.bytes(DATA, total as usize + 1);
    let start = usize::try_from(sector).unwrap() * 512;
    prop_assert!(bytes[..total as usize] == disk.content[start..start + total as usize]);
    prop_assert_eq!(bytes[total as usize], 0);
    Ok(())
}

/// A descriptor: address, length, flags, next.
type Raw = (u64, u32, u16, u16);

fn descriptor() -> impl Strategy<Value = Raw> {
    let half = MEMORY_BYTES as u64 / 2;
    (
        prop_oneof![
            4 => 0x2_0000_u64..0x2_0800,
            8 => 0x10_0000_u64..half - 0x1_0000,
            1 => half - 0x200..half + 0x200,
            1 => 2 * half - 0x200..2 * half + 0x200,
            1 => 0x1_0000_u64..0x1_6000,
            1 => (u64::MAX - 0x300)..=u64::MAX,
            1 => any::<u64>(),
        ],
        prop_oneof![4 => Just(16_u32), 4 => (0_u32..20).prop_map(|n| n * 512 + 1), 4 => 0_u32..5000, 1 => any::<u32>()],
        prop_oneof![10 => 0_u16..4, 1 => 0_u16..8, 1 => any::<u16>()],
        prop_oneof![10 => 0_u16..Ring::SIZE, 1 => any::<u16>()],
    )
}

#[derive(Debug, Clone)]
struct Chaos {
    table: Vec<Raw>,
    heads: Vec<u16>,
    headers: Vec<(u32, u64)>,
    index: Option<u16>,
}

fn chaos() -> impl Strategy<Value = Chaos> {
    let header = (
        prop_oneof![8 => Just(READ), 2 => 0_u32..12, 1 => any::<u32>()],
        prop_oneof![8 => 0..SECTORS, 1 => any::<u64>()],
    );
    (
        proptest::collection::vec(descriptor(), Ring::SIZE as usize),
        proptest::collection::vec(
            prop_oneof![20 => 0_u16..Ring::SIZE, 1 => any::<u16>()],
            1..100,
        ),
        proptest::collection::vec(header, 128),
        proptest::option::weighted(0.1, any::<u16>()),
    )
        .prop_map(|(table, heads, headers, index)| Chaos {
            table,
            heads,
            headers,
            index,
        })
}

/// Any table and any ring: every byte that changes was offered for writing, or is the used ring's.
fn requests(chaos: &Chaos) -> TestCaseResult {
    let mut disk = Disk::new();
    for (slot, (kind, sector)) in (0..).zip(&chaos.headers) {
        disk.header(*kind, *sector, slot);
    }
    let mut is_plain = true;
    let mut offered = Vec::new();
    for (slot, (at, bytes, flags, next)) in (0..).zip(chaos.table.iter().copied()) {
        disk.ring
            .describe(&disk.memory, slot, Descriptor::new(at, bytes, flags, next));
        let end = at.saturating_add(u64::from(bytes));
        if flags & WRITE != 0 {
            offered.push((at, end));
            // A table that changes under way offers more than it seemed to.
            is_plain &= end <= u64::from(RING) || at >= u64::from(RING) + 0x5000;
        }
        is_plain &= flags & 4 == 0;
    }
    for head in &chaos.heads {
        disk.ring.offer(&disk.memory, *head);
    }
    if let Some(index) = chaos.index {
        disk.ring.set_index(&disk.memory, index);
    }
    let used = u64::from(RING) + 0x5000;
    offered.push((used, used + 4 + 8 * u64::from(Ring::SIZE)));
    let half = MEMORY_BYTES / 2;
    let stretches = [0, MEMORY_BYTES as u64];
    let before = stretches.map(|start| disk.bytes(start, half));
    // Either outcome is right, as long as there is one.
    let (Ok(_) | Err(_)) = disk.serve();
    if !is_plain {
        return Ok(());
    }
    offered.sort_unstable();
    for (start, before) in stretches.into_iter().zip(before) {
        let after = disk.bytes(start, half);
        let mut at = 0;
        for (from, to) in &offered {
            let place = |address: u64| {
                let inside = address.saturating_sub(start).min(half as u64);
                usize::try_from(inside).unwrap()
            };
            let (from, to) = (place(*from), place(*to));
            if from > at {
                prop_assert!(before[at..from] == after[at..from], "{at:#x}..{from:#x}");
            }
            at = at.max(to);
        }
        prop_assert!(before[at..] == after[at..], "{at:#x}..");
    }
    Ok(())
}

/// One access of a processor.
#[derive(Debug, Clone)]
enum Access {
    Write(u64, Vec<u8>),
    Read(u64, usize),
    Out(u16, Vec<u8>),
    In(u16, usize),
    /// Something in memory, where rings and buffers are.
    Store(u64, Vec<u8>),
    /// A driver gets that far by the rules.
    Start(u64, u32),
    Save,
}

fn address() -> impl Strategy<Value = u64> {
    let register = prop_oneof![
        12 => (0_u64..0x42).prop_map(|word| word * 4),
        1 => 0_u64..0x1000,
    ];
    let device = prop_oneof![Just(BLOCK), Just(VSOCK)];
    prop_oneof![
        12 => (device, register).prop_map(|(device, register)| device + register),
        2 => Just(IOAPIC),
        2 => Just(IOAPIC + 0x10),
        1 => IOAPIC..IOAPIC + 0x1000,
        1 => any::<u64>(),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        6 => 0_u32..16,
        2 => Just(128_u32),
        2 => (0_u32..0x400).prop_map(|page| page << 12),
        1 => (0_u32..32).prop_map(|bit| 1 << bit),
        1 => any::<u32>(),
    ];
    prop_oneof![
        10 => word.prop_map(|word| word.to_le_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..9),
    ]
}

fn access() -> impl Strategy<Value = Access> {
    let port = prop_oneof![4 => 0x3f8_u16..0x400, 1 => any::<u16>()];
    let ring = prop_oneof![
        4 => (0_u64..64).prop_map(|slot| u64::from(RING) + 16 * slot),
        2 => (0_u64..8).prop_map(|word| u64::from(RING) + 0x4000 + 2 * word),
        1 => 0_u64..0x40_0000,
    ];
    let raw = (descriptor(), any::<bool>()).prop_map(|((at, bytes, flags, next), low)| {
        let mut all = if low { at & 0x3f_ffff } else { at }.to_le_bytes().to_vec();
        all.extend_from_slice(&bytes.to_le_bytes());
        all.extend_from_slice(&flags.to_le_bytes());
        all.extend_from_slice(&next.to_le_bytes());
        all
    });
    let stored = prop_oneof![
        4 => raw,
        4 => (0_u16..300).prop_map(|half| half.to_le_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..64),
    ];
    prop_oneof![
        10 => (address(), value()).prop_map(|(at, value)| Access::Write(at, value)),
        4 => (address(), 0_usize..9).prop_map(|(at, bytes)| Access::Read(at, bytes)),
        2 => (port.clone(), value()).prop_map(|(port, value)| Access::Out(port, value)),
        1 => (port, 0_usize..9).prop_map(|(port, bytes)| Access::In(port, bytes)),
        8 => (ring, stored).prop_map(|(at, bytes)| Access::Store(at, bytes)),
        2 => (prop_oneof![Just(BLOCK), Just(VSOCK)], 0_u32..3)
            .prop_map(|(device, queue)| Access::Start(device, queue)),
        1 => Just(Access::Save),
    ]
}

/// Any accesses: they end in nothing or in the end of the machine, and what is saved can be taken back.
fn accesses(all: Vec<Access>) -> TestCaseResult {
    let mut board = Board::new();
    for access in all {
        let broken = match access {
            Access::Write(at, bytes) => board.devices.write_memory(at, &bytes).is_err(),
            Access::Read(at, bytes) => {
                board.devices.read_memory(at, &mut vec![0; bytes]);
                false
            }
            Access::Out(port, bytes) => board.devices.write_port(port, &bytes).is_err(),
            Access::In(port, bytes) => {
                board.devices.read_port(port, &mut vec![0; bytes]);
                false
            }
            Access::Store(at, bytes) => board.memory.write_slice(&bytes, GuestAddress(at)).is_err(),
            Access::Start(device, queue) => {
                board.negotiate(device, 1);
                board.set_queue(device, queue, RING);
                board.driver_ok(device).is_err()
            }
            Access::Save => {
                let saved = board.devices.state();
                let mut other = Board::with_memory(board.memory.clone());
                prop_assert_eq!(other.devices.set_state(&saved, Vec::new()), Ok(()));
                prop_assert_eq!(&other.devices.state(), &saved);
                board = other;
                board.devices.catch_up().is_err()
            }
        };
        for transport in board.devices.state().transports {
            // A device that is up has agreed.
            prop_assert!(transport.status & 4 == 0 || transport.status & 8 != 0);
        }
        if broken {
            return Ok(());
        }
    }
    Ok(())
}

fn any_accesses() -> impl Strategy<Value = Vec<Access>> {
    proptest::collection::vec(access(), 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn reads_give_the_files_bytes(read in read()) {
        reads(read)?;
    }

    #[test]
    fn requests_of_any_kind_write_only_where_they_may(chaos in chaos()) {
        requests(&chaos)?;
    }

    #[test]
    fn accesses_of_any_kind_leave_a_whole_machine(all in any_accesses()) {
        accesses(all)?;
    }
}

#[test]
fn long_reads() {
    long::run("reads", read(), reads);
}

#[test]
fn long_requests() {
    long::run("requests", chaos(), |chaos| requests(&chaos));
}

#[test]
fn long_accesses() {
    long::run("accesses", any_accesses(), accesses);
}
