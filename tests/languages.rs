//! Programs in many languages: strangers' on port 52000 of a live machine, the user's as cells.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use vmrepl_session::{Cell, Event, Input, InputRequest, Language, Session, Sink};

use crate::files::{restored, restored_from};
use crate::ground::{DEADLINE, count, folder, has_template, root};
use crate::homes::Home;
use crate::process::Run;

/// A client of the port, which speaks it by hand.
struct Client(UnixStream);

impl Client {
    fn new(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"CONNECT 52000\n").unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        assert!(line.starts_with(b"OK "));
        Self(stream)
    }

    fn send(&mut self, request: &Value) {
        let bytes = request.to_string().into_bytes();
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        self.0.write_all(&[&length[..], &bytes].concat()).unwrap();
    }

    fn message(&mut self) -> Value {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut bytes).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Runs a program; its outputs come back as text.
    fn run(&mut self, order: &Order<'_>) -> Value {
        let request = json!({
            "id": "one", "type": "execute", "language": order.language, "code": STANDARD.encode(&order.code),
            "stdin": STANDARD.encode(order.command), "timeout": order.timeout_ms, "memory_limit": order.memory_bytes,
        });
        self.send(&request);
        let received = json!({"id": "one", "type": "ack", "status": "received"});
        assert_eq!(self.message(), received);
        let mut result = self.message();
        assert_eq!(result["type"], "result", "{result}");
        for stream in ["stdout", "stderr"] {
            let bytes = STANDARD.decode(result[stream].as_str().unwrap()).unwrap();
            result[stream] = String::from_utf8_lossy(&bytes).into_owned().into();
        }
        result
    }

    /// Runs one of the test programs, which takes its command from its input, and tells status and output.
    fn case(&mut self, language: &str, command: &str, timeout_ms: u64) -> Value {
        self.run(&Order {
            command,
            timeout_ms,
            ..Order::of(language, "program")
        })
    }
}

struct Order<'a> {
    language: &'a str,
    code: Vec<u8>,
    command: &'a str,
    timeout_ms: u64,
    memory_bytes: u64,
}

impl<'a> Order<'a> {
    /// A test program by its name without its ending.
    fn of(language: &'a str, name: &str) -> Self {
        let folder = root().join("tests/languages").join(language);
        let entries = std::fs::read_dir(&folder).unwrap();
        let path = entries
            .map(|entry| entry.unwrap().path())
            .find(|path| path.file_stem().unwrap().eq_ignore_ascii_case(name))
            .unwrap_or_else(|| panic!("{name} in {}", folder.display()));
        Self {
            language,
            code: std::fs::read(path).unwrap(),
            command: "",
            timeout_ms: 60_000,
            // What the largest of the interpreters needs to begin.
            memory_bytes: 192 << 20,
        }
    }
}

/// What stays when programs have ended: processes of their user, and their folder's content.
fn nothing_is_left(mut session: Session) {
    let look = "import os; ([name for name in os.listdir('/proc') if name.isdigit() and \
                os.stat('/proc/' + name).st_uid == 1001], os.listdir('/box'))";
    let answer = session
        .run(&Cell::new(look), &mut crate::sessions::Quiet)
        .unwrap();
    assert_eq!(
        answer.result_repr.as_deref(),
        Some("([], [])"),
        "{answer:?}"
    );
}

fn every_end_of(client: &mut Client, language: &str) {
    let said = |result: &Value| (result["status"].clone(), result["stdout"].clone());
    let hello = client.case(language, "hello\n", 60_000);
    assert_eq!(
        said(&hello),
        (json!("success"), json!("hello\n")),
        "{hello}"
    );
    let layers = hello["sandbox"].as_array().unwrap();
    assert_eq!(layers.len(), 10, "{layers:?}");
    assert!(hello["memory_used"].as_u64().unwrap() > 100_000, "{hello}");
    let echoed = client.case(language, "echo\nthrough é\n", 60_000);
    assert_eq!(echoed["stdout"], "through é\n", "{echoed}");
    let is_compiled = !["python", "bash"].contains(&language);
    assert_eq!(
        echoed["cached"],
        if is_compiled {
            json!(true)
        } else {
            Value::Null
        }
    );
    let left = client.case(language, "exit 7\n", 60_000);
    let end = (&left["status"], &left["exit_code"]);
    assert_eq!(end, (&json!("runtime_error"), &json!(7)), "{left}");
    let raised = client.case(language, "raise\n", 60_000);
    assert_eq!(raised["status"], "runtime_error", "{raised}");
    let spun = client.case(language, "spin\n", 3_000);
    assert_eq!(spun["status"], "timeout", "{spun}");
    let flood = client.case(language, "flood\n", 60_000);
    assert_eq!(flood["truncated"]["stdout"], true, "{}", flood["status"]);
    for (command, never) in [("write\n", "WROTE"), ("net\n", "CONNECTED")] {
        let tried = client.case(language, command, 60_000);
        let said = tried["stdout"].as_str().unwrap();
        assert!(said.contains("denied") && !said.contains(never), "{tried}");
    }
    let child = client.case(language, "child\n", 60_000);
    assert_eq!(child["stdout"], "left\n", "{child}");
    // What it is refused it may take for an error, or wait for.
    let bomb = client.case(language, "fork\n", 10_000);
    assert!(bomb["status"] != "memory_exceeded", "{bomb}");
}

#[test]
fn every_end_has_its_status_and_nothing_is_left() {
    let session = restored();
    // One connection takes them all, one after the other.
    let mut client = Client::new(&session.info().socket);
    for language in ["python", "bash"] {
        every_end_of(&mut client, language);
        let taken = client.run(&Order {
            command: "memory\n",
            memory_bytes: 64 << 20,
            ..Order::of(language, "program")
        });
        assert_eq!(taken["status"], "memory_exceeded", "{taken}");
    }
    nothing_is_left(session);
}

/// The template takes minutes to make, and its compilers minutes to run: see `scripts/test --slow`.
#[test]
#[ignore = "needs the template polyglot; scripts/test --slow"]
fn eight_languages() {
    if !has_template("polyglot") {
        return;
    }
    let session = restored_from("polyglot");
    let mut client = Client::new(&session.info().socket);
    for language in Language::ALL {
        let name = language.name();
        if !["python", "bash"].contains(&name) {
            let refused = client.run(&Order::of(
                if name == "javascript" {
                    "typescript"
                } else {
                    name
                },
                "broken",
            ));
            assert_eq!(refused["status"], "compilation_error", "{refused}");
            assert!(
                refused["stderr"].as_str().unwrap().len() > 20 || refused["stdout"] != "",
                "{refused}"
            );
        }
        every_end_of(&mut client, name);
        let taken = client.run(&Order {
            command: "memory\n",
            ..Order::of(name, "program")
        });
        assert_eq!(taken["status"], "memory_exceeded", "{taken}");
    }
    nothing_is_left(session);
}

#[test]
fn a_thousand_in_a_row_leave_nothing() {
    let mut session = restored();
    let look = "import os; (int(open('/proc/1/statm').read().split()[1]), len(os.listdir('/proc')) // 8, \
                len(os.listdir('/sys/fs/cgroup/cells/exec')), sorted(os.listdir('/run')), open('/proc/mounts').read().count('\\n'))";
    let mut looks = Vec::new();
    for runs in [5, count(40, 1000)] {
        let mut client = Client::new(&session.info().socket);
        for number in 0..runs {
            let mut order = Order::of("bash", "program");
            let wanted = format!("run {number}\n");
            let command = format!("echo\n{wanted}");
            order.command = &command;
            assert_eq!(client.run(&order)["stdout"], wanted.as_str());
        }
        drop(client);
        let answer = session
            .run(&Cell::new(look), &mut crate::sessions::Quiet)
            .unwrap();
        looks.push(answer.result_repr.unwrap());
    }
    let pages = |look: &str| -> u64 { look[1..look.find(',').unwrap()].parse().unwrap() };
    let rest = |look: &str| look[look.find(',').unwrap()..].to_owned();
    assert_eq!(rest(&looks[0]), rest(&looks[1]));
    // The agent's resident memory, which may settle in the first few.
    assert!(pages(&looks[1]) <= pages(&looks[0]) + 32, "{looks:?}");
}

#[test]
fn no_way_leads_out() {
    let session = restored();
    let mut client = Client::new(&session.info().socket);
    let tried = client.run(&Order::of("python", "escapes"));
    let lines: Vec<&str> = tried["stdout"].as_str().unwrap().lines().collect();
    let listed = std::fs::read_to_string(root().join("tests/languages/python/escapes.py")).unwrap();
    assert_eq!(
        lines.len(),
        listed.matches("\n@attempt\n").count(),
        "{tried}"
    );
    assert!(lines.len() >= 25);
    let out: Vec<&&str> = lines
        .iter()
        .filter(|line| !line.contains(" refused"))
        .collect();
    assert!(out.is_empty(), "{out:#?}");
    nothing_is_left(session);
}

#[test]
fn what_is_no_request_is_refused_by_its_field() {
    let session = restored();
    let mut client = Client::new(&session.info().socket);
    let sound = json!({"id": "r", "type": "execute", "language": "bash", "code": ""});
    for (field, value, error) in [
        ("language", json!("perl"), "unsupported_language"),
        // This template has no compiler.
        ("language", json!("rust"), "unsupported_language"),
        ("code", json!("not base64"), "invalid_request"),
        ("timeout", json!(0), "invalid_request"),
        ("type", json!("run"), "invalid_request"),
    ] {
        let mut request = sound.clone();
        request[field] = value;
        client.send(&request);
        let refused = client.message();
        assert_eq!(
            (&refused["type"], &refused["error"], &refused["id"]),
            (&json!("error"), &json!(error), &json!("r"))
        );
        assert!(
            refused["message"]
                .as_str()
                .unwrap()
                .contains(&format!("`{field}`")),
            "{refused}"
        );
    }
    // The next one is served.
    client.send(&sound);
    assert_eq!(client.message()["type"], "ack");
    assert_eq!(client.message()["status"], "success");
}

/// As the user, in the machine's home: what it does can be undone like any cell.
#[test]
fn a_program_in_another_language_is_a_cell() {
    let run = |args: &[&str]| Run::new(args);
    run(&["-l", "bash", "-c", "echo $# $2; pwd; id -un", "a", "b c"])
        .finish()
        .says("2 b c\n/home/user\nuser\n");
    run(&["-l", "bash", "-c", "tr a-z A-Z; exit 3"])
        .input("from here\n")
        .finish()
        .fails(3, &[]);
    let upper = run(&["-l", "bash", "-c", "tr a-z A-Z"]).input("é here\n");
    upper.finish().says("é HERE\n");
    run(&["-l", "bash", "-"])
        .input("read x; echo \"<$x>\"")
        .finish()
        .says("<>\n");
    run(&["--timeout", "0.5", "-l", "bash", "-c", "sleep 600"])
        .finish()
        .fails(124, &["timed out after 0.5 s"]);
    run(&["-l", "cpp", "-c", "int main() {}"])
        .finish()
        .fails(125, &["no cpp in this machine", "polyglot"]);
    run(&["-l", "cobol", "-c", ""])
        .finish()
        .fails(2, &["cobol", "known are python"]);
    run(&["-c", "%%timeit\n1"])
        .finish()
        .fails(2, &["%%timeit", "known are python"]);
    let folder = folder();
    std::fs::write(folder.path().join("hello.sh"), "echo hello $1").unwrap();
    let script = run(&["-l", "bash", "hello.sh", "world"]).within(folder.path());
    script.finish().says("hello world\n");

    let home = Home::new();
    home.cell("t", "%%bash\necho one > note\n\necho made")
        .says("made\n");
    home.cell("t", "print(open('note').read())").says("one\n\n");
    home.cell("t", "%%python\nprint(open('note').read() * 2)")
        .says("one\none\n\n");
    home.run(&["-s", "t", "-l", "bash", "-c", "rm note"])
        .finish()
        .says("");
    home.run(&["-s", "t", "-l", "bash", "-c", "echo $2 > other", "a", "b c"])
        .finish()
        .says("");
    home.cell("t", "!cat other").says("b c\n");
    home.cell("t", "%%bash\ncat note")
        .fails(1, &["No such file"]);
    assert_eq!(home.command(&["undo", "t", "4"]).exit(), 0);
    home.cell("t", "%%bash\ncat note").says("one\n");
    assert_eq!(home.command(&["replay", "t"]).exit(), 0);
}

/// In the machine's own toolchains, with what was compiled kept for the next cell.
#[test]
#[ignore = "needs the template polyglot; scripts/test --slow"]
fn a_compiled_cell_is_compiled_once() {
    if !has_template("polyglot") {
        return;
    }
    let mut session = restored_from("polyglot");
    let mut run = |code: &str| {
        let began = std::time::Instant::now();
        let mut said = Said::default();
        let answer = session.run(&Cell::new(code), &mut said).unwrap();
        (answer, said.0, began.elapsed())
    };
    let code = "%%cpp a b\n#include <iostream>\nint main(int n, char** words) { std::cout << n << words[2]; return 3; }";
    let (answer, said, first) = run(code);
    assert_eq!((answer.exit_code, said.as_str()), (3, "3b"), "{answer:?}");
    let (_, said, second) = run(code);
    assert_eq!(said, "3b");
    assert!(second * 4 < first, "{first:?}, then {second:?}");
    let (answer, said, _) = run("%%cpp\nint main() { return missing; }");
    assert_eq!(answer.exit_code, 1, "{answer:?}");
    assert!(
        said.contains("main.cpp:1") && said.contains("missing"),
        "{said}"
    );
    let (answer, said, _) =
        run("%%rust\nfn main() { println!(\"{}\", std::env::args().count()); }");
    assert_eq!((answer.exit_code, said.as_str()), (0, "1\n"), "{answer:?}");
}

/// All that a cell prints.
#[derive(Default)]
struct Said(String);

impl Sink for Said {
    fn event(&mut self, event: &Event) {
        if let Event::Stdout(output) | Event::Stderr(output) = event {
            self.0 += &String::from_utf8_lossy(output.as_bytes());
        }
    }

    fn input(&mut self, _: &InputRequest) -> Input {
        Input::End
    }
}
