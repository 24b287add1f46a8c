//! The two windows of one stream (virtio 1.2, section 5.10.6.3). All counters wrap at 2^32.

use super::header::Header;
use super::limits::BUFFER_BYTES;

/// A guest that sees less than this is told of what has become free.
const LOW_WINDOW_BYTES: u32 = BUFFER_BYTES / 2;
/// Less than this is not worth a packet while more is about to become free.
const UPDATE_BYTES: u32 = BUFFER_BYTES / 8;

/// What either side has sent, taken and told the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Credit {
    /// Bytes that came from the guest.
    pub(super) received: u32,
    /// Those of them that the client's socket has taken.
    pub(super) forwarded: u32,
    /// The `forwarded` that the guest knows.
    pub(super) told: u32,
    /// Bytes that went to the guest.
    pub(super) sent: u32,
    pub(super) peer_buf_alloc: u32,
    pub(super) peer_fwd_cnt: u32,
}

impl Credit {
    /// Takes the guest's side of the accounts from one of its packets.
    pub(super) fn learn(&mut self, header: &Header) {
        self.peer_buf_alloc = header.buf_alloc;
        self.peer_fwd_cnt = header.fwd_cnt;
    }

    /// How many bytes the guest takes now. A guest may shrink its window below what is under way.
    pub(super) fn room(&self) -> u32 {
        let under_way = self.sent.wrapping_sub(self.peer_fwd_cnt);
        self.peer_buf_alloc.saturating_sub(under_way)
    }

    pub(super) fn send(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// Books bytes of the guest; false when it had no credit for them.
    pub(super) fn receive(&mut self, bytes: u32) -> bool {
        if bytes > self.window() {
            return false;
        }
        self.received = self.received.wrapping_add(bytes);
        true
    }

    pub(super) fn forward(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// The `fwd_cnt` of a packet that goes out now.
    pub(super) fn tell(&mut self) -> u32 {
        self.told = self.forwarded;
        self.told
    }

    /// Whether the guest should hear what has become free; `drained` when nothing more will soon.
    pub(super) fn update_is_due(&self, drained: bool) -> bool {
        let freed = self.forwarded.wrapping_sub(self.told);
        freed > 0 && self.window() < LOW_WINDOW_BYTES && (drained || freed >= UPDATE_BYTES)
    }

    /// The window as the guest sees it.
    fn window(&self) -> u32 {
        BUFFER_BYTES.saturating_sub(self.received.wrapping_sub(self.told))
    }
}
