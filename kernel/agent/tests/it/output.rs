//! What cells print, on its way out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::agent::Agent;

const MIB: u64 = 1024 * 1024;

#[test]
fn a_hundred_megabytes_stream_through_little_memory() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    let code = "import os\nfor _ in range(1000): os.write(1, b'0123456789' * 10_000)";
    cells.say(&json!({"code": code, "stream": true, "id": "flood"}));
    let mut bytes = 0;
    loop {
        let event = cells.json();
        match event["type"].as_str().unwrap() {
            "stdout" => {
                assert_eq!(event["id"], "flood");
                bytes += event["text"].as_str().unwrap().len();
            }
            "done" => break assert_eq!(event["status"], "ok"),
            other => panic!("{other}"),
        }
    }
    assert_eq!(bytes, 100_000_000);
    assert!(agent.memory_bytes("VmHWM") < 16 * MIB);
}

#[test]
fn a_plain_answer_keeps_head_and_tail_of_a_flood() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    let answer = cells.run("import os\nprint('first')\nfor _ in range(2000): os.write(1, b'x' * 10_000)\nprint('last')");
    let stdout = answer["stdout"].as_str().unwrap();
    assert_eq!(stdout.len(), 1024 * 1024);
    assert!(stdout.starts_with("first\n") && stdout.ends_with("last\n"));
    let left_out = 20_000_000 + 11 - 1024 * 1024;
    assert_eq!(
        answer["stderr"],
        format!("[vmrepl: {left_out} bytes of stdout left out]\n")
    );
    assert!(agent.memory_bytes("VmHWM") < 16 * MIB);
}

#[test]
fn a_client_that_does_not_read_stops_its_cell_and_nothing_else() {
    let agent = Agent::start();
    let mut control = agent.control();
    let mut cells = agent.cells();
    cells.say(&json!({"code": "while True: print('y' * 1000)", "stream": true, "id": "flood"}));
    // The first event says that the cell runs; from here on nothing is read.
    assert_eq!(cells.json()["type"], "stdout");
    for _ in 0..200 {
        assert_eq!(control.ask(&json!({"op": "stats"}))["op"], "stats");
    }
    assert!(agent.memory_bytes("VmHWM") < 16 * MIB);
    let answer = control.ask(&json!({"op": "interrupt", "cell": "flood"}));
    assert_eq!(answer["acted"], true);
    let (_, done) = cells.events();
    assert_eq!(done["status"], "interrupted");
    assert!(agent.memory_bytes("VmHWM") < 16 * MIB);
}

#[test]
fn an_interrupt_overtakes_a_flood() {
    let agent = Agent::start();
    let mut control = agent.control();
    let mut cells = agent.cells();
    let code = "import os\nwhile True: os.write(1, b'z' * 65536)";
    for plain in [true, false] {
        cells.say(&json!({"code": code, "stream": !plain, "id": format!("flood {plain}")}));
        let interrupt = json!({"op": "interrupt", "cell": format!("flood {plain}")});
        let reader = std::thread::spawn(move || {
            let done = if plain {
                cells.json()
            } else {
                cells.events().1
            };
            (cells, done)
        });
        // Until the cell has started there is nothing to interrupt.
        while control.ask(&interrupt)["acted"] != true {}
        let (back, done) = reader.join().unwrap();
        assert_eq!(done["status"], "interrupted");
        cells = back;
    }
}

#[test]
fn a_thread_that_prints_without_end_holds_no_answer_back() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    let code = "import os, threading\ndef chat():\n    while True: os.write(1, b'chat ' * 1000)\nthreading.Thread(target=chat, daemon=True).start()";
    cells.run(code);
    for number in 0..20 {
        assert_eq!(
            cells.run(&number.to_string())["result_repr"],
            number.to_string()
        );
    }
    cells.say(&json!({"code": "'streamed'", "stream": true, "id": "s"}));
    assert_eq!(cells.events().1["result_repr"], "'streamed'");
}

#[test]
fn output_of_children_and_of_c_code_comes_before_the_answer() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    let code = "import os, subprocess\nprint('a')\nsubprocess.run(['sh', '-c', 'echo b; echo e >&2'])\nos.write(1, b'c\\n')\nprint('d')";
    for _ in 0..10 {
        let answer = cells.run(code);
        assert_eq!(answer["stdout"], "a\nb\nc\nd\n");
        assert_eq!(answer["stderr"], "e\n");
    }
}

#[test]
fn an_event_never_comes_before_what_was_printed_ahead_of_it() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    let code = "for n in range(5):\n    print('before', n)\n    display(n)";
    cells.say(&json!({"code": code, "stream": true, "id": "order"}));
    // The runner does not wait for the agent, so output may overtake events; never the other way.
    let (mut printed, mut shown) = (String::new(), Vec::new());
    loop {
        let event = cells.json();
        match event["type"].as_str().unwrap() {
            "stdout" => printed.push_str(event["text"].as_str().unwrap()),
            "display" => {
                let text = event["data"]["text/plain"].as_str().unwrap();
                assert!(
                    printed.contains(&format!("before {text}\n")),
                    "{text}: {printed}"
                );
                shown.push(text.to_owned());
            }
            _ => break,
        }
    }
    assert_eq!(shown, ["0", "1", "2", "3", "4"]);
    assert_eq!(
        printed,
        "before 0\nbefore 1\nbefore 2\nbefore 3\nbefore 4\n"
    );
}

#[test]
fn what_is_no_text_comes_as_base64_and_characters_stay_whole() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    // Each display makes the agent empty the pipe, here in the middle of a character.
    let code = "import os\nos.write(1, b'caf\\xc3')\ndisplay(0)\nos.write(1, b'\\xa9')\ndisplay(1)\nos.write(1, b'\\xff\\n')";
    cells.say(&json!({"code": code, "stream": true, "id": "bytes"}));
    let (mut output, mut has_base64) = (Vec::new(), false);
    loop {
        let event = cells.json();
        match event["type"].as_str().unwrap() {
            "stdout" => match event["text"].as_str() {
                // Where a piece is text, its characters are whole.
                Some(text) => output.extend_from_slice(text.as_bytes()),
                None => {
                    has_base64 = true;
                    let bytes = STANDARD.decode(event["base64"].as_str().unwrap());
                    output.extend(bytes.unwrap());
                }
            },
            "done" => break,
            _ => {}
        }
    }
    assert_eq!(output, b"caf\xc3\xa9\xff\n");
    assert!(has_base64);
    assert_eq!(
        cells.run("os.write(1, b'\\xff\\n') * 0")["stdout"],
        "\u{FFFD}\n"
    );
}

#[test]
fn a_limit_on_output_is_kept_and_told() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    let request = json!({"code": "print('a' * 5000)", "limits": {"output_bytes": 1000}});
    let answer = cells.ask(&request);
    assert_eq!(answer["stdout"].as_str().unwrap().len(), 1000);
    assert_eq!(
        answer["truncated"],
        json!({"stdout": true, "stderr": false})
    );
    assert_eq!(
        answer["stderr"],
        "[vmrepl: 4001 bytes of stdout left out]\n"
    );
}

#[test]
fn a_cell_that_writes_without_end_is_stopped() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    cells.run("kept = 1");
    let endless =
        json!({"code": "while True: print('a' * 1000)", "limits": {"written_bytes": 1_000_000}});
    let answer = cells.ask(&endless);
    assert_eq!(answer["status"], "output_exceeded");
    assert_eq!(answer["exit_code"], 1);
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.ends_with("CellOutputExceeded: the cell wrote more than 1000000 bytes\n"),
        "{error}"
    );
    assert_eq!(cells.run("kept")["result_repr"], "1");
}

#[test]
fn one_that_will_not_stop_loses_its_children_then_its_runner() {
    let agent = Agent::start();
    let mut cells = agent.cells();
    let stubborn = "while True:\n    try: print('a' * 1000)\n    except BaseException: pass";
    let answer = cells.ask(&json!({"code": stubborn, "limits": {"written_bytes": 1_000_000}}));
    assert_eq!(answer["status"], "output_exceeded");
    assert_eq!(answer["error"], "the cell wrote more than 1000000 bytes");
    // What writes is a child that hears no interrupt, and the cell waits for it.
    let child = "import subprocess\n\
        try: subprocess.run(['sh', '-c', 'trap \"\" INT; while :; do echo aaaaaaaaaaaaaaaaaaaa; done'])\n\
        except KeyboardInterrupt as e: print(type(e).__name__, file=__import__('sys').stderr)";
    let answer = cells.ask(&json!({"code": child, "limits": {"written_bytes": 100_000}}));
    assert_eq!(answer["status"], "ok", "{}", answer["error"]);
    assert!(
        answer["stderr"]
            .as_str()
            .unwrap()
            .contains("CellOutputExceeded"),
        "{}",
        answer["stderr"]
    );
    assert_eq!(cells.run("1 + 1")["result_repr"], "2");
}
