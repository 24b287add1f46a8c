//! Devices against drivers that a fuzzer writes, without KVM and without files on a disk.

mod block;
mod board;

pub use block::block;
pub use board::devices;

#[cfg(test)]
pub(crate) use board::machine;
pub(crate) use board::{Board, MEMORY_BYTES};

use std::fs::File;
use std::io::Write as _;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, memfd_create};

/// A file that is nowhere.
fn file(bytes: &[u8]) -> File {
    let file = memfd_create("fuzzing", MemfdFlags::CLOEXEC).expect("descriptors");
    let mut file = File::from(file);
    file.write_all(bytes).expect("memory");
    file
}

/// Whole sectors of the disk; a part of another follows them.
const SECTORS: u64 = 40;

/// A disk whose every word says which one it is. It is only read, so one serves all.
fn disk() -> File {
    static DISK: OnceLock<File> = OnceLock::new();
    let disk = DISK.get_or_init(|| {
        let words = (0..SECTORS * 64 + 10).map(|word| word ^ 0x5a5a_0000_0000_0000);
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        file(&bytes)
    });
    disk.try_clone().expect("descriptors")
}
