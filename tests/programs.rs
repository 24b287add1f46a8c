//! What runs beside the interpreter: `exec`, `shell` and cells that are command lines, in sessions and on templates.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::ground::{TEMPLATE, folder};
use crate::homes::Home;
use crate::process::{Run, Running};
use crate::processes::{engine_child, status};
use crate::screens::Terminal;
use crate::terminal::own_home;

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";

fn exec(args: &[&str]) -> Run {
    Run::bare([&["exec"], args].concat())
}

/// A command line in a fresh machine.
fn shell(line: &str) -> Run {
    exec(&[TEMPLATE, "--", "sh", "-c", line])
}

#[test]
fn a_program_has_streams_and_an_exit_code() {
    let ended = shell("echo out; echo err >&2; exit 3").finish();
    assert_eq!(
        (ended.exit(), ended.text().as_str()),
        (3, "out\n"),
        "{ended}"
    );
    assert_eq!(ended.stderr, "err\n");
    let cases: [(&[&str], i32, &str); 7] = [
        (&[TEMPLATE, "--", "true"], 0, ""),
        (&[TEMPLATE, "--", "false"], 1, ""),
        (
            &[TEMPLATE, "--", "no-such-program"],
            127,
            "no-such-program: No such file",
        ),
        (
            &[TEMPLATE, "--", "/etc/passwd"],
            126,
            "/etc/passwd: Permission denied",
        ),
        (
            &["-w", "/no/such", TEMPLATE, "--", "true"],
            126,
            "/no/such: No such file",
        ),
        (
            &["--timeout", "0.5", TEMPLATE, "--", "sleep", "600"],
            124,
            "it ran out of time",
        ),
        (&[TEMPLATE, "--", "sh", "-c", "kill -9 $$"], 137, ""),
    ];
    for (args, code, said) in cases {
        let ended = exec(args).finish();
        let stderr = ended.stderr.clone();
        assert_eq!(ended.exit(), code, "{args:?}: {ended}");
        assert!(
            stderr.contains(said) && stderr.is_empty() == said.is_empty(),
            "{args:?}: {stderr}"
        );
    }
    exec(&["no-such-thing", "--", "true"])
        .finish()
        .fails(3, &["no-such-thing", "no session"]);
    exec(&["-u", "nobody-there", TEMPLATE, "--", "true"])
        .finish()
        .fails(125, &["user nobody-there: no such user"]);
    exec(&["-e", "=x", TEMPLATE, "--", "true"])
        .finish()
        .fails(2, &["-e =x: say NAME=VALUE"]);
}

#[test]
fn a_program_is_who_and_where_it_is_asked_to_be() {
    let ended = exec(&[
        "-e",
        "A=é b",
        "-e",
        "HERE",
        "-w",
        "/usr",
        "-u",
        "root",
        TEMPLATE,
        "--",
        "sh",
        "-c",
        "id -un; pwd; echo $A $HERE; echo $HOME",
    ])
    .env("HERE", "from here")
    .finish();
    ended.says("root\n/usr\né b from here\n/root\n");
    let line = "id -un; pwd; echo $HOME $USER; grep NoNewPrivs /proc/self/status; touch x && rm x && echo writable";
    shell(line)
        .finish()
        .says("user\n/home/user\n/home/user user\nNoNewPrivs:\t1\nwritable\n");
    // The machine's limits hold for all that it starts together.
    let bomb = "python3 -c 'x = bytearray(300 << 20)'; echo $?";
    let ended = exec(&["--limit", "memory=64M", TEMPLATE, "--", "sh", "-c", bomb]).finish();
    assert_eq!(ended.exit(), 137, "{ended}");
    assert!(ended.stderr.contains("more memory than it may"), "{ended}");
    let spin = exec(&[
        "--limit",
        "cpu=1",
        TEMPLATE,
        "--",
        "sh",
        "-c",
        "while :; do :; done",
    ])
    .finish();
    assert_eq!(spin.exit(), 137, "{spin}");
    assert!(spin.stderr.contains("its processor time"), "{spin}");
}

#[test]
fn input_and_output_flow_both_ways() {
    exec(&["-i", TEMPLATE, "--", "cat"])
        .input("in\nput")
        .finish()
        .says("in\nput");
    // Without -i there is none.
    exec(&[TEMPLATE, "--", "cat"])
        .input("lost")
        .finish()
        .says("");
    let megabytes: Vec<u8> = (0..20 << 20)
        .map(|index: u32| (index % 251) as u8)
        .collect();
    let ended = exec(&[
        "-i",
        TEMPLATE,
        "--",
        "sh",
        "-c",
        "tee /tmp/copy | head -c 20M; wc -c < /tmp/copy >&2",
    ])
    .input(megabytes.clone())
    .finish();
    assert_eq!(ended.exit(), 0, "{}", ended.stderr);
    assert!(
        ended.stdout == megabytes,
        "{} bytes came back",
        ended.stdout.len()
    );
    // One that takes no more has its writer see that it has gone.
    exec(&["-i", TEMPLATE, "--", "head", "-c", "3"])
        .input(megabytes)
        .finish()
        .says("\0\u{1}\u{2}");
}

/// A program in a fresh machine, once it has said `ready`.
fn ready(line: &str) -> Running {
    let mut run = shell(line).start_silent();
    let mut said = String::new();
    let mut stdout = run.take_stdout();
    while !said.contains("ready") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut stdout, &mut byte).unwrap();
        said.push(char::from(byte[0]));
    }
    run
}

#[test]
fn ctrl_c_stops_a_program_and_its_machine_goes() {
    let run = ready("trap 'exit 9' INT; echo ready; while :; do sleep 0.1; done");
    run.signal(Signal::INT);
    let ended = run.finish();
    assert_eq!(ended.exit(), 9, "{ended}");
    // One that does not stop is killed, after the time that one that clears up is given.
    let run = ready("trap '' INT; echo ready; while :; do sleep 0.1; done");
    run.signal(Signal::INT);
    let began = Instant::now();
    let ended = run.finish();
    assert_eq!(ended.exit(), 137, "{ended}");
    let took = began.elapsed();
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(20)).contains(&took),
        "{took:?}: {ended}"
    );
}

/// What a program does to the machine is in the session's next checkpoint, and goes with it.
#[test]
fn a_program_in_a_session_can_be_undone() {
    let home = Home::new();
    home.cell("t", "x = 1").says("");
    let exec = |args: &[&str]| home.command(&[&["exec"], args].concat());
    exec(&["t", "--", "sh", "-c", "echo one > note; echo done"]).says("done\n");
    home.cell("t", "print(open('note').read(), x)")
        .says("one\n 1\n");
    home.cell("t", "!cat note; echo two >> note; exit 5")
        .fails(5, &[]);
    home.cell("t", "!cat note").says("one\ntwo\n");
    assert_eq!(home.command(&["undo", "t", "2"]).exit(), 0);
    home.cell("t", "!cat note").says("one\n");
    home.command(&["goto", "t", "1"]);
    let gone = exec(&["t", "--", "cat", "note"]);
    assert_eq!(gone.exit(), 1, "{gone}");
    let log = home.log("t");
    let codes: Vec<&str> = log
        .iter()
        .map(|cell| cell["code"].as_str().unwrap())
        .collect();
    assert!(
        codes.contains(&"!sh -c 'echo one > note; echo done'"),
        "{codes:?}"
    );
    assert!(codes.contains(&"!cat note"), "{codes:?}");
    // A copy has what was there, and command lines are run again like cells.
    home.command(&["fork", "t", "u", "--at", "2"]);
    home.cell("u", "!cat note").says("one\n");
    let replayed = home.command(&["replay", "u"]);
    assert_eq!(replayed.exit(), 0, "{replayed}");
}

#[test]
fn limits_and_timeouts_hold_for_command_cells() {
    let run = |args: &[&str]| Run::new(args).finish();
    let timeout = run(&["--timeout", "0.5", "-c", "!sleep 600"]);
    timeout.fails(124, &["timed out after 0.5 s"]);
    let flood = run(&["--limit", "output=1M", "-c", "!yes"]);
    assert_eq!(flood.stdout.len(), 1 << 20, "as much as it may");
    assert_ne!(flood.exit(), 0);
    let memory = run(&[
        "--limit",
        "memory=64M",
        "-c",
        "!python3 -c 'x = bytearray(300 << 20)'",
    ]);
    assert!(
        memory.exit() != 0 && memory.stderr.contains("more memory than it may"),
        "{memory}"
    );
    let answer: serde_json::Value =
        serde_json::from_str(&run(&["--json", "-c", "!echo é; exit 4"]).text()).unwrap();
    assert_eq!(
        (&answer["stdout"], &answer["exit_code"], &answer["status"]),
        (&"é\n".into(), &4.into(), &"error".into())
    );
}

#[test]
fn a_terminal_is_passed_through() {
    let own = own_home();
    let before = {
        let terminal = Terminal::of(own.path(), &["--version"]);
        format!(
            "{:?}",
            rustix::termios::tcgetattr(&terminal.keyboard).unwrap()
        )
    };
    let mut terminal = Terminal::of(own.path(), &["shell", TEMPLATE]);
    // Whatever is typed while no program holds the terminal may be lost: a shell changes its ways
    // on either side of a prompt. So each step waits for what only the one who reads can have said.
    terminal.keys("PS1='rea''dy> '\r");
    terminal.shows("ready> ");
    terminal.keys("stty size; tty; echo $TERM héllo 🦀\r");
    terminal.shows("40 100\r\n");
    terminal.shows("/dev/pts/");
    terminal.shows("xterm héllo 🦀\r\n");
    terminal.shows("ready> ");
    terminal.resize(50, 132);
    terminal.keys("sleep 0.2; stty size\r");
    terminal.shows("50 132\r\n");
    terminal.shows("ready> ");
    // Ctrl-C ends what is in the foreground, Ctrl-Z stops it, and the shell goes on.
    terminal.keys("sh -c 'echo rest''ing; exec sleep 600'\r");
    terminal.shows("resting\r\n");
    terminal.keys(CTRL_C);
    terminal.shows("ready> ");
    // What comes out in capitals was read by the program and is no echo.
    terminal.keys("sed -u 's/.*/\\U&/'\r");
    terminal.shows("\r\n");
    terminal.keys_until("typed\n", "TYPED\r\n");
    terminal.keys_until(CTRL_Z, "Stopped");
    terminal.shows("ready> ");
    terminal.keys("fg\r");
    terminal.shows("\r\n");
    terminal.keys_until("again\n", "AGAIN\r\n");
    terminal.keys(CTRL_D);
    terminal.shows("ready> ");
    terminal.keys("exit 7\r");
    assert_eq!(terminal.ends(), 7);
    let after = format!(
        "{:?}",
        rustix::termios::tcgetattr(&terminal.keyboard).unwrap()
    );
    assert_eq!(before, after, "the terminal is as it was");
}

#[test]
fn programs_that_draw_on_the_whole_screen_work() {
    let own = own_home();
    let home = Home::new();
    home.cell(
        "t",
        "open('lines', 'w').write('\\n'.join(f'line {n}' for n in range(500)))",
    );
    let open = |command: &[&str]| {
        Terminal::of(
            home.0.home(),
            &[&["exec", "-it", "t", "--"], command].concat(),
        )
    };
    let mut top = open(&["top"]);
    top.shows("load average");
    top.shows("PID");
    top.keys("q");
    assert_eq!(top.ends(), 0);
    let mut less = open(&["less", "lines"]);
    less.shows("line 0");
    less.keys("G");
    less.shows("line 499");
    less.keys("q");
    assert_eq!(less.ends(), 0);
    let mut vim = open(&["vim.tiny", "-u", "NONE", "note"]);
    vim.shows("note");
    vim.keys("ihéllo 🦀\x1b:wq\r");
    assert_eq!(vim.ends(), 0, "{:?}", vim.unseen);
    home.cell("t", "!cat note").says("héllo 🦀\n");
    drop(own);
}

/// A megabyte pasted into a program that reads it, byte by byte as it was.
#[test]
fn a_megabyte_can_be_pasted() {
    let own = own_home();
    let mut terminal = Terminal::of(
        own.path(),
        &[
            "exec",
            "-it",
            TEMPLATE,
            "--",
            "sh",
            "-c",
            "stty raw -echo; echo ready; head -c 1048576 | md5sum",
        ],
    );
    terminal.shows("ready");
    let text = "abcdefghijklmnopqrstuvwxyz01234\n".repeat(32768);
    terminal.paste(text.as_bytes());
    terminal.shows(&md5(text.as_bytes()));
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_client_that_is_killed_leaves_nothing() {
    let own = own_home();
    let mut terminal = Terminal::of(own.path(), &["exec", "-it", TEMPLATE, "--", "sleep", "600"]);
    let pid = terminal.child.id();
    let began = Instant::now();
    while engine_child(pid).is_none() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    let engine = engine_child(pid).unwrap();
    terminal.child.kill().unwrap();
    let began = Instant::now();
    while !matches!(
        status(engine, "State").chars().next(),
        None | Some('Z' | 'X')
    ) {
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "the machine lives on"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn md5(bytes: &[u8]) -> String {
    let folder = folder();
    let path = folder.path().join("bytes");
    std::fs::write(&path, bytes).unwrap();
    let told = std::process::Command::new("md5sum")
        .arg(&path)
        .output()
        .unwrap();
    String::from_utf8(told.stdout)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

#[test]
fn files_and_folders_are_copied_both_ways_and_undone() {
    let (home, here) = (Home::new(), folder());
    let path = |name: &str| here.path().join(name).display().to_string();
    std::fs::create_dir(here.path().join("tree")).unwrap();
    std::fs::write(here.path().join("tree/a"), "in a folder").unwrap();
    std::os::unix::fs::symlink("a", here.path().join("tree/link")).unwrap();
    home.cell("t", "x = 1").says("");
    assert_eq!(home.command(&["cp", &path("tree"), "t:"]).exit(), 0);
    home.cell("t", "!cat tree/link").says("in a folder");
    let streamed = Run::bare(["cp", "-", "t:/tmp/stream"])
        .env("VMREPL_HOME", home.0.home())
        .input("from a pipe")
        .finish();
    assert_eq!(streamed.exit(), 0, "{streamed}");
    home.command(&["cp", "t:/tmp/stream", "-"])
        .says("from a pipe");
    assert_eq!(home.command(&["cp", "t:tree", &path("back")]).exit(), 0);
    assert_eq!(
        std::fs::read_link(here.path().join("back/link"))
            .unwrap()
            .to_str(),
        Some("a")
    );
    // A copy in is a step of the session; one out is none.
    home.command(&["goto", "t", "1"]);
    home.command(&["cp", "t:tree", &path("gone")])
        .fails(125, &["tree"]);
    let log = home.log("t");
    let codes: Vec<&str> = log
        .iter()
        .map(|cell| cell["code"].as_str().unwrap())
        .collect();
    let put = format!(":put {} ", path("tree"));
    assert_eq!(
        codes,
        ["x = 1", &put, "!cat tree/link", ":put - /tmp/stream"],
        "{log:?}"
    );
    // Neither end in a machine, or both; a file that is not there.
    for args in [["cp", "a", "b"], ["cp", "t:a", "t:b"]] {
        home.command(&args)
            .fails(2, &["one of the two must be in a machine"]);
    }
    home.command(&["cp", &path("missing"), "t:"])
        .fails(3, &["missing"]);
}
