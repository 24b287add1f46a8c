//! The end of the runner, by its own hand or another's.

use serde_json::{Value, json};

use crate::agent::{AGENT, Agent, Connection, runner, wait_for_end};

/// Reads `runner_lost` and the `runner_ready` after it.
fn lost(control: &mut Connection) -> Value {
    let lost = control.json();
    assert_eq!(lost["op"], "runner_lost");
    assert_eq!(control.json()["op"], "runner_ready");
    lost
}

#[test]
fn a_crash_is_answered_with_the_output_so_far() {
    let agent = Agent::start();
    let mut control = agent.control();
    let mut cells = agent.cells();
    let code = "import os, signal\nprint('last words', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)\nimport time; time.sleep(60)";
    cells.say(&json!({"code": code}));
    let answer = cells.text();
    let head = r#"{"exit_code": 2, "stdout": "last words\n", "stderr": "Fatal Python error: Segm"#;
    assert!(answer.starts_with(head), "{answer}");
    let tail = concat!(
        r#""result_repr": null, "#,
        r#""error": "the runner was lost: killed by signal 11 (SIGSEGV)", "tables": []}"#,
        "\n"
    );
    assert!(answer.ends_with(tail), "{answer}");
    let lost = lost(&mut control);
    assert_eq!(
        (&lost["signal"], &lost["exit_code"]),
        (&json!(11), &json!(null))
    );
    assert_eq!(lost["out_of_memory"], false);
    // The connection lives on, with a fresh runner behind it.
    assert_eq!(cells.run("1 + 1")["result_repr"], "2");
}

#[test]
fn a_runner_that_leaves_is_answered_for() {
    let agent = Agent::start();
    let mut control = agent.control();
    let mut cells = agent.cells();
    cells.say(&json!({"code": "import os; os._exit(3)", "id": "x", "stream": true}));
    let (_, done) = cells.events();
    assert_eq!(
        done["error"],
        "the runner was lost: it left with exit code 3"
    );
    assert_eq!(
        (&done["id"], &done["status"]),
        (&json!("x"), &json!("runner_lost"))
    );
    assert_eq!(done["truncated"], json!({"stdout": false, "stderr": false}));
    assert_eq!(lost(&mut control)["exit_code"], 3);
}

#[test]
fn every_open_request_is_answered_when_the_runner_is_killed() {
    let agent = Agent::start();
    let mut control = agent.control();
    let mut running = agent.cells();
    let mut waiting = agent.cells();
    running.say(&json!({"code": "print('go', flush=True)\nimport time\ntime.sleep(60)", "id": "a", "stream": true}));
    assert_eq!(running.json()["text"], "go\n");
    for id in ["b", "c"] {
        waiting.say(&json!({"code": "1", "id": id}));
    }
    waiting.send(b"{\"code\": \"2\"}\n");
    // A question is answered while a cell runs: after it, the three before have been read.
    assert_eq!(waiting.ask(&json!({"op": "ping", "id": "p"}))["pong"], true);
    let kill = json!({"op": "kill", "cell": "b", "target": "runner"});
    assert_eq!(control.ask(&kill)["acted"], false);
    let kill = json!({"op": "kill", "cell": "a", "target": "runner"});
    assert_eq!(
        control.ask(&kill),
        json!({"op": "kill", "acted": true, "killed": 1})
    );
    assert_eq!(
        running.events().1["error"],
        "the runner was lost: killed by signal 9 (SIGKILL)"
    );
    for id in [json!("b"), json!("c"), json!(null)] {
        let answer = waiting.json();
        assert_eq!((&answer["exit_code"], &answer["id"]), (&json!(2), &id));
    }
    let lost = lost(&mut control);
    assert_eq!((&lost["cell"], &lost["signal"]), (&json!("a"), &json!(9)));
    assert_eq!(waiting.run("3")["result_repr"], "3");
}

#[test]
fn every_client_that_waits_is_answered_when_the_runner_dies() {
    let agent = Agent::start();
    let mut control = agent.control();
    let mut running = agent.cells();
    let gate = agent.gate("gate");
    let code = format!("{}\nimport os\nos._exit(4)", gate.wait());
    running.say(&json!({"code": code, "id": "dies"}));
    let mut waiting: Vec<Connection> = (0..12).map(|_| agent.cells()).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        client.say(&json!({"code": "1", "id": format!("{number} a")}));
        client.say(&json!({"code": "1", "id": format!("{number} b"), "stream": true}));
        assert_eq!(client.ask(&json!({"op": "ping"}))["pong"], true);
    }
    gate.open();
    let end = "the runner was lost: it left with exit code 4";
    assert_eq!(running.json()["error"], end);
    for (number, client) in waiting.iter_mut().enumerate() {
        for cell in ["a", "b"] {
            let answer = client.json();
            assert_eq!(answer["id"], format!("{number} {cell}"));
            assert_eq!(
                (&answer["error"], &answer["status"]),
                (&json!(end), &json!("runner_lost"))
            );
        }
    }
    assert_eq!(lost(&mut control)["exit_code"], 4);
    for client in &mut waiting {
        assert_eq!(client.run("2")["result_repr"], "2");
    }
}

#[test]
fn requests_wait_for_the_next_runner() {
    let agent = Agent::start();
    let mut control = agent.control();
    let mut cells = agent.cells();
    for number in 0..5 {
        control.send(b"{\"op\":\"kill\",\"cell\":null,\"target\":\"runner\"}\n");
        assert_eq!(control.until("kill")["acted"], true);
        assert_eq!(control.until("runner_lost")["signal"], 9);
        assert_eq!(
            cells.run(&number.to_string())["result_repr"],
            number.to_string()
        );
    }
}

#[test]
fn children_of_a_lost_runner_go_with_it() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    let answer = cells.run("import subprocess; subprocess.Popen(['setsid', 'sleep', '1000']).pid");
    let pid = answer["result_repr"].as_str().unwrap();
    assert_eq!(cells.run("import os; os._exit(0)")["exit_code"], 2);
    wait_for_end(pid);
}

#[test]
fn a_runner_that_cannot_start_is_told() {
    let agent = Agent::with(AGENT, |command| {
        command
            .arg("--runner")
            .arg(runner())
            .arg("--python")
            .arg("/does/not/exist");
    });
    let answer = agent.cells().ask(&json!({"code": "1", "id": "x"}));
    assert_eq!(answer["exit_code"], 2);
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.starts_with("the runner does not start: /does/not/exist cannot be started: "),
        "{error}"
    );
    // The agent itself is well.
    let mut control = agent.connect(9);
    assert_eq!(
        control.ask(&json!({"op": "stats"}))["runner_pid"],
        json!(null)
    );
    assert_eq!(control.ask(&json!({"op": "quiesce"}))["busy"], true);
}

#[test]
fn the_last_words_of_a_runner_that_fails_at_start_are_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("__main__.py"), "import no_such_module").unwrap();
    let agent = Agent::with(AGENT, |command| {
        command.arg("--runner").arg(folder.path());
    });
    let answer = agent.cells().run("1");
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.starts_with("the runner does not start: it left with exit code 1: Traceback"),
        "{error}"
    );
    assert!(error.contains("no_such_module"), "{error}");
}
