//! Output as it comes, input as it is wanted, floods that nobody keeps.

use std::io::Read as _;

use crate::process::Run;
use crate::processes::{engine_child, peak_resident_bytes};

/// What our process may hold while a cell runs, whatever the cell does.
const RESIDENT_MAX: u64 = 15 << 20;

#[test]
fn input_from_a_pipe() {
    let code = "name = input('Name? ')\nprint('Hello', name)\nprint(input())\ninput()";
    let ended = Run::code(code).input("Zoë\nsecond\n").finish();
    ended.fails(1, &["EOFError"]);
    assert_eq!(ended.text(), "Name? Hello Zoë\nsecond\n", "{ended}");
}

#[test]
fn stdin_can_be_read_whole_and_by_lines() {
    let code = "import sys\nprint(next(sys.stdin))\nprint(repr(sys.stdin.read()))";
    Run::code(code)
        .input("one\ntwo\nthree")
        .finish()
        .says("one\n\n'two\\nthree'\n");
    Run::code("print(input() + input())\nprint(input())")
        .input("a\nb")
        .finish()
        .fails(1, &["EOFError"]);
}

#[test]
fn code_from_stdin_finds_stdin_empty() {
    let ended = Run::new(["-"]).input("input()\n").finish();
    ended.fails(1, &["EOFError"]);
}

#[test]
fn output_comes_before_the_cell_ends() {
    let code = "print('first', flush=True)\nprint(input())";
    let mut running = Run::code(code).start_silent();
    let mut stdout = running.take_stdout();
    let mut said = [0; 6];
    stdout.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"first\n");
    let ended = running.finish();
    ended.fails(1, &["EOFError"]);
}

#[test]
fn a_megabyte_from_c() {
    let code = "import ctypes; ctypes.PyDLL(None).write(1, b'x' * 10**6, 10**6)";
    let ended = Run::code(code).finish();
    assert_eq!(ended.exit(), 0, "{ended}");
    assert_eq!(ended.stdout.len(), 1_000_000 + "1000000\n".len());
}

#[test]
fn a_hundred_megabytes_stream_through_little_memory() {
    let code = "import sys\nline = 'x' * 9999 + '\\n'\nfor _ in range(10_000): sys.stdout.write(line)\n\
                sys.stdout.write('end')\nsys.stdout.flush()\ninput()";
    let mut running = Run::code(code).start_silent();
    let mut stdout = running.take_stdout();
    let mut chunk = vec![0; 1 << 16];
    let (mut total, mut peak) = (0, 0);
    loop {
        let count = stdout.read(&mut chunk).unwrap();
        if count == 0 {
            break;
        }
        assert!(chunk[..count].iter().all(|byte| b"x\nend".contains(byte)));
        total += count;
        peak = peak.max(peak_resident_bytes(running.id()));
    }
    let ended = running.finish();
    assert_eq!(total, 100_000_003, "{ended}");
    eprintln!("peak of our process: {} KiB", peak >> 10);
    assert!(peak > 0 && peak < RESIDENT_MAX, "{peak} bytes at the most");
}

#[test]
fn json_of_a_flood_keeps_head_and_tail() {
    let code = "print('head'); print('x' * 5_000_000); print('tail')";
    let ended = Run::new(["--json", "-c", code]).finish();
    assert_eq!(ended.exit(), 0, "{ended}");
    let object: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let stdout = object["stdout"].as_str().unwrap();
    assert!(stdout.starts_with("head\n") && stdout.ends_with("tail\n"));
    assert!(stdout.len() <= (1 << 20) + 200, "{} bytes", stdout.len());
    assert_eq!(object["truncated"]["stdout"], true);
}

#[test]
fn a_reader_that_leaves_ends_the_run() {
    let code = "while True: print('y')";
    let mut running = Run::code(code).start_silent();
    let mut stdout = running.take_stdout();
    stdout.read_exact(&mut [0; 100]).unwrap();
    let engine = engine_child(running.id());
    assert!(engine.is_some(), "the run has an engine");
    drop(stdout);
    let ended = running.finish();
    assert_eq!(ended.exit(), 141, "{ended}");
    assert_eq!(ended.stderr, "", "{ended}");
}
