//! Devices that go on from what others saved.

use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

use super::board::{BLOCK, Board};
use crate::devices::{DEVICE_BLOCK, StateError};
use crate::layout::FIRST_VIRTIO_LINE;
use crate::vsock::tests::ring::Ring;

const RING: u32 = 0x1_0000;

#[test]
fn an_interrupt_that_waited_for_its_line_is_not_lost() {
    let mut board = Board::new();
    board.negotiate(BLOCK, 1);
    board.set_queue(BLOCK, 0, RING);
    board.driver_ok(BLOCK).unwrap();
    let mut ring = Ring::new(RING);
    // An empty chain is given back, too.
    ring.describe(
        &board.memory,
        0,
        virtio_queue::desc::split::Descriptor::new(0, 0, 0, 0),
    );
    ring.offer(&board.memory, 0);
    board.write(BLOCK + 0x50, 0);
    assert!(board.interrupts().is_empty());
    let saved = board.devices.state();
    let mut other = Board::with_memory(board.memory.clone());
    other.devices.set_state(&saved, Vec::new()).unwrap();
    assert_eq!(other.devices.state(), saved);
    other.unmask(FIRST_VIRTIO_LINE, 0x40);
    assert_eq!(other.interrupts(), [0x40]);
    // The next request follows the last.
    ring.offer(&board.memory, 0);
    other.write(BLOCK + 0x50, 0);
    assert_eq!(other.interrupts(), [0x40]);
    let used: u16 = board
        .memory
        .read_obj(GuestAddress(u64::from(RING) + 0x5002))
        .unwrap();
    assert_eq!(used, 2);
}

#[test]
fn a_state_of_other_devices_is_refused_and_changes_nothing() {
    let mut board = Board::new();
    let before = board.devices.state();
    let mut fewer = before.clone();
    fewer.transports.pop();
    let mut other = before.clone();
    other.transports.swap(0, 1);
    let mut streams = before.clone();
    streams.vsock[0] ^= 1;
    for state in [fewer, other, streams] {
        let outcome = board.devices.set_state(&state, Vec::new());
        assert!(matches!(
            outcome,
            Err(StateError::Device { .. } | StateError::Streams { .. })
        ));
    }
    assert_eq!(board.devices.state(), before);
    assert_eq!(board.read(BLOCK + 8), DEVICE_BLOCK);
}
