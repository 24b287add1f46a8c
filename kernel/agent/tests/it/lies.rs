//! A runner that lies costs its cells, and the agent nothing.

use serde_json::{Value, json};

use crate::agent::Agent;

/// Sends one request to a runner with this lie; returns its answer and what control was told.
fn answer_to(lie: &str) -> (Value, Value) {
    let agent = Agent::with_liar(lie);
    let mut control = agent.control();
    let answer = agent.cells().run("1");
    let lost = control.json();
    assert_eq!(lost["op"], "runner_lost", "{lie}");
    assert_eq!(control.json()["op"], "runner_ready", "{lie}");
    assert_eq!(control.ask(&json!({"op": "stats"}))["op"], "stats", "{lie}");
    (answer, lost)
}

#[test]
fn frames_that_no_runner_sends_end_it() {
    for (lie, reason) in [
        ("unknown kind", "unknown runner frame kind 99"),
        (
            "too long",
            "a runner frame of 4294967295 bytes is over 16842752",
        ),
        (
            "a request",
            "it sent a Request frame, which only the agent sends",
        ),
        (
            "done without lengths",
            "a done frame of 1 bytes cannot be split into prefix and suffix",
        ),
        (
            "done with a wrong length",
            "a done frame of 6 bytes cannot be split into prefix and suffix",
        ),
        (
            "started is no json",
            "it sent a Started frame with what is no JSON object",
        ),
        (
            "received is no object",
            "it sent a Received frame with what is no JSON object",
        ),
        (
            "ack of nothing",
            "it sent a ResumedAck frame with missing field `generation`",
        ),
    ] {
        let (answer, lost) = answer_to(lie);
        assert_eq!(answer["exit_code"], 2, "{lie}");
        let error = answer["error"].as_str().unwrap();
        let expected = format!("the runner was lost: it broke its protocol: {reason}");
        assert!(error.starts_with(&expected), "{lie}: {error}");
        assert_eq!(lost["signal"], 9, "{lie}");
    }
}

#[test]
fn a_runner_that_goes_in_the_middle_is_answered_for() {
    let (answer, lost) = answer_to("half a frame");
    assert_eq!(
        answer["error"],
        "the runner was lost: it left with exit code 0"
    );
    assert_eq!(lost["exit_code"], 0);
    let (answer, lost) = answer_to("closes its socket");
    assert_eq!(answer["error"], "the runner was lost: it closed its socket");
    assert_eq!(lost["signal"], 9);
}

#[test]
fn a_runner_that_never_gets_ready_is_told() {
    for (lie, reason) in [
        (
            "dies at once",
            "the runner does not start: it left with exit code 7",
        ),
        (
            "garbage at once",
            "the runner does not start: it broke its protocol: unknown runner frame kind 255",
        ),
    ] {
        let agent = Agent::with_liar(lie);
        assert_eq!(agent.cells().run("1")["error"], reason);
    }
}

#[test]
fn answers_to_strangers_go_nowhere() {
    let agent = Agent::with_liar("answers strangers");
    let mut control = agent.control();
    let mut cells = agent.cells();
    assert_eq!(cells.run("1")["exit_code"], 0);
    assert_eq!(control.ask(&json!({"op": "stats"}))["op"], "stats");
    assert_eq!(control.ask(&json!({"op": "quiesce"}))["busy"], true);
}

#[test]
fn frames_may_come_in_any_pieces() {
    let agent = Agent::with_liar("one byte at a time");
    assert_eq!(agent.cells().run("1")["exit_code"], 0);
}

#[test]
fn a_flood_of_events_waits_for_its_client() {
    let agent = Agent::with_liar("a flood of lines");
    let mut control = agent.control();
    let mut cells = agent.cells();
    cells.say(&json!({"code": "1", "stream": true}));
    // While nothing is read, the agent holds one event and a little, and listens.
    for _ in 0..100 {
        assert_eq!(control.ask(&json!({"op": "stats"}))["op"], "stats");
    }
    assert!(agent.memory_bytes("VmHWM") < 64 * 1024 * 1024);
    let mut displays = 0;
    while cells.json()["type"] == "display" {
        displays += 1;
    }
    assert_eq!(displays, 20);
    assert!(agent.memory_bytes("VmHWM") < 64 * 1024 * 1024);
}
