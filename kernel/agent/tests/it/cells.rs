//! Requests and answers on the cells port.

use serde_json::json;

use crate::agent::{Agent, Connection, is_quiet};

#[test]
fn the_plain_answer_has_the_plain_fields_in_their_order() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    cells.send(b"{\"code\": \"print('hi')\\n1 + 1\", \"show_tables\": false, \"show_table_meta\": false}\n");
    let expected = concat!(
        r#"{"exit_code": 0, "stdout": "hi\n", "stderr": "", "#,
        r#""result_repr": "2", "error": null, "tables": []}"#,
        "\n"
    );
    assert_eq!(cells.text(), expected);
    assert_eq!(cells.run("2 + 2")["result_repr"], "4");
}

#[test]
fn every_bad_request_is_answered() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    for line in [
        "nonsense",
        "[1]",
        "{}",
        "{\"code\": 5}",
        "{\"op\": \"dance\"}",
        "",
    ] {
        cells.send(format!("{line}\n").as_bytes());
        let answer = cells.json();
        assert_eq!(answer["exit_code"], 2, "{line}");
        assert!(answer["error"].is_string(), "{line}");
    }
    assert_eq!(cells.run("1")["exit_code"], 0);
}

#[test]
fn an_over_long_line_is_answered_and_the_next_one_runs() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    let chunk = vec![b'x'; 1024 * 1024];
    for _ in 0..40 {
        cells.send(&chunk);
    }
    cells.send(b"\n{\"code\": \"3\"}\n");
    let refused = cells.json();
    assert_eq!(refused["exit_code"], 2);
    assert_eq!(refused["error"], "a line is longer than 16777216 bytes");
    assert_eq!(cells.json()["result_repr"], "3");
    assert!(agent.memory_bytes("VmHWM") < 40 * 1024 * 1024);
}

#[test]
fn many_clients_cannot_fill_memory_with_unfinished_lines() {
    let agent = Agent::start();
    let chunk = vec![b'x'; 1024 * 1024];
    let mut clients: Vec<Connection> = (0..8).map(|_| agent.cells()).collect();
    let mut refused = 0;
    for client in &mut clients {
        use std::io::Write as _;
        let stream = client.stream().try_clone().unwrap();
        for _ in 0..15 {
            // The agent cuts the client off in the middle.
            if (&stream).write_all(&chunk).is_err() {
                refused += 1;
                break;
            }
        }
    }
    assert!(refused > 0);
    assert!(agent.memory_bytes("VmHWM") < 80 * 1024 * 1024);
    assert_eq!(agent.cells().run("1")["exit_code"], 0);
}

#[test]
fn a_half_closed_connection_gets_its_answer() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    let gate = agent.gate("gate");
    // The last line needs no newline.
    let first = json!({"code": format!("{} or 'late'", gate.wait())});
    cells.send(format!("{first}\n{{\"code\": \"'last'\"}}").as_bytes());
    cells.half_close();
    gate.open();
    assert_eq!(cells.json()["result_repr"], "'late'");
    assert_eq!(cells.json()["result_repr"], "'last'");
    assert_eq!(cells.rest(), b"");
}

#[test]
fn a_client_that_leaves_does_not_end_its_cell() {
    let agent = Agent::start();
    let mut control = agent.control();
    for stream in [true, false] {
        let mut cells = agent.cells();
        let (begun, gate) = (
            agent.gate(&format!("begun {stream}")),
            agent.gate(&format!("gate {stream}")),
        );
        let expected = i32::from(stream).to_string();
        let (first, then) = (begun.wait(), gate.wait());
        let code = format!("print('x')\n{first}\n{then}\nprint('y')\ndone = {expected}");
        cells.say(&json!({"code": code, "stream": stream, "id": format!("left {stream}")}));
        begun.open();
        drop(cells);
        // The agent hears of the end no later than of what comes after it.
        assert_eq!(control.ask(&json!({"op": "stats"}))["op"], "stats");
        gate.open();
        let answer = agent.cells().run("done");
        assert_eq!(
            (&answer["result_repr"], &answer["stdout"]),
            (&json!(expected), &json!(""))
        );
    }
}

#[test]
fn half_a_request_holds_up_nobody() {
    let agent = Agent::start();
    let (mut half_cells, mut half_control) = (agent.cells(), agent.control());
    let mut half_hello = Connection::new(agent.dial());
    half_cells.send(b"{\"code\": \"40 +");
    half_control.send(b"{\"op\": \"sta");
    half_hello.send(b"CONNECT 10");
    let (mut cells, mut control) = (agent.cells(), agent.control());
    assert_eq!(cells.run("1")["result_repr"], "1");
    assert_eq!(control.ask(&json!({"op": "stats"}))["op"], "stats");
    // Nobody waits for the other half of a request that was never made whole.
    assert!(is_quiet(&control.ask(&json!({"op": "quiesce"}))));
    half_cells.send(b" 2\"}\n");
    // Cells wait until the host speaks again.
    half_control.send(b"ts\"}\n");
    assert_eq!(half_control.json()["op"], "stats");
    assert_eq!(half_cells.json()["result_repr"], "42");
    half_hello.send(b"000\n{\"code\": \"3\"}\n");
    assert!(half_hello.text().starts_with("OK "));
    assert_eq!(half_hello.json()["result_repr"], "3");
}

#[test]
fn a_client_that_reads_no_answers_is_cut_off() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    let line = format!("{}\n", json!({"code": "print('x' * 1_048_575)"}));
    for _ in 0..60 {
        cells.send(line.as_bytes());
    }
    // A ping is answered at once: after it, all have been taken in.
    cells.say(&json!({"op": "ping"}));
    // Behind all of them.
    assert_eq!(agent.cells().run("1")["result_repr"], "1");
    let answers = cells.rest().split(|byte| *byte == b'\n').count();
    assert!(answers < 60, "{answers}");
    assert!(agent.memory_bytes("VmHWM") < 100 * 1024 * 1024);
}

#[test]
fn probes_and_strangers_leave_no_trace() {
    let agent = Agent::start();
    for hello in ["", "CONNECT 10000\n", "CONNECT 9\n", "CONN"] {
        let mut probe = Connection::new(agent.dial());
        probe.send(hello.as_bytes());
    }
    // A port that nobody serves, and a line of another protocol.
    for hello in [
        "CONNECT 4711\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT -1\n",
    ] {
        let mut stranger = Connection::new(agent.dial());
        stranger.send(hello.as_bytes());
        assert_eq!(stranger.rest(), b"", "{hello}");
    }
    assert_eq!(agent.cells().run("1")["exit_code"], 0);
    assert_eq!(agent.shut_down(), "");
}

#[test]
fn bytes_behind_the_handshake_are_not_lost() {
    let agent = Agent::start();
    let mut cells = Connection::new(agent.dial());
    cells.send(b"CONNECT 10000\n{\"code\": \"1\"}\n{\"code\": \"2\"}\n");
    assert!(cells.text().starts_with("OK "));
    assert_eq!(cells.json()["result_repr"], "1");
    assert_eq!(cells.json()["result_repr"], "2");
}

#[test]
fn sixty_four_connections_at_once_get_their_own_answers() {
    let agent = Agent::start();
    let mut clients: Vec<Connection> = (0..64).map(|_| agent.cells()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.say(&json!({"code": format!("print('I am {number}')\n{number}")}));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.json();
        assert_eq!(answer["result_repr"], number.to_string());
        assert_eq!(answer["stdout"], format!("I am {number}\n"));
    }
}

#[test]
fn more_connections_than_the_limit_are_closed() {
    let agent = Agent::start();
    let clients: Vec<Connection> = (0..256).map(|_| agent.cells()).collect();
    assert_eq!(Connection::new(agent.dial()).rest(), b"");
    drop(clients);
    // The places are free again once the agent has seen the clients leave.
    loop {
        let mut cells = Connection::new(agent.dial());
        use std::io::Write as _;
        let sent = cells
            .stream()
            .try_clone()
            .unwrap()
            .write_all(b"CONNECT 10000\n");
        if sent.is_ok() && cells.text().starts_with("OK ") {
            assert_eq!(cells.run("1")["exit_code"], 0);
            return;
        }
    }
}

#[test]
fn the_same_id_gets_the_first_answer_with_its_output() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    let request = json!({"code": "n = globals().get('n', 0) + 1\nprint('run', n)", "id": "once"});
    let first = cells.ask(&request);
    assert_eq!(first["stdout"], "run 1\n");
    assert_eq!(agent.cells().ask(&request), first);
    assert_eq!(cells.run("n")["result_repr"], "1");
}
