//! What is laid into memory before the first instruction, and files that are no Linux.

use std::fs::File;
use std::io::Write as _;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use vm_memory::{Bytes as _, GuestAddress};

use super::{Boot, BootError};
use crate::devices::tests::long;
use crate::layout::{COMMAND_LINE, COMMAND_LINE_BYTES, MEMORY_MAP, MODULE_LIST, START_INFO};
use crate::limits::MEMORY_BYTES_MIN;
use crate::ram::Ram;

const ENTRY: u32 = 0x10_0020;
const LOAD: u64 = 0x10_0000;
/// The code with its bytes of zeros behind it.
const LINUX_BYTES: u64 = 0x3000;

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn ram() -> Ram {
    let memory = tempfile::tempfile().unwrap();
    memory.set_len(MEMORY_BYTES_MIN).unwrap();
    let mut ram = Ram::reserve(MEMORY_BYTES_MIN).unwrap();
    ram.map(&memory).unwrap();
    ram
}

/// The smallest ELF file (64 bits, <https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html>) that has code
/// and a note with a PVH entry.
fn linux() -> Vec<u8> {
    let header = |kind: u32, offset: u64, address: u64, bytes: u64, in_memory: u64| {
        let mut all = Vec::new();
        all.extend_from_slice(&kind.to_le_bytes());
        all.extend_from_slice(&7_u32.to_le_bytes());
        for word in [offset, address, address, bytes, in_memory, 4] {
            all.extend_from_slice(&word.to_le_bytes());
        }
        all
    };
    let mut note = Vec::new();
    // Another one first: its name and its four bytes are passed over.
    for (kind, name, value) in [(6_u32, b"Xen\0", 1_u32), (18, b"Xen\0", ENTRY)] {
        for word in [4, 4, kind] {
            note.extend_from_slice(&word.to_le_bytes());
        }
        note.extend_from_slice(name);
        note.extend_from_slice(&value.to_le_bytes());
    }
    let code = [0x90; 64];
    let (note_bytes, code_bytes) = (note.len() as u64, code.len() as u64);
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [LOAD, 64, 0] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend(header(1, 176, LOAD, code_bytes, LINUX_BYTES));
    elf.extend(header(4, 176 + code_bytes, 0, note_bytes, note_bytes));
    elf.extend_from_slice(&code);
    elf.extend(note);
    elf
}

fn load(linux: &[u8], initramfs: &[u8], command_line: &str, ram: &Ram) -> Result<u64, BootError> {
    Boot {
        vmlinux: &file(linux),
        initramfs: &file(initramfs),
        command_line,
        vcpus: 2,
        virtio_devices: 2,
    }
    .load(ram)
}

#[test]
fn a_linux_finds_all_that_it_was_given() {
    let ram = ram();
    let initramfs = vec![0x77; 5000];
    let entry = load(&linux(), &initramfs, "console=ttyS0", &ram).unwrap();
    assert_eq!(entry, u64::from(ENTRY));
    let memory = ram.memory();
    let word = |at: u64| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
    // PVH's start information: magic and version, then flags and modules, then addresses.
    assert_eq!(word(START_INFO), 0x0000_0001_336e_c578);
    assert_eq!(word(START_INFO + 16), MODULE_LIST);
    assert_eq!(word(START_INFO + 24), COMMAND_LINE);
    assert_eq!(word(START_INFO + 40), MEMORY_MAP);
    let (at, bytes) = (word(MODULE_LIST), word(MODULE_LIST + 8));
    assert_eq!(bytes, 5000);
    assert!(at.is_multiple_of(4096) && at + 2 * 4096 == MEMORY_BYTES_MIN);
    let mut content = vec![0; 5000];
    memory.read_slice(&mut content, GuestAddress(at)).unwrap();
    assert!(content == initramfs);
    let mut line = [0; 14];
    memory
        .read_slice(&mut line, GuestAddress(COMMAND_LINE))
        .unwrap();
    assert_eq!(&line, b"console=ttyS0\0");
}

#[test]
fn an_initial_file_system_takes_what_linux_leaves() {
    let ram = ram();
    let room = usize::try_from(MEMORY_BYTES_MIN - LOAD - LINUX_BYTES).unwrap();
    load(&linux(), &vec![1; room], "", &ram).unwrap();
    for bytes in [room + 1, usize::try_from(MEMORY_BYTES_MIN).unwrap() + 1] {
        let error = load(&linux(), &vec![1; bytes], "", &ram).unwrap_err();
        let is_named =
            matches!(error, BootError::InitramfsSize { bytes: found } if found == bytes as u64);
        assert!(is_named, "{error}");
    }
    // One that is longer than any memory is not read.
    let endless = tempfile::tempfile().unwrap();
    endless.set_len(1 << 42).unwrap();
    let error = Boot {
        vmlinux: &file(&linux()),
        initramfs: &endless,
        command_line: "",
        vcpus: 1,
        virtio_devices: 2,
    }
    .load(&ram)
    .unwrap_err();
    assert!(matches!(error, BootError::InitramfsSize { .. }));
}

#[test]
fn a_command_line_has_a_longest() {
    let ram = ram();
    let longest = "x".repeat(COMMAND_LINE_BYTES - 1);
    load(&linux(), b"", &longest, &ram).unwrap();
    let error = load(&linux(), b"", &format!("{longest}x"), &ram).unwrap_err();
    assert!(matches!(error, BootError::CommandLine { bytes: 2048 }));
}

#[test]
fn a_linux_without_the_entry_is_refused() {
    let ram = ram();
    let mut other = linux();
    let kind = other.len() - 12;
    other[kind] = 17;
    let error = load(&other, b"", "", &ram).unwrap_err();
    assert!(matches!(error, BootError::NoEntry), "{error}");
    for bytes in [&b""[..], b"\x7fELF", b"MZ and more of the like"] {
        let error = load(bytes, b"", "", &ram).unwrap_err();
        assert!(matches!(error, BootError::Linux(_)), "{error}");
    }
}

#[test]
fn a_linux_with_another_byte_is_one_or_is_refused() {
    let ram = ram();
    let mut elf = linux();
    for at in 0..elf.len() {
        for change in [0x01, 0x80, 0xff] {
            elf[at] ^= change;
            let (Ok(_) | Err(_)) = load(&elf, b"files", "", &ram);
            elf[at] ^= change;
        }
    }
}

/// A field of the headers, and what it says instead.
fn lie() -> impl Strategy<Value = (usize, u64)> {
    let fields: Vec<usize> = (24..176).step_by(4).chain(240..280).collect();
    let value = prop_oneof![
        4 => 0_u64..0x2000,
        2 => (0_u32..64).prop_map(|bit| 1 << bit),
        2 => (0_u64..0x1000).prop_map(|less| u64::MAX - less),
        1 => any::<u64>(),
    ];
    (proptest::sample::select(fields), value)
}

fn lies() -> impl Strategy<Value = Vec<(usize, u64)>> {
    proptest::collection::vec(lie(), 1..6)
}

fn told(lies: Vec<(usize, u64)>) -> TestCaseResult {
    let mut elf = linux();
    for (at, value) in lies {
        let room = (elf.len() - at).min(8);
        elf[at..at + room].copy_from_slice(&value.to_le_bytes()[..room]);
    }
    let (Ok(_) | Err(_)) = load(&elf, b"files", "", &ram());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn headers_that_lie_are_refused_or_do_no_harm(lies in lies()) {
        told(lies)?;
    }
}

#[test]
fn long_headers() {
    long::run("headers of a linux", lies(), told);
}
