//! What one guest and its clients may make this device hold.

/// Streams at a time. A client beyond them is turned away: its socket closes.
pub(super) const STREAMS_MAX: usize = 256;

/// The window that the guest gets for each stream, and so the most that waits for one slow client.
pub(super) const BUFFER_BYTES: u32 = 256 << 10;

/// The most payload of one packet; Linux sends no more (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`).
pub(super) const PACKET_BYTES: usize = 64 << 10;

/// Descriptors in one chain. Linux needs a header and the fragments of one socket buffer, at most 46.
pub(super) const CHAIN_DESCRIPTORS_MAX: usize = 64;

/// Refusals that wait for receive buffers. A guest that provokes more without taking any gets none for
/// the rest.
pub(super) const REFUSALS_MAX: usize = 1024;

/// Resets in a saved state: refusals, and the last words of streams that were open then or before.
pub(super) const SAVED_RESETS_MAX: usize = REFUSALS_MAX + 4 * STREAMS_MAX;

/// The first port of the host's ends. Ports below stay free for well-known numbers.
pub(super) const HOST_PORT_MIN: u32 = 1024;

/// The guest port whose data goes first: an interrupt must not wait behind a flood of output.
pub(super) const URGENT_GUEST_PORT: u32 = 9;
