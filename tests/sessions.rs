//! Sessions with names: each command a process of its own, as scripts and agents use them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use vmrepl_session::{
    Cell, EngineChoice, Event, Input, InputRequest, Opening, Session, SessionName, Sink,
    TemplateName,
};
use vmrepl_snapshots::Store;

use crate::chance::Random;
use crate::ground::{TEMPLATE, count, skip};
use crate::homes::Home;
use crate::lanes::{engine_choice, places_in};
use crate::process::{Ended, engine};

#[test]
fn there_and_back_again() {
    let home = Home::new();
    home.cell("t", "x = 1").says("");
    home.cell("t", "x += 1; print(x)").says("2\n");
    home.command(&["undo", "t"])
        .says("t stands at cell 1: x = 1\n");
    home.cell("t", "print(x)").says("1\n");
    home.command(&["fork", "t", "u", "--at", "1"])
        .says("u begins at t@1\n");
    home.cell("u", "x += 10; print(x)").says("11\n");
    home.cell("t", "x += 100; print(x)").says("101\n");
    home.cell("u", "print(x)").says("11\n");
    // What was undone is there still.
    home.command(&["goto", "t", "2"])
        .says("t stands at cell 2: x += 1; print(x)\n");
    home.cell("t", "print(x)").says("2\n");
    // A cell is shown by its number in the session.
    let raised = home.cell("t", "1 / 0");
    assert!(raised.stderr.contains("File \"<cell 6>\""), "{raised}");
    home.command(&["undo", "t"]);
    home.command(&["goto", "t", "0"])
        .says("t stands at its beginning\n");
    home.cell("t", "print('x' in globals())").says("False\n");
    home.command(&["undo", "t"])
        .says("t stands at its beginning\n");
    home.command(&["redo", "t"])
        .says("t stands at cell 7: print('x' in globals())\n");
    home.run(&["-s", "t", "--at", "4", "-c", "print(x)"])
        .finish()
        .says("101\n");
    let shown = home.command(&["show", "t@4"]);
    assert!(
        shown.text().contains("> x += 100; print(x)\n  101\n"),
        "{shown}"
    );
}

#[test]
fn what_is_not_there_is_named() {
    let home = Home::new();
    home.command(&["undo", "nobody"])
        .fails(3, &["there is no session \"nobody\"", "vmrepl sessions"]);
    home.command(&["log", "nobody"])
        .fails(3, &["there is no session \"nobody\""]);
    home.cell("t", "x = 1").says("");
    home.command(&["goto", "t", "7"]).fails(3, &["no cell 7"]);
    home.command(&["undo", "t", "2"])
        .fails(2, &["cannot go back by 2: only 1 cells are there"]);
    home.command(&["redo", "t"])
        .fails(2, &["cannot go forward by 1"]);
    home.command(&["fork", "t", "t"])
        .fails(2, &["there is a session \"t\" already"]);
    home.cell("no/name", "1").fails(2, &["is no name"]);
    home.run(&["--at", "1", "-c", "1"])
        .finish()
        .fails(2, &["--session"]);
}

#[test]
fn no_end_of_a_cell_costs_the_session() {
    let home = Home::new();
    home.cell("t", "x = 5").says("");
    let raised = home.cell("t", "x = 6\n1/0");
    assert_eq!(raised.exit(), 1, "{raised}");
    // It raised, and what it did before stays, as in any interpreter.
    home.cell("t", "print(x)").says("6\n");
    let left = home.cell("t", "x = 7\nimport os\nos._exit(3)");
    assert_eq!(left.exit(), 125, "{left}");
    assert!(left.stderr.contains("stands at cell 3 again"), "{left}");
    home.cell("t", "print(x)").says("6\n");
    let late = home
        .run(&["-s", "t", "--timeout", "1", "-c", "while True: x = 8"])
        .finish();
    assert_eq!(late.exit(), 124, "{late}");
    home.cell("t", "print(x)").says("8\n");
    home.cell("t", "import sys\nsys.exit(9)").fails(9, &[]);
    let killed = home.cell(
        "t",
        "x = 9\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    );
    assert_eq!(killed.exit(), 125, "{killed}");
    home.cell("t", "print(x)").says("8\n");
    let ends: Vec<_> = home
        .log("t")
        .iter()
        .map(|cell| cell["status"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        ends,
        [
            "ok",
            "error",
            "ok",
            "runner_lost",
            "ok",
            "timeout",
            "ok",
            "error",
            "runner_lost",
            "ok"
        ]
    );
    let failed = home.command(&["log", "t", "--failed", "--json"]);
    let failed: Vec<Value> = serde_json::from_str(&failed.text()).unwrap();
    assert_eq!(failed.len(), 5);
}

#[test]
fn one_process_at_a_time() {
    let home = Home::new();
    home.cell("t", "x = 1").says("");
    let code = "import time\ntry:\n    print('begun', flush=True); time.sleep(600)\nexcept KeyboardInterrupt: x += 1";
    let mut running = home.run(&["-s", "t", "-c", code]).start_silent();
    let mut said = [0; 5];
    std::io::Read::read_exact(&mut running.take_stdout(), &mut said).unwrap();
    let pid = running.id().to_string();
    home.cell("t", "x")
        .fails(125, &["session \"t\" is in use by process", &pid, "--wait"]);
    home.command(&["undo", "t"]).fails(125, &["is in use"]);
    // From what was stored last, others go on.
    home.command(&["fork", "t", "u"]).says("u begins at t@1\n");
    home.cell("u", "print(x)").says("1\n");
    assert_eq!(home.log("t")[1]["state"], "running");
    let waiting = home
        .run(&["-s", "t", "--wait", "60", "-c", "print(x)"])
        .start();
    running.signal(Signal::INT);
    waiting.finish().says("2\n");
    running.finish();
}

/// A child that was split off when its parent was killed has the lock until it hears of that.
#[test]
fn a_lock_that_outlives_its_holder_is_waited_for() {
    let home = Home::new();
    home.cell("t", "x = 1").says("");
    let path = home.0.home().join("sessions/t.lock");
    let holder: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{}", holder["pid"])).exists());
    let lock = std::fs::File::open(&path).unwrap();
    lock.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            lock.unlock().unwrap();
        });
        home.cell("t", "print(x)").says("1\n");
    });
}

type Names = BTreeMap<char, u64>;

/// A session as it should be.
#[derive(Debug, Clone, Default)]
struct Model {
    /// Parent and names after it, of each cell that left something; 0 is the template.
    cells: BTreeMap<u32, (u32, Names)>,
    forward: BTreeMap<u32, u32>,
    position: u32,
    next: u32,
}

impl Model {
    fn new() -> Self {
        Self {
            cells: BTreeMap::from([(0, (0, Names::new()))]),
            next: 1,
            ..Self::default()
        }
    }

    fn names(&self) -> &Names {
        &self.cells[&self.position].1
    }

    fn way(&self, mut at: u32) -> Vec<u32> {
        let mut way = vec![at];
        while at != 0 {
            at = self.cells[&at].0;
            way.push(at);
        }
        way
    }

    fn go(&mut self, to: u32) {
        for pair in self.way(self.position).windows(2) {
            self.forward.insert(pair[1], pair[0]);
        }
        self.position = to;
    }

    fn ran(&mut self, left: Option<Names>) {
        let number = self.next;
        self.next += 1;
        if let Some(names) = left {
            self.cells.insert(number, (self.position, names));
            self.go(number);
        }
    }

    fn fork(&self) -> Self {
        let way = self.way(self.position);
        Self {
            cells: way
                .iter()
                .map(|number| (*number, self.cells[number].clone()))
                .collect(),
            forward: BTreeMap::new(),
            position: self.position,
            next: self.position + 1,
        }
    }
}

const SHOW: &str = "print({n: globals()[n] for n in 'abc' if n in globals()})";

fn shown(names: &Names) -> String {
    let mut text = String::from("{");
    for (place, (name, value)) in names.iter().enumerate() {
        let comma = if place == 0 { "" } else { ", " };
        write!(text, "{comma}'{name}': {value}").unwrap();
    }
    text + "}\n"
}

/// A move ended as it should: there, or refused where there is no such cell.
#[track_caller]
fn went(ended: &Ended, model: &mut Model, to: Option<u32>, context: &str) {
    assert_eq!(
        ended.exit(),
        if to.is_some() { 0 } else { 2 },
        "{context}: {ended}"
    );
    if let Some(to) = to {
        model.go(to);
    }
}

#[test]
fn any_walk_through_the_tree_is_as_its_model() {
    let home = Home::new();
    let mut sessions = BTreeMap::from([("s0".to_owned(), Model::new())]);
    let mut random = Random(20);
    home.cell("s0", SHOW).says("{}\n");
    sessions.get_mut("s0").unwrap().ran(Some(Names::new()));
    // Emulated twice a step takes its time.
    let long = if engine().is_some() { 200 } else { 1000 };
    for step in 0..count(30, long) {
        let names: Vec<String> = sessions.keys().cloned().collect();
        let name = &names[usize::try_from(random.below(names.len() as u64)).unwrap()];
        let model = sessions.get_mut(name).unwrap();
        let variable = ['a', 'b', 'c'][usize::try_from(random.below(3)).unwrap()];
        let value = random.below(1000);
        let mut after = model.names().clone();
        after.insert(variable, value);
        let context = format!("step {step} in {name}");
        match random.below(12) {
            0..5 => {
                let ended = home.cell(name, &format!("{variable} = {value}\n{SHOW}"));
                assert_eq!(ended.text(), shown(&after), "{context}: {ended}");
                model.ran(Some(after));
            }
            5 => {
                let ended = home.cell(name, &format!("{variable} = {value}\n1/0"));
                assert_eq!(ended.exit(), 1, "{context}: {ended}");
                model.ran(Some(after));
            }
            6 => {
                let code = format!("import os\n{variable} = {value}\nos._exit(0)");
                let ended = home.cell(name, &code);
                assert_eq!(ended.exit(), 125, "{context}: {ended}");
                model.ran(None);
            }
            7 | 8 => {
                let steps = u32::try_from(random.below(4)).unwrap();
                let ended = home.command(&["undo", name, &steps.to_string()]);
                let to = model.way(model.position).get(steps as usize).copied();
                went(&ended, model, to, &context);
            }
            9 => {
                let ended = home.command(&["redo", name]);
                let to = model.forward.get(&model.position).copied();
                went(&ended, model, to, &context);
            }
            10 => {
                let cells: Vec<u32> = model.cells.keys().copied().collect();
                let to = cells[usize::try_from(random.below(cells.len() as u64)).unwrap()];
                let ended = home.command(&["goto", name, &to.to_string()]);
                went(&ended, model, Some(to), &context);
            }
            _ => {
                let new = format!("s{}", names.len());
                let fork = model.fork();
                let ended = home.command(&["fork", name, &new]);
                assert_eq!(ended.exit(), 0, "{context}: {ended}");
                sessions.insert(new, fork);
            }
        }
        if step % 10 == 9 {
            let collected = home.command(&["gc"]);
            assert_eq!(collected.exit(), 0, "{context}: {collected}");
        }
    }
    for (name, model) in &sessions {
        home.cell(name, SHOW).says(&shown(model.names()));
    }
}

pub(crate) struct Quiet;

impl Sink for Quiet {
    fn event(&mut self, _: &Event) {}

    fn input(&mut self, _: &InputRequest) -> Input {
        Input::End
    }
}

/// A new session `t` in this process, as the REPL has one.
pub(crate) fn opened(home: &Home) -> Session {
    let places = places_in(home.0.home());
    let (name, template) = (
        SessionName::new("t").unwrap(),
        TemplateName::new(TEMPLATE).unwrap(),
    );
    let opening = Opening {
        rng: vmrepl_session::RngPolicy::Keep,
        language: None,
        name: &name,
        template: &template,
        engine: engine_choice(),
        at: None,
        patience: Duration::ZERO,
    };
    let (session, opened) = Session::open(&places, &opening).unwrap();
    assert!(opened.is_new);
    session
}

/// What was printed.
#[derive(Default)]
struct Printed(String);

impl Sink for Printed {
    fn event(&mut self, event: &Event) {
        if let Event::Stdout(output) = event {
            self.0 += &String::from_utf8_lossy(output.as_bytes());
        }
    }

    fn input(&mut self, _: &InputRequest) -> Input {
        Input::End
    }
}

#[test]
fn the_machine_itself_goes_back_where_its_engine_does_that() {
    let home = Home::new();
    let mut session = opened(&home);
    let machine = session.info().process_id;
    let in_place = session.info().engine == "kvm";
    let run = |session: &mut Session, code: &str| {
        let mut printed = Printed::default();
        let answer = session.run(&Cell::new(code), &mut printed).unwrap();
        assert_eq!(answer.exit_code, 0, "{answer:?}");
        printed.0
    };
    run(&mut session, "import os, threading, time\nx = [1]");
    let drawn = "x.append(os.urandom(8).hex()); print(x[1:])";
    let first = run(&mut session, drawn);
    let late = "threading.Timer(0.2, print, ['late'], {'flush': True}).start(); x = 'undone'";
    run(&mut session, late);
    // What it says now, nobody reads before the way back.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(session.undo(2).unwrap(), 1);
    assert_eq!(session.info().process_id == machine, in_place);
    let second = run(&mut session, drawn);
    assert_ne!(first, second, "a copy draws anew");
    assert!(first.starts_with("['") && second.starts_with("['"));
    assert_eq!(run(&mut session, "print(len(x))"), "2\n");
    assert_eq!(session.go_to(2).unwrap(), 2);
    assert_eq!(run(&mut session, "print(x[1:])"), first);
    assert_eq!(session.go_to(0).unwrap(), 0);
    assert_eq!(run(&mut session, "print('x' in globals())"), "False\n");
    assert_eq!(session.go_to(5).unwrap(), 5);
    // The way to it was left, so this one was restored; its own ways back are in place again.
    let other = session.info().process_id;
    assert_ne!(machine, other);
    run(&mut session, "x = 0");
    session.undo(1).unwrap();
    assert_eq!(run(&mut session, "print(len(x))"), "2\n");
    assert_eq!(session.info().process_id == other, in_place);
    session.leave().unwrap();
    home.cell("t", "print(len(x))").says("2\n");
}

/// In one process, as the REPL does: a way longer than the number of layers that a restore reads.
#[test]
fn a_long_way_is_kept_short() {
    let home = Home::new();
    let places = places_in(home.0.home());
    let mut session = opened(&home);
    let mut value = |code: &str| {
        let answer = session.run(&Cell::new(code), &mut Quiet).unwrap();
        assert_eq!(answer.exit_code, 0, "{answer:?}");
        answer.result_repr.unwrap_or_default()
    };
    value("x = 0");
    for _ in 0..68 {
        value("x += 1");
    }
    assert_eq!(value("x"), "68");
    assert_eq!(session.undo(41).unwrap(), 29);
    let mut value = |code: &str| session.run(&Cell::new(code), &mut Quiet).unwrap();
    assert_eq!(value("x").result_repr.as_deref(), Some("28"));
    assert_eq!(session.go_to(70).unwrap(), 70);
    assert_eq!(session.undo(0).unwrap(), 70);
    session.fork(&SessionName::new("u").unwrap()).unwrap();
    session.leave().unwrap();
    home.cell("t", "print(x)").says("68\n");
    home.cell("u", "print(x)").says("68\n");
    let store = Store::open(&places.store).unwrap();
    let depths: Vec<u32> = store
        .list()
        .unwrap()
        .into_iter()
        .map(|listed| listed.header.unwrap().depth())
        .collect();
    assert_eq!(depths.len(), 1 + 71 + 2);
    assert_eq!(depths.iter().max(), Some(&32));
}

#[test]
fn what_ran_becomes_a_notebook_and_a_script() {
    let home = Home::new();
    home.cell("t", "x = 6\nprint('six')").says("six\n");
    home.cell("t", "undone = 1").says("");
    home.command(&["undo", "t"]);
    home.cell("t", "x * 7").says("42\n");
    assert_eq!(home.cell("t", "1/0").exit(), 1);
    let script = home.command(&["export", "t"]);
    script.says(
        "# session t, template base\n\n# %% [1]\nx = 6\nprint('six')\n\n# %% [3]\nx * 7\n\n# %% [4]\n1/0\n",
    );
    let path = home.0.home().join("t.ipynb");
    let file = path.to_str().unwrap();
    assert_eq!(home.command(&["export", "t", file]).exit(), 0);
    home.command(&["export", "t", file])
        .fails(125, &["could not write", "File exists"]);
    home.command(&["export", "t", "t.txt"])
        .fails(2, &[".ipynb, .py, .js or .sh"]);
    let notebook: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let cells = notebook["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 3);
    assert_eq!(cells[0]["outputs"][0]["text"], "six\n");
    assert_eq!(cells[1]["outputs"][0]["data"]["text/plain"], "42");
    assert_eq!(cells[2]["outputs"][0]["ename"], "ZeroDivisionError");
    // By whoever made the format.
    let check = "import nbformat, sys; nbformat.validate(nbformat.read(sys.argv[1], as_version=4))";
    let python = std::process::Command::new("python3")
        .args(["-c", "import nbformat"])
        .stderr(std::process::Stdio::null())
        .status();
    if !python.is_ok_and(|status| status.success()) {
        // The record knows no engine, and the lane of KVM has no packages.
        if engine_choice() != EngineChoice::Kvm {
            skip("nbformat validates a notebook: Python has no nbformat");
        }
        return;
    }
    let validated = std::process::Command::new("python3")
        .args(["-c", check, file])
        .output()
        .unwrap();
    assert!(validated.status.success(), "{validated:?}");
}
