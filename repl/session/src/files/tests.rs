//! Guests that lie, hang up and lead astray.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tar::{EntryType, Header};
use vmrepl_copying::Sum;
use vmrepl_wire::files::{FilesDecoder, Tag, encode};

use super::port::Port;
use super::{copy_in, copy_out};
use crate::error::SessionError;

/// One end of a connection, as a guest has it.
struct Guest {
    stream: UnixStream,
    decoder: FilesDecoder,
}

impl Guest {
    fn frame(&mut self) -> Option<(Tag, Vec<u8>)> {
        loop {
            if let Some(frame) = self.decoder.frame().unwrap() {
                return Some((frame.tag, frame.payload.to_vec()));
            }
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk).unwrap_or(0) {
                0 => return None,
                count => self.decoder.push(&chunk[..count]),
            }
        }
    }

    /// The host may be gone by then.
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).ok();
    }
}

/// A guest that answers each connection by what it was asked.
fn guest(answer: impl Fn(&Value, &mut Guest) + Send + Sync + 'static) -> Port<'static> {
    let answer = Arc::new(answer);
    Port::to(move || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let answer = Arc::clone(&answer);
        std::thread::spawn(move || {
            let decoder = FilesDecoder::default();
            let mut guest = Guest {
                stream: theirs,
                decoder,
            };
            let (_, request) = guest.frame().unwrap();
            answer(&serde_json::from_slice(&request).unwrap(), &mut guest);
        });
        Ok(ours)
    })
}

fn say(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(Tag::Control, value.to_string().as_bytes(), &mut bytes).unwrap();
    bytes
}

/// A content in frames, its end, and what an honest guest says of it.
fn content(bytes: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    for chunk in bytes.chunks(700) {
        encode(Tag::File, chunk, &mut frames).unwrap();
    }
    encode(Tag::End, b"", &mut frames).unwrap();
    let mut sum = Sum::default();
    sum.add(bytes);
    let end = say(&json!({"ok": true, "size": bytes.len(), "xxh3": sum.hex()}));
    [frames, end].concat()
}

/// A guest with one thing, of this kind, whose content is given as these frames.
fn giver(kind: &'static str, said: Vec<u8>) -> Port<'static> {
    guest(
        move |request, guest| match request["op"].as_str().unwrap() {
            "stat" => guest.send(&say(&json!({"ok": true, "stat": {"kind": kind}}))),
            _ => guest.send(&said),
        },
    )
}

fn entry(kind: EntryType, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o6755);
    header.set_mtime(1);
    header.set_size(content.len() as u64);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
    [header.as_bytes(), content, &padding].concat()
}

fn folder_from(port: &Port<'_>, target: &Path) -> Result<vmrepl_copying::Tally, SessionError> {
    copy_out::copy(port, "/home/user/data", target, &mut |_| {})
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_archive_of_the_guest_cannot_leave_the_target() {
    let link = entry(EntryType::Symlink, "out", "..", b"");
    for archive in [
        entry(EntryType::Regular, "../beside", "", b"x"),
        entry(EntryType::Regular, "/tmp/vmrepl-beside", "", b"x"),
        [
            link.clone(),
            entry(EntryType::Regular, "out/beside", "", b"x"),
        ]
        .concat(),
        [link, entry(EntryType::Directory, "out/", "", b"")].concat(),
        entry(EntryType::Link, "name", "../beside", b""),
        entry(EntryType::Link, "name", "/etc/passwd", b""),
    ] {
        let ground = tempfile::tempdir().unwrap();
        let said = [
            say(&json!({"ok": true, "size": u64::MAX})),
            content(&archive),
        ]
        .concat();
        let port = giver("folder", said);
        let error = folder_from(&port, &ground.path().join("new")).unwrap_err();
        assert!(matches!(error, SessionError::Unpack { .. }), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("outside")));
        assert_eq!(names(ground.path()), [""; 0]);
        // Into a folder that is there, under the name of the source.
        folder_from(&port, ground.path()).unwrap_err();
        assert_eq!(names(ground.path()), [""; 0]);
    }
}

#[test]
fn what_a_guest_gives_runs_as_nobody_else() {
    let ground = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let archive = [
        entry(EntryType::Directory, "./", "", b""),
        entry(EntryType::Regular, "run", "", b"x"),
        entry(EntryType::Char, "null", "", b""),
    ];
    let said = [say(&json!({"ok": true})), content(&archive.concat())].concat();
    let tally = folder_from(&giver("folder", said), ground.path()).unwrap();
    assert_eq!((tally.files, tally.skipped_count), (1, 1));
    assert_eq!(names(&ground.path().join("data")), ["run"]);
    assert_eq!(mode(&ground.path().join("data/run")), 0o755);
    assert_eq!(mode(&ground.path().join("data")), 0o755);
    let header = json!({"ok": true, "mode": u32::MAX, "size": u64::MAX, "mtime_ns": i64::MIN});
    let said = [say(&header), content(b"x")].concat();
    let file = ground.path().join("file");
    folder_from(&giver("file", said), &file).unwrap();
    assert_eq!(mode(&file), 0o777);
}

#[test]
fn a_link_that_an_earlier_copy_laid_is_not_followed() {
    let ground = tempfile::tempdir().unwrap();
    let [target, outside] = ["target", "outside"].map(|name| ground.path().join(name));
    for folder in [&target, &outside] {
        fs::create_dir(folder).unwrap();
    }
    symlink(&outside, target.join("data")).unwrap();
    let archive = entry(EntryType::Regular, "file", "", b"x");
    let said = [say(&json!({"ok": true})), content(&archive)].concat();
    let error = folder_from(&giver("folder", said), &target).unwrap_err();
    assert!(
        matches!(error, SessionError::File { verb: "write", .. }),
        "{error:?}"
    );
    // A file takes the link's place.
    symlink(outside.join("x"), target.join("file")).unwrap();
    let said = [say(&json!({"ok": true})), content(b"x")].concat();
    folder_from(&giver("file", said), &target.join("file")).unwrap();
    assert!(fs::symlink_metadata(target.join("file")).unwrap().is_file());
    assert_eq!(names(&outside), [""; 0]);
}

#[test]
fn damage_on_the_way_is_told_with_both_sums_and_leaves_nothing() {
    let ground = tempfile::tempdir().unwrap();
    let target = ground.path().join("target");
    let archive = entry(EntryType::Regular, "file", "", b"content");
    for (kind, bytes) in [("file", &b"content"[..]), ("folder", &archive)] {
        let mut said = [say(&json!({"ok": true})), content(bytes)].concat();
        let at = said
            .windows(7)
            .position(|window| window == b"content")
            .unwrap();
        said[at + 6] ^= 1;
        let error = folder_from(&giver(kind, said), &target).unwrap_err();
        let SessionError::Damaged { host, guest, .. } = error else {
            panic!("{error:?}");
        };
        assert!(host.len() == 16 && guest.len() == 16 && host != guest);
        assert_eq!(names(ground.path()), [""; 0]);
    }
    // A guest that took something else than was sent.
    let source = ground.path().join("source");
    fs::write(&source, "content").unwrap();
    let port = guest(|_, guest| {
        while guest.frame().unwrap().0 != Tag::End {}
        guest.send(&say(
            &json!({"ok": true, "size": 7, "xxh3": "0000000000000000"}),
        ));
    });
    let error = copy_in::copy(&port, &source, "/tmp/x", &mut |_| {}).unwrap_err();
    assert!(matches!(error, SessionError::Damaged { .. }), "{error:?}");
}

#[test]
fn a_guest_that_goes_at_any_byte_leaves_nothing_half() {
    let ground = tempfile::tempdir().unwrap();
    let target = ground.path().join("target");
    let archive = [
        entry(EntryType::Directory, "inner/", "", b""),
        entry(EntryType::Regular, "inner/file", "", &[7; 1500]),
    ];
    for (kind, bytes) in [("file", vec![7; 2000]), ("folder", archive.concat())] {
        let said = [
            say(&json!({"ok": true, "size": 9, "mode": 0o644})),
            content(&bytes),
        ]
        .concat();
        for cut in (0..said.len())
            .step_by(97)
            .chain(said.len() - 6..said.len())
        {
            folder_from(&giver(kind, said[..cut].to_vec()), &target).unwrap_err();
            assert_eq!(names(ground.path()), [""; 0], "{kind} cut at {cut}");
        }
    }
    // A frame that does not belong, and an end that says no.
    for end in [
        say(&json!({"ok": true})),
        say(&json!({"ok": false, "error": "it shrank"})),
    ] {
        let mut said = say(&json!({"ok": true}));
        encode(Tag::File, b"x", &mut said).unwrap();
        if end.len() > 30 {
            encode(Tag::End, b"", &mut said).unwrap();
        }
        folder_from(&giver("file", [said, end].concat()), &target).unwrap_err();
        assert_eq!(names(ground.path()), [""; 0]);
    }
}

#[test]
fn a_refusal_stops_the_sender() {
    let ground = tempfile::tempdir().unwrap();
    let source = ground.path().join("source");
    fs::create_dir(&source).unwrap();
    // Longer than this host could send in a day.
    fs::File::create(source.join("large"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    for source in [&source, &source.join("large")] {
        let port = guest(|_, guest| {
            guest.frame();
            guest.send(&say(&json!({"ok": false, "error": "no room"})));
            // Then it listens no more: what is under way is lost.
        });
        let error = copy_in::copy(&port, source, "/tmp/x", &mut |_| {}).unwrap_err();
        let SessionError::GuestFile { message, path, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!((message.as_str(), path.as_str()), ("no room", "/tmp/x"));
    }
}

#[test]
fn targets_are_what_their_names_say() {
    let ground = tempfile::tempdir().unwrap();
    let said = [say(&json!({"ok": true})), content(b"x")].concat();
    let slashed = format!("{}/new/", ground.path().display());
    let error = folder_from(&giver("file", said.clone()), Path::new(&slashed)).unwrap_err();
    assert!(matches!(error, SessionError::Target { .. }), "{error:?}");
    let orphan = ground.path().join("missing/file");
    let error = folder_from(&giver("file", said.clone()), &orphan).unwrap_err();
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("folder there")),
        "{error:?}"
    );
    folder_from(&giver("file", said), ground.path()).unwrap();
    assert_eq!(names(ground.path()), ["data"]);
    for kind in ["missing", "other"] {
        let error = folder_from(&giver(kind, Vec::new()), ground.path()).unwrap_err();
        assert!(matches!(error, SessionError::GuestFile { .. }), "{error:?}");
    }
    let mut progress = Vec::new();
    let said = [say(&json!({"ok": true, "size": 1400})), content(&[7; 1400])].concat();
    let mut out = Vec::new();
    copy_out::stream(&giver("file", said), "x", &mut out, &mut |step| {
        progress.push((step.done_bytes, step.total_bytes));
    })
    .unwrap();
    assert_eq!(out, [7; 1400]);
    assert_eq!(
        progress,
        [(0, Some(1400)), (700, Some(1400)), (1400, Some(1400))]
    );
}
