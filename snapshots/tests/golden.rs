//! One small real snapshot of each version of the format, in `tests/golden/snapshots/`.
//!
//! What a released version wrote must be readable for ever, and what is written today must be the same bytes but for
//! id and time. `VMREPL_BLESS=1` writes the snapshots of the current version anew, if they differ.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where, and that is all it needs to say"
)]

use std::fs::{self, DirBuilder, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use vmrepl_snapshots::{Facts, PAGE_BYTES, Page, SnapshotId, Store};

/// What is written today: layers as they are published, and as they are encoded later.
const PLAIN: &str = "v1";
const ENCODED: &str = "v1-encoded";
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

/// A page that no compression makes smaller.
fn noise(seed: u32) -> Page {
    std::array::from_fn(|at| {
        let mixed = (u32::try_from(at).unwrap() + seed * 4096).wrapping_mul(0x9e37_79b1);
        mixed.wrapping_mul(mixed | 1).to_le_bytes()[3]
    })
}

/// The memory of the base and of the layer: the layer zeroes a page, changes one, and writes where there was a hole. To
/// be encoded, it also changes a few bytes of a page, all of another, and leaves one as it was.
fn memories(version: &str) -> [[Page; 5]; 2] {
    if version != ENCODED {
        return [
            [page(1), page(0), page(2), page(0), page(3)],
            [page(1), page(4), page(0), page(0), page(5)],
        ];
    }
    let mut changed = noise(1);
    changed[0] ^= 0xff;
    changed[300..304].copy_from_slice(b"gold");
    [
        [page(1), noise(1), page(2), noise(2), page(0)],
        [page(1), changed, page(0), noise(3), page(5)],
    ]
}

/// The pages that the layer is published with, and those that are in it.
fn changed(version: &str) -> (&'static [u64], &'static [u64]) {
    if version == ENCODED {
        (&[0, 1, 2, 3, 4], &[1, 2, 3, 4])
    } else {
        (&[1, 2, 4], &[1, 2, 4])
    }
}

fn state(name: &str) -> Vec<u8> {
    format!("the state of the {name}").into_bytes()
}

/// A golden is a store as it lies on the disk, without its lock and its staging, and the same chain exported.
fn write(root: &Path, version: &str) {
    let store = Store::open(root).unwrap();
    let [base_memory, layer_memory] = memories(version);
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
    let (given, _) = changed(version);
    let content = |at: &u64| (*at, &layer_memory[usize::try_from(*at).unwrap()]);
    let layer = layer.publish(given.iter().map(content)).unwrap();
    assert!(version == PLAIN || store.encode(&layer).unwrap());
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

/// Where the page index lies in the file of a layer: the second row of the table says it.
fn place_of_index(file: &[u8]) -> usize {
    let place = file[384 + 80 + 32..][..8].try_into().unwrap();
    usize::try_from(u64::from_le_bytes(place)).unwrap()
}

/// Everything that must not change in silence.
fn frozen(store: &Store, version: &str) -> Vec<(String, Vec<u8>)> {
    let [base, layer] = named(store);
    let pages = if version == ENCODED {
        "encoded"
    } else {
        "pages"
    };
    [
        (base, "snapshot"),
        (base, "memory"),
        (layer, "snapshot"),
        (layer, pages),
    ]
    .into_iter()
    .map(|(id, file)| {
        let whose = if id == base { "base" } else { "layer" };
        let mut bytes = lasting(store, &id, file);
        if (id, file, version) == (layer, "snapshot", ENCODED) {
            // The ancestor's id, too, and the checksum over it.
            let index = place_of_index(&bytes);
            bytes[index..index + 16].fill(0);
            bytes[384 + 80 + 48..384 + 160].fill(0);
        }
        (format!("{whose}/{file}"), bytes)
    })
    .collect()
}

fn check_content(store: &Store, [base, layer]: [SnapshotId; 2], version: &str) {
    let memories = memories(version);
    for (id, (name, memory)) in [base, layer].iter().zip(NAMES.iter().zip(memories)) {
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
    assert_eq!(indices, changed(version).1);
    let empty = chain.base().read_section("empty").unwrap();
    assert_eq!((empty.version, empty.bytes), (1, Vec::new()));
}

/// Takes the page index of the encoded layer apart, and one difference.
fn check_the_encoded_bytes_are_where_the_document_says() {
    let root = golden(ENCODED);
    let [base, layer] = NAMES.map(|name| {
        let id = fs::read_to_string(root.join("names/templates").join(name)).unwrap();
        id.trim_end().to_owned()
    });
    let folder = root.join("snapshots").join(layer);
    let file = fs::read(folder.join("snapshot")).unwrap();
    assert_eq!(file[384 + 80 + 24..][..4], 2_u32.to_le_bytes());
    let index = &file[place_of_index(&file)..];
    let ancestor: String = index[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(ancestor, base);
    assert_eq!(index[16..24], [4, 0, 0, 0, 0, 0, 0, 0]);
    let entry = |number: usize| {
        let entry: [u8; 8] = index[24 + number * 8..][..8].try_into().unwrap();
        let [page, _, _, _, low, high, encoding, 0] = entry else {
            panic!("{entry:?}");
        };
        (page, encoding, usize::from(u16::from_le_bytes([low, high])))
    };
    let stored = fs::read(folder.join("encoded")).unwrap();
    // At once a run of one byte, then 299 = 2 * 128 + 43 equal ones and a run of four.
    let changed = memories(ENCODED)[1][1];
    let difference = [&[0, 1, changed[0], 0x80 | 43, 2, 4], &b"gold"[..]].concat();
    assert_eq!(entry(0), (1, 3, difference.len()));
    assert_eq!(stored[..difference.len()], difference);
    assert_eq!((entry(1), entry(2)), ((2, 0, 0), (3, 1, 4096)));
    assert_eq!(stored[difference.len()..][..4096], noise(3));
    let block = &stored[difference.len() + 4096..];
    assert_eq!(entry(3), (4, 2, block.len()));
    assert_eq!(lz4_flex::block::decompress(block, 4096).unwrap(), page(5));
}

/// Takes the layer of version 1 apart with nothing but the offsets that FORMAT.md tells.
fn check_the_bytes_are_where_the_document_says() {
    let root = golden(PLAIN);
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
        let version = golden.file_name().unwrap().to_str().unwrap();
        let root = folder.path().join("store");
        copy(&golden, &root);
        let store = Store::open(&root).unwrap();
        let ids = named(&store);
        check_content(&store, ids, version);

        let elsewhere = Store::open(&folder.path().join("elsewhere")).unwrap();
        let exported = fs::File::open(golden.join(EXPORTED)).unwrap();
        assert_eq!(elsewhere.import(exported).unwrap(), ids[1]);
        check_content(&elsewhere, ids, version);
        versions += 1;
    }
    assert!(versions > 0, "there is no golden");
}

fn check_the_current_version_is_written(version: &str) {
    let folder = tempfile::tempdir().unwrap();
    let today = folder.path().join("today");
    write(&today, version);
    let written = frozen(&Store::open(&today).unwrap(), version);
    let is_blessing = std::env::var_os("VMREPL_BLESS").is_some_and(|value| value == "1");

    let known = golden(version).exists().then(|| {
        let root = folder.path().join("golden");
        copy(&golden(version), &root);
        frozen(&Store::open(&root).unwrap(), version)
    });
    if is_blessing && known.as_ref() != Some(&written) {
        if known.is_some() {
            fs::remove_dir_all(golden(version)).unwrap();
        }
        copy(&today, &golden(version));
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
    for version in [PLAIN, ENCODED] {
        check_the_current_version_is_written(version);
    }
    check_every_version_is_read();
    check_the_bytes_are_where_the_document_says();
    check_the_encoded_bytes_are_where_the_document_says();
}
