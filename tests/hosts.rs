//! What a host may lack, and what is said then: QEMU, KVM, root, a network, a folder to write into. (A
//! template: see `command_line`.)

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::disk::Copy;
use crate::ground::{TEMPLATE, folder, home, skip};
use crate::process::{Run, VMREPL};
use crate::processes::{engine_child, status};

/// A user that owns nothing and may do nothing.
const NOBODY: &str = "65534";

#[test]
fn without_qemu_there_is_one_message_with_its_fix() {
    let nothing = folder();
    let ended = Run::code("1")
        .env("PATH", nothing.path())
        .env("VMREPL_ENGINE", "qemu")
        .finish();
    ended.fails(
        125,
        &[
            "qemu-system-x86_64 was not found",
            "apt-get install",
            "vmrepl doctor",
        ],
    );
    assert_eq!(
        (ended.text().as_str(), ended.stderr.lines().count()),
        ("", 2),
        "{ended}"
    );
}

#[test]
fn the_doctor_misses_qemu() {
    let nothing = folder();
    let ended = Run::bare(["doctor"])
        .env("VMREPL_HOME", home())
        .env("PATH", nothing.path())
        .finish();
    let said = ended.text();
    assert!(said.contains("warn  qemu"), "{ended}");
    if said.contains("auto takes kvm") {
        assert_eq!(ended.exit(), 0, "{ended}");
        return;
    }
    assert_eq!(ended.exit(), 1, "{ended}");
    let engine: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("FAIL"))
        .collect();
    assert_eq!(engine.len(), 1, "{ended}");
    assert!(
        engine[0].contains("qemu-system-x86_64 was not found"),
        "{ended}"
    );
}

#[test]
fn no_network_is_needed_and_a_cell_that_wants_one_has_a_hint() {
    let alone = ["--map-root-user", "--net"];
    let probe = Command::new("unshare").args(alone).arg("true").output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        return skip("a host without a network: `unshare --map-root-user --net` does not work");
    }
    let run = |code: &str| {
        let program = [VMREPL, "--template", TEMPLATE, "-c", code];
        Run::of("unshare", alone.iter().chain(&program))
            .env("VMREPL_HOME", home())
            .finish()
    };
    run("1 + 1").says("2\n");
    let code = "import urllib.request\nurllib.request.urlopen('http://example.org')";
    run(code).fails(1, &["URLError", "hint: the guest has no network", "--file"]);
    run("import socket\nsocket.create_connection(('192.0.2.1', 80))")
        .fails(1, &["OSError", "hint: the guest has no network"]);
}

#[test]
fn an_ordinary_user_runs_cells() {
    let user = Ordinary::new();
    user.run(["-c", "1 + 1"]).finish().says("2\n");
    user.run(["-c", "1 / 0"])
        .finish()
        .fails(1, &["ZeroDivisionError"]);
    let (source, target) = (user.folder().join("in"), user.folder().join("out"));
    fs::write(&source, "brought").unwrap();
    let (file, out) = (
        format!("{}", source.display()),
        format!("in:{}", target.display()),
    );
    user.run(["--file", &file, "--out", &out, "-c", "open('in').read()"])
        .finish()
        .says("'brought'\n");
    assert_eq!(fs::read_to_string(target).unwrap(), "brought");
    let ended = user.command(["verify", TEMPLATE]).finish();
    assert_eq!(ended.exit(), 0, "{ended}");
}

#[test]
fn the_engine_of_an_ordinary_user_is_jailed() {
    let user = Ordinary::new();
    let mut running = user
        .run(["-c", "print('on', flush=True)\nwhile True: pass"])
        .start_silent();
    let mut said = [0; 3];
    running.take_stdout().read_exact(&mut said).unwrap();
    let engine = engine_child(running.id()).expect("the run has an engine");
    let facts = ["NoNewPrivs", "Seccomp", "CapEff"].map(|name| status(engine, name));
    running.signal(Signal::TERM);
    running.finish();
    // Mode 2 is a filter.
    assert_eq!(facts, ["1", "2", "0000000000000000"]);
    let doctor = user.command(["doctor"]).finish().text();
    let jail = match crate::process::engine().as_deref() {
        Some("kvm") => "ok    kvm jail",
        _ => "ok    qemu jail",
    };
    assert!(doctor.contains(jail), "{doctor}");
    if doctor.contains("warn  qemu jail") {
        skip(&format!(
            "all walls of the jail: this Linux lacks some: {doctor}"
        ));
    }
}

#[test]
fn a_home_that_may_not_be_written_is_named() {
    let user = Ordinary::new();
    let locked = folder();
    fs::set_permissions(locked.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let name = locked.path().to_str().unwrap();
    for args in [&["-c", "1"][..], &["prepare", TEMPLATE]] {
        user.command(args.iter().copied())
            .env("VMREPL_HOME", locked.path())
            .finish()
            .fails(125, &[name, "Permission denied"]);
    }
    user.run(["-c", "1"])
        .env("VMREPL_RUN_DIR", locked.path().join("run"))
        .finish()
        .fails(
            125,
            &[name, "Permission denied", "hint: set VMREPL_RUN_DIR"],
        );
    assert_eq!(locked.path().read_dir().unwrap().count(), 0);
}

/// A user who is not root, with a home that is his. Whoever runs the tests is one, unless it is root.
struct Ordinary {
    copy: Copy,
    is_other: bool,
}

impl Ordinary {
    fn new() -> Self {
        let copy = Copy::new();
        let is_other = rustix::process::geteuid().is_root();
        if is_other {
            // Where the tests were built, others may not look.
            fs::copy(VMREPL, copy.home().join("vmrepl")).unwrap();
            copy.give_to(NOBODY);
        }
        Self { copy, is_other }
    }

    fn folder(&self) -> &Path {
        self.copy.home()
    }

    /// A run of cells.
    fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Run {
        self.command(["--template", TEMPLATE].into_iter().chain(args))
    }

    fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Run {
        let args = args.into_iter().map(str::to_owned);
        let run = if self.is_other {
            let user = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
            let program = self.folder().join("vmrepl").display().to_string();
            let before = user.map(str::to_owned).into_iter().chain([program]);
            Run::of("setpriv", before.chain(args))
        } else {
            Run::bare(args)
        };
        run.env("VMREPL_HOME", self.folder())
            .env("VMREPL_RUN_DIR", self.folder().join("run"))
            .within(self.folder())
    }
}
