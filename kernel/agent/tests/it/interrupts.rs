//! Interrupts: none may be lost, whenever they come.

use serde_json::json;

use crate::agent::{Agent, Connection, is_quiet};

/// Statements that never end by themselves, each waiting in a way of its own.
const WAITS: [&str; 6] = [
    "time.sleep(10_000)",
    "lock.acquire()",
    "select.select([], [], [], 10_000)",
    "os.read(pipe[0], 1)",
    "queue.get()",
    "for n in itertools.count(): hash(n)",
];

const SETTING: &str = "import itertools, os, select, threading, time
from queue import SimpleQueue
lock, pipe, queue = threading.Lock(), os.pipe(), SimpleQueue()
lock.acquire()";

/// Numbers without a pattern, the same in each run.
struct Numbers(u64);

impl Numbers {
    /// Below `bound`.
    fn next(&mut self, bound: u64) -> u64 {
        // xorshift64 of Marsaglia, "Xorshift RNGs", 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Rounds of a test: many where time does not matter.
fn rounds() -> u64 {
    match std::env::var_os("VMREPL_SLOW") {
        Some(_) => 20_000,
        None => 300,
    }
}

/// An agent whose runner knows what [`WAITS`] needs, and two connections to it.
fn start() -> (Agent, Connection, Connection) {
    let agent = Agent::start();
    let control = agent.control();
    let mut cells = agent.cells();
    assert_eq!(cells.run(SETTING)["exit_code"], 0);
    (agent, control, cells)
}

/// Starts a cell, waits for its first line, and interrupts it at once or a little later.
fn stop(cells: &mut Connection, control: &mut Connection, number: u64, numbers: &mut Numbers) {
    let wait = WAITS[usize::try_from(numbers.next(6)).unwrap()];
    // The cell works before it waits, so that the signal finds it at either and in between.
    let work = numbers.next(3) * numbers.next(4000);
    let code = format!(
        "try:\n    print('on', flush=True)\n    for n in range({work}): hash(n)\n    {wait}\n    \
         how = 'by itself'\nexcept KeyboardInterrupt:\n    how = 'caught'\nhow"
    );
    let cell = format!("cell {number}");
    cells.say(&json!({"code": code, "id": cell, "stream": true}));
    assert_eq!(cells.json()["text"], "on\n", "{code}");
    for _ in 0..numbers.next(4) {
        assert_eq!(control.ask(&json!({"op": "stats"}))["op"], "stats");
    }
    let reply = control.ask(&json!({"op": "interrupt", "cell": cell}));
    assert_eq!(reply["acted"], true, "{code}");
    // A lost one shows as a wait without an end.
    let (_, done) = cells.events();
    assert_eq!(
        (&done["status"], &done["result_repr"]),
        (&json!("ok"), &json!("'caught'")),
        "{code}: {done}"
    );
}

#[test]
fn none_is_lost_behind_the_first_output() {
    let (_agent, mut control, mut cells) = start();
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    for number in 0..rounds() {
        stop(&mut cells, &mut control, number, &mut numbers);
    }
}

#[test]
fn none_is_lost_on_the_heels_of_the_request() {
    let (_agent, mut control, mut cells) = start();
    let mut numbers = Numbers(0xD1B5_4A32_D192_ED03);
    for number in 0..rounds() {
        let wait = WAITS[usize::try_from(numbers.next(6)).unwrap()];
        let cell = format!("cell {number}");
        cells.say(&json!({"code": wait, "id": cell, "stream": true}));
        for _ in 0..numbers.next(3) {
            assert_eq!(control.ask(&json!({"op": "stats"}))["op"], "stats");
        }
        let reply = control.ask(&json!({"op": "interrupt", "cell": cell}));
        assert_eq!(reply["acted"], true, "{wait}");
        assert_eq!(cells.events().1["status"], "interrupted", "{wait}");
    }
}

#[test]
fn a_cell_that_waits_for_its_turn_does_not_run() {
    let (agent, mut control, mut cells) = start();
    let mut others = agent.cells();
    cells.say(&json!({"code": "print('on')\nlock.acquire()", "id": "first", "stream": true}));
    assert_eq!(cells.json()["text"], "on\n");
    others.say(&json!({"code": "ran = 1", "id": "second"}));
    let interrupt = |cell| json!({"op": "interrupt", "cell": cell});
    assert_eq!(control.ask(&interrupt("second"))["acted"], true);
    assert_eq!(control.ask(&interrupt("first"))["acted"], true);
    assert_eq!(cells.events().1["status"], "interrupted");
    assert_eq!(others.json()["status"], "interrupted");
    assert_eq!(others.run("'ran' in globals()")["result_repr"], "False");
    assert_eq!(control.ask(&interrupt("second"))["acted"], false);
    assert!(is_quiet(&control.ask(&json!({"op": "quiesce"}))));
}
