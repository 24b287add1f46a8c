//! The files port: contents with sums, folders as tar streams.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tar::{EntryType, Header};
use vmrepl_wire::files::{Tag, encode};

use crate::agent::{Agent, DEADLINE};
use crate::files::Client;

const KIB: usize = 1024;

impl Client {
    /// Sends a content in frames of 64 KiB, and its end.
    fn content(&mut self, content: &[u8]) -> Value {
        for chunk in content.chunks(64 * KIB) {
            self.send(Tag::File, chunk);
        }
        self.send(Tag::End, b"");
        self.reply()
    }

    /// Takes a content and what is said behind it.
    fn taken(&mut self) -> (Vec<u8>, Value) {
        let mut content = Vec::new();
        loop {
            match self.frame().unwrap() {
                (Tag::File, chunk) => content.extend_from_slice(&chunk),
                (Tag::End, _) => return (content, self.reply()),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn put(agent: &Agent, request: &Value, content: &[u8]) -> Value {
    Client::ask(agent, request).content(content)
}

fn error(reply: &Value) -> &str {
    assert_eq!(reply["ok"], false, "{reply}");
    reply["error"].as_str().unwrap()
}

fn entry(kind: EntryType, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_mtime(1);
    header.set_size(content.len() as u64);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
    [header.as_bytes(), content, &padding].concat()
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
fn contents_of_all_sizes_go_there_and_back() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let edges = [64 * KIB, 16 * KIB * KIB];
    let sizes = edges.iter().flat_map(|edge| [edge - 1, *edge, edge + 1]);
    for size in [0, 1].into_iter().chain(sizes) {
        let content: Vec<u8> = (1..=251).cycle().take(size).collect();
        let request =
            json!({"op": "put_stream", "path": path, "mode": 0o640, "mtime_ns": 1_500_000_000});
        let reply = put(&agent, &request, &content);
        assert_eq!((&reply["ok"], &reply["size"]), (&json!(true), &json!(size)));
        assert_eq!(fs::read(&path).unwrap(), content);
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1, 500_000_000));

        let mut get = Client::ask(&agent, &json!({"op": "get_stream", "path": path}));
        let header = json!({"ok": true, "mode": 0o640, "size": size, "mtime_ns": 1_500_000_000});
        assert_eq!(get.reply(), header);
        let (back, end) = get.taken();
        assert_eq!(back, content);
        assert_eq!(end, reply);
        assert_eq!(names(folder.path()), ["file"]);
    }
    let reply = put(&agent, &json!({"op": "put_stream", "path": path}), b"abc");
    assert_eq!(reply["xxh3"], "78af5f94892f3950");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o644
    );
}

#[test]
fn zeros_become_holes_whichever_way_they_come() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let (size, room) = (8 * KIB * KIB, 64 * KIB as u64);
    let content = [vec![7; 10], vec![0; size - 10]].concat();
    let [file, stream] = ["file", "stream"].map(|name| folder.path().join(name));
    let mut client = Client::ask(
        &agent,
        &json!({"op": "put_file", "path": file, "size": size}),
    );
    assert_eq!(client.content(&content), json!({"ok": true}));
    assert_eq!(
        put(
            &agent,
            &json!({"op": "put_stream", "path": stream}),
            &content
        )["ok"],
        true
    );
    let archive = entry(EntryType::Regular, "file", "", &content);
    let tree = folder.path().join("tree");
    assert_eq!(
        put(&agent, &json!({"op": "put_tree", "path": tree}), &archive)["ok"],
        true
    );
    for path in [file, stream, tree.join("file")] {
        assert_eq!(fs::read(&path).unwrap(), content);
        assert!(
            fs::metadata(&path).unwrap().blocks() * 512 <= room,
            "{path:?}"
        );
    }
}

#[test]
fn a_folder_goes_there_and_back() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir_all(source.join("inner/empty")).unwrap();
    fs::write(source.join("inner/file"), vec![7; 100_000]).unwrap();
    fs::hard_link(source.join("inner/file"), source.join("name")).unwrap();
    symlink("inner", source.join("link")).unwrap();
    fs::set_permissions(source.join("inner"), fs::Permissions::from_mode(0o750)).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(source.join("pipe"))
            .status()
            .unwrap()
            .success()
    );
    let mut get = Client::ask(&agent, &json!({"op": "get_tree", "path": source}));
    assert_eq!(get.reply(), json!({"ok": true, "size": 100_000}));
    let (archive, end) = get.taken();
    let mut tree = json!({"files": 1, "folders": 3, "links": 2, "bytes": 100_000, "skipped_count": 1,
        "skipped": [{"path": "pipe", "why": "a named pipe"}]});
    assert_eq!(end["tree"], tree);
    tree["skipped_count"] = json!(0);
    tree["skipped"] = json!([]);
    // To a new path, into a folder under a name, and as the content of the folder that is there now.
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    for (request, lands) in [
        (
            json!({"op": "put_tree", "path": folder.path().join("new"), "name": "x"}),
            "new",
        ),
        (
            json!({"op": "put_tree", "path": target, "name": "../../named/"}),
            "target/named",
        ),
        (
            json!({"op": "put_tree", "path": target.join("named")}),
            "target/named",
        ),
    ] {
        let reply = put(&agent, &request, &archive);
        assert_eq!(reply["tree"], tree, "{reply}");
        assert_eq!(
            (&reply["xxh3"], &reply["size"]),
            (&end["xxh3"], &end["size"])
        );
        let lands = folder.path().join(lands);
        assert_eq!(names(&lands), ["inner", "link", "name"]);
        assert_eq!(fs::read(lands.join("link/file")).unwrap(), vec![7; 100_000]);
        assert_eq!(fs::metadata(lands.join("name")).unwrap().nlink(), 2);
        let [was, is] = [&source, &lands].map(|path| fs::metadata(path.join("inner")).unwrap());
        assert_eq!((was.mode(), was.mtime_nsec()), (is.mode(), is.mtime_nsec()));
    }
    assert_eq!(names(folder.path()), ["new", "source", "target"]);
}

#[test]
fn archives_that_lead_out_are_refused() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    for archive in [
        entry(EntryType::Regular, "../beside", "", b"x"),
        entry(EntryType::Regular, "/tmp/beside", "", b"x"),
        [
            entry(EntryType::Symlink, "out", "..", b""),
            entry(EntryType::Regular, "out/beside", "", b"x"),
        ]
        .concat(),
        entry(EntryType::Link, "name", "../beside", b""),
        b"no archive at all".repeat(100),
    ] {
        // What still comes behind the refusal is taken.
        let long = [archive, vec![0; 3 * KIB * KIB]].concat();
        let reply = put(&agent, &json!({"op": "put_tree", "path": target}), &long);
        assert!(
            error(&reply).starts_with(target.to_str().unwrap()),
            "{reply}"
        );
        assert_eq!(names(folder.path()), [""; 0]);
    }
    // One that is cut inside an entry, and said to be whole.
    let file = entry(EntryType::Regular, "file", "", &[7; 1000]);
    let reply = put(
        &agent,
        &json!({"op": "put_tree", "path": target}),
        &file[..1000],
    );
    error(&reply);
    assert_eq!(names(folder.path()), [""; 0]);
    let device = entry(EntryType::Char, "null", "", b"");
    let reply = put(&agent, &json!({"op": "put_tree", "path": target}), &device);
    assert_eq!(
        reply["tree"]["skipped"],
        json!([{"path": "null", "why": "a device"}])
    );
}

#[test]
fn targets_that_cannot_be_written_are_told_and_the_bytes_are_taken() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let slashed = format!("{}/", folder.path().join("new").display());
    let content = vec![7; 3 * KIB * KIB];
    for op in ["put_stream", "put_tree"] {
        for path in [
            "/proc/nowhere",
            "/dev/null/x",
            slashed.as_str(),
            file.join("x").to_str().unwrap(),
        ] {
            let reply = put(
                &agent,
                &json!({"op": op, "path": path, "name": "n"}),
                &content,
            );
            assert!(
                error(&reply).starts_with(path.trim_end_matches('/')),
                "{reply}"
            );
        }
        for name in [None, Some(".."), Some("/")] {
            if op == "put_stream" || name.is_some() {
                let reply = put(
                    &agent,
                    &json!({"op": op, "path": folder.path(), "name": name}),
                    &content,
                );
                assert!(error(&reply).ends_with("gives no file's name"), "{reply}");
            }
        }
    }
    // A folder does not take a file's place, nor a link's; a file not a folder's.
    fs::create_dir(folder.path().join("inner")).unwrap();
    symlink("inner", folder.path().join("link")).unwrap();
    for name in ["file", "link"] {
        let reply = put(
            &agent,
            &json!({"op": "put_tree", "path": folder.path(), "name": name}),
            &content,
        );
        assert!(error(&reply).contains("no folder"), "{reply}");
    }
    error(&put(
        &agent,
        &json!({"op": "put_stream", "path": folder.path(), "name": "inner"}),
        b"x",
    ));
    assert_eq!(
        Client::ask(&agent, &json!({"op": "ping"})).reply()["op"],
        "pong"
    );
    assert_eq!(names(folder.path()), ["file", "inner", "link"]);
}

#[test]
fn what_cannot_be_given_is_told_before_any_byte() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let missing = folder.path().join("missing");
    for (op, path) in [
        ("get_stream", folder.path()),
        ("get_stream", Path::new("/dev/zero")),
        ("get_stream", &missing),
        ("get_tree", &missing),
        ("get_tree", &file),
        ("get_tree", Path::new("/dev/zero")),
    ] {
        let mut get = Client::ask(&agent, &json!({"op": op, "path": path}));
        let reply = get.reply();
        assert!(error(&reply).starts_with(path.to_str().unwrap()), "{reply}");
        assert_eq!(get.frame(), None);
    }
}

#[test]
fn what_changes_while_it_is_given_is_told() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    let size = 64 * KIB * KIB;
    File::create(&path).unwrap().set_len(size as u64).unwrap();
    // One that vanishes is given all the same; its sender has it open.
    let mut get = Client::ask(&agent, &json!({"op": "get_stream", "path": path}));
    get.reply();
    fs::remove_file(&path).unwrap();
    let (content, end) = get.taken();
    assert_eq!((content.len(), &end["ok"]), (size, &json!(true)));
    // One that shrinks meanwhile, far behind what fits into a socket.
    File::create(&path).unwrap().set_len(size as u64).unwrap();
    let mut get = Client::ask(&agent, &json!({"op": "get_stream", "path": path}));
    get.reply();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    let (content, end) = get.taken();
    let told = format!(
        "{}: ended after {} of {size} bytes",
        path.display(),
        content.len()
    );
    assert_eq!(error(&end), told);
    // In a folder: zeros instead, and the next one is taken whole.
    File::create(&path).unwrap().set_len(size as u64).unwrap();
    fs::write(folder.path().join("small"), "x").unwrap();
    let mut get = Client::ask(&agent, &json!({"op": "get_tree", "path": folder.path()}));
    assert_eq!(get.reply()["size"], size + 1);
    // Its file is open once its bytes come: headers of folder and file go before them.
    let mut heard = 0;
    while heard < 64 * KIB {
        heard += get.frame().unwrap().1.len();
    }
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    fs::remove_file(folder.path().join("small")).unwrap();
    let (content, end) = get.taken();
    assert!(heard + content.len() > size, "{end}");
    assert_eq!(end["tree"]["skipped_count"], 2, "{end}");
    assert_eq!(
        end["tree"]["skipped"][1],
        json!({"path": "small", "why": "it vanished"})
    );
}

#[test]
fn stat_tells_what_stands_there() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "content").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    File::open(&path)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + Duration::from_nanos(5))
        .unwrap();
    symlink("file", folder.path().join("link")).unwrap();
    let stat = |path: &Path, follow: bool| {
        let reply = Client::ask(
            &agent,
            &json!({"op": "stat", "path": path, "follow": follow}),
        )
        .reply();
        assert_eq!(reply["ok"], true, "{reply}");
        reply["stat"].clone()
    };
    let file = json!({"kind": "file", "size": 7, "mode": 0o640, "mtime_ns": 5});
    assert_eq!(stat(&path, false), file);
    assert_eq!(stat(&folder.path().join("link"), true), file);
    let link = stat(&folder.path().join("link"), false);
    assert_eq!(
        (&link["kind"], &link["target"]),
        (&json!("link"), &json!("file"))
    );
    assert_eq!(stat(folder.path(), false)["kind"], "folder");
    assert_eq!(stat(Path::new("/dev/null"), false)["kind"], "other");
    assert_eq!(stat(&path.join("x"), false), json!({"kind": "missing"}));
    assert_eq!(
        stat(&folder.path().join("x"), true),
        json!({"kind": "missing"})
    );
}

/// What a client says, and where it may be cut: at each frame's edges, within its header and its content.
fn said(request: &Value, content: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let request = request.to_string();
    let (mut bytes, mut cuts) = (Vec::new(), vec![0]);
    let files = content.chunks(700).map(|chunk| (Tag::File, chunk));
    for (tag, payload) in [(Tag::Control, request.as_bytes())]
        .into_iter()
        .chain(files)
    {
        let start = bytes.len();
        encode(tag, payload, &mut bytes).unwrap();
        cuts.extend([
            start + 1,
            start + 5,
            start + 6,
            start + 313.min(payload.len()),
            bytes.len(),
        ]);
    }
    encode(Tag::End, b"", &mut bytes).unwrap();
    cuts.extend([bytes.len() - 4, bytes.len() - 1]);
    (bytes, cuts)
}

#[test]
fn a_connection_cut_anywhere_leaves_no_draft() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let archive = [
        entry(EntryType::Directory, "inner", "", b""),
        entry(EntryType::Regular, "inner/file", "", &[7; 1500]),
        entry(EntryType::Symlink, "link", "inner", b""),
        vec![0; 1024],
    ];
    let requests = [
        (json!({"op": "put_stream", "path": target}), vec![7; 3000]),
        (json!({"op": "put_tree", "path": target}), archive.concat()),
    ];
    for (request, content) in &requests {
        let (bytes, cuts) = said(request, content);
        for cut in cuts {
            let mut client = Client::new(&agent);
            client.stream.write_all(&bytes[..cut]).unwrap();
            client.stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.frame(), None, "cut at {cut}");
            assert_eq!(names(folder.path()), [""; 0], "cut at {cut}");
        }
    }
    for (request, content) in &requests {
        let (bytes, cuts) = said(request, content);
        for cut in cuts {
            let mut gone = Client::new(&agent);
            gone.stream.write_all(&bytes[..cut]).unwrap();
        }
    }
    // Those that were cut without a word are noticed in their own time.
    let until = Instant::now() + DEADLINE;
    while !names(folder.path()).is_empty() {
        assert!(Instant::now() < until, "a draft is left");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Into a folder that is there, what has come stays, and nothing else.
    fs::create_dir(&target).unwrap();
    let (bytes, cuts) = said(&requests[1].0, &requests[1].1);
    for cut in cuts {
        let mut client = Client::new(&agent);
        client.stream.write_all(&bytes[..cut]).unwrap();
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.frame(), None, "cut at {cut}");
        let left: Vec<_> = names(&target);
        assert!(
            left.iter().all(|name| name == "inner" || name == "link"),
            "{left:?}"
        );
        if target.join("inner").exists() {
            assert!(
                names(&target.join("inner"))
                    .iter()
                    .all(|name| name == "file")
            );
        }
    }
    let mut client = Client::new(&agent);
    client.stream.write_all(&bytes).unwrap();
    assert_eq!(client.reply()["ok"], true);
    assert_eq!(fs::read(target.join("link/file")).unwrap(), [7; 1500]);
}

#[test]
fn receivers_that_go_cost_nobody_anything() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("large"), vec![7; KIB * KIB]).unwrap();
    for op in ["get_stream", "get_tree"] {
        let path = match op {
            "get_tree" => folder.path().to_owned(),
            _ => folder.path().join("large"),
        };
        for heard in 0..4 {
            let mut get = Client::ask(&agent, &json!({"op": op, "path": path}));
            for _ in 0..heard {
                get.frame().unwrap();
            }
        }
    }
    assert_eq!(
        Client::ask(&agent, &json!({"op": "ping"})).reply()["op"],
        "pong"
    );
}

#[test]
fn sixty_four_copies_go_on_at_once_and_the_next_one_waits() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let mut clients: Vec<Client> = (0..65)
        .map(|number| {
            let path = folder.path().join(number.to_string());
            let mut client = Client::ask(&agent, &json!({"op": "put_stream", "path": path}));
            client.send(Tag::File, b"half ");
            client
        })
        .collect();
    let mut last = clients.pop().unwrap();
    last.send(Tag::File, b"a file");
    last.send(Tag::End, b"");
    assert!(!last.is_answered_within(Duration::from_millis(50)));
    for client in &mut clients {
        assert_eq!(client.content(b"a file")["size"], 11);
    }
    assert_eq!(last.reply()["size"], 11);
    assert_eq!(names(folder.path()).len(), 65);
}
