//! Headers, indexes and exports under true checksums that say what is not so: each is refused for what it says, by a
//! process that could not afford to believe it.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmrepl_snapshots::{PAGE_BYTES, SnapshotId, Store, StoreError};

use crate::forge::{
    FIXED_BYTES, ROW_BYTES, exported, exported_snapshot, overwrite, page_index, patched, row,
    section_count, snapshot_file, sums, told, wide_frame, with_section,
};
use crate::ground::{page, publish_base, publish_layer, spawned};

/// What the process may use besides what it has.
const LITTLE_BYTES: u64 = 64 << 20;

struct Honest {
    _folder: tempfile::TempDir,
    store: Store,
    base: SnapshotId,
    layer: SnapshotId,
    base_file: Vec<u8>,
    layer_file: Vec<u8>,
    /// An export that wants its reader to keep 128 MiB; to make it takes as much.
    wide: Vec<u8>,
}

fn honest() -> Honest {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let base = publish_base(&store, 4, &[(1, page(1))]).unwrap();
    let layer = publish_layer(&store, &base, &[(0, page(2)), (2, page(0))]).unwrap();
    let wide = [&exported(2, &layer, b"")[..32], &wide_frame(27, &page(1))].concat();
    Honest {
        wide,
        base_file: fs::read(snapshot_file(&store, &base)).unwrap(),
        layer_file: fs::read(snapshot_file(&store, &layer)).unwrap(),
        base,
        layer,
        _folder: folder,
        store,
    }
}

/// What opening the layer and its pages says when its file is this one.
fn refused(honest: &Honest, file: &[u8], what: &str) {
    overwrite(&snapshot_file(&honest.store, &honest.layer), file);
    let opened = honest
        .store
        .chain(&honest.layer)
        .and_then(|chain| chain.pages());
    let error = opened.expect_err(what);
    let text = told(&error);
    assert!(text.contains(what), "{what:?} is not in {text:?}");
    assert!(!honest.store.verify(&honest.layer).unwrap().is_sound());
}

fn lies_in_the_fixed_fields(honest: &Honest) {
    let four = |value: u32| value.to_le_bytes().to_vec();
    let eight = |value: u64| value.to_le_bytes().to_vec();
    let lies: Vec<(usize, Vec<u8>, &str)> = vec![
        (0, b"VMREPLSX".to_vec(), "does not begin with VMREPLSN"),
        (8, four(0), "format version 0"),
        (8, four(2), "format version 2"),
        (16, eight(0), "the header says 0 bytes"),
        (16, eight(u64::MAX), "the header says 18446744073709551615"),
        (24, vec![0], "unknown kind of snapshot 0"),
        (24, vec![3], "unknown kind of snapshot 3"),
        (24, vec![1], "does not fit a snapshot of this kind"),
        (25, vec![0, 0, 1], "reserved"),
        (28, four(8192), "pages of 8192 bytes"),
        (28, four(0), "pages of 0 bytes"),
        (32, eight(0), "memory of 0 bytes"),
        (32, eight(4097), "memory of 4097 bytes"),
        (32, eight((1 << 40) + 4096), "memory of 1099511631872 bytes"),
        (32, eight(u64::MAX - 4095), "memory of 18446744073709547520"),
        (32, eight(1 << 40), "engine, CPU or memory differ"),
        (32, eight(4096), "engine, CPU or memory differ"),
        (48, vec![7; 16], "says that it is snapshot 0707070707"),
        (64, vec![0; 16], "does not fit a snapshot of this kind"),
        (64, vec![7; 16], "there is no snapshot 0707070707"),
        (
            64,
            honest.layer.as_bytes().to_vec(),
            "does not fit a snapshot of this kind",
        ),
        (80, four(0), "the depth 0 does not fit"),
        (80, four(2), "their depths do not follow"),
        (80, four(257), "the depth 257 does not fit"),
        (80, four(u32::MAX), "the depth 4294967295 does not fit"),
        (84, four(0), "0 sections"),
        (84, four(4), "4 sections"),
        (84, four(65), "65 sections"),
        (84, four(u32::MAX), "4294967295 sections"),
        (88, vec![0, 0, 0, 0, 0, 0, 0, 1], "reserved"),
        (96, vec![0x80], "the field engine"),
        (111, b"x".to_vec(), "the field engine"),
        (112, vec![b'\n'], "the field architecture"),
        (128, vec![0x7f], "the field cpu"),
        (383, b"x".to_vec(), "the field compat"),
        (96, b"qemu".to_vec(), "engine, CPU or memory differ"),
    ];
    for (at, bytes, what) in lies {
        refused(honest, &patched(&honest.layer_file, at, &bytes), what);
    }
    // The length of the header says where its checksum is, so no true one goes with these.
    for length in [0, 415, 5537, u32::MAX] {
        let mut file = honest.layer_file.clone();
        file[12..16].copy_from_slice(&length.to_le_bytes());
        refused(honest, &file, &format!("header of {length} bytes"));
    }
}

fn lies_in_the_section_table(honest: &Honest) {
    assert_eq!(section_count(&honest.layer_file), 3);
    let place = |number: usize, field: usize| FIXED_BYTES + number * ROW_BYTES + field;
    let field = |number: usize, field: usize| {
        let at = place(number, field);
        u64::from_le_bytes(honest.layer_file[at..at + 8].try_into().unwrap())
    };
    let (first, second) = (field(0, row::OFFSET), field(1, row::OFFSET));
    let lies: Vec<(usize, u64, &str)> = vec![
        // Over the header, over the section before, a gap, beyond the file, around the end of all numbers.
        (place(0, row::OFFSET), 0, "is not where"),
        (place(1, row::OFFSET), first, "is not where"),
        (place(1, row::OFFSET), second - 1, "is not where"),
        (place(1, row::OFFSET), second + 1, "is not where"),
        (place(2, row::OFFSET), 1 << 40, "is not where"),
        (place(2, row::OFFSET), u64::MAX, "is not where"),
        (place(0, row::LENGTH), 0, "is not where"),
        (place(2, row::LENGTH), 0, "the header says"),
        (place(2, row::LENGTH), 64 << 20, "the header says"),
        (
            place(2, row::LENGTH),
            (64 << 20) + 1,
            "of 67108865 bytes (at most",
        ),
        (place(1, row::LENGTH), u64::MAX, "(at most"),
    ];
    for (at, value, what) in lies {
        let file = patched(&honest.layer_file, at, &value.to_le_bytes());
        refused(honest, &file, what);
    }
    let names: [(usize, &[u8], &str); 5] = [
        (0, b"page-index\0", "two sections are named"),
        (0, b"State", "the section name"),
        (0, b"\0", "the section name"),
        (0, b"st\0te", "the section name"),
        (1, b"another-one", "has no section \"page-index\""),
    ];
    for (number, name, what) in names {
        let file = patched(&honest.layer_file, place(number, row::NAME), name);
        refused(honest, &file, what);
    }
    let file = patched(&honest.layer_file, place(1, row::RESERVED), &[1]);
    refused(honest, &file, "reserved");
}

fn lies_in_the_page_index(honest: &Honest) {
    let raw = |page: u32| (page, 4096, 1);
    let mut ragged = page_index(1, &[raw(0)]);
    ragged.push(0);
    let mut reserved = page_index(1, &[raw(0)]);
    reserved[20] = 1;
    let mut reserved_too = page_index(1, &[raw(0)]);
    reserved_too[31] = 1;
    let lies: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "a page index of 0 bytes"),
        (
            page_index(0, &[])[..23].to_vec(),
            "a page index of 23 bytes",
        ),
        (page_index(u32::MAX, &[raw(0)]), "says 4294967295 pages"),
        (page_index(0, &[raw(0)]), "says 0 pages"),
        (page_index(2, &[raw(0)]), "says 2 pages"),
        (ragged, "a page index of 33 bytes"),
        (page_index(1, &[raw(4)]), "page 4 lies outside"),
        (
            page_index(1, &[raw(u32::MAX)]),
            "page 4294967295 lies outside",
        ),
        (
            page_index(2, &[raw(1), raw(1)]),
            "page 1 does not come after",
        ),
        (
            page_index(2, &[raw(1), raw(0)]),
            "page 0 does not come after",
        ),
        (page_index(1, &[(0, 4096, 4)]), "the unknown way 4"),
        (page_index(1, &[(0, 4096, 255)]), "the unknown way 255"),
        (page_index(1, &[(0, 1, 0)]), "as Zero in 1 bytes"),
        (page_index(1, &[(0, 4095, 1)]), "as Raw in 4095 bytes"),
        (page_index(1, &[(0, u16::MAX, 1)]), "as Raw in 65535 bytes"),
        (page_index(1, &[(0, 5, 2)]), "as Lz4, which version 1"),
        (
            page_index(1, &[(0, 5, 3)]),
            "as Difference, which version 1",
        ),
        (reserved, "reserved"),
        (reserved_too, "reserved"),
        // The pages are not there.
        (
            page_index(2, &[raw(0), raw(1)]),
            "has 4096 bytes instead of 8192",
        ),
        (page_index(0, &[]), "has 4096 bytes instead of 0"),
    ];
    for (index, what) in lies {
        let file = with_section(&honest.layer_file, "page-index", &index);
        refused(honest, &file, what);
    }
    let version = FIXED_BYTES + ROW_BYTES + 24;
    for number in [0, 3] {
        let file = patched(&honest.layer_file, version, &[number]);
        refused(
            honest,
            &file,
            &format!("version {number} of the page index"),
        );
    }
    // The file that version 2 means is not there.
    let file = patched(&honest.layer_file, version, &[2]);
    refused(honest, &file, "encoded");
}

/// Checksums are read by `verify`, exports and imports alone.
fn lies_in_the_checksums(honest: &Honest) {
    let chunk = 1 << 20;
    let lies = |count: u32| {
        vec![
            (Vec::new(), "a section of 0 bytes"),
            (sums(4096, 1, &[(0, [0; 32])]), "chunks of 4096 bytes"),
            (sums(chunk, u32::MAX, &[]), "says 4294967295 checksums"),
            (sums(chunk, 2, &[(0, [0; 32])]), "says 2 checksums"),
            (sums(chunk, 1, &[(1, [0; 32])]), "chunk 1 is out of order"),
            (
                sums(chunk, 1, &[(u32::MAX, [0; 32])]),
                "chunk 4294967295 is out of order",
            ),
            (
                sums(chunk, 2, &[(0, [0; 32]), (0, [0; 32])]),
                "chunk 0 is out of order",
            ),
            (
                sums(chunk, count, &[])[..7].to_vec(),
                "a section of 7 bytes",
            ),
        ]
    };
    for (id, file, name) in [
        (honest.base, &honest.base_file, "memory-sums"),
        (honest.layer, &honest.layer_file, "page-sums"),
    ] {
        let mut lies = lies(0);
        if id == honest.layer {
            lies.push((sums(chunk, 0, &[]), "0 checksums for a file of 4096"));
        }
        for (content, what) in lies {
            overwrite(
                &snapshot_file(&honest.store, &id),
                &with_section(file, name, &content),
            );
            let report = honest.store.verify(&id).unwrap();
            let [damage] = report.damage.as_slice() else {
                panic!("{what}: {report:?}");
            };
            assert!(
                damage.part == name && damage.what.contains(what),
                "{damage:?}"
            );
            let error = honest.store.export(&id, std::io::sink()).unwrap_err();
            assert!(told(&error).contains(what), "{error:?}");
        }
        overwrite(&snapshot_file(&honest.store, &id), file);
    }
}

fn lies_in_an_export(honest: &Honest) {
    let elsewhere = Store::open(&honest.store.root().join("elsewhere")).unwrap();
    let mut memory = vec![0; 4 * PAGE_BYTES];
    memory[PAGE_BYTES..2 * PAGE_BYTES].copy_from_slice(&page(1));
    let base = exported_snapshot(&honest.base_file, &memory);
    let layer = exported_snapshot(&honest.layer_file, &page(2));
    let both = [base.as_slice(), &layer].concat();
    let tip = &honest.layer;
    let promise = |bytes: u64| bytes.to_le_bytes().to_vec();
    let huge = patched(&honest.base_file, 32, &(1_u64 << 40).to_le_bytes());
    // Of a memory of a tebibyte, checksums that its header has room for, and no chunk.
    let mut foul = layer.clone();
    *foul.last_mut().unwrap() ^= 1;
    let foul = [base.as_slice(), &foul].concat();
    let trailing = [both.as_slice(), &[0]].concat();
    let pack = |count, content: &[u8]| exported(count, tip, content);
    let lies: Vec<(Vec<u8>, &str)> = vec![
        (pack(0, &both), "0 snapshots in one file"),
        (pack(258, &both), "258 snapshots in one file"),
        (pack(u32::MAX, &both), "4294967295 snapshots in one file"),
        (pack(3, &both), "cannot read the exported file"),
        (pack(1, &both), "ends with snapshot"),
        (exported(2, &honest.base, &both), "ends with snapshot"),
        (pack(1, &layer), "snapshot 1 in the file is not a base"),
        (
            pack(2, &[base.as_slice(), &base].concat()),
            "it names another parent",
        ),
        (pack(2, &trailing), "bytes after the last snapshot"),
        (
            [pack(2, &both), vec![0]].concat(),
            "bytes after the last snapshot",
        ),
        (pack(2, &foul), "is damaged at byte 0"),
        (pack(1, &promise(u64::MAX)), "of 18446744073709551615 bytes"),
        (pack(1, &promise((256 << 20) + 1)), "of 268435457 bytes"),
        (pack(1, &promise(256 << 20)), "ends within its header"),
        // Few bytes that unpack to many.
        (
            pack(1, &[promise(256 << 20), vec![0; 256 << 10]].concat()),
            "does not begin with VMREPLSN",
        ),
        (pack(1, &exported_snapshot(&huge, &[])), "cannot read"),
        (honest.wide.clone(), "cannot read the exported file"),
        (
            pack(2, &both)[..100].to_vec(),
            "cannot read the exported file",
        ),
    ];
    for (file, what) in lies {
        let error = elsewhere.import(file.as_slice()).expect_err(what);
        let text = told(&error);
        assert!(text.contains(what), "{what:?} is not in {text:?}");
        assert_eq!(elsewhere.ids().unwrap(), [], "{what}");
        assert_eq!(elsewhere.sweep().unwrap(), 0, "{what}");
    }
    // And what is no lie is taken, also from a frame that another encoder made.
    let plain = [&pack(2, b"")[..32], &wide_frame(23, &both)[..]].concat();
    let error = elsewhere.import(plain.as_slice()).unwrap_err();
    assert!(told(&error).contains("after the last"), "{error:?}");
    assert_eq!(elsewhere.import(pack(2, &both).as_slice()).unwrap(), *tip);
    assert!(elsewhere.verify(tip).unwrap().is_sound());
}

/// A bomb: a few kilobytes that are 200 MiB of zeros behind a length that allows them.
fn a_bomb(honest: &Honest) {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    let zeros = vec![0; 1 << 20];
    std::io::Write::write_all(&mut encoder, &(200_u64 << 20).to_le_bytes()).unwrap();
    for _ in 0..200 {
        std::io::Write::write_all(&mut encoder, &zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 64 << 10);
    let file = [&exported(1, &honest.base, b"")[..32], &bomb].concat();
    let error = honest.store.import(file.as_slice()).unwrap_err();
    assert!(
        told(&error).contains("does not begin with VMREPLSN"),
        "{error:?}"
    );
}

fn own_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:"))
        .unwrap();
    let kilobytes: u64 = line
        .trim()
        .strip_suffix("kB")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    kilobytes << 10
}

#[test]
#[ignore = "the other starts it as a process of its own, to be short of memory"]
fn the_one_that_has_little_memory() {
    let honest = honest();
    setrlimit(
        Resource::As,
        Rlimit {
            current: Some(own_bytes() + LITTLE_BYTES),
            maximum: getrlimit(Resource::As).maximum,
        },
    )
    .unwrap();
    let mut large: Vec<u8> = Vec::new();
    assert!(large.try_reserve_exact(128 << 20).is_err());
    lies_in_the_fixed_fields(&honest);
    lies_in_the_section_table(&honest);
    lies_in_the_page_index(&honest);
    lies_in_the_checksums(&honest);
    lies_in_an_export(&honest);
    a_bomb(&honest);
    assert!(honest.store.verify(&honest.layer).unwrap().is_sound());
}

#[test]
fn lies_are_refused_without_large_allocations() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "lies::the_one_that_has_little_memory"])
        .args(["--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let ended = spawned(&mut command).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(
        ended.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

#[test]
fn a_snapshot_that_could_not_be_read_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let facts = crate::ground::facts(1);
    let large = vec![1; (64 << 20) + 1];
    let mut draft = store.base_draft(facts.memory_bytes).unwrap();
    assert!(matches!(
        draft.section("large", 1, &large),
        Err(StoreError::SectionTooLong { .. })
    ));
    for name in ["a", "b", "c", "d"] {
        draft.section(name, 1, &large[1..]).unwrap();
    }
    assert!(matches!(
        draft.publish(&facts),
        Err(StoreError::FileTooLong { .. })
    ));
    let mut draft = store.base_draft(facts.memory_bytes).unwrap();
    for number in 0..64 {
        draft.section(&format!("s{number}"), 1, b"").unwrap();
    }
    // With the store's own they are 65.
    assert!(matches!(
        draft.publish(&facts),
        Err(StoreError::Facts { .. })
    ));
    assert_eq!(store.ids().unwrap(), []);
    assert_eq!(store.sweep().unwrap(), 0);
}
