//! The bounds on everything that this room did not make itself, each with a name.

/// The longest recipe file, in bytes.
pub const RECIPE_BYTES: u64 = 1024 * 1024;
/// The longest chain of recipes that extend one another.
pub const EXTENDS_DEPTH: usize = 8;
/// The longest name of a recipe, in bytes.
pub const RECIPE_NAME_BYTES: usize = 64;
/// The most files that one recipe may add to the image.
pub const RECIPE_FILES: usize = 65_536;
/// The least memory that a guest boots and warms up in.
pub const MEMORY_MIN_BYTES: u64 = 128 * MIB;
/// The most memory that a recipe may ask for.
pub const MEMORY_MAX_BYTES: u64 = 64 * 1024 * MIB;
/// The most virtual CPUs that a recipe may ask for.
pub const VCPUS_MAX: u8 = 8;

/// The longest boot image (`vmlinuz`) that is read.
pub const BZIMAGE_BYTES: u64 = 256 * MIB;
/// The longest decompressed Linux.
pub const VMLINUX_BYTES: u64 = 512 * MIB;
/// The longest Linux module, decompressed.
pub const MODULE_BYTES: u64 = 64 * MIB;
/// The most modules in an initramfs.
pub const MODULES: usize = 64;

/// The lines of a failed tool's output that its error shows.
pub const TOOL_TAIL_LINES: usize = 12;
/// Characters of each of these lines: pip lists every version that there ever was.
pub const TOOL_TAIL_LINE_CHARS: usize = 240;
/// The longest line of a tool's output; the rest of the line is dropped.
pub const TOOL_LINE_BYTES: usize = 4096;
/// How long a cancelled tool may tidy up before it is killed, in milliseconds.
pub const TOOL_GRACE_MS: u64 = 10_000;
/// How long the children of an ended tool are waited for, in milliseconds. They are killed, so only one that has left
/// the tool's process group and holds its output can take that long.
pub const TOOL_END_MS: u64 = 2000;
/// How often they are looked for, in milliseconds.
pub const TOOL_END_POLL_MS: u64 = 5;
/// How often a waiting build looks at its [`Cancel`](crate::Cancel), in milliseconds.
pub const CANCEL_POLL_MS: u64 = 50;
/// The longest manifest that is read back.
pub const MANIFEST_BYTES: u64 = 8 * MIB;

/// One mebibyte.
pub const MIB: u64 = 1024 * 1024;
