//! One-shot runs: every form of saying code, every way of ending, as a shell sees it.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::ground::folder;
use crate::process::Run;

#[test]
fn code_prints() {
    Run::code("print('Hello')").finish().says("Hello\n");
}

#[test]
fn a_value_prints_like_in_a_repl() {
    Run::code("1 + 1").finish().says("2\n");
    Run::code("'a'").finish().says("'a'\n");
    Run::code("None").finish().says("");
    Run::code("x = 1").finish().says("");
    Run::code("").finish().says("");
}

#[test]
fn unicode_and_control_bytes_pass_unchanged() {
    let ended = Run::code("print('Zoë 🐍'); print('a\\0b\\x1b[0m')").finish();
    ended.says("Zoë 🐍\na\0b\x1b[0m\n");
}

#[test]
fn an_exception_is_on_stderr_and_exits_1() {
    let ended = Run::code("print('before')\nraise ValueError('test')").finish();
    ended.fails(
        1,
        &["Traceback", "raise ValueError('test')", "ValueError: test"],
    );
    assert_eq!(ended.text(), "before\n", "{ended}");
}

#[test]
fn a_syntax_error_has_its_caret_and_exits_1() {
    let ended = Run::code("x = 1 +* 2").finish();
    ended.fails(1, &["x = 1 +* 2", "^", "SyntaxError"]);
    assert_eq!(ended.text(), "", "{ended}");
}

#[test]
fn the_code_chooses_its_exit_code() {
    assert_eq!(Run::code("import sys; sys.exit(7)").finish().exit(), 7);
    Run::code("import sys; sys.exit()").finish().says("");
    Run::code("import sys; sys.exit('words')")
        .finish()
        .fails(1, &["words"]);
    // Ours are told from the code's by what stderr says.
    let ended = Run::code("import sys; sys.exit(124)").finish();
    assert_eq!((ended.exit(), ended.stderr.as_str()), (124, ""), "{ended}");
}

#[test]
fn arguments_behind_code() {
    let ended = Run::new(["-c", "import sys; print(sys.argv)", "a", "--json", "-x"]).finish();
    ended.says("['-c', 'a', '--json', '-x']\n");
}

#[test]
fn json_is_exactly_one_object() {
    let code = "import sys\nprint('hello')\nprint('wrong', file=sys.stderr)\n6 * 7";
    let ended = Run::new(["--json", "-c", code]).finish();
    ended.says(&ended.text());
    let line = ended.text();
    assert_eq!(line.matches('\n').count(), 1, "{ended}");
    let object: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(object["exit_code"], 0);
    assert_eq!(object["stdout"], "hello\n");
    assert_eq!(object["stderr"], "wrong\n");
    assert_eq!(object["result_repr"], "42");
    assert_eq!(object["error"], Value::Null);
    assert_eq!(object["tables"], Value::Array(Vec::new()));
    assert_eq!(object["status"], "ok");
}

#[test]
fn json_of_an_exception() {
    let ended = Run::new(["--json", "-c", "print('x'); 1 / 0"]).finish();
    assert_eq!(ended.exit(), 1, "{ended}");
    let object: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(
        (&object["exit_code"], &object["stdout"]),
        (&1.into(), &"x\n".into())
    );
    let error = object["error"].as_str().unwrap();
    assert!(error.contains("ZeroDivisionError"), "{error}");
}

#[test]
fn a_stream_is_one_event_a_line_and_done_is_last() {
    let code = "print('hello', flush=True)\n6 * 7";
    let ended = Run::new(["--json", "--stream", "-c", code]).finish();
    assert_eq!(ended.exit(), 0, "{ended}");
    let events: Vec<Value> = ended
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["stdout", "result", "done"], "{ended}");
    assert_eq!(events[0]["text"], "hello\n");
    assert_eq!(events[2]["exit_code"], 0);
}

#[test]
fn a_stream_without_json_is_refused() {
    Run::new(["--stream", "-c", "1"])
        .finish()
        .fails(2, &["--json"]);
}

#[test]
fn a_script_with_arguments_and_the_modules_beside_it() {
    let folder = folder();
    let script = folder.path().join("main.py");
    fs::create_dir(folder.path().join("kit")).unwrap();
    fs::write(
        folder.path().join("kit/__init__.py"),
        "from .inner import WORD\n",
    )
    .unwrap();
    fs::write(folder.path().join("kit/inner.py"), "WORD = 'inner'\n").unwrap();
    fs::write(
        folder.path().join("beside.py"),
        "def f():\n    return 'beside'\n",
    )
    .unwrap();
    let code = "import sys, beside, kit\nprint(sys.argv[1:], beside.f(), kit.WORD, __name__)\n\
                print(__file__.endswith('main.py'))\n";
    fs::write(&script, code).unwrap();
    let ended = Run::new([script.as_os_str(), "one".as_ref(), "-2".as_ref()]).finish();
    ended.says("['one', '-2'] beside inner __main__\nTrue\n");
}

#[test]
fn a_script_that_fails_names_its_line() {
    let folder = folder();
    fs::write(folder.path().join("broken.py"), "x = 1\n\nx.missing\n").unwrap();
    let ended = Run::new(["broken.py"]).within(folder.path()).finish();
    ended.fails(1, &["broken.py", "line 3", "x.missing", "AttributeError"]);
}

#[test]
fn a_script_that_is_not_there() {
    let ended = Run::new(["/nowhere/x.py"]).finish();
    ended.fails(3, &["/nowhere/x.py", "No such file"]);
}

#[test]
fn code_from_stdin() {
    Run::new::<&str>([])
        .input("print('piped')\n1 + 1\n")
        .finish()
        .says("piped\n2\n");
    let dash = Run::new(["-", "a"])
        .input("import sys; print(sys.argv)")
        .finish();
    dash.says("['-', 'a']\n");
}

#[test]
fn a_timeout_exits_124() {
    let ended = Run::new([
        "--timeout",
        "2",
        "-c",
        "print('on', flush=True)\nwhile True: pass",
    ])
    .finish();
    ended.fails(124, &["timed out after 2 s"]);
    assert_eq!(ended.text(), "on\n", "{ended}");
    assert!(ended.took >= Duration::from_secs(2), "{ended}");
}

#[test]
fn an_interrupt_exits_130() {
    let running = Run::code("print('on', flush=True)\nwhile True: pass");
    let mut running = running.start_silent();
    let mut stdout = running.take_stdout();
    let mut said = [0; 3];
    std::io::Read::read_exact(&mut stdout, &mut said).unwrap();
    assert_eq!(&said, b"on\n");
    running.signal(Signal::INT);
    running.finish().fails(130, &["interrupted"]);
}

#[test]
fn an_interrupt_that_the_code_handles_is_the_codes_business() {
    // Python 3.11 has no handler for the jump of a bare `while True`, so the cell sleeps.
    let code = "import time\ntry:\n    print('on', flush=True)\n    time.sleep(60)\n\
                except KeyboardInterrupt:\n    print('caught')";
    let mut running = Run::code(code).start_silent();
    let mut stdout = running.take_stdout();
    let mut said = [0; 3];
    std::io::Read::read_exact(&mut stdout, &mut said).unwrap();
    running.signal(Signal::INT);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    let ended = running.finish();
    assert_eq!((ended.exit(), rest.as_str()), (0, "caught\n"), "{ended}");
}

#[test]
fn a_runner_that_ends_itself_exits_125() {
    let ended = Run::code("import os; os._exit(3)").finish();
    ended.fails(125, &["vmrepl:", "exit"]);
}

#[test]
fn a_segfault_exits_125() {
    let ended = Run::code("import ctypes; ctypes.string_at(0)").finish();
    ended.fails(125, &["vmrepl:", "signal 11"]);
}

#[test]
fn a_missing_module_has_a_hint() {
    let ended = Run::code("import polars").finish();
    ended.fails(
        1,
        &[
            "ModuleNotFoundError",
            "hint:",
            "prepare --with polars",
            "--file",
        ],
    );
    let quiet = Run::new(["-q", "-c", "import polars"]).finish();
    assert!(!quiet.stderr.contains("hint:"), "{quiet}");
}

#[test]
fn files_in_and_out() {
    let folder = folder();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    fs::write(folder.path().join("in.bin"), &bytes).unwrap();
    let code = "data = open('in.bin', 'rb').read()\nopen('/tmp/out.bin', 'wb').write(data[::-1])\n\
                print(len(data), open('/tmp/named').read(3).encode())";
    fs::write(folder.path().join("text"), "abc").unwrap();
    let run = Run::new([
        "--file",
        "in.bin",
        "--file",
        "text:/tmp/named",
        "--out",
        "/tmp/out.bin:back",
        "-c",
        code,
    ]);
    run.within(folder.path()).finish().says("300000 b'abc'\n");
    let reversed: Vec<u8> = bytes.into_iter().rev().collect();
    assert!(
        fs::read(folder.path().join("back")).unwrap() == reversed,
        "the file came back changed"
    );
}

#[test]
fn files_that_are_not_there() {
    Run::new(["--file", "/nowhere/x", "-c", "1"])
        .finish()
        .fails(3, &["/nowhere/x"]);
    Run::new(["--out", "nonsense", "-c", "1"])
        .finish()
        .fails(2, &["GUEST:HOST"]);
    let ended = Run::new(["--out", "/nowhere:x", "-c", "1"]).finish();
    assert_eq!(ended.exit(), 125, "{ended}");
    assert!(ended.stderr.contains("/nowhere"), "{ended}");
}

#[test]
fn an_unknown_template_exits_3_with_the_command_that_makes_it() {
    let ended = Run::bare(["--template", "nope", "-c", "1"])
        .env("VMREPL_HOME", crate::ground::home())
        .finish();
    ended.fails(3, &["\"nope\"", "hint:", "vmrepl prepare nope"]);
    let empty = folder();
    let ended = Run::bare(["-c", "1"])
        .env("VMREPL_HOME", empty.path())
        .finish();
    ended.fails(3, &["\"python\"", "vmrepl prepare python"]);
}

#[test]
fn bad_usage_exits_2() {
    Run::bare(["--no-such-flag"])
        .finish()
        .fails(2, &["--no-such-flag"]);
    Run::bare(["--timeout", "soon", "-c", "1"])
        .finish()
        .fails(2, &["number of seconds"]);
    Run::bare(["--template", "../x", "-c", "1"])
        .finish()
        .fails(2, &["is no name"]);
    Run::bare(["--engine", "magic", "-c", "1"])
        .finish()
        .fails(2, &["magic"]);
}

#[test]
fn eight_at_once_all_answer() {
    let running: Vec<_> = (0..8)
        .map(|number| Run::code(&format!("{number} * {number}")).start())
        .collect();
    for (number, running) in running.into_iter().enumerate() {
        running.finish().says(&format!("{}\n", number * number));
    }
}
