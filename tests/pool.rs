//! Machines that are made before anybody asks: whichever way one was made, it is a copy of the template and of no other
//! machine, and what is stale or dead is never used. Under KVM alone: emulation keeps nothing ready.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vmrepl_session::{
    Cell, Event, Input, InputRequest, PoolSize, Purpose, Session, Sink, TemplateName, Way,
    engine_for,
};

use crate::disk::Copy;
use crate::ground::{TEMPLATE, count, home};
use crate::lanes::{engine_choice, is_kvm, places_in, tell};

const PATIENCE: Duration = Duration::from_secs(60);
const NONE: PoolSize = PoolSize { bound: 0, spare: 0 };
const BOUND: PoolSize = PoolSize { bound: 1, spare: 0 };
const SPARE: PoolSize = PoolSize { bound: 0, spare: 1 };

struct Quiet;

impl Sink for Quiet {
    fn event(&mut self, _: &Event) {}

    fn input(&mut self, _: &InputRequest) -> Input {
        Input::End
    }
}

fn session(home: &Path) -> Session {
    let places = places_in(home);
    let name = TemplateName::new(TEMPLATE).unwrap();
    let engine = engine_for(&places, engine_choice(), &name).unwrap();
    Session::restore(&places, &engine, &name, Purpose::Freeze).unwrap()
}

fn value(session: &mut Session, code: &str) -> String {
    let answer = session.run(&Cell::new(code), &mut Quiet).unwrap();
    assert_eq!(answer.exit_code, 0, "{answer:?}");
    answer.result_repr.unwrap()
}

/// What the kernel, its tokens for processes and Python's own generator draw.
const DRAW: &str =
    "import os, random, uuid\n(os.getrandom(16).hex(), uuid.uuid4().hex, random.random())";

#[test]
fn three_ways_to_a_machine() {
    if !is_kvm("machines made ahead") {
        return;
    }
    let mut session = session(home());
    assert_eq!(session.info().way, Way::Nothing);
    let mut drawn = HashSet::new();
    for (size, way) in [
        (SPARE, Way::Spare),
        (BOUND, Way::Bound),
        (SPARE, Way::Spare),
    ] {
        assert!(drawn.insert(value(&mut session, DRAW)));
        value(&mut session, "mine = 1\nmine");
        session.keep_ready(size);
        assert!(session.wait_ready(PATIENCE));
        session = session.restart().unwrap();
        assert_eq!(session.info().way, way);
        assert_eq!(value(&mut session, "'mine' in globals()"), "False");
    }
    assert!(drawn.insert(value(&mut session, DRAW)));
    // The pool fills up again by itself.
    assert!(session.wait_ready(PATIENCE));
    session = session.restart().unwrap();
    assert_eq!(session.info().way, Way::Spare);
    assert!(drawn.insert(value(&mut session, DRAW)));
}

#[test]
fn a_bound_machine_keeps_time() {
    if !is_kvm("machines made ahead") {
        return;
    }
    let mut session = session(home());
    session.keep_ready(BOUND);
    assert!(session.wait_ready(PATIENCE));
    // Rest is no time for a guest: its monotonic clock goes on from the template's, its wall clock is now.
    std::thread::sleep(Duration::from_secs(2));
    session = session.restart().unwrap();
    assert_eq!(session.info().way, Way::Bound);
    let now = || {
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64()
    };
    let before = now();
    let clock: f64 = value(&mut session, "import time\ntime.time()")
        .parse()
        .unwrap();
    // The cell itself may take long.
    let allowed = before - 1.0..now() + 1.0;
    assert!(allowed.contains(&clock), "{clock} is not in {allowed:?}");
}

#[test]
fn what_was_replaced_is_not_used() {
    if !is_kvm("machines made ahead") {
        return;
    }
    let copy = Copy::new();
    let mut session = session(copy.home());
    session.keep_ready(BOUND);
    assert!(session.wait_ready(PATIENCE));
    let names = crate::ground::names_of(&copy.store(), TEMPLATE).unwrap();
    fs::remove_file(copy.store().join(names).join(TEMPLATE)).unwrap();
    let error = session.restart().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("there is no template {TEMPLATE:?}")
    );
}

/// What this process holds: descriptors, and kilobytes of memory of its own.
fn held() -> (usize, u64) {
    let descriptors = Path::new("/proc/self/fd").read_dir().unwrap().count();
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let private = rollup
        .lines()
        .filter_map(|line| line.strip_prefix("Private_Dirty:"))
        .find_map(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    (descriptors, private.unwrap())
}

/// In a process of its own: the machines of other tests would count.
#[test]
fn many_restores_in_a_row() {
    if !is_kvm("machines made ahead") {
        return;
    }
    let program = std::env::current_exe().unwrap();
    let status = Command::new(program)
        .args([
            "--exact",
            "pool::the_restores_of_many",
            "--ignored",
            "--nocapture",
        ])
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
#[ignore = "run by many_restores_in_a_row, alone in its process"]
fn the_restores_of_many() {
    let many = count(30, 10_000);
    let mut session = session(home());
    let mut drawn = HashSet::new();
    let mut early = None;
    let batches = [
        (Way::Nothing, NONE),
        (Way::Spare, SPARE),
        (Way::Bound, BOUND),
    ];
    for number in 0..many {
        let (way, size) = batches[number * batches.len() / many];
        if number == 0 || session.info().way != way {
            session.keep_ready(size);
        }
        assert!(session.wait_ready(PATIENCE), "restore {number}");
        session = session.restart().unwrap();
        assert_eq!(session.info().way, way, "restore {number}");
        let draw = value(&mut session, DRAW);
        assert!(
            drawn.insert(draw.clone()),
            "restore {number} repeats {draw}"
        );
        if number + 1 == many / 10 {
            early = Some(held());
        }
        if number % 500 == 499 {
            tell(&format!("{} restores, holding {:?}", number + 1, held()));
        }
    }
    // What the pool holds ready is a machine's, and counts at neither end.
    session.keep_ready(NONE);
    let (descriptors, private) = early.expect("there was a tenth");
    let (descriptors_now, private_now) = held();
    tell(&format!(
        "{many} restores: {descriptors} descriptors, then {descriptors_now}; \
         {private} kB, then {private_now} kB"
    ));
    assert!(descriptors_now <= descriptors, "descriptors grow");
    // The draws themselves are kept: 150 bytes each, at most.
    let drawn_kb = (many * 300 / 1024) as u64;
    assert!(private_now <= private + 2048 + drawn_kb, "memory grows");
    let worker = session.info().process_id;
    drop(session);
    assert!(!Path::new(&format!("/proc/{worker}")).exists());
    let own = std::process::id();
    assert_eq!(
        crate::processes::engine_child(own),
        None,
        "a process is left"
    );
}
