//! Two ways to the same runner. Without a machine: the agent that ships, on a Unix socket, in the plain
//! form of one JSON line a cell. With a machine: a restored template, streamed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde::Deserialize as _;
use serde_json::{Value, json};
use vmrepl_session::{
    Answer, Bundle, Cell, EngineChoice, Event, Input, InputRequest, Places, Purpose, Session, Sink,
    Table, TemplateName, engine_for,
};

use crate::ground::{DEADLINE, folder, home, root, target_folder};
use crate::process::VMREPL;

/// What one cell came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) result: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) exit: i64,
    pub(crate) tables: Vec<Table>,
    pub(crate) displays: Vec<Bundle>,
}

/// A session that takes one cell after the other.
pub(crate) trait Lane {
    fn run(&mut self, code: &str) -> Result<Outcome, String>;
}

/// The agent on this host.
pub(crate) struct AgentLane {
    child: Child,
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    folder: tempfile::TempDir,
}

impl AgentLane {
    /// Takes `CONNECT <port>`.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    pub(crate) fn start() -> Result<Self, String> {
        let folder = folder();
        let socket = folder.path().join("agent.sock");
        let mut place = std::ffi::OsString::from("unix:");
        place.push(&socket);
        let mut child = Command::new(agent())
            .arg("--listen")
            .arg(place)
            .arg("--runner")
            .arg(root().join("runner-py/runner"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("start the agent: {error}"))?;
        let connected = connect(&socket, &mut child);
        let stream = connected.inspect_err(|_| {
            child.kill().ok();
            child.wait().ok();
        })?;
        let mut lane = Self {
            child,
            writer: stream.try_clone().map_err(|error| error.to_string())?,
            reader: BufReader::new(stream),
            folder,
        };
        let greeting = lane.exchange("CONNECT 10000\n")?;
        if greeting.starts_with("OK ") {
            return Ok(lane);
        }
        Err(format!("CONNECT 10000 was answered {greeting:?}"))
    }

    fn exchange(&mut self, line: &str) -> Result<String, String> {
        let mut answer = String::new();
        self.writer
            .write_all(line.as_bytes())
            .and_then(|()| self.reader.read_line(&mut answer))
            .map_err(|error| format!("talk with the agent: {error}"))?;
        Ok(answer)
    }
}

impl Drop for AgentLane {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Lane for AgentLane {
    fn run(&mut self, code: &str) -> Result<Outcome, String> {
        let request = json!({ "code": code, "show_tables": true, "show_table_meta": true });
        let line = self.exchange(&format!("{request}\n"))?;
        let answer: Value =
            serde_json::from_str(&line).map_err(|error| format!("{error} in {line:?}"))?;
        let keys = answer.as_object().map_or(0, serde_json::Map::len);
        if keys != 6 {
            return Err(format!(
                "the plain answer has six fields, not {keys}: {line}"
            ));
        }
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        Ok(Outcome {
            stdout: text("stdout").ok_or("no stdout")?,
            stderr: text("stderr").ok_or("no stderr")?,
            result: text("result_repr"),
            error: text("error"),
            exit: answer["exit_code"].as_i64().ok_or("no exit_code")?,
            tables: Vec::deserialize(&answer["tables"]).map_err(|error| error.to_string())?,
            // The plain form has no place for them.
            displays: Vec::new(),
        })
    }
}

/// Connects as soon as the agent listens, and gives up as soon as it has died.
fn connect(socket: &Path, child: &mut Child) -> Result<UnixStream, String> {
    let began = std::time::Instant::now();
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.set_write_timeout(Some(DEADLINE)).unwrap();
            return Ok(stream);
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("the agent ended: {status}"));
        }
        if began.elapsed() > DEADLINE {
            return Err("the agent does not listen".to_owned());
        }
        std::thread::yield_now();
    }
}

/// The agent's binary, built once when `VMREPL_TEST_AGENT` does not name it.
fn agent() -> &'static Path {
    static AGENT: OnceLock<PathBuf> = OnceLock::new();
    AGENT.get_or_init(|| {
        if let Some(path) = std::env::var_os("VMREPL_TEST_AGENT").filter(|path| !path.is_empty()) {
            return PathBuf::from(path);
        }
        let target = target_folder().join("agent-test");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "vmrepl-agent"])
            .args(["--target-dir"])
            .arg(&target)
            .env_remove("CARGO_TARGET_DIR")
            .current_dir(root())
            .status()
            .expect("cargo starts");
        assert!(status.success(), "the agent does not build: {status}");
        target.join("debug/vmrepl-agent")
    })
}

/// A machine restored from the template.
pub(crate) struct MachineLane {
    session: Session,
}

impl MachineLane {
    pub(crate) fn start(template: &str) -> Result<Self, String> {
        let places = places();
        let name = TemplateName::new(template).map_err(|error| error.to_string())?;
        let engine =
            engine_for(&places, engine_choice(), &name).map_err(|error| error.to_string())?;
        let session = Session::restore(&places, &engine, &name, Purpose::Freeze)
            .map_err(|error| format!("{error:?}"))?;
        Ok(Self { session })
    }
}

fn places() -> Places {
    places_in(home())
}

/// The engine that is tested.
pub(crate) fn engine_choice() -> EngineChoice {
    match crate::process::engine().as_deref() {
        Some("kvm") => EngineChoice::Kvm,
        Some("qemu") => EngineChoice::Qemu,
        _ => EngineChoice::Auto,
    }
}

/// Whether the engine under test is KVM, which alone has `what`. Under emulation that is said, and is no skip: the
/// lane of KVM runs it.
pub(crate) fn is_kvm(what: &str) -> bool {
    let is_kvm = engine_choice() == EngineChoice::Kvm;
    if !is_kvm {
        tell(&format!(
            "emulation has not {what}: for VMREPL_TEST_ENGINE=kvm"
        ));
    }
    is_kvm
}

#[expect(clippy::print_stderr, reason = "figures and skips must be seen")]
pub(crate) fn tell(words: &str) {
    eprintln!("{words}");
}

/// The places of a home.
pub(crate) fn places_in(home: &Path) -> Places {
    Places {
        store: home.join("store"),
        images: home.join("images"),
        sessions: home.join("sessions"),
        run: home.join("run"),
        search_path: std::env::var_os("PATH").unwrap_or_default(),
        worker: (PathBuf::from(VMREPL), vec!["__machine".into()]),
    }
}

impl Lane for MachineLane {
    fn run(&mut self, code: &str) -> Result<Outcome, String> {
        let cell = Cell {
            timeout: Some(DEADLINE),
            show_tables: true,
            show_table_meta: true,
            ..Cell::new(code)
        };
        let mut heard = Heard::default();
        let answer = self
            .session
            .run(&cell, &mut heard)
            .map_err(|error| format!("{error:?}"))?;
        Ok(heard.outcome(answer))
    }
}

#[derive(Default)]
pub(crate) struct Heard {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    displays: Vec<Bundle>,
}

impl Heard {
    /// With the answer that came last.
    pub(crate) fn outcome(self, answer: Answer) -> Outcome {
        Outcome {
            stdout: String::from_utf8_lossy(&self.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&self.stderr).into_owned(),
            result: answer.result_repr,
            error: answer.error,
            exit: i64::from(answer.exit_code),
            tables: answer.tables,
            displays: self.displays,
        }
    }
}

impl Sink for Heard {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Stdout(output) => self.stdout.extend_from_slice(output.as_bytes()),
            Event::Stderr(output) => self.stderr.extend_from_slice(output.as_bytes()),
            Event::Display(display) => self.displays.push(display.bundle.clone()),
            _ => {}
        }
    }

    fn input(&mut self, _: &InputRequest) -> Input {
        Input::End
    }
}
