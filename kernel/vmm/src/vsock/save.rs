//! Saving the streams, and going on from what was saved.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;

use super::limits::SAVED_RESETS_MAX;
use super::spec::{HOST_CID, TYPE_STREAM};
use super::state::{Connection, VsockState};
use super::stream::{Greeting, Stream};
use super::streams::Streams;

pub(super) fn save(streams: &Streams) -> VsockState {
    let mut connections = Vec::new();
    let mut resets = BTreeSet::new();
    for header in &streams.last_words {
        // The others answer packets that belong to no connection.
        if header.src_cid == HOST_CID && header.kind == TYPE_STREAM {
            resets.insert((header.dst_port, header.src_port));
        }
    }
    for stream in streams.streams.values() {
        if let Some(connection) = stream.settled() {
            connections.push(connection);
        } else if stream.is_known_to_guest() {
            resets.insert((stream.guest_port, stream.host_port));
        }
    }
    VsockState {
        guest_cid: streams.guest_cid,
        awake: streams.awake,
        next_host_port: streams.next_host_port,
        connections,
        resets: resets.into_iter().take(SAVED_RESETS_MAX).collect(),
    }
}

/// Fills a new device's streams.
pub(super) fn restore(streams: &mut Streams, state: &VsockState, claims: Vec<(u32, UnixStream)>) {
    streams.awake = state.awake;
    streams.next_host_port = state.next_host_port;
    let mut unclaimed: Vec<Option<&Connection>> = state.connections.iter().map(Some).collect();
    let mut unmatched = Vec::new();
    for (guest_port, socket) in claims {
        let of_port = |saved: &&mut Option<&Connection>| {
            saved.is_some_and(|connection| connection.guest_port == guest_port)
        };
        let Some(slot) = unclaimed.iter_mut().find(of_port) else {
            unmatched.push((guest_port, socket));
            continue;
        };
        if let Some(saved) = *slot {
            let mut stream = Stream::new(guest_port, saved.host_port, socket, Greeting::default());
            stream.resume(saved);
            if streams.insert(stream) {
                *slot = None;
            }
        }
    }
    for &(guest_port, host_port) in &state.resets {
        streams.reset(guest_port, host_port);
    }
    for saved in unclaimed.into_iter().flatten() {
        streams.reset(saved.guest_port, saved.host_port);
    }
    // After the saved connections have their ports back.
    for (guest_port, socket) in unmatched {
        streams.open(guest_port, socket, Greeting::default());
    }
}

pub(super) fn rollback(streams: &mut Streams, state: &VsockState) {
    streams.awake = state.awake;
    // Of a time that has not been: the guest has no half of those connections, nor waits for answers.
    streams.last_words.clear();
    // The streams that had later ports end here, and the guest never knew of them.
    streams.next_host_port = state.next_host_port;
    let mut gone: Vec<u32> = streams.streams.keys().copied().collect();
    for saved in &state.connections {
        let live = streams.streams.get_mut(&saved.host_port);
        // A direction that has ended cannot be reopened.
        match live.filter(|stream| stream.guest_port == saved.guest_port && stream.is_whole()) {
            Some(stream) => {
                stream.resume(saved);
                gone.retain(|&port| port != saved.host_port);
                streams.settle(saved.host_port);
            }
            None => streams.reset(saved.guest_port, saved.host_port),
        }
    }
    for host_port in gone {
        streams.remove(host_port);
    }
    for &(guest_port, host_port) in &state.resets {
        streams.reset(guest_port, host_port);
    }
}
