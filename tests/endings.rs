//! Whatever a cell does, it ends in the status that is named for it, within its limit, and the next cell sees the names
//! from before.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::homes::Home;
use crate::process::engine;

/// A cell, how it is run, and what it comes to.
struct Case {
    name: &'static str,
    code: &'static str,
    options: &'static [&'static str],
    status: &'static str,
    stopped_by: Option<&'static str>,
    exit: i32,
    /// In the error.
    says: &'static str,
}

/// What ends a cell, the harder the later.
const STEPS: [&str; 3] = ["interrupt", "kill", "rollback"];

const CASES: &[Case] = &[
    Case {
        name: "a loop",
        code: "while True: pass",
        options: &["--timeout", "1"],
        status: "timeout",
        stopped_by: Some("interrupt"),
        exit: 124,
        says: "CellTimeout: the cell ran longer than 1000 ms",
    },
    Case {
        name: "processor time",
        code: "while True: pass",
        options: &["--limit", "cpu=1"],
        status: "timeout",
        stopped_by: Some("interrupt"),
        exit: 124,
        says: "CellTimeout: the cell used more than 1000 ms of processor time",
    },
    Case {
        name: "processor time of a child",
        code: "import subprocess\nsubprocess.run(['sh', '-c', 'while :; do :; done'])",
        options: &["--limit", "cpu=1"],
        status: "timeout",
        stopped_by: Some("interrupt"),
        exit: 124,
        says: "CellTimeout",
    },
    Case {
        name: "memory without end",
        code: "l = []\nwhile True: l.append(bytearray(10_000_000))",
        options: &[],
        status: "memory_exceeded",
        stopped_by: None,
        exit: 125,
        says: "out of memory, cells may use",
    },
    Case {
        name: "more memory than it may have",
        code: "b = bytearray(100_000_000)",
        options: &["--limit", "memory=64M"],
        status: "memory_exceeded",
        stopped_by: None,
        exit: 125,
        says: "out of memory, cells may use 64 MB",
    },
    Case {
        name: "a fork bomb",
        code: "import os\nwhile True: os.fork()",
        options: &["--timeout", "2"],
        status: "timeout",
        stopped_by: None,
        exit: 124,
        says: "",
    },
    Case {
        name: "more processes than it may have",
        code: "import subprocess\nfor _ in range(30): subprocess.Popen(['sleep', '600'])",
        options: &["--limit", "processes=12"],
        status: "error",
        stopped_by: None,
        exit: 1,
        says: "Resource temporarily unavailable",
    },
    Case {
        name: "output without end",
        code: "while True: print('x' * 1000)",
        options: &[],
        status: "output_exceeded",
        stopped_by: Some("interrupt"),
        exit: 125,
        says: "CellOutputExceeded: the cell wrote more than 134217728 bytes",
    },
    Case {
        name: "more output than it may write, and it will not stop",
        code: "while True:\n    try: print('x' * 1000)\n    except BaseException: pass",
        options: &["--limit", "output=1M"],
        status: "output_exceeded",
        stopped_by: Some("rollback"),
        exit: 125,
        says: "the cell wrote more than 1048576 bytes",
    },
    Case {
        name: "a child that hears nothing",
        code: "import subprocess\nwhile True:\n    try: subprocess.run(['sh', '-c', 'trap \"\" INT TERM; sleep 600']); break\n    except BaseException: pass",
        options: &["--timeout", "1"],
        status: "timeout",
        stopped_by: None,
        exit: 124,
        says: "",
    },
    Case {
        name: "a thread that never ends",
        code: "import threading, time\ndef count():\n    global ticks\n    while True: ticks += 1; time.sleep(0.01)\nticks = 0\nthreading.Thread(target=count, daemon=True).start()",
        options: &[],
        status: "ok",
        stopped_by: None,
        exit: 0,
        says: "",
    },
    Case {
        name: "it kills itself",
        code: "import os; os.kill(os.getpid(), 9)",
        options: &[],
        status: "runner_lost",
        stopped_by: None,
        exit: 125,
        says: "killed by signal 9",
    },
    Case {
        name: "it closes its output",
        code: "import sys; sys.stdout.close()",
        options: &[],
        status: "ok",
        stopped_by: None,
        exit: 0,
        says: "",
    },
    Case {
        name: "an extension that keeps the interpreter for itself",
        code: "import ctypes; ctypes.PyDLL(None).sleep(600)",
        options: &["--timeout", "1"],
        status: "timeout",
        stopped_by: Some("kill"),
        exit: 124,
        says: "CellTimeout",
    },
    Case {
        name: "one that cannot be woken",
        code: "import ctypes\nlibc = ctypes.PyDLL(None)\nwhile True: libc.sleep(600)",
        options: &["--timeout", "1"],
        status: "timeout",
        stopped_by: Some("kill"),
        exit: 124,
        says: "CellTimeout",
    },
    Case {
        name: "one that swallows every exception",
        code: "def deaf():\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass\nwhile True:\n    try: deaf()\n    except BaseException: pass",
        options: &["--timeout", "1"],
        status: "timeout",
        stopped_by: Some("rollback"),
        exit: 124,
        says: "did not stop at its timeout",
    },
];

#[test]
fn whatever_a_cell_does_the_next_one_sees_the_names_from_before() {
    let home = Home::new();
    // What the cells import is there: emulated twice, that alone may take longer than they are given.
    home.cell("t", "import ctypes, subprocess\nkept = 7")
        .says("");
    // Emulated twice a machine takes its time: a minute to fill its memory, where it does not have the processor alone.
    let patience = Duration::from_secs(if engine().is_some() { 240 } else { 45 });
    for case in CASES {
        let began = Instant::now();
        let ended = home
            .run(&[&["-s", "t", "--json"], case.options, &["-c", case.code]].concat())
            .deadline(patience)
            .finish();
        let (name, took) = (case.name, began.elapsed());
        assert_eq!(ended.exit(), case.exit, "{name}: {ended}");
        let answer: Value = serde_json::from_str(&ended.text()).unwrap();
        assert_eq!(answer["status"], case.status, "{name}: {ended}");
        // Emulated twice, a second of grace may be too little for the step that does elsewhere.
        let step_of = |name: &str| STEPS.iter().position(|step| *step == name);
        let told = answer["stopped_by"].as_str().and_then(step_of);
        let named = case.stopped_by.and_then(step_of);
        let is_harder = engine().is_some() && told > named;
        assert!(
            named.is_none() || told == named || is_harder,
            "{name}: {ended}"
        );
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(is_harder || error.contains(case.says), "{name}: {ended}");
        assert!(took < patience, "{name}: {took:?}");
        home.cell("t", "print(kept)").says("7\n");
    }
    // The thread went on through every checkpoint since.
    let ticks = || -> u64 {
        home.cell("t", "print(ticks)")
            .text()
            .trim()
            .parse()
            .unwrap()
    };
    let before = ticks();
    home.cell("t", "import time; time.sleep(0.2)").says("");
    assert!(ticks() > before);
}

#[test]
fn a_limit_that_makes_no_sense_costs_nothing() {
    let home = Home::new();
    home.run(&["-s", "t", "--limit", "memory=lots", "-c", "1"])
        .finish()
        .fails(2, &["memory=lots", "not a size", "memory=512M"]);
    home.command(&["log", "t"])
        .fails(3, &["there is no session"]);
}
