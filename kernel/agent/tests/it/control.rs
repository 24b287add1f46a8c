//! The control port.

use serde_json::json;

use crate::agent::{Agent, is_quiet, wait_for_end};

#[test]
fn nonsense_is_answered_and_the_connection_lives() {
    let agent = Agent::start();
    let mut control = agent.control();
    for line in [
        "nonsense",
        "[]",
        "{\"op\":\"dance\"}",
        "{\"op\":\"interrupt\"}",
        "{\"op\":\"resumed\"}",
    ] {
        control.send(format!("{line}\n").as_bytes());
        let reply = control.json();
        assert_eq!(reply["op"], "error", "{line}");
        assert!(
            reply["message"]
                .as_str()
                .unwrap()
                .starts_with("control request: "),
            "{reply}"
        );
    }
    control.send(&vec![b'x'; 1024 * 1024]);
    control.send(b"\n");
    assert_eq!(
        control.json()["message"],
        "a line is longer than 65536 bytes"
    );
    assert_eq!(control.ask(&json!({"op": "stats"}))["op"], "stats");
}

#[test]
fn stats_tell_of_this_process_and_its_runner() {
    let agent = Agent::start();
    let stats = agent.control().ask(&json!({"op": "stats"}));
    assert_eq!(stats["wire_generation"], 1);
    assert_eq!(stats["agent_version"], env!("CARGO_PKG_VERSION"));
    let python = std::fs::read_link(format!("/proc/{}/exe", stats["runner_pid"])).unwrap();
    assert!(python.to_string_lossy().contains("python"), "{python:?}");
    for field in [
        "agent_rss_bytes",
        "agent_anon_bytes",
        "uptime_ms",
        "mem_total_bytes",
        "mem_available_bytes",
        "runner_rss_bytes",
    ] {
        assert!(stats[field].as_u64().unwrap() > 0, "{field}");
    }
}

#[test]
fn an_interrupt_acts_on_the_named_cell_only() {
    let agent = Agent::start();
    let mut control = agent.control();
    let mut cells = agent.cells();
    assert_eq!(
        control.ask(&json!({"op": "interrupt", "cell": "a"}))["acted"],
        false
    );
    cells.say(&json!({"code": "print('go', flush=True)\nimport time\ntime.sleep(60)", "stream": true, "id": "a"}));
    assert_eq!(cells.json()["text"], "go\n");
    assert_eq!(
        control.ask(&json!({"op": "interrupt", "cell": "b"}))["acted"],
        false
    );
    let reply = control.ask(&json!({"op": "interrupt", "cell": "a"}));
    assert_eq!(
        reply,
        json!({"op": "interrupt", "cell": "a", "acted": true})
    );
    assert_eq!(cells.events().1["status"], "interrupted");
    assert_eq!(
        control.ask(&json!({"op": "interrupt", "cell": "a"}))["acted"],
        false
    );
}

#[test]
fn quiesce_waits_for_no_cell() {
    let agent = Agent::start();
    let mut control = agent.control();
    assert!(is_quiet(&control.ask(&json!({"op": "quiesce"}))));
    let mut cells = agent.cells();
    control.say(&json!({"op": "wake"}));
    cells.say(&json!({"code": "print('go', flush=True)\nimport time\ntime.sleep(60)", "stream": true, "id": "a"}));
    assert_eq!(cells.json()["text"], "go\n");
    assert_eq!(
        control.ask(&json!({"op": "quiesce"})),
        json!({"op": "quiesced", "busy": true})
    );
    control.ask(&json!({"op": "interrupt", "cell": "a"}));
    cells.events();
    assert!(is_quiet(&control.ask(&json!({"op": "quiesce"}))));
    // What was silenced may be copied: no cell runs before the host has spoken.
    cells.say(&json!({"code": "1 + 1"}));
    assert_eq!(control.ask(&json!({"op": "stats"}))["op"], "stats");
    assert_eq!(cells.json()["result_repr"], "2");
}

#[test]
fn input_for_a_cell_is_no_open_request() {
    let agent = Agent::start();
    let mut control = agent.control();
    let mut cells = agent.cells();
    let mut stdin = agent.cells();
    cells
        .say(&json!({"code": "input('name? ')", "id": "ask", "stream": true, "allow_stdin": true}));
    let request = loop {
        let event = cells.json();
        if event["type"] == "input_request" {
            break event;
        }
    };
    assert_eq!(request["prompt"], "name? ");
    stdin.say(&json!({"op": "stdin", "id": "ask", "data": "Ada\n"}));
    assert_eq!(cells.events().1["result_repr"], "'Ada'");
    assert!(is_quiet(&control.ask(&json!({"op": "quiesce"}))));
}

#[test]
fn a_resume_reseeds_before_the_next_cell() {
    let agent = Agent::start();
    let mut control = agent.control();
    let mut cells = agent.cells();
    cells.run("import random; random.seed(1); random = random.Random; import os");
    let resumed = json!({
        "op": "resumed", "generation": 7, "entropy": ENTROPY, "realtime_ns": 1_700_000_000_000_000_000_u64,
        "hostname": "elsewhere", "rng": "fresh",
    });
    let before = rustix::system::uname().nodename().to_owned();
    assert_eq!(
        control.ask(&resumed),
        json!({"op": "resumed", "generation": 7})
    );
    // Without a machine the host keeps its clock and its name.
    assert_eq!(rustix::system::uname().nodename(), before.as_c_str());
    assert_eq!(cells.run("1")["exit_code"], 0);
    assert_eq!(
        agent.connect(9).json(),
        json!({"op": "runner_ready", "generation": 7})
    );
}

/// 64 zero bytes.
const ENTROPY: &str =
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";

#[test]
fn children_of_the_cell_are_killed_and_nobody_else() {
    let agent = Agent::start();
    let mut control = agent.control();
    let mut cells = agent.cells();
    // Linux tells the start of a process in hundredths of a second: the next one must have begun.
    let tick = "int(time.clock_gettime(time.CLOCK_BOOTTIME) * 100)";
    cells.run(&format!(
        "import subprocess, time\nold = subprocess.Popen(['sleep', '1000'])\nnow = {tick}\nwhile {tick} <= now: pass"
    ));
    let code = "new = subprocess.Popen(['sh', '-c', 'sleep 1000 & setsid sleep 1000 & echo go; wait'])\nnew.wait(), old.poll()";
    cells.say(&json!({"code": code, "stream": true, "id": "parent"}));
    assert_eq!(cells.json()["text"], "go\n");
    let kill = json!({"op": "kill", "cell": "other", "target": "children"});
    assert_eq!(
        control.ask(&kill),
        json!({"op": "kill", "acted": false, "killed": 0})
    );
    let kill = json!({"op": "kill", "cell": "parent", "target": "children"});
    assert_eq!(
        control.ask(&kill),
        json!({"op": "kill", "acted": true, "killed": 3})
    );
    assert_eq!(cells.events().1["result_repr"], "(-9, None)");
}

#[test]
fn shutdown_ends_the_agent_and_all_that_its_cells_started() {
    let agent = Agent::start();
    let answer = agent
        .cells()
        .run("import subprocess; subprocess.Popen(['setsid', 'sleep', '1000']).pid");
    let pid = answer["result_repr"].as_str().unwrap();
    assert_eq!(agent.shut_down(), "");
    wait_for_end(pid);
}

#[test]
fn a_runner_that_is_dying_is_not_silent() {
    let agent = Agent::start();
    let mut control = agent.control();
    agent.cells().run("kept = 1");
    // Both in one write: it has been sent its signal, and has not ended.
    let both = "{\"op\": \"kill\", \"target\": \"runner\"}\n{\"op\": \"quiesce\"}\n";
    control.send(both.as_bytes());
    assert_eq!(
        control.until("quiesced"),
        json!({"op": "quiesced", "busy": true})
    );
}

#[test]
fn a_runner_that_died_unheard_is_not_silent() {
    let agent = Agent::start();
    let mut control = agent.control();
    let pid = control.ask(&json!({"op": "stats"}))["runner_pid"].clone();
    let pid = pid
        .as_i64()
        .and_then(|pid| i32::try_from(pid).ok())
        .unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    control.say(&json!({"op": "quiesce"}));
    assert_eq!(control.until("quiesced")["busy"], json!(true));
}
