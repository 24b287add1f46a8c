//! Every limit of this process, by name. Those of the frames are in `vmrepl_wire::limits`.

/// Calls under way at once on one connection. One more is answered RESOURCE_EXHAUSTED.
pub(crate) const CALLS: usize = 64;

/// Streams that HTTP/2 lets a client open: more than [`CALLS`], so that one call too many hears why. Clients hold the rest back.
pub(crate) const STREAMS: u32 = 128;

/// One message of a client, in bytes: what gRPC servers take where nothing else is said.
pub(crate) const MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// What a client may have sent on one stream before it is taken, in bytes.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// The same for all streams together: enough for each, so that a program that does not read stops no other.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS;

/// Output of one stream that waits for the client, in bytes.
pub(crate) const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Headers of one call, in bytes.
pub(crate) const HEADERS_BYTES: u32 = 16 * 1024;

/// One read from the core, in bytes.
pub(crate) const READ_BYTES: usize = 32 * 1024;
