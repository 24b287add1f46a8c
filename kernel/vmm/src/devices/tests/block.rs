//! Requests to the disk: those of a driver, and those of nobody's.

use std::sync::atomic::{AtomicBool, Ordering};

use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::disk::{DATA, Disk, FLUSH, GET_ID, MEMORY_BYTES, READ, RING, SECTORS, WRITE_DISK};
use crate::ram::Memory;
use crate::vsock::tests::ring::{INDIRECT, NEXT, Ring, WRITE};

const STATUS: u64 = DATA - 0x1000;
const AVAILABLE_INDEX: u64 = RING as u64 + 0x4000 + 2;
const USED_INDEX: u64 = RING as u64 + 0x5000 + 2;
const OK: u8 = 0;
const FAILED: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// Serves one request whose status lies at [`STATUS`].
fn status_of(disk: &mut Disk, kind: u32, sector: u64, parts: &[(u64, u32)]) -> (u8, u32) {
    disk.memory
        .write_obj(0xee_u8, GuestAddress(STATUS))
        .unwrap();
    disk.ask(kind, sector, &[parts, &[(STATUS, 1)]].concat());
    let written = disk.serve_one();
    (disk.bytes(STATUS, 1)[0], written)
}

#[test]
fn a_read_gives_the_files_bytes() {
    let mut disk = Disk::new();
    let parts = [(DATA, 512), (DATA + 0x1000, 100), (DATA + 0x2000, 924)];
    assert_eq!(status_of(&mut disk, READ, 7, &parts), (OK, 1537));
    let start = 7 * 512;
    assert_eq!(disk.bytes(DATA, 512), disk.content[start..start + 512]);
    let middle = disk.bytes(DATA + 0x1000, 100);
    assert_eq!(middle, disk.content[start + 512..start + 612]);
    let end = disk.bytes(DATA + 0x2000, 924);
    assert_eq!(end, disk.content[start + 612..start + 1536]);
}

#[test]
fn a_status_may_end_the_last_buffer() {
    let mut disk = Disk::new();
    disk.ask(READ, 1, &[(DATA, 513)]);
    assert_eq!(disk.serve_one(), 513);
    let bytes = disk.bytes(DATA, 513);
    assert_eq!(bytes[..512], disk.content[512..1024]);
    assert_eq!(bytes[512], OK);
}

#[test]
fn a_read_longer_than_a_piece_is_whole() {
    let mut disk = Disk::new();
    let bytes = 1_000_448;
    assert_eq!(
        status_of(&mut disk, READ, 3, &[(DATA, bytes)]),
        (OK, bytes + 1)
    );
    let expected = &disk.content[3 * 512..3 * 512 + bytes as usize];
    assert!(disk.bytes(DATA, bytes as usize) == expected);
}

#[test]
fn other_requests_have_their_answers() {
    let mut disk = Disk::new();
    assert_eq!(status_of(&mut disk, FLUSH, 0, &[]), (OK, 1));
    assert_eq!(status_of(&mut disk, GET_ID, 0, &[(DATA, 20)]), (OK, 21));
    assert_eq!(disk.bytes(DATA, 20), b"vmrepl-root\0\0\0\0\0\0\0\0\0");
    assert_eq!(status_of(&mut disk, GET_ID, 0, &[(DATA, 6)]), (OK, 7));
    assert_eq!(status_of(&mut disk, GET_ID, 0, &[]), (FAILED, 1));
    for kind in [WRITE_DISK, 2, 11, 13, u32::MAX] {
        assert_eq!(
            status_of(&mut disk, kind, 0, &[(DATA, 512)]),
            (UNSUPPORTED, 1)
        );
    }
}

#[test]
fn what_is_not_on_the_disk_fails() {
    let mut disk = Disk::new();
    let mut fails = |sector, parts: &[(u64, u32)]| {
        let (status, _) = status_of(&mut disk, READ, sector, parts);
        status == FAILED
    };
    assert!(!fails(SECTORS - 1, &[(DATA, 512)]), "the last sector");
    assert!(!fails(SECTORS, &[]), "nothing, at the end");
    assert!(fails(SECTORS, &[(DATA, 512)]), "behind the end");
    assert!(fails(SECTORS - 1, &[(DATA, 1024)]), "over the end");
    assert!(fails(u64::MAX, &[(DATA, 512)]), "2^64 sectors");
    assert!(fails(u64::MAX / 512, &[(DATA, 512)]), "2^64 bytes");
    assert!(fails(0, &[(DATA, 511)]), "a part of a sector");
    assert!(fails(0, &[(0x7f_ffff_0000, 512)]), "outside of memory");
    assert!(fails(0, &[(u64::MAX, 512)]), "around the end of addresses");
    let hole = MEMORY_BYTES as u64 / 2;
    assert!(fails(0, &[(hole - 256, 512)]), "over the end of memory");
    assert!(fails(0, &[(DATA, 8 << 20)]), "more than one request reads");
    let sixteen = [(DATA, 0x1000_0000); 15];
    assert!(fails(0, &sixteen), "nearly 2^32 bytes");
}

#[test]
fn a_chain_that_is_no_request_comes_back_empty() {
    let header = |disk: &Disk| disk.header(READ, 0, 0);
    let data = Descriptor::new(DATA, 512, WRITE, 0);
    let status = Descriptor::new(STATUS, 1, WRITE, 0);
    let nothing = Descriptor::new(STATUS, 0, WRITE, 0);
    // The sum of address and length is not an address.
    let wild = Descriptor::new(u64::MAX, 2, WRITE, 0);
    let outside = Descriptor::new(1 << 40, 1, WRITE, 0);
    let more = Descriptor::new(DATA, 16, 0, 0);
    let looping = Descriptor::new(DATA, 0, WRITE | NEXT, 0);
    for chain in [
        vec![None],
        vec![Some(status)],
        vec![None, Some(more), Some(status)],
        vec![None, Some(data), Some(more), Some(status)],
        vec![Some(data), None, Some(status)],
        vec![None, Some(data), Some(nothing)],
        vec![None, Some(data), Some(wild)],
        vec![None, Some(data), Some(outside)],
        vec![None, Some(data), Some(looping)],
    ] {
        let mut disk = Disk::new();
        let header = header(&disk);
        let before = disk.bytes(DATA, 0x1000);
        let chain: Vec<Descriptor> = chain.iter().map(|part| part.unwrap_or(header)).collect();
        disk.offer(&chain);
        assert_eq!(disk.serve_one(), 0, "{chain:?}");
        let is_read = chain.len() == 3 && chain[2].addr().0 == 1 << 40;
        assert!(is_read || disk.bytes(DATA, 0x1000) == before, "{chain:?}");
    }
}

#[test]
fn a_short_header_fails_by_its_status() {
    let mut disk = Disk::new();
    for header in [
        Descriptor::new(DATA, 15, 0, 0),
        Descriptor::new(DATA, 0, 0, 0),
        Descriptor::new(u64::MAX - 3, 16, 0, 0),
        Descriptor::new(1 << 40, 16, 0, 0),
    ] {
        disk.memory
            .write_obj(0xee_u8, GuestAddress(STATUS))
            .unwrap();
        disk.offer(&[header, Descriptor::new(STATUS, 1, WRITE, 0)]);
        assert_eq!(disk.serve_one(), 1);
        assert_eq!(disk.bytes(STATUS, 1)[0], FAILED);
    }
}

#[test]
fn an_indirect_table_of_any_length_is_bounded() {
    let mut disk = Disk::new();
    let table = 0x20_0000;
    let header = disk.header(READ, 0, 0);
    let first = Descriptor::new(header.addr().0, 16, NEXT, 1);
    disk.memory
        .write_obj(RawDescriptor::from(first), GuestAddress(table))
        .unwrap();
    // Every other one is empty and leads to the next.
    for number in 1..u16::MAX {
        let part = Descriptor::new(DATA, 0, WRITE | NEXT, number + 1);
        let at = GuestAddress(table + 16 * u64::from(number));
        disk.memory
            .write_obj(RawDescriptor::from(part), at)
            .unwrap();
    }
    disk.ring.describe(
        &disk.memory,
        0,
        Descriptor::new(table, 16 * u32::from(u16::MAX), INDIRECT, 0),
    );
    disk.ring.offer(&disk.memory, 0);
    assert_eq!(disk.serve_one(), 0);
}

#[test]
fn an_impossible_index_breaks_the_machine_and_nothing_else() {
    let mut disk = Disk::new();
    disk.ring.set_index(&disk.memory, Ring::SIZE + 1);
    disk.serve().unwrap_err();
    let mut disk = Disk::new();
    disk.ring.offer(&disk.memory, Ring::SIZE);
    assert!(disk.serve().is_err(), "a head outside of the table");
}

#[test]
fn one_notification_serves_one_ring_at_most() {
    let mut disk = Disk::new();
    let header = disk.header(FLUSH, 0, 0);
    let first = Descriptor::new(header.addr().0, 16, NEXT, 1);
    disk.ring.describe(&disk.memory, 0, first);
    let second = Descriptor::new(STATUS, 1, WRITE, 0);
    disk.ring.describe(&disk.memory, 1, second);
    for _ in 0..Ring::SIZE {
        disk.ring.offer(&disk.memory, 0);
    }
    let used = |memory: &Memory| memory.read_obj::<u16>(GuestAddress(USED_INDEX)).unwrap();
    let done = AtomicBool::new(false);
    let memory = disk.memory.clone();
    std::thread::scope(|scope| {
        // Another processor that always has some more.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let index = used(&memory).wrapping_add(Ring::SIZE / 2);
                memory
                    .write_obj(index, GuestAddress(AVAILABLE_INDEX))
                    .unwrap();
            }
        });
        let mut before = 0;
        for _ in 0..100 {
            disk.serve().unwrap();
            let after = used(&disk.memory);
            assert!(after.wrapping_sub(before) <= Ring::SIZE);
            before = after;
        }
        done.store(true, Ordering::Relaxed);
    });
}
