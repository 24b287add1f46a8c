//! The numbers of the socket device, virtio 1.2 section 5.10:
//! <https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html>.

/// The host's own address (5.10.4).
pub(super) const HOST_CID: u64 = 2;
/// The smallest address that a guest may have; those below are reserved (5.10.4).
pub(super) const GUEST_CID_MIN: u32 = 3;
/// "Any address" and, as a port, "any port": never those of a real end.
pub(super) const ANY: u32 = u32::MAX;

/// `struct virtio_vsock_hdr`, packed (5.10.6).
pub(super) const HEADER_BYTES: usize = 44;

/// `VIRTIO_VSOCK_TYPE_STREAM` (5.10.6.6).
pub(super) const TYPE_STREAM: u16 = 1;

// `enum virtio_vsock_op` (5.10.6).
pub(super) const OP_REQUEST: u16 = 1;
pub(super) const OP_RESPONSE: u16 = 2;
pub(super) const OP_RST: u16 = 3;
pub(super) const OP_SHUTDOWN: u16 = 4;
pub(super) const OP_RW: u16 = 5;
pub(super) const OP_CREDIT_UPDATE: u16 = 6;
pub(super) const OP_CREDIT_REQUEST: u16 = 7;

/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender of the packet takes no more data (5.10.6.6).
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender of the packet gives no more data (5.10.6.6).
pub(super) const SHUTDOWN_SEND: u32 = 2;
#[cfg(test)]
pub(super) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;
