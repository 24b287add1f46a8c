//! The saved state of the device: plain data in a fixed layout, little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | `VSCK` |
//! | 4 | 4 | version, 1 |
//! | 8 | 4 | the guest's address |
//! | 12 | 4 | the next port of the host |
//! | 16 | 4 | 1 when the guest has knocked, else 0 |
//! | 20 | 4 | number of connections |
//! | 24 | 4 | number of resets |
//! | 28 | 28 each | connections: guest port, host port, `fwd_cnt`, told `fwd_cnt`, `tx_cnt`, peer's `buf_alloc`, peer's `fwd_cnt` |
//! | then | 8 each | resets: guest port, host port |

use std::collections::BTreeSet;

use super::limits::{HOST_PORT_MIN, SAVED_RESETS_MAX, STREAMS_MAX};
use super::spec::{ANY, GUEST_CID_MIN};

const MAGIC: u32 = u32::from_le_bytes(*b"VSCK");
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 28;
const CONNECTION_BYTES: usize = 28;
const RESET_BYTES: usize = 8;

/// What the device must know to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VsockState {
    /// The guest's address.
    pub(crate) guest_cid: u32,
    /// Whether the guest has knocked.
    pub(crate) awake: bool,
    /// The port that the host's next stream gets.
    pub(crate) next_host_port: u32,
    /// Connections with nothing under way: they can go on.
    pub(crate) connections: Vec<Connection>,
    /// Guest and host port of connections that cannot; the guest is to get a RST for each.
    pub(crate) resets: Vec<(u32, u32)>,
}

/// One connection with nothing under way. Counters are modulo 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection {
    /// The guest's port.
    pub(crate) guest_port: u32,
    /// The host's port.
    pub(crate) host_port: u32,
    /// Bytes of the guest that the client has taken; all that came.
    pub(crate) fwd_cnt: u32,
    /// The `fwd_cnt` that the guest knows.
    pub(crate) told_fwd_cnt: u32,
    /// Bytes that went to the guest.
    pub(crate) tx_cnt: u32,
    /// The guest's window.
    pub(crate) peer_buf_alloc: u32,
    /// What the guest's reader had taken by its last packet.
    pub(crate) peer_fwd_cnt: u32,
}

/// Why bytes are not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StateError {
    /// Not from this device.
    #[error("not a vsock state")]
    Magic,
    /// From another version of it.
    #[error("vsock state of version {0}, expected {VERSION}")]
    Version(u32),
    /// Cut short, or with something behind it.
    #[error("vsock state of {got} bytes, expected {expected}")]
    Length {
        /// What the head announces.
        expected: usize,
        /// What there is.
        got: usize,
    },
    /// Not what this device would have written.
    #[error("vsock state with a bad {field}: {value}")]
    Value {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: u32,
    },
}

impl VsockState {
    /// The bytes of the state, in the layout above.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length(self.connections.len(), self.resets.len()));
        let mut put = |value: u32| bytes.extend_from_slice(&value.to_le_bytes());
        for value in [
            MAGIC,
            VERSION,
            self.guest_cid,
            self.next_host_port,
            u32::from(self.awake),
            count(self.connections.len()),
            count(self.resets.len()),
        ] {
            put(value);
        }
        for connection in &self.connections {
            for value in [
                connection.guest_port,
                connection.host_port,
                connection.fwd_cnt,
                connection.told_fwd_cnt,
                connection.tx_cnt,
                connection.peer_buf_alloc,
                connection.peer_fwd_cnt,
            ] {
                put(value);
            }
        }
        for &(guest_port, host_port) in &self.resets {
            put(guest_port);
            put(host_port);
        }
        bytes
    }

    /// Reads the layout above from bytes that anyone may have made.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        if bytes.len() < HEAD_BYTES {
            return Err(StateError::Length {
                expected: HEAD_BYTES,
                got: bytes.len(),
            });
        }
        let (words, _) = bytes.as_chunks::<4>();
        let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
        // The length is checked once the counts are known; a state that is too short ends in zeros
        // until then, and is refused.
        let mut next = || words.next().unwrap_or(0);
        if next() != MAGIC {
            return Err(StateError::Magic);
        }
        let version = next();
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let guest_cid = check("address", next(), |cid| (GUEST_CID_MIN..ANY).contains(&cid))?;
        let next_host_port = check("next port", next(), is_host_port)?;
        let awake = check("knock", next(), |knock| knock <= 1)? == 1;
        let connection_count = bounded("number of connections", next(), STREAMS_MAX)?;
        let reset_count = bounded("number of resets", next(), SAVED_RESETS_MAX)?;
        let expected = length(connection_count, reset_count);
        if bytes.len() != expected {
            return Err(StateError::Length {
                expected,
                got: bytes.len(),
            });
        }
        let mut host_ports = BTreeSet::new();
        let mut connections = Vec::with_capacity(connection_count);
        for _ in 0..connection_count {
            connections.push(Connection {
                guest_port: next(),
                host_port: check("host port", next(), |port| {
                    is_host_port(port) && host_ports.insert(port)
                })?,
                fwd_cnt: next(),
                told_fwd_cnt: next(),
                tx_cnt: next(),
                peer_buf_alloc: next(),
                peer_fwd_cnt: next(),
            });
        }
        let resets = (0..reset_count).map(|_| (next(), next())).collect();
        Ok(Self {
            guest_cid,
            awake,
            next_host_port,
            connections,
            resets,
        })
    }
}

fn is_host_port(port: u32) -> bool {
    (HOST_PORT_MIN..ANY).contains(&port)
}

fn check(
    field: &'static str,
    value: u32,
    mut holds: impl FnMut(u32) -> bool,
) -> Result<u32, StateError> {
    if holds(value) {
        Ok(value)
    } else {
        Err(StateError::Value { field, value })
    }
}

fn bounded(field: &'static str, value: u32, most: usize) -> Result<usize, StateError> {
    Ok(check(field, value, |value| value as usize <= most)? as usize)
}

fn length(connections: usize, resets: usize) -> usize {
    HEAD_BYTES + connections * CONNECTION_BYTES + resets * RESET_BYTES
}

fn count(items: usize) -> u32 {
    u32::try_from(items).expect("both lists are bounded")
}
