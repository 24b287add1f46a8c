//! One small real snapshot of each version of the format, in `tests/golden/snapshots/`.
//!
//! What a released version wrote must be readable for ever, and what is written today must be the same bytes but for
//! id and time. `VMREPL_BLESS=1` writes the snapshot of the current version anew, if it differs.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where, and that is all it needs to say"
)]

use std::fs::{self, DirBuilder, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use vmrepl_snapshots::{Facts, PAGE_BYTES, Page, SnapshotId, Store};

/// The version that is written today.
const CURRENT: &str = "v1";
const PAGE_COUNT: u64 = 5;
const KIND: &str = "templates";
const NAMES: [&str; 2] = ["base", "layer"];
const EXPORTED: &str = "exported";
/// Where FORMAT.md says that a header holds what differs from one snapshot to the next: time, id, parent.
const OWN: [Range<usize>; 3] = [40..48, 48..64, 64..80];
/// Where FORMAT.md says that a header says how long it is; its last 32 bytes are its checksum.
const HEADER_BYTES: Range<usize> = 12..16;
const CHECKSUM_BYTES: usize = 32;

fn golden(version: &str) -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/golden/snapshots"
    ))
    .join(version)
}

fn page(number: u8) -> Page {
    [number; PAGE_BYTES]
}

fn facts() -> Facts {
    Facts {
        engine: "qemu".to_owned(),
        compat: "a golden engine 1.0".to_owned(),
        architecture: "x86_64".to_owned(),
        cpu: "a golden cpu".to_owned(),
        memory_bytes: PAGE_COUNT * PAGE_BYTES as u64,
    }
}

/// The memory of the base and of the layer: the layer zeroes a page, changes one, and writes where there was a hole.
fn memories() -> [[Page; 5]; 2] {
    [
        [page(1), page(0), page(2), page(0), page(3)],
        [page(1), page(4), page(0), page(0), page(5)],
    ]
}

fn state(name: &str) -> Vec<u8> {
    format!("the state of the {name}").into_bytes()
}

/// A golden is a store as it lies on the disk, without its lock and its staging, and the same chain exported.
fn write(root: &Path) {
    let store = Store::open(root).unwrap();
    let [base_memory, layer_memory] = memories();
    let mut base = store.base_draft(facts().memory_bytes).unwrap();
    base.section("machine", 7, &state("base")).unwrap();
    base.section("empty", 1, b"").unwrap();
    let memory = OpenOptions::new()
        .write(true)
        .open(base.memory_path())
        .unwrap();
    memory.write_all_at(base_memory.as_flattened(), 0).unwrap();
    let base = base.publish(&facts()).unwrap();

    let mut layer = store.layer_draft(&base).unwrap();
    layer.section("machine", 7, &state("layer")).unwrap();
    let changed = [1, 2, 4].map(|at: usize| (at as u64, &layer_memory[at]));
    let layer = layer.publish(changed).unwrap();
    for (name, id) in NAMES.iter().zip([base, layer]) {
        store.set_name(KIND, name, &id).unwrap();
    }
    let exported = fs::File::create(root.join(EXPORTED)).unwrap();
    store.export(&layer, exported).unwrap();
}

/// Copies what lasts of a store; a checkout has its own idea of modes, a store has not.
fn copy(from: &Path, to: &Path) {
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(to)
        .unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name == "lock" || name == "staging" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(name));
        } else {
            // Written and not copied: a sparse file in the tree is an accident of who blessed it.
            fs::write(to.join(name), fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

fn named(store: &Store) -> [SnapshotId; 2] {
    NAMES.map(|name| store.resolve(KIND, name).unwrap().unwrap())
}

/// A file of a snapshot without what differs from one to the next.
fn lasting(store: &Store, id: &SnapshotId, file: &str) -> Vec<u8> {
    let path = store.root().join("snapshots").join(id.to_string());
    let mut bytes = fs::read(path.join(file)).unwrap();
    if file == "snapshot" {
        let length = u32::from_le_bytes(bytes[HEADER_BYTES].try_into().unwrap());
        let length = usize::try_from(length).unwrap();
        let checksum = length - CHECKSUM_BYTES..length;
        for range in OWN.into_iter().chain([checksum]) {
            bytes[range].fill(0);
        }
    }
    bytes
}

/// Everything that must not change in silence.
fn frozen(store: &Store) -> Vec<(String, Vec<u8>)> {
    let [base, layer] = named(store);
    [
        (base, "snapshot"),
        (base, "memory"),
        (layer, "snapshot"),
        (layer, "pages"),
    ]
    .into_iter()
    .map(|(id, file)| {
        let whose = if id == base { "base" } else { "layer" };
        (format!("{whose}/{file}"), lasting(store, &id, file))
    })
    .collect()
}

fn check_content(store: &Store, [base, layer]: [SnapshotId; 2]) {
    for (id, (name, memory)) in [base, layer].iter().zip(NAMES.iter().zip(memories())) {
        let report = store.verify(id).unwrap();
        assert!(report.is_sound(), "{report:?}");
        let chain = store.chain(id).unwrap();
        let header = chain.tip().header();
        assert_eq!(header.facts, facts(), "{name}");
        let section = chain.tip().read_section("machine").unwrap();
        assert_eq!((section.version, section.bytes), (7, state(name)), "{name}");
        let pages = chain.pages().unwrap();
        for (at, content) in memory.iter().enumerate() {
            let found = chain.read_page(&pages, at as u64).unwrap();
            assert!(found == *content, "page {at} of {name}");
        }
    }
    let chain = store.chain(&layer).unwrap();
    assert_eq!(chain.base().id(), base);
    let indices: Vec<u64> = chain.pages().unwrap().indices().collect();
    assert_eq!(indices, [1, 2, 4]);
    let empty = chain.base().read_section("empty").unwrap();
    assert_eq!((empty.version, empty.bytes), (1, Vec::new()));
}

/// Takes the layer of version 1 apart with nothing but the offsets that FORMAT.md tells.
fn check_the_bytes_are_where_the_document_says() {
    let root = golden("v1");
    let id = fs::read_to_string(root.join("names/templates/layer")).unwrap();
    let parent = fs::read_to_string(root.join("names/templates/base")).unwrap();
    let folder = root.join("snapshots").join(id.trim_end());
    let file = fs::read(folder.join("snapshot")).unwrap();
    let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let place = |at: usize| usize::try_from(u64_at(at)).unwrap();
    let text_at = |at: usize, bytes: usize| {
        let text = String::from_utf8(file[at..at + bytes].to_vec()).unwrap();
        text.trim_end_matches('\0').to_owned()
    };
    let hex = |at: usize| -> String {
        let bytes = &file[at..at + 16];
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    assert_eq!(text_at(0, 8), "VMREPLSN");
    assert_eq!((u32_at(8), u32_at(12)), (1, 384 + 3 * 80 + 32));
    assert_eq!(u64_at(16), file.len() as u64);
    assert_eq!((file[24], u32_at(28)), (2, 4096));
    assert_eq!(u64_at(32), facts().memory_bytes);
    assert_eq!(hex(48), id.trim_end());
    assert_eq!(hex(64), parent.trim_end());
    assert_eq!((u32_at(80), u32_at(84)), (1, 3));
    assert_eq!(text_at(96, 16), facts().engine);
    assert_eq!(text_at(112, 16), facts().architecture);
    assert_eq!(text_at(128, 128), facts().cpu);
    assert_eq!(text_at(256, 128), facts().compat);
    let header = usize::try_from(u32_at(12)).unwrap();
    let sum = blake3::hash(&file[..header - 32]);
    assert_eq!(&file[header - 32..header], sum.as_bytes());

    let mut end = header;
    for (row, name) in ["machine", "page-index", "page-sums"].iter().enumerate() {
        let row = 384 + row * 80;
        assert_eq!(text_at(row, 24), *name);
        assert_eq!(u32_at(row + 24), if *name == "machine" { 7 } else { 1 });
        assert_eq!(place(row + 32), end);
        let content = &file[end..end + place(row + 40)];
        assert_eq!(&file[row + 48..row + 80], blake3::hash(content).as_bytes());
        end += content.len();
    }
    assert_eq!(end, file.len());

    let index = place(384 + 80 + 32);
    assert_eq!(u32_at(index + 16), 3);
    let entry = |number: usize| u64_at(index + 24 + number * 8);
    let raw = |page: u64| page | 4096 << 32 | 1 << 48;
    assert_eq!([0, 1, 2].map(entry), [raw(1), 2, raw(4)]);

    let sums = place(384 + 160 + 32);
    let pages = fs::read(folder.join("pages")).unwrap();
    assert_eq!([0, 4, 8].map(|at| u32_at(sums + at)), [1 << 20, 1, 0]);
    let sum = blake3::hash(&pages);
    assert_eq!(&file[sums + 12..sums + 44], sum.as_bytes());
    let exported = fs::read(root.join(EXPORTED)).unwrap();
    assert_eq!(&exported[..16], b"VMREPLEX\x01\0\0\0\x02\0\0\0");
    assert_eq!(exported[16..32], file[48..64]);
}

fn check_every_version_is_read() {
    let mut versions = 0;
    for entry in fs::read_dir(golden("")).unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let golden = entry.unwrap().path();
        let root = folder.path().join("store");
        copy(&golden, &root);
        let store = Store::open(&root).unwrap();
        let ids = named(&store);
        check_content(&store, ids);

        let elsewhere = Store::open(&folder.path().join("elsewhere")).unwrap();
        let exported = fs::File::open(golden.join(EXPORTED)).unwrap();
        assert_eq!(elsewhere.import(exported).unwrap(), ids[1]);
        check_content(&elsewhere, ids);
        versions += 1;
    }
    assert!(versions > 0, "there is no golden");
}

fn check_the_current_version_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let today = folder.path().join("today");
    write(&today);
    let written = frozen(&Store::open(&today).unwrap());
    let is_blessing = std::env::var_os("VMREPL_BLESS").is_some_and(|value| value == "1");

    let known = golden(CURRENT).exists().then(|| {
        let root = folder.path().join("golden");
        copy(&golden(CURRENT), &root);
        frozen(&Store::open(&root).unwrap())
    });
    if is_blessing && known.as_ref() != Some(&written) {
        if known.is_some() {
            fs::remove_dir_all(golden(CURRENT)).unwrap();
        }
        copy(&today, &golden(CURRENT));
        return;
    }
    let known = known.expect("a golden of the current version");
    for ((file, before), (_, now)) in known.iter().zip(&written) {
        let first = before.iter().zip(now).position(|(one, other)| one != other);
        assert!(
            before == now,
            "{file}: {} bytes were {}, the first difference at {first:?}; a new format needs a new version",
            now.len(),
            before.len(),
        );
    }
}

/// One test, so that nothing is read while it is blessed.
#[test]
fn the_format_is_frozen() {
    check_the_current_version_is_written();
    check_every_version_is_read();
    check_the_bytes_are_where_the_document_says();
}
