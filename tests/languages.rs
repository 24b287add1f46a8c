//! Port 52000 against a live machine: programs of strangers, in those languages that the template `base` has.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::files::restored;
use crate::ground::{DEADLINE, root};

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

    /// Runs one of the test programs, which takes its command from its input.
    fn run(&mut self, language: &str, command: &str, timeout_ms: u64) -> Value {
        let name = match language {
            "python" => "python/program.py",
            _ => "bash/program.sh",
        };
        let code = std::fs::read(root().join("tests/languages").join(name)).unwrap();
        self.send(&json!({
            "id": "one", "type": "execute", "language": language, "code": STANDARD.encode(code),
            "stdin": STANDARD.encode(command), "timeout": timeout_ms, "memory_limit": 64 << 20,
        }));
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
}

#[test]
fn every_end_has_its_status_and_nothing_is_left() {
    let session = restored();
    // One connection takes them all, one after the other.
    let mut client = Client::new(&session.info().socket);
    for language in ["python", "bash"] {
        let hello = client.run(language, "hello\n", 50_000);
        assert_eq!(
            (&hello["status"], &hello["stdout"]),
            (&json!("success"), &json!("hello\n"))
        );
        let layers = hello["sandbox"].as_array().unwrap();
        assert_eq!(layers.len(), 10, "{layers:?}");
        assert!(hello["memory_used"].as_u64().unwrap() > 100_000, "{hello}");
        let echoed = client.run(language, "echo\nthrough é\n", 50_000);
        assert_eq!(echoed["stdout"], "through é\n", "{echoed}");
        let left = client.run(language, "exit 7\n", 50_000);
        assert_eq!(
            (&left["status"], &left["exit_code"]),
            (&json!("runtime_error"), &json!(7))
        );
        assert_eq!(
            client.run(language, "raise\n", 50_000)["status"],
            "runtime_error"
        );
        assert_eq!(client.run(language, "spin\n", 2_000)["status"], "timeout");
        let flood = client.run(language, "flood\n", 50_000);
        assert_eq!(flood["truncated"]["stdout"], true, "{}", flood["status"]);
        let written = client.run(language, "write\n", 50_000);
        assert!(
            !written["stdout"].as_str().unwrap().contains("WROTE"),
            "{written}"
        );
        let net = client.run(language, "net\n", 50_000);
        assert!(
            !net["stdout"].as_str().unwrap().contains("CONNECTED"),
            "{net}"
        );
        assert_eq!(client.run(language, "child\n", 50_000)["stdout"], "left\n");
        client.run(language, "fork\n", 5_000);
    }
    assert_eq!(
        client.run("python", "memory\n", 50_000)["status"],
        "memory_exceeded"
    );
    // What ran has gone with all that it has started, and its folder with it.
    let look = "import os; ([name for name in os.listdir('/proc') if name.isdigit() and \
                os.stat('/proc/' + name).st_uid == 1001], os.listdir('/box'))";
    let mut session = session;
    let mut sink = crate::sessions::Quiet;
    let cell = vmrepl_session::Cell::new(look);
    let answer = session.run(&cell, &mut sink).unwrap();
    assert_eq!(
        answer.result_repr.as_deref(),
        Some("([], [])"),
        "{answer:?}"
    );
}

#[test]
fn what_is_no_request_is_refused_by_its_field() {
    let session = restored();
    let mut client = Client::new(&session.info().socket);
    let sound = json!({"id": "r", "type": "execute", "language": "bash", "code": ""});
    for (field, value, error) in [
        ("language", json!("perl"), "unsupported_language"),
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
