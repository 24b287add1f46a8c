//! What is read back: the state of a machine, the pages to map ahead, and what a worker and its parent say.

use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vm_memory::{Bytes as _, GuestAddress};

use crate::devices::fuzzing::{Board, MEMORY_BYTES};
use crate::hot;
use crate::limits::{HOT_EXTENTS, PAGE_BYTES};
use crate::ram::Memory;
use crate::state::MachineState;
use crate::vsock::VsockState;
use crate::worker::message::{Order, Report};

/// Takes the same bytes for each of them. A state is refused or comes back as the same bytes, and devices that took it
/// go on; memory begins with the input, too.
pub fn saved(input: &[u8]) {
    if let Ok(state) = MachineState::decode(input) {
        assert_eq!(state.encode(), input, "a state is its bytes");
        go_on(&state, input);
    }
    if let Ok(state) = VsockState::decode(input) {
        assert_eq!(state.encode(), input, "a state is its bytes");
    }
    hot_pages(input);
    message::<Report>(input);
    message::<Order>(input);
}

fn go_on(state: &MachineState, input: &[u8]) {
    let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).expect("memory");
    for page in 0..16 {
        let bytes = &input[..input.len().min(PAGE_BYTES)];
        let stored = memory.write_slice(bytes, GuestAddress(page * PAGE_BYTES as u64));
        stored.expect("the first pages lie in memory");
    }
    let mut board = Board::new(memory);
    let (_near, far) = UnixStream::pair().expect("descriptors");
    let port = VsockState::decode(&state.devices.vsock)
        .ok()
        .and_then(|streams| Some(streams.connections.first()?.guest_port));
    let claims = port.map(|port| (port, far)).into_iter().collect();
    if board.take(&state.devices, claims).is_ok() {
        // A guest that such a state is of may be broken.
        let (Ok(()) | Err(_)) = board.go_on();
    }
}

fn hot_pages(input: &[u8]) {
    let pages = 1 << 20;
    let extents = hot::decode(input, pages);
    assert!(extents.len() <= HOT_EXTENTS && extents.len() <= input.len() / 8);
    let (mut touched, mut written) = (Vec::new(), Vec::new());
    for extent in &extents {
        assert!(extent.pages > 0 && extent.first + extent.pages <= pages);
        let some = extent.first..extent.first + extent.pages.min(20);
        if extent.written {
            written.extend(some.clone());
        }
        touched.extend(some);
    }
    for list in [&mut touched, &mut written] {
        list.sort_unstable();
        list.dedup();
    }
    let again = hot::decode(&hot::encode_hot_pages(&touched, &written), pages);
    let all = |is_written: Option<bool>| -> Vec<u64> {
        let some = again
            .iter()
            .filter(|extent| is_written.is_none_or(|is| extent.written == is));
        some.flat_map(|extent| extent.first..extent.first + extent.pages)
            .collect()
    };
    assert_eq!(all(None), touched);
    assert_eq!(all(Some(true)), written);
}

fn message<T: Serialize + DeserializeOwned>(input: &[u8]) {
    if let Ok(message) = postcard::from_bytes::<T>(input) {
        let bytes = postcard::to_stdvec(&message).expect("plain data");
        let again: T = postcard::from_bytes(&bytes).expect("what was written can be read");
        let same = postcard::to_stdvec(&again).expect("plain data");
        assert_eq!(bytes, same);
    }
}
