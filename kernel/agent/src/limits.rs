//! Every limit of the agent, by name. Those of the formats are in `vmrepl_wire::limits`.

use std::time::Duration;

/// Connections at once, over all transports.
pub(crate) const CONNECTIONS: usize = 256;

/// A connection with more than this waiting for its client is not read from, and a cell that
/// streams to it is not drained, in bytes.
pub(crate) const OUTBOX_SOFT_BYTES: usize = 1024 * 1024;

/// A client that leaves more than this unread is cut off, in bytes. Above one answer of full size.
pub(crate) const OUTBOX_HARD_BYTES: usize = 40 * 1024 * 1024;

/// Requests waiting for the runner beyond which no more are taken from clients, in bytes.
pub(crate) const RUNNER_OUTBOX_SOFT_BYTES: usize = 1024 * 1024;

/// Unfinished lines of all connections together, in bytes. Above one line of full size.
pub(crate) const HELD_LINES_BYTES: usize = 32 * 1024 * 1024;

/// One line on the control port, in bytes.
pub(crate) const CONTROL_LINE_BYTES: usize = 64 * 1024;

/// Requests under way in the runner, over all clients.
pub(crate) const OPEN_REQUESTS: usize = 1024;

/// Up to this length a request is kept whole until the runner says that it has read it; of a
/// longer one the agent reads id and operation at once, in bytes.
pub(crate) const KEPT_REQUEST_BYTES: usize = 4 * 1024;

/// What the plain answer keeps of the beginning of each output stream, in bytes.
pub(crate) const CAPTURE_HEAD_BYTES: usize = 512 * 1024;

/// What the plain answer keeps of the end of each output stream, in bytes.
pub(crate) const CAPTURE_TAIL_BYTES: usize = 512 * 1024;

/// Output that arrives while no cell runs is kept for the next one up to this, in bytes.
pub(crate) const BETWEEN_CELLS_BYTES: usize = 1024 * 1024;

/// Capacity asked for each output pipe, in bytes.
pub(crate) const PIPE_BYTES: usize = 1024 * 1024;

/// One read from a pipe, a socket or the channel, in bytes.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// What is taken from one source before the others have their turn, in bytes.
pub(crate) const TURN_BYTES: usize = 256 * 1024;

/// What one write to the channel may hold, in bytes.
pub(crate) const CHANNEL_WRITE_BYTES: usize = 64 * 1024;

/// Connections of the files port that are served at once.
pub(crate) const FILES_WORKERS: usize = 64;

/// Connections of each of the other ports where programs are asked for that are served at once.
pub(crate) const EXEC_WORKERS: usize = 16;

/// Calls on one connection of the exec port that are served at once. Above what its program takes.
pub(crate) const EXEC_CALLS: usize = 96;

/// Output of a program that waits for its peer, beyond which no more is read from the program, in bytes.
pub(crate) const EXEC_OUTPUT_BYTES: usize = 256 * 1024;

/// Input that waits for a program, beyond which no more is taken from its peer, in bytes. What the peer says behind it, a
/// signal too, waits with it.
pub(crate) const EXEC_INPUT_BYTES: usize = 256 * 1024;

/// Reads of what an ended program has left in each of its streams.
pub(crate) const LAST_READS: u32 = 72;

/// How long at most until a killed program's processes are looked at again.
pub(crate) const REAP_LOOK: Duration = Duration::from_millis(10);

/// What a program of a stranger may write to both outputs before it is killed, in bytes.
pub(crate) const LANGUAGES_WRITTEN_BYTES: usize = 64 * 1024 * 1024;

/// What its folder may hold, in bytes: guest memory.
pub(crate) const BOX_BYTES: u64 = 64 * 1024 * 1024;

/// Its processes and threads at once; node alone has a dozen.
pub(crate) const SANDBOX_PROCESSES: u64 = 64;

/// Open files of each of them.
pub(crate) const SANDBOX_OPEN_FILES: u64 = 256;

/// Wall time of one compiler; emulated ones are slow.
pub(crate) const COMPILE_WALL: Duration = Duration::from_secs(180);

/// Memory of one compiler, in bytes.
pub(crate) const COMPILE_MEMORY_BYTES: u64 = 512 * 1024 * 1024;

/// What compilers have made and is kept, of strangers and of the machine's user each, in bytes: guest memory.
pub(crate) const COMPILED_BYTES: u64 = 48 * 1024 * 1024;

/// How long and how much an answered peer of the files port may go on sending before it is cut off.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
pub(crate) const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// How long the runner may take to acknowledge a resume: below the host's own patience, above what a crowded host makes of
/// milliseconds.
pub(crate) const RESUME_ACK: Duration = Duration::from_secs(15);

/// How long output may take to leave before a quiesce is answered with `busy`.
pub(crate) const QUIESCE: Duration = Duration::from_secs(5);

/// The wait before a runner that did not become ready is started again, doubled each time.
pub(crate) const RESTART_FIRST: Duration = Duration::from_millis(100);

/// The longest wait before a runner is started again.
pub(crate) const RESTART_MAX: Duration = Duration::from_secs(5);

/// After so many starts in vain, requests are answered with the reason instead of waiting.
pub(crate) const STARTS_IN_VAIN: u32 = 3;

/// The end of a broken runner's standard error that is told, in bytes.
pub(crate) const LAST_WORDS_BYTES: usize = 2048;

/// How long boot waits for the root disk to appear.
pub(crate) const ROOT_DISK: Duration = Duration::from_secs(10);

/// Guest memory that cells can never have, in bytes: the agent's own buffers and Linux.
pub(crate) const RESERVED_MEMORY_BYTES: u64 = 48 * 1024 * 1024;

/// Processes of cells, at once.
pub(crate) const PROCESSES: u32 = 512;

/// Open files of one process of a cell.
pub(crate) const OPEN_FILES: u64 = 65_536;

/// How long each step against a cell that goes over a limit is given.
pub(crate) const STEP: Duration = Duration::from_secs(1);

/// The least time between two looks at a cell's processor time.
pub(crate) const CPU_LOOK: Duration = Duration::from_millis(20);

/// Rounds of looking for processes to kill: each finds what was started meanwhile.
pub(crate) const KILL_ROUNDS: u32 = 32;

/// Cells whose output is kept for a client that asks again with the same id.
pub(crate) const REMEMBERED_CELLS: usize = 16;

/// Output above this is not kept for that, in bytes.
pub(crate) const REMEMBERED_OUTPUT_BYTES: usize = 32 * 1024;

/// Turns of reading from the socket of a runner that has ended: one frame of full size.
pub(crate) const LAST_TURNS: u32 = 72;

/// Faults of the agent itself in turns that follow each other, after which it gives up.
pub(crate) const FAULTS_IN_A_ROW: u32 = 3;

/// How long a runner that has closed its socket may take to end by itself.
pub(crate) const CLOSED_GRACE: Duration = Duration::from_millis(250);
