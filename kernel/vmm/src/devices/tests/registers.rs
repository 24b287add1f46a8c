//! A driver at the registers: what it may do, in which order, and what comes of all else.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes as _, GuestAddress};

use super::board::{BLOCK, Board, MEMORY_BYTES, VSOCK};
use super::disk::{READ, SECTORS};
use crate::devices::StateError;
use crate::devices::transport::{Asked, Transport};
use crate::layout::{FIRST_VIRTIO_LINE, IOAPIC};
use crate::vsock::tests::ring::{NEXT, Ring, WRITE};

const RING: u32 = 0x1_0000;
const DATA: u64 = 0x10_0000;
const FEATURES_OK: u32 = 8;
const VERSION_1: u32 = 1;

/// A board whose disk is up.
fn up() -> Board {
    let mut board = Board::new();
    assert_eq!(board.negotiate(BLOCK, VERSION_1), 11);
    board.set_queue(BLOCK, 0, RING);
    board.driver_ok(BLOCK).unwrap();
    board
}

/// Puts a read of one sector into a ring.
fn ask(board: &Board, ring: &mut Ring, sector: u64) {
    let memory = &board.memory;
    let mut header = [0; 16];
    header[..4].copy_from_slice(&READ.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    memory.write_slice(&header, GuestAddress(DATA)).unwrap();
    for (place, descriptor) in [
        Descriptor::new(DATA, 16, NEXT, 1),
        Descriptor::new(DATA + 0x1000, 513, WRITE, 0),
    ]
    .into_iter()
    .enumerate()
    {
        ring.describe(memory, u16::try_from(place).unwrap(), descriptor);
    }
    ring.offer(memory, 0);
}

#[test]
fn a_driver_finds_negotiates_and_reads() {
    let mut board = Board::new();
    let names: Vec<u32> = [0x0, 0x4, 0x8].map(|at| board.read(BLOCK + at)).to_vec();
    assert_eq!(names, [0x7472_6976, 2, 2]);
    assert_eq!(board.read(VSOCK + 8), 19);
    assert_eq!(board.read(BLOCK + 0x100), u32::try_from(SECTORS).unwrap());
    assert_eq!(board.read(VSOCK + 0x100), 3);
    let mut board = up();
    board.unmask(FIRST_VIRTIO_LINE, 0x31);
    let mut ring = Ring::new(RING);
    ask(&board, &mut ring, 9);
    board.write(BLOCK + 0x50, 0);
    assert_eq!(ring.take_used(&board.memory), Some((0, 513)));
    let mut sector = vec![0; 512];
    let at = GuestAddress(DATA + 0x1000);
    board.memory.read_slice(&mut sector, at).unwrap();
    assert_eq!(sector, board.content[9 * 512..10 * 512]);
    assert_eq!(board.interrupts(), [0x31]);
    assert_eq!(board.read(BLOCK + 0x60), 1);
    board.write(BLOCK + 0x64, 1);
    assert_eq!(board.read(BLOCK + 0x60), 0);
}

#[test]
fn nothing_is_served_before_the_driver_is_up_or_after_it_failed() {
    let mut ring = Ring::new(RING);
    for steps in [&[][..], &[0x80]] {
        let mut board = Board::new();
        board.negotiate(BLOCK, VERSION_1);
        board.set_queue(BLOCK, 0, RING);
        ask(&board, &mut ring, 1);
        for status in steps {
            board.driver_ok(BLOCK).unwrap();
            board.write(BLOCK + 0x70, *status);
        }
        for queue in [0, 1, 2, 7, u32::MAX] {
            board.write(BLOCK + 0x50, queue);
            board.write(VSOCK + 0x50, queue);
        }
        assert_eq!(ring.take_used(&board.memory), None);
        ring = Ring::new(RING);
    }
}

#[test]
fn features_are_agreed_on_once_and_in_full() {
    let mut board = Board::new();
    for (upper, status) in [(VERSION_1, 11), (0, 3), (3, 3), (u32::MAX, 3)] {
        assert_eq!(board.negotiate(BLOCK, upper), status, "{upper:#x}");
        // Without features there is no "driver OK".
        board.driver_ok(BLOCK).unwrap();
        let is_up = board.read(BLOCK + 0x70) == 15;
        assert_eq!(is_up, upper == VERSION_1);
    }
    // What was agreed on stays until a reset, whatever the driver clears.
    board.negotiate(BLOCK, VERSION_1);
    board.write(BLOCK + 0x70, 3);
    assert_eq!(board.read(BLOCK + 0x70), 11);
    board.write(BLOCK + 0x24, 1);
    board.write(BLOCK + 0x20, u32::MAX);
    board.driver_ok(BLOCK).unwrap();
    assert_eq!(board.read(BLOCK + 0x70), 15);
    // Bits that are not the driver's.
    board.write(BLOCK + 0x70, 0xffff_ff7f);
    assert_eq!(board.read(BLOCK + 0x70), 15);
    board.write(BLOCK + 0x70, 0);
    assert_eq!(board.read(BLOCK + 0x70), 0);
}

#[test]
fn a_queue_outside_of_memory_is_found_when_the_driver_starts() {
    let end = u32::try_from(MEMORY_BYTES).unwrap();
    for base in [end, end - 0xff0, end - 0x1000, 0xffff_0000] {
        let mut board = Board::new();
        board.negotiate(BLOCK, VERSION_1);
        for (register, value) in [(0x80, base), (0x90, base), (0xa0, base), (0x44, 1)] {
            board.write(BLOCK + register, value);
            board.write(BLOCK + register + 4, 0);
        }
        let outcome = board.driver_ok(BLOCK);
        assert_eq!(outcome.is_err(), base != end - 0x1000, "{base:#x}");
    }
    let mut board = Board::new();
    board.negotiate(BLOCK, VERSION_1);
    board.set_queue(BLOCK, 0, RING);
    board.write(BLOCK + 0x84, u32::MAX);
    assert!(board.driver_ok(BLOCK).is_err());
}

#[test]
fn a_live_queue_stays_as_it_was_checked() {
    let mut board = up();
    // Neither while the driver is up nor after it gave up and came back.
    for status in [15, 0x80 | 15, 4, 15] {
        board.write(BLOCK + 0x70, status);
        for register in [0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4] {
            board.write(BLOCK + register, 0xffff_f000);
        }
        board.write(BLOCK + 0x38, 2);
        board.write(BLOCK + 0x44, 0);
        let queue = board.devices.state().transports[0].queues[0];
        assert_eq!(queue.desc_table, u64::from(RING));
        assert_eq!(queue.size, 128);
        assert!(queue.ready);
    }
}

#[test]
fn a_reset_gives_everything_back() {
    let mut board = up();
    let fresh = Board::new().devices.state().transports[0].clone();
    board.write(BLOCK + 0x70, 0);
    assert_eq!(board.devices.state().transports[0], fresh);
    assert_eq!(board.negotiate(BLOCK, VERSION_1), 11);
}

#[test]
fn widths_and_places_that_no_driver_uses_do_nothing() {
    let mut board = up();
    let before = board.devices.state();
    for device in [BLOCK, VSOCK] {
        for offset in 0..0x1000 {
            for width in [0, 1, 2, 3, 5, 8] {
                let bytes = vec![0xff; width];
                board.devices.write_memory(device + offset, &bytes).unwrap();
                let mut bytes = vec![0xaa; width];
                board.devices.read_memory(device + offset, &mut bytes);
                let is_config = (0x100..0x108).contains(&offset);
                let is_known = is_config || offset < 0x100 && offset % 4 == 0;
                assert!(is_known || bytes.iter().all(|byte| *byte == 0));
            }
        }
    }
    assert_eq!(board.devices.state(), before);
    let mut wide = [0; 16];
    board.devices.read_memory(BLOCK + 0x104, &mut wide);
    assert_eq!(wide, [0; 16]);
    let mut bytes = [0; 8];
    for address in [
        BLOCK - 1,
        VSOCK + 0x1000,
        IOAPIC - 1,
        IOAPIC + 0x1000,
        u64::MAX,
    ] {
        board.devices.read_memory(address, &mut bytes);
        assert_eq!(bytes, [0xff; 8], "{address:#x}");
        board.devices.write_memory(address, &bytes).unwrap();
    }
}

#[test]
fn a_state_that_no_device_would_have_saved_is_refused() {
    let board = up();
    let good = board.devices.state().transports[0].clone();
    let take = |change: &dyn Fn(&mut crate::devices::TransportState)| {
        let mut state = good.clone();
        change(&mut state);
        Transport::new(2, 1 << 5, 1).set_state(&state, &board.memory)
    };
    assert_eq!(take(&|_| {}), Ok(()));
    let lies: [&dyn Fn(&mut crate::devices::TransportState); 20] = [
        &|state| state.queues.clear(),
        &|state| state.queues.push(state.queues[0]),
        &|state| state.driver_features = 0,
        &|state| state.driver_features |= 1,
        &|state| state.status = 4,
        &|state| state.status |= 64,
        &|state| state.status |= 1 << 31,
        &|state| state.interrupt_status = 2,
        &|state| state.queues[0].max_size = 128,
        &|state| state.queues[0].max_size = 0,
        &|state| state.queues[0].size = 0,
        &|state| state.queues[0].size = 100,
        &|state| state.queues[0].size = 512,
        &|state| state.queues[0].event_idx_enabled = true,
        &|state| state.queues[0].desc_table += 8,
        &|state| state.queues[0].desc_table = u64::MAX - 15,
        &|state| state.queues[0].desc_table = MEMORY_BYTES as u64 - 16,
        &|state| state.queues[0].avail_ring = MEMORY_BYTES as u64,
        &|state| state.queues[0].avail_ring += 1,
        &|state| state.queues[0].used_ring = 1 << 40,
    ];
    for (number, lie) in lies.iter().enumerate() {
        let refused = matches!(take(lie), Err(StateError::Device { .. }));
        assert!(refused, "lie {number}");
    }
    // Where the driver stood is its own business: the ring says whether it can be.
    for next in [0, 1, 127, 128, 0x8000, u16::MAX] {
        let outcome = take(&|state| {
            state.queues[0].next_avail = next;
            state.queues[0].next_used = next;
        });
        assert_eq!(outcome, Ok(()));
    }
}

#[test]
fn a_driver_that_wants_too_much_can_be_saved_before_it_is_told() {
    let mut board = Board::new();
    board.negotiate(BLOCK, u32::MAX);
    let saved = board.devices.state();
    let mut other = Board::new();
    assert_eq!(other.devices.set_state(&saved, Vec::new()), Ok(()));
    assert_eq!(other.read(BLOCK + 0x70) & FEATURES_OK, 0);
    assert_eq!(other.devices.state(), saved);
}

#[test]
fn a_driver_that_is_not_up_yet_can_be_saved_with_any_queue() {
    let mut board = Board::new();
    board.negotiate(BLOCK, VERSION_1);
    board.set_queue(BLOCK, 0, RING);
    board.write(BLOCK + 0x84, 1);
    let saved = board.devices.state();
    let mut other = Board::new();
    assert_eq!(other.devices.set_state(&saved, Vec::new()), Ok(()));
    assert_eq!(other.devices.state(), saved);
    other.driver_ok(BLOCK).unwrap_err();
}

#[test]
fn a_notification_names_its_queue() {
    let board = Board::new();
    let mut transport = Transport::new(2, 0, 1);
    let asked = transport.write(0x50, &7_u32.to_le_bytes(), &board.memory);
    assert_eq!(asked, Ok(Asked::Notify(7)));
}
