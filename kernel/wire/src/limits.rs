//! Every limit of the wire, by name. What a peer sends beyond one of them is refused.

/// Payload of one multiplexer frame, in bytes.
pub const MUX_PAYLOAD_BYTES: usize = 64 * 1024;

/// Payload of one DATA frame that we send: one turn of the round robin, in bytes.
pub const MUX_TURN_BYTES: usize = 32 * 1024;

/// What one stream may have under way in one direction before its reader takes some, in bytes.
pub const MUX_WINDOW_BYTES: usize = 256 * 1024;

/// The least credit that is worth a frame, in bytes.
pub const MUX_CREDIT_STEP_BYTES: usize = 32 * 1024;

/// Streams open at once on one connection, both openers together.
pub const MUX_STREAMS: usize = 256;

/// Control frames waiting for the channel to take them. An honest peer needs a handful for each open
/// stream; one that never reads and makes us answer is cut off here.
pub const MUX_CONTROL_BACKLOG: usize = 16 * 1024;

/// One line of JSON on ports 9 and 10000, without its newline, in bytes.
pub const LINE_BYTES: usize = 16 * 1024 * 1024;

/// Payload of one frame between agent and runner, in bytes: a line and what wraps it.
pub const RUNNER_PAYLOAD_BYTES: usize = LINE_BYTES + 64 * 1024;

/// Payload of one frame of the files port, in bytes.
pub const FILES_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;

/// Payload of the data frames that we send on the files port, in bytes.
pub const FILES_CHUNK_BYTES: usize = 64 * 1024;

/// `CONNECT <port>` or `OK <n>` with its newline, in bytes.
pub const CONNECT_LINE_BYTES: usize = 32;

/// Entropy handed to a machine at each resume, in bytes.
pub const ENTROPY_BYTES: usize = 64;

/// One message of the languages port, in bytes.
pub const LANGUAGES_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;

/// The longest id of a request for a program, in bytes.
pub const LANGUAGES_ID_BYTES: usize = 1024;

/// What a result carries of each of a program's two outputs, in bytes: both as base64, and the rest of the message, stay
/// within [`LANGUAGES_PAYLOAD_BYTES`].
pub const LANGUAGES_OUTPUT_BYTES: usize = 4 * 1024 * 1024;

/// The wall time of a program whose request names none, in milliseconds.
pub const LANGUAGES_TIMEOUT_DEFAULT_MS: u64 = 30_000;

/// The longest wall time of a program, in milliseconds.
pub const LANGUAGES_TIMEOUT_MAX_MS: u64 = 600_000;

/// The memory of a program whose request names none, in bytes.
pub const LANGUAGES_MEMORY_DEFAULT_BYTES: u64 = 128 * 1024 * 1024;

/// The least memory that a request may give a program, in bytes: below, no interpreter starts.
pub const LANGUAGES_MEMORY_MIN_BYTES: u64 = 16 * 1024 * 1024;
