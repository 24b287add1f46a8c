//! Folders to streams and back, and archives that mean harm.
#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has said what is wrong"
)]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tar::{EntryType, Header};
use vmrepl_copying::{DraftFolder, Tally, Trust, UnpackError, measure, pack, unpack};

fn packed(folder: &Path) -> (Vec<u8>, Tally) {
    let mut stream = Vec::new();
    let tally = pack(folder, &mut stream, &mut |_, _| {}).unwrap();
    (stream, tally)
}

fn unpacked(stream: &[u8], target: &Path) -> Result<Tally, UnpackError> {
    fs::create_dir_all(target).unwrap();
    let root = File::open(target).unwrap().into();
    unpack(stream, root, Trust::Foreign, &mut |_, _| {})
}

/// One entry of an archive, as anyone may write it.
fn entry(kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o6755);
    header.set_mtime(1);
    header.set_size(content.len() as u64);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_cksum();
    let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
    [header.as_bytes(), content, &padding].concat()
}

fn file(name: &str, content: &str) -> Vec<u8> {
    entry(EntryType::Regular, name.as_bytes(), b"", content.as_bytes())
}

/// What stands below a folder: kinds, permission bits, times, sizes, link targets, contents.
fn seen(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = vec![PathBuf::new()];
    while let Some(path) = rest.pop() {
        let full = if path == Path::new("") {
            folder.to_owned()
        } else {
            folder.join(&path)
        };
        let metadata = fs::symlink_metadata(&full).unwrap();
        let mut line = format!(
            "{path:?} {:o} {}.{}",
            metadata.mode(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        if metadata.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&full)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            rest.extend(names.iter().map(|name| path.join(name)));
        } else if metadata.is_symlink() {
            line += &format!(" -> {:?}", fs::read_link(full).unwrap());
        } else {
            line += &format!(" x{} {:?}", metadata.nlink(), fs::read(full).unwrap());
        }
        lines.push(line);
    }
    lines
}

#[test]
fn a_folder_comes_back_as_it_was() {
    let ground = tempfile::tempdir().unwrap();
    let source = ground.path().join("source");
    fs::create_dir_all(source.join("empty")).unwrap();
    fs::create_dir_all(source.join("closed/inner")).unwrap();
    fs::write(source.join("plain"), "content").unwrap();
    fs::write(source.join("nothing"), "").unwrap();
    fs::write(source.join("record"), [7; 512]).unwrap();
    fs::write(source.join("closed/inner/run"), "#!/bin/sh\n").unwrap();
    fs::hard_link(source.join("plain"), source.join("zlinked")).unwrap();
    symlink("plain", source.join("to-plain")).unwrap();
    symlink("/no//such/./place/", source.join("dangling")).unwrap();
    symlink("x".repeat(300), source.join("far")).unwrap();
    let long: PathBuf = ["deep".repeat(40), "er".repeat(100), "name".repeat(60)]
        .iter()
        .collect();
    fs::create_dir_all(source.join(&long)).unwrap();
    fs::write(source.join(&long).join("é🦀"), "bytes").unwrap();
    let odd = std::ffi::OsString::from(std::str::from_utf8(b"new\nline").unwrap());
    fs::write(source.join(odd), "odd").unwrap();
    File::open(source.join("nothing"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    for (name, mode) in [
        ("plain", 0o640),
        ("closed/inner/run", 0o755),
        ("closed", 0o555),
        ("nothing", 0o400),
    ] {
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let target = ground.path().join("target");
    let (stream, tally) = packed(&source);
    assert_eq!(
        (tally.skipped_count, tally.files, tally.links),
        (0, 6, 4),
        "{tally:?}"
    );
    assert_eq!(measure(&source).unwrap(), tally.bytes);
    assert_eq!(unpacked(&stream, &target).unwrap(), tally);
    assert_eq!(seen(&target), seen(&source));
    // Once more over what is there; as who may write everywhere, also into the folder that is closed.
    fs::set_permissions(target.join("closed"), fs::Permissions::from_mode(0o755)).unwrap();
    unpacked(&stream, &target).unwrap();
    assert_eq!(seen(&target), seen(&source));
}

#[test]
fn other_programs_understand_it_and_are_understood() {
    let ground = tempfile::tempdir().unwrap();
    let source = ground.path().join("source");
    let long = source.join("long".repeat(50));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("name".repeat(50)), "content").unwrap();
    symlink("y".repeat(200), source.join("link")).unwrap();
    let tar = |arguments: &[&str], input: &[u8]| {
        let path = ground.path().join("archive");
        fs::write(&path, input).unwrap();
        let ended = std::process::Command::new("tar")
            .args(arguments)
            .arg("-f")
            .arg(&path)
            .output()
            .unwrap();
        assert!(ended.status.success(), "{ended:?}");
        fs::read(&path).unwrap()
    };
    let folder = source.to_str().unwrap();
    tar(&["--compare", "-C", folder], &packed(&source).0);
    for format in ["gnu", "pax"] {
        let archive = tar(&["--create", "--format", format, "-C", folder, "."], b"");
        let target = ground.path().join(format);
        assert_eq!(unpacked(&archive, &target).unwrap().files, 1);
        assert_eq!(
            fs::read(target.join("long".repeat(50)).join("name".repeat(50))).unwrap(),
            b"content"
        );
    }
}

#[test]
fn what_cannot_be_copied_is_told() {
    let ground = tempfile::tempdir().unwrap();
    mknodat(
        CWD,
        ground.path().join("pipe"),
        FileType::Fifo,
        Mode::RUSR,
        0,
    )
    .unwrap();
    drop(UnixListener::bind(ground.path().join("socket")).unwrap());
    fs::write(ground.path().join("file"), "x").unwrap();
    let (_, tally) = packed(ground.path());
    assert_eq!((tally.files, tally.folders, tally.skipped_count), (1, 1, 2));
    let told: Vec<_> = tally
        .skipped
        .iter()
        .map(|one| (one.path.as_str(), one.why.as_str()))
        .collect();
    assert_eq!(told, [("pipe", "a named pipe"), ("socket", "a socket")]);
}

#[test]
fn what_changes_meanwhile_is_told_and_the_stream_keeps_step() {
    let ground = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c", "d"] {
        fs::write(ground.path().join(name), vec![7; 200_000]).unwrap();
    }
    let (path, mut done) = (ground.path().to_owned(), false);
    let mut stream = Vec::new();
    let tally = pack(&path.clone(), &mut stream, &mut |entry, bytes| {
        if entry == Path::new("b") && bytes > 200_000 && !done {
            done = true;
            File::options()
                .write(true)
                .open(path.join("b"))
                .unwrap()
                .set_len(100_000)
                .unwrap();
            fs::remove_file(path.join("c")).unwrap();
        }
    });
    let tally = tally.unwrap();
    let told: Vec<_> = tally
        .skipped
        .iter()
        .map(|one| (one.path.as_str(), one.why.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("b", "it shrank: zeros after 100000 of 200000 bytes"),
            ("c", "it vanished")
        ]
    );
    let target = ground.path().join("target");
    assert_eq!(unpacked(&stream, &target).unwrap().files, 3);
    assert_eq!(
        fs::read(target.join("b")).unwrap(),
        [vec![7; 100_000], vec![0; 100_000]].concat()
    );
    assert_eq!(fs::read(target.join("d")).unwrap().len(), 200_000);
}

type Attacks = Vec<(&'static str, Vec<Vec<u8>>)>;

/// Names and links that lead out.
fn outward() -> Attacks {
    vec![
        ("absolute", vec![file("/tmp/vmrepl-escaped", "x")]),
        ("dots", vec![file("../beside", "x")]),
        ("inner dots", vec![file("a/../../beside", "x")]),
        (
            "dots of a folder",
            vec![entry(EntryType::Directory, b"..", b"", b"")],
        ),
        (
            "a link, then through it",
            vec![
                entry(EntryType::Symlink, b"out", b"..", b""),
                file("out/beside", "x"),
            ],
        ),
        (
            "a folder through a link",
            vec![
                entry(EntryType::Symlink, b"out", b"..", b""),
                entry(EntryType::Directory, b"out/new", b"", b""),
            ],
        ),
        (
            "a folder over a link",
            vec![
                entry(EntryType::Symlink, b"out", b"..", b""),
                entry(EntryType::Directory, b"out", b"", b""),
            ],
        ),
        ("a link there before", vec![file("standing/beside", "x")]),
    ]
}

/// Further names of what is not the archive's, and what cannot be understood.
fn crooked() -> Attacks {
    vec![
        (
            "a further name of what is outside",
            vec![entry(EntryType::Link, b"name", b"../beside", b"")],
        ),
        (
            "a further name, absolute",
            vec![entry(EntryType::Link, b"name", b"/etc/passwd", b"")],
        ),
        (
            "a further name of a link",
            vec![
                entry(EntryType::Symlink, b"out", b"../beside", b""),
                entry(EntryType::Link, b"name", b"out", b""),
            ],
        ),
        (
            "a further name through a link",
            vec![entry(EntryType::Link, b"name", b"standing/beside", b"")],
        ),
        (
            "a long name",
            vec![
                entry(EntryType::GNULongName, b"@", b"", b"../beside\0"),
                file("x", "x"),
            ],
        ),
        (
            "a record's name",
            vec![
                entry(EntryType::XHeader, b"@", b"", b"18 path=../beside\n"),
                file("x", "x"),
            ],
        ),
        (
            "a zero in a name",
            vec![
                entry(EntryType::GNULongName, b"@", b"", b"a\0/b\0"),
                file("x", "x"),
            ],
        ),
        ("the target itself as a file", vec![file(".", "x")]),
        (
            "a file through a file",
            vec![file("a", "x"), file("a/b", "x")],
        ),
        (
            "a size elsewhere",
            vec![
                entry(EntryType::XHeader, b"@", b"", b"9 size=7\n"),
                file("x", "x"),
            ],
        ),
        (
            "a sparse file",
            vec![entry(EntryType::GNUSparse, b"x", b"", b"")],
        ),
        (
            "names without end",
            vec![entry(
                EntryType::GNULongName,
                b"@",
                b"",
                &vec![b'x'; 1 << 20],
            )],
        ),
    ]
}

#[test]
fn archives_cannot_leave_their_target() {
    for (what, entries) in [outward(), crooked()].concat() {
        let ground = tempfile::tempdir().unwrap();
        let (target, beside) = (ground.path().join("target"), ground.path().join("beside"));
        fs::create_dir(&target).unwrap();
        fs::write(&beside, "untouched").unwrap();
        symlink("..", target.join("standing")).unwrap();
        let before = seen(ground.path()).len();
        unpacked(&entries.concat(), &target).expect_err(what);
        assert_eq!(fs::read(&beside).unwrap(), b"untouched", "{what}");
        assert_eq!(fs::metadata(&beside).unwrap().nlink(), 1, "{what}");
        assert_eq!(fs::read_dir(ground.path()).unwrap().count(), 2, "{what}");
        assert!(seen(ground.path()).len() <= before + 1, "{what}");
    }
    assert!(!Path::new("/tmp/vmrepl-escaped").exists());
}

#[test]
fn a_file_replaces_a_link_and_never_goes_through_it() {
    let ground = tempfile::tempdir().unwrap();
    let (target, beside) = (ground.path().join("target"), ground.path().join("beside"));
    fs::create_dir(&target).unwrap();
    fs::write(&beside, "untouched").unwrap();
    symlink("../beside", target.join("a")).unwrap();
    fs::hard_link(&beside, target.join("b")).unwrap();
    let archive = [
        file("a", "new"),
        file("b", "new"),
        entry(EntryType::Symlink, b"c", b"../beside", b""),
        file("c", "new"),
    ];
    unpacked(&archive.concat(), &target).unwrap();
    assert_eq!(fs::read(beside).unwrap(), b"untouched");
    for name in ["a", "b", "c"] {
        let metadata = fs::symlink_metadata(target.join(name)).unwrap();
        assert!(metadata.is_file());
        assert_eq!(
            metadata.mode() & 0o7777,
            0o755,
            "nothing that runs as somebody else"
        );
    }
    assert_eq!(fs::read_dir(target).unwrap().count(), 3);
}

#[test]
fn devices_are_left_out() {
    let ground = tempfile::tempdir().unwrap();
    let kinds = [
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::new(b'Z'),
    ];
    let archive: Vec<u8> = kinds
        .iter()
        .flat_map(|kind| entry(*kind, b"x", b"", b""))
        .collect();
    let tally = unpacked(&archive, ground.path()).unwrap();
    assert_eq!(tally.skipped_count, 4);
    assert_eq!(fs::read_dir(ground.path()).unwrap().count(), 0);
}

#[test]
fn a_stream_cut_anywhere_leaves_no_draft() {
    let ground = tempfile::tempdir().unwrap();
    let source = ground.path().join("source");
    fs::create_dir_all(source.join("inner")).unwrap();
    fs::write(source.join("inner/file"), [7; 1000]).unwrap();
    fs::set_permissions(source.join("inner"), fs::Permissions::from_mode(0o555)).unwrap();
    let (stream, _) = packed(&source);
    let target = ground.path().join("target");
    let end = stream.len() - 1024;
    for cut in (0..end).step_by(51) {
        let draft = DraftFolder::begin(&target).unwrap();
        let root = draft.open().unwrap();
        let ended = unpack(&stream[..cut], root, Trust::Own, &mut |_, _| {});
        // Between two entries a stream may end.
        assert!(ended.is_err() || cut % 512 == 0, "cut at {cut}");
        drop(draft);
        assert_eq!(fs::read_dir(&ground).unwrap().count(), 1, "cut at {cut}");
    }
    let draft = DraftFolder::begin(&target).unwrap();
    unpack(
        &stream[..],
        draft.open().unwrap(),
        Trust::Own,
        &mut |_, _| {},
    )
    .unwrap();
    drop(draft);
    assert_eq!(fs::read_dir(&ground).unwrap().count(), 1);
    let draft = DraftFolder::begin(&target).unwrap();
    unpack(
        &stream[..],
        draft.open().unwrap(),
        Trust::Own,
        &mut |_, _| {},
    )
    .unwrap();
    draft.publish().unwrap();
    assert_eq!(seen(&target), seen(&source));
}

#[test]
fn zeros_in_an_archive_become_holes() {
    let ground = tempfile::tempdir().unwrap();
    let source = ground.path().join("source");
    fs::create_dir(&source).unwrap();
    let mut sparse = File::create(source.join("sparse")).unwrap();
    sparse.write_all(b"begin").unwrap();
    sparse.set_len(32 << 20).unwrap();
    let target = ground.path().join("target");
    unpacked(&packed(&source).0, &target).unwrap();
    let metadata = fs::metadata(target.join("sparse")).unwrap();
    assert_eq!(metadata.len(), 32 << 20);
    assert!(metadata.blocks() * 512 <= 64 << 10);
}
