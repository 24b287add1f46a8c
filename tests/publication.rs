//! A damaged template is refused before it runs, with the section named, or found by `verify`.

use std::fs;
use std::os::unix::fs::FileExt as _;

use crate::disk::Copy;
use crate::ground::TEMPLATE;
use crate::process::{Ended, Run};

fn restore(copy: &Copy) -> Ended {
    Run::code("'restored'")
        .env("VMREPL_HOME", copy.home())
        .finish()
}

fn verify(copy: &Copy) -> Ended {
    Run::bare(["verify", TEMPLATE])
        .env("VMREPL_HOME", copy.home())
        .finish()
}

#[test]
fn a_copy_of_the_store_works() {
    let copy = Copy::new();
    restore(&copy).says("'restored'\n");
    let ended = verify(&copy);
    assert_eq!(ended.exit(), 0, "{ended}");
}

#[test]
fn a_damaged_header_is_refused() {
    let copy = Copy::new();
    // The magic, the version, a length, a fact, a row of the table.
    for offset in [0, 8, 12, 100, 390] {
        copy.flip("snapshot", offset);
        restore(&copy).fails(125, &["header", "snapshot", "hint:", "vmrepl verify"]);
        let ended = verify(&copy);
        assert_ne!(ended.exit(), 0, "byte {offset}: {ended}");
        copy.flip("snapshot", offset);
    }
    restore(&copy).says("'restored'\n");
}

#[test]
fn a_damaged_section_is_refused_by_its_name() {
    let copy = Copy::new();
    let sections = copy.sections();
    let names: Vec<&str> = sections
        .iter()
        .map(|section| section.name.as_str())
        .collect();
    assert!(
        names.contains(&"machine") && names.contains(&"template"),
        "{names:?}"
    );
    for section in &sections {
        let offset = section.offset + section.length / 2;
        copy.flip("snapshot", offset);
        // Checksums of memory are for `verify` alone: no restore reads them.
        if ["machine", "template"].contains(&section.name.as_str()) {
            restore(&copy).fails(125, &["checksum", &section.name, "hint:"]);
        }
        let ended = verify(&copy);
        let said = ended.text() + &ended.stderr;
        assert_ne!(ended.exit(), 0, "{}: {ended}", section.name);
        assert!(said.contains(&section.name), "{}: {ended}", section.name);
        copy.flip("snapshot", offset);
    }
}

#[test]
fn a_truncated_snapshot_is_refused() {
    let copy = Copy::new();
    let path = copy.file("snapshot");
    let bytes = fs::read(&path).unwrap();
    for length in [0, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bytes[..length]).unwrap();
        restore(&copy).fails(125, &["snapshot", "hint:"]);
    }
}

#[test]
fn damaged_memory_is_found_by_verify() {
    let copy = Copy::new();
    let path = copy.file("memory");
    let bytes = path.metadata().unwrap().len();
    for offset in [0, first_data(&copy), bytes / 2, bytes - 1] {
        copy.flip("memory", offset);
        let ended = verify(&copy);
        let said = ended.text() + &ended.stderr;
        assert_ne!(ended.exit(), 0, "byte {offset}: {ended}");
        assert!(said.contains("memory"), "byte {offset}: {ended}");
        copy.flip("memory", offset);
    }
    let ended = verify(&copy);
    assert_eq!(ended.exit(), 0, "{ended}");
}

#[test]
fn a_memory_of_another_length_is_refused() {
    let copy = Copy::new();
    copy.flip("memory", 0);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(copy.file("memory"))
        .unwrap();
    let bytes = file.metadata().unwrap().len();
    file.set_len(bytes - 4096).unwrap();
    restore(&copy).fails(125, &["memory", &bytes.to_string()]);
}

#[test]
fn a_name_that_points_nowhere_is_refused() {
    let copy = Copy::new();
    fs::remove_dir_all(copy.file("")).unwrap();
    let ended = restore(&copy);
    assert!([3, 125].contains(&ended.exit()), "{ended}");
    assert!(ended.stderr.contains("hint:"), "{ended}");
}

/// The first byte of memory that is not zero.
fn first_data(copy: &Copy) -> u64 {
    let file = fs::File::open(copy.file("memory")).unwrap();
    let mut chunk = vec![0; 1 << 20];
    for at in 0.. {
        let start = at << 20;
        let count = file.read_at(&mut chunk, start).unwrap();
        assert_ne!(count, 0, "the memory is all zero");
        if let Some(found) = chunk[..count].iter().position(|byte| *byte != 0) {
            return start + found as u64;
        }
    }
    unreachable!("a file ends");
}
