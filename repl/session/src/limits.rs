//! Limits of a session.

use std::time::Duration;

/// Characters of a name.
pub(crate) const NAME_CHARS_MAX: usize = 64;
/// How long a guest may take from power-on to a ready runner. Emulation on a crowded host is slow.
pub(crate) const BOOT_DEADLINE: Duration = Duration::from_secs(180);
/// How long the same may take on KVM for it to count as working, where nobody has asked for KVM by name.
pub(crate) const PROBE_DEADLINE: Duration = Duration::from_secs(60);
/// Characters of the reason why an engine is not taken.
pub(crate) const REASON_CHARS_MAX: usize = 300;
/// How long a resumed guest may take to acknowledge.
pub(crate) const RESUME_DEADLINE: Duration = Duration::from_secs(20);
/// How long the sums of all values may take: gigabytes, emulated.
pub(crate) const DIGEST_DEADLINE: Duration = Duration::from_secs(660);
/// How long a control request may wait for its answer.
pub(crate) const CONTROL_DEADLINE: Duration = Duration::from_secs(30);
/// How long a file transfer may stand still.
pub(crate) const STALL_DEADLINE: Duration = Duration::from_secs(30);
/// How long the lock of a session may outlive the process that took it.
pub(crate) const LOCK_OUTLIVES: Duration = Duration::from_secs(2);
/// How often a wait looks whether anybody still wants what it waits for.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long each step against a cell that is to stop is given before the next.
pub const GRACE: Duration = Duration::from_secs(1);
/// How long one warm-up cell may take.
pub(crate) const WARM_DEADLINE: Duration = Duration::from_secs(600);
/// What one sweep tries at most.
pub(crate) const SETTINGS_MAX: usize = 1000;
/// Modules beside a script that are sent along.
pub(crate) const SIBLING_BYTES_MAX: u64 = 16 << 20;
/// How many of them.
pub(crate) const SIBLING_FILES_MAX: usize = 512;
/// A machine's state, unpacked.
pub(crate) const STATE_BYTES_MAX: usize = 16 << 20;
/// How many template snapshots a list reads.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;
/// Layers between a checkpoint and its base, after which the next one lies over the base itself. A restore reads
/// them all.
pub(crate) const LAYERS_MAX: usize = 32;
/// Pages over the base (64 MB), after which a checkpoint becomes a base of its own: a restore lays them all. Likewise those
/// that a machine has of its own since its restore: each freeze looks at them.
pub(crate) const LAID_PAGES_MAX: usize = 16 << 10;
/// Pages of a freeze that are held in memory (64 MB) until they are stored.
pub(crate) const HELD_PAGES_MAX: usize = 16 << 10;
/// Output of a cell that the record keeps.
pub(crate) const RECORDED_OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Values, displays and tables of a cell that the record keeps.
pub(crate) const RECORDED_SHOWN_BYTES_MAX: usize = 4 << 20;
