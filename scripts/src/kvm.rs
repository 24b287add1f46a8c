//! `cargo xtask kvm`: what needs `/dev/kvm`, run where it works: on this machine if its processor can, else in the lane,
//! an outer guest whose processor QEMU emulates, virtualisation included.

mod carry;
mod facts;
mod lane;
mod options;
mod outer;
mod steps;

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::carry::{Carried, Job, Load};
use self::options::{Options, Wanted};

pub(crate) use self::facts::print as print_facts;

/// What a run ends with that could not take place: no status of a test program.
const NOT_RUN: u8 = 125;

/// Where jobs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// This machine.
    Host,
    /// The outer guest.
    Lane,
}

/// Runs what the arguments ask for; the exit code is the one of the first job that failed.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<ExitCode> {
    let options = Options::parse(arguments)?;
    let root = &std::fs::canonicalize(root).context("looking for the tree")?;
    let place = if options.is_emulated || !has_hardware() {
        Place::Lane
    } else {
        Place::Host
    };
    let mut first = 0;
    let mut note = |name: &str, ended: Result<u8>, began: Instant| {
        let took = began.elapsed().as_secs();
        let (status, says) = match ended {
            Ok(0) => (0, format!("passed in {took} s")),
            Ok(status) => (
                status,
                format!("FAILED with exit code {status} in {took} s"),
            ),
            Err(error) => (NOT_RUN, format!("NOT RUN: {error:#}")),
        };
        eprintln!("kvm: {name} {says}");
        if first == 0 {
            first = status;
        }
    };
    match &options.wanted {
        Wanted::Steps(names) => {
            for step in steps::named(names)? {
                let load = (step.load)(root, place);
                // Without what it took to build it.
                let began = Instant::now();
                let ended = load.and_then(|load| go(root, place, load, &options));
                note(step.name, ended, began);
            }
        }
        Wanted::Command(command) => {
            let began = Instant::now();
            let load = options.load(command)?;
            note("the command", go(root, place, load, &options), began);
        }
        Wanted::Shell => {
            let began = Instant::now();
            let load = options.load(&["setsid", "--ctty", "--wait", "bash"].map(str::to_owned))?;
            // A shell is for looking into the lane, also where the lane is not needed.
            note("the shell", go(root, Place::Lane, load, &options), began);
        }
    }
    Ok(ExitCode::from(first))
}

fn go(root: &Path, place: Place, mut load: Load, options: &Options) -> Result<u8> {
    match place {
        Place::Host => {
            if options.carried.iter().any(Carried::is_elsewhere) {
                bail!(
                    "this machine itself has hardware virtualisation, so nothing is carried; --emulated runs it in the lane"
                );
            }
            facts::print();
            let mut first = 0;
            for job in &load.jobs {
                let status = here(job, options.deadline)?;
                first = if first == 0 { status } else { first };
            }
            Ok(first)
        }
        Place::Lane => {
            load.carried.extend(options.carried.iter().cloned());
            lane::run(root, &load, options)
        }
    }
}

/// `timeout` ends what is late, with 124, and dies of the signal that the job dies of.
fn here(job: &Job, deadline: Duration) -> Result<u8> {
    let status = Command::new("timeout")
        .args(["--kill-after=10", &deadline.as_secs().to_string()])
        .args(&job.command)
        .envs(job.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&job.folder)
        .stdin(Stdio::null())
        .status()
        .context("starting timeout")?;
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    Ok(code
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(NOT_RUN))
}

/// A device without a processor that virtualises is page tables kept by software, which no stock Linux boots on.
fn has_hardware() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has_flag = flags
        .split_whitespace()
        .any(|word| word == "vmx" || word == "svm");
    has_flag
        && OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
}
