//! Death at any moment of a cell, of its freeze and of what is stored: of the program, of the machine's monitor, of the
//! interpreter in the guest. At most the cell that ran is lost, and the record and the state agree.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::chance::Random;
use crate::ground::count;
use crate::homes::{Home, way};
use crate::process::Running;
use crate::processes::engine_child;

/// How long after its start a run is hit at most: most are over by then.
const LATEST_MS: u64 = 450;

#[test]
fn a_kill_of_the_program_costs_at_most_its_cell() {
    hit(7, |running, _| running.signal(Signal::KILL));
}

#[test]
fn a_kill_of_the_monitor_costs_at_most_its_cell() {
    hit(8, |running, _| {
        let monitor = engine_child(running.id());
        if let Some(monitor) = monitor.and_then(|id| Pid::from_raw(id.cast_signed())) {
            // It may have ended meanwhile.
            kill_process(monitor, Signal::KILL).ok();
        }
    });
}

#[test]
fn a_kill_of_the_interpreter_costs_at_most_its_cell() {
    hit(9, |_, home| {
        kill_runner(&home.0.home().join("run")).ok();
    });
}

fn hit(seed: u64, kill: fn(&Running, &Home)) {
    let home = Home::new();
    home.cell("t", "x = 0").says("");
    let mut random = Random(seed);
    for round in 0..count(8, 100) {
        let running = home
            .run(&["-s", "t", "-c", "import time\nx += 1\ntime.sleep(0.05)"])
            .start();
        if !running.ends_within(Duration::from_millis(random.below(LATEST_MS))) {
            kill(&running, &home);
        }
        let ended = running.finish();
        let after = home.cell("t", "print(x)");
        assert_eq!(after.exit(), 0, "round {round}: {ended}, then {after}");
        let log = home.log("t");
        let added = way(&log)
            .iter()
            .filter(|cell| cell["code"].as_str().unwrap().contains("+= 1"))
            .count();
        assert_eq!(
            after.text().trim(),
            added.to_string(),
            "round {round}: {ended}"
        );
        // Who says that a cell ended well has kept it.
        if ended.exit() == 0 {
            let last = &way(&log)[1];
            assert!(
                last["code"].as_str().unwrap().contains("+= 1"),
                "round {round}: {ended}"
            );
        }
        assert!(
            log.iter().all(|cell| cell["state"] != "running"),
            "round {round}"
        );
    }
}

/// Asks the agent of the machine whose socket lies there.
fn kill_runner(run: &Path) -> std::io::Result<()> {
    for folder in run.read_dir()?.flatten() {
        for entry in folder.path().read_dir().into_iter().flatten().flatten() {
            let Ok(mut socket) = UnixStream::connect(entry.path()) else {
                continue;
            };
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            socket.write_all(b"CONNECT 9\n")?;
            let mut lines = BufReader::new(socket.try_clone()?);
            lines.read_line(&mut String::new())?;
            socket.write_all(b"{\"op\": \"kill\", \"target\": \"runner\"}\n")?;
            // Until it is answered, or all is over.
            let mut answer = String::new();
            while !answer.contains("killed") && lines.read_line(&mut answer)? > 0 {}
        }
    }
    Ok(())
}
