//! Tests of the program as people use it. A table of contents, in reading order:
//!
//! 1. what one cell says and comes to, in prose that runs: `transcripts/*.md`;
//! 2. what the command line does with it: exit codes, JSON, scripts, files, streams, signals;
//! 3. what must hold when nobody looks: nothing left behind, no copies of chance, no damaged template.
//!
//! Nothing here is simulated: cells run in the agent that is shipped, and machines are machines.
//! `VMREPL_HOME` names a folder with the template `base`; without it one is prepared in the target folder.
//! `VMREPL_SLOW` asks for the long forms. `VMREPL_REQUIRE_ALL` turns each skip into a failure.
#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has said what is wrong"
)]

// The ground that tests stand on.
mod chance; // random moments that a seed repeats
mod disk; // copies of a store, and damage done to them
mod ground; // the template, what was skipped, how long is long
mod homes; // a folder of sessions for one test
mod process; // the program under test as a process: input, output, signals, deadlines
mod processes; // who is alive on this host
mod screens; // the program on a terminal of its own

// What a cell comes to.
mod lanes; // two ways to the same runner: with and without a machine
mod transcripts; // Markdown that is run in both

// The program.
mod command_line; // one-shot runs: every form, every exit code
mod programs; // what runs beside the interpreter: exec, shells, command cells
mod streams; // input, floods, pipes, memory
mod tables; // tables and pictures, printed and as JSON
mod terminal; // the REPL, with keys

mod copying; // files and folders to a machine and back
mod endings; // whatever a cell does: the status it ends in, and names that are not lost
mod files; // commands and files through a client of somebody else's
mod keeping; // what is kept of a session, and what may go
mod kernels; // sessions in other languages than Python
mod kills; // deaths at any moment of a cell and its checkpoint
mod languages; // programs of strangers, in a sandbox
mod sessions; // sessions with names: undo, forks, and what no death may cost them
mod trials; // machines beside a session: differences, replays, sweeps

// What must hold when nobody looks.
mod books; // what the monitor notes of a guest's writes, and what is seen from outside
mod copies; // restores that never share chance, and know what time it is
mod engines; // which engine is taken, what is said when it cannot be
mod flips; // bytes changed at random, before and behind the checksums
mod full_disk; // no room: nothing lost, nothing left, the place named
mod hosts; // what a host may lack: QEMU, KVM, root, a network, a folder to write into
mod in_place; // the way back in place, compared with a fresh restore
mod killed_preparing; // a template made anew, killed at any moment, while others read
mod layers; // frozen over a template, restored from both
mod leftovers; // killed at any moment: no process, no file
mod pool; // machines made before anybody asks
mod ports; // many streams at once, and those that stand still
mod publication; // damaged templates are refused or found

/// Every file in this folder is part of the program that runs.
#[test]
fn no_file_is_forgotten() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let contents = std::fs::read_to_string(folder.join("main.rs")).unwrap();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_rust = path.extension().is_some_and(|ending| ending == "rs");
        let is_known = stem == "main" || contents.contains(&format!("\nmod {stem};"));
        assert!(!is_rust || is_known, "{} is in no module", path.display());
    }
}
