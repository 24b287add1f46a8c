//! Files and folders between the host and a live machine.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::{Value, json};
use vmrepl_session::{
    Cell, Copied, Kind, Purpose, Session, SessionError, TemplateName, copy_in, copy_in_archive,
    copy_in_stream, copy_out, copy_out_stream, engine_for, guest_stat,
};
use vmrepl_wire::files::{FilesDecoder, Tag, encode};

use crate::ground::{DEADLINE, TEMPLATE, count, folder, home};
use crate::lanes::{engine_choice, places_in, tell};
use crate::sessions::Quiet;

fn restored() -> Session {
    let places = places_in(home());
    let name = TemplateName::new(TEMPLATE).unwrap();
    let engine = engine_for(&places, engine_choice(), &name).unwrap();
    Session::restore(&places, &engine, &name, Purpose::Run).unwrap()
}

/// What an expression comes to in the guest.
fn value(session: &mut Session, code: &str) -> String {
    let answer = session.run(&Cell::new(code), &mut Quiet).unwrap();
    assert_eq!(answer.exit_code, 0, "{answer:?}");
    answer.result_repr.unwrap_or_default()
}

fn into(session: &Session, source: &Path, target: &str) -> Result<Copied, SessionError> {
    copy_in(session, source, target, &mut |_| {})
}

fn out(session: &Session, source: &str, target: &Path) -> Result<Copied, SessionError> {
    copy_out(session, source, target, &mut |_| {})
}

/// A folder with everything that a folder may hold.
fn varied(source: &Path) {
    fs::create_dir_all(source.join("inner/empty")).unwrap();
    fs::write(source.join("inner/plain"), "content").unwrap();
    fs::write(source.join("run"), "#!/bin/sh\n").unwrap();
    fs::write(source.join("é🦀 ".repeat(20)), "long").unwrap();
    fs::hard_link(source.join("run"), source.join("walk")).unwrap();
    symlink("inner/plain", source.join("link")).unwrap();
    symlink("/no//where/", source.join("dangling")).unwrap();
    let sparse = File::create(source.join("sparse")).unwrap();
    sparse.write_all_at(b"middle", 8 << 20).unwrap();
    sparse.set_len(16 << 20).unwrap();
    sparse
        .set_modified(UNIX_EPOCH + Duration::new(1_000_000_007, 123_456_789))
        .unwrap();
    for (name, mode) in [
        ("run", 0o755),
        ("inner/plain", 0o440),
        ("inner/empty", 0o700),
    ] {
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// What stands below a folder: modes, times, sizes, names of a file, link targets, contents.
fn seen(folder: &Path) -> Vec<String> {
    let (mut lines, mut rest) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(path) = rest.pop() {
        let full = folder.join(&path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let time = (metadata.mtime(), metadata.mtime_nsec());
        let mut line = format!("{path:?} {:o} {time:?}", metadata.mode());
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
            let content = fs::read(full).unwrap();
            let sum = content.iter().fold(0_u64, |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
            });
            line += &format!(" x{} {} {sum}", metadata.nlink(), content.len());
        }
        lines.push(line);
    }
    lines
}

#[test]
fn a_folder_comes_back_as_it_went() {
    let mut session = restored();
    let ground = folder();
    let source = ground.path().join("source");
    varied(&source);
    let (mut entries, mut last) = (0, (0, None));
    let went = copy_in(&session, &source, "/tmp/there", &mut |step| {
        entries += 1;
        last = (step.done_bytes, step.total_bytes);
    })
    .unwrap();
    assert_eq!(
        (went.files, went.folders, went.links, went.skipped_count),
        (4, 3, 3, 0)
    );
    assert_eq!(last, (went.bytes, Some(went.bytes)));
    assert!(entries > 10);
    let room = "__import__('os').stat('/tmp/there/sparse').st_blocks * 512 <= 65536";
    assert_eq!(value(&mut session, room), "True");
    // Into a folder that is there it goes under its name; its content alone where it is said with a dot.
    assert_eq!(into(&session, &source, "/tmp/there").unwrap(), went);
    assert_eq!(
        into(&session, &source.join("."), "/tmp/there").unwrap(),
        went
    );
    let names = "sorted(set(__import__('os').listdir('/tmp/there')) & {'source', 'run', 'walk'})";
    assert_eq!(value(&mut session, names), "['run', 'source', 'walk']");
    for (from, to) in [
        ("/tmp/there/source", "back"),
        ("/tmp/there/source/", "back"),
    ] {
        let back = out(&session, from, &ground.path().join(to)).unwrap();
        assert_eq!(back.bytes, went.bytes);
    }
    let back = ground.path().join("back");
    // The second copy went into the first; without it that is what the source was.
    assert_eq!(seen(&back.join("source")), seen(&source));
    fs::remove_dir_all(back.join("source")).unwrap();
    File::open(&back)
        .unwrap()
        .set_modified(fs::metadata(&source).unwrap().modified().unwrap())
        .unwrap();
    assert_eq!(seen(&back), seen(&source));
    assert!(fs::metadata(back.join("sparse")).unwrap().blocks() * 512 <= 65536);
    // As a stream, which other programs understand and this one takes back.
    let mut archive = Vec::new();
    assert_eq!(
        copy_out_stream(&session, "/tmp/there/source", &mut archive, &mut |_| {})
            .unwrap()
            .bytes,
        went.bytes
    );
    copy_in_archive(&session, &mut &archive[..], "/tmp/again", &mut |_| {}).unwrap();
    let path = ground.path().join("archive");
    fs::write(&path, archive).unwrap();
    let compared = std::process::Command::new("tar")
        .arg("--compare")
        .arg("-C")
        .arg(&source)
        .arg("-f")
        .arg(path)
        .output()
        .unwrap();
    assert!(compared.status.success(), "{compared:?}");
    out(&session, "/tmp/again", &ground.path().join("again")).unwrap();
    assert_eq!(seen(&ground.path().join("again")), seen(&source));
}

#[test]
fn files_of_all_sizes_come_back_as_they_went() {
    let session = restored();
    let ground = folder();
    let (source, back) = (ground.path().join("source"), ground.path().join("back"));
    let edges = [64 << 10, 16 << 20];
    for size in [0, 1]
        .into_iter()
        .chain(edges.iter().flat_map(|edge| [edge - 1, *edge, edge + 1]))
    {
        let content: Vec<u8> = (1..=251).cycle().take(size).collect();
        fs::write(&source, &content).unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(
            into(&session, &source, "/tmp/file").unwrap().bytes,
            size as u64
        );
        out(&session, "/tmp/file", &back).unwrap();
        assert!(fs::read(&back).unwrap() == content, "{size}");
        let [was, is] = [&source, &back].map(|path| fs::metadata(path).unwrap());
        assert_eq!(
            (was.mode(), was.modified().unwrap()),
            (is.mode(), is.modified().unwrap())
        );
        let mut stream = Vec::new();
        copy_in_stream(&session, &mut &content[..], "/tmp/stream", &mut |_| {}).unwrap();
        copy_out_stream(&session, "/tmp/stream", &mut stream, &mut |_| {}).unwrap();
        assert!(stream == content, "{size}");
    }
    assert_eq!(fs::read_dir(ground.path()).unwrap().count(), 2);
}

#[test]
fn what_cannot_be_copied_is_said_by_its_name() {
    let mut session = restored();
    let ground = folder();
    let source = ground.path().join("source");
    fs::write(&source, vec![7; 3 << 20]).unwrap();
    for target in [
        "/tmp/missing/file",
        "/proc/version",
        "/etc/new",
        "/tmp/new/",
    ] {
        for source in [source.as_path(), ground.path()] {
            let error = into(&session, source, target).unwrap_err();
            let told = error.to_string();
            assert!(told.contains(target.trim_end_matches('/')), "{told}");
        }
    }
    for wanted in ["/tmp/missing", "/dev/zero", "/proc/1/mem", "/tmp/missing/"] {
        let error = out(&session, wanted, &ground.path().join("none")).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
    assert_eq!(fs::read_dir(ground.path()).unwrap().count(), 1);
    // What the guest's user may not read, and what is no file, is left out by name.
    let code = "import os, socket\nos.makedirs('/tmp/odd/closed', exist_ok=True)\nopen('/tmp/odd/file', 'w').write('x')\n\
                os.mkfifo('/tmp/odd/pipe')\nopen('/tmp/odd/secret', 'w').close()\nos.chmod('/tmp/odd/secret', 0)\nos.chmod('/tmp/odd/closed', 0)";
    value(&mut session, code);
    let copied = out(&session, "/tmp/odd", &ground.path().join("odd")).unwrap();
    let names: Vec<_> = copied.skipped.iter().map(|one| one.path.as_str()).collect();
    assert_eq!((copied.files, names), (1, vec!["closed", "pipe", "secret"]));
    assert_eq!(
        guest_stat(&session, "/tmp/odd", false).unwrap().kind,
        Kind::Folder
    );
    assert_eq!(
        guest_stat(&session, "/tmp/odd/x", false).unwrap().kind,
        Kind::Missing
    );
    let left = "[name for name in __import__('os').listdir('/tmp') if name.startswith('.vmrepl')]";
    assert_eq!(value(&mut session, left), "[]");
}

/// Bytes a second, in MB.
fn rate(bytes: u64, began: Instant) -> String {
    format!(
        "{:.0} MB/s",
        bytes as f64 / 1e6 / began.elapsed().as_secs_f64()
    )
}

/// A connection to the files port without any of what the session does.
fn ask(session: &Session, request: &Value) -> UnixStream {
    let mut stream = UnixStream::connect(&session.info().socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"CONNECT 1024\n").unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    let mut bytes = Vec::new();
    encode(Tag::Control, request.to_string().as_bytes(), &mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
    stream
}

/// Reads frames up to the next answer.
fn answered(stream: &mut UnixStream) -> u64 {
    let (mut decoder, mut buffer, mut bytes) = (FilesDecoder::default(), vec![0; 1 << 16], 0);
    loop {
        while let Some(frame) = decoder.frame().unwrap() {
            if frame.tag == Tag::Control {
                return bytes;
            }
            bytes += frame.payload.len() as u64;
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the guest hung up");
        decoder.push(&buffer[..count]);
    }
}

/// How fast copies are beside bytes that nobody keeps: to a file that cannot be made, and out of a command.
#[test]
fn a_copy_is_told_beside_the_plain_stream() {
    let mut session = restored();
    let ground = folder();
    let bytes = count(32 << 20, 1_000_000_000) as u64;
    // No block of zeros among them: holes are not what is measured.
    let block: Vec<u8> = (0..1_u32 << 18)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let source = ground.path().join("source");
    let mut file = File::create(&source).unwrap();
    for start in (0..bytes).step_by(block.len()) {
        let length = usize::try_from(bytes - start).unwrap().min(block.len());
        file.write_all(&block[..length]).unwrap();
    }

    let began = Instant::now();
    let mut plain = ask(
        &session,
        &json!({"op": "put_file", "path": "/missing/x", "size": bytes}),
    );
    let mut frame = Vec::new();
    for start in (0..bytes).step_by(1 << 16) {
        let length = usize::try_from(bytes - start).unwrap().min(1 << 16);
        frame.clear();
        encode(Tag::File, &block[..length], &mut frame).unwrap();
        plain.write_all(&frame).unwrap();
    }
    answered(&mut plain);
    let plain_in = rate(bytes, began);

    // The guest's files are its memory.
    let room = value(
        &mut session,
        "__import__('shutil').disk_usage('/tmp').free * 3 // 4",
    );
    let kept = bytes.min(room.parse().unwrap());
    file.set_len(kept).unwrap();
    let began = Instant::now();
    let copied = into(&session, &source, "/tmp/large").unwrap();
    assert_eq!(copied.bytes, kept);
    let copy_in = rate(kept, began);

    let began = Instant::now();
    let command = format!("head -c {kept} /tmp/large");
    let mut run = ask(
        &session,
        &json!({"op": "run", "shell": "raw", "cmd": command}),
    );
    assert_eq!(answered(&mut run), kept);
    let plain_out = rate(kept, began);

    let back = ground.path().join("back");
    let began = Instant::now();
    out(&session, "/tmp/large", &back).unwrap();
    let copy_out = rate(kept, began);
    assert!(fs::read(&back).unwrap() == fs::read(&source).unwrap());
    tell(&format!(
        "in: {copy_in}, the plain stream {plain_in}; out: {copy_out}, a command's output {plain_out}; {kept} bytes"
    ));
}
