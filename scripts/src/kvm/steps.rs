//! The registered steps: what `cargo xtask kvm` runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Place;
use super::carry::{Carried, Job, Load};

/// Something to be run where `/dev/kvm` works.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// Builds it, and says what to run and to carry.
    pub(crate) load: fn(&Path, Place) -> Result<Load>,
}

/// In the order in which they run: what fails soonest comes first.
const STEPS: [Step; 2] = [
    Step {
        name: "vmm",
        load: vmm,
    },
    Step {
        name: "machine",
        load: machine,
    },
];

/// Where the machine tests keep their templates in the lane.
const HOME: &str = "/scratch/vmrepl";
/// The templates that they need, and they themselves: `$0` is the program, `$1` the tests. Full disks are for root,
/// who mounts them, and in the lane nobody is.
const MACHINE_TESTS: &str = r#"set -e
"$0" prepare base --engine kvm --quiet
"$0" prepare python --engine kvm --quiet
tests=$1
shift
exec "$tests" --test-threads=2 --skip full_disk:: "$@""#;
/// The tests that are run where neither `VMREPL_SLOW` asks for all nor `VMREPL_LANE_TESTS` for others: what the engine does
/// otherwise than the other.
const OWN_TESTS: [&str; 15] = [
    "transcripts::in_a_machine",
    "in_place::",
    "pool::",
    "layers::",
    "flips::",
    "ports::",
    "sessions::any_walk",
    "sessions::the_machine_itself",
    "sessions::no_end_of_a_cell",
    "files::cells_are_kept",
    "languages::no_way_leads_out",
    "programs::a_program_in_a_session",
    "endings::",
    "kills::",
    "copies::the_doctor",
];

/// The steps of these names; without names, all.
pub(crate) fn named(names: &[String]) -> Result<Vec<&'static Step>> {
    const KNOWN: &[Step] = &STEPS;
    if names.is_empty() {
        return Ok(KNOWN.iter().collect());
    }
    let find = |name: &String| {
        let known = || {
            KNOWN
                .iter()
                .map(|step| step.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        KNOWN
            .iter()
            .find(|step| step.name == name)
            .with_context(|| format!("there is no step {name:?}, only: {}", known()))
    };
    names.iter().map(find).collect()
}

/// The monitor's own tests.
fn vmm(root: &Path, _: Place) -> Result<Load> {
    // Optimised: the lane is slow enough.
    tests_of(root, &["--profile", "fast", "--package", "vmrepl-vmm"])
}

/// Tests of the program, on the engine kvm: templates are made of images that are carried in, without a network.
fn machine(root: &Path, place: Place) -> Result<Load> {
    let home = std::env::var_os("VMREPL_HOME")
        .map(PathBuf::from)
        .context("VMREPL_HOME must name a folder with the images of base and python")?;
    build(root, &["--profile", "fast", "--bin", "vmrepl"])?;
    build(root, &["--package", "vmrepl-agent"])?;
    let mut load = tests_of(root, &["--profile", "fast", "--test", "it"])?;
    let tests = load.jobs.remove(0);
    let folder = Path::new(&tests.command[0])
        .ancestors()
        .nth(3)
        .context("a test program lies in target/PROFILE/deps")?;
    let (program, agent) = (
        folder.join("fast/vmrepl"),
        folder.join("debug/vmrepl-agent"),
    );
    let mut environment = tests.environment;
    let mut set = |name: &str, value: &str| environment.push((name.to_owned(), value.to_owned()));
    set("VMREPL_TEST_ENGINE", "kvm");
    set("VMREPL_TEST_AGENT", &agent.display().to_string());
    if place == Place::Lane {
        set("VMREPL_HOME", HOME);
        let images = Path::new(HOME).join("images");
        load.carried
            .push(Carried::new(&home.join("images"), images)?);
        load.carried.push(Carried::same(&program)?);
        load.carried.push(Carried::same(&agent)?);
    } else {
        set("VMREPL_HOME", &home.display().to_string());
    }
    let words = ["bash", "-c", MACHINE_TESTS].map(str::to_owned);
    let mut command = Vec::from(words);
    command.push(program.display().to_string());
    command.extend(tests.command);
    match std::env::var("VMREPL_LANE_TESTS") {
        Ok(wish) if !wish.trim().is_empty() => {
            command.extend(wish.split_whitespace().map(str::to_owned));
        }
        _ if is_slow() => {}
        _ => command.extend(OWN_TESTS.map(str::to_owned)),
    }
    load.jobs = vec![Job {
        folder: tests.folder,
        environment,
        command,
    }];
    Ok(load)
}

/// Whether the long forms are asked for.
fn is_slow() -> bool {
    std::env::var_os("VMREPL_SLOW").is_some_and(|value| !value.is_empty())
}

fn build(root: &Path, selection: &[&str]) -> Result<()> {
    let status = Command::new("cargo")
        .arg("build")
        .args(selection)
        .current_dir(root)
        .status()
        .context("starting cargo")?;
    if !status.success() {
        bail!("cargo build {} failed", selection.join(" "));
    }
    Ok(())
}

/// Builds test programs and returns one job for each.
fn tests_of(root: &Path, selection: &[&str]) -> Result<Load> {
    let output = Command::new("cargo")
        .args([
            "test",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ])
        .args(selection)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!(
            "the tests do not build: cargo test --no-run {}",
            selection.join(" ")
        );
    }
    let mut load = Load::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line).context("reading cargo's messages")?;
        let (Some(program), Some(true)) = (
            message["executable"].as_str(),
            message["profile"]["test"].as_bool(),
        ) else {
            continue;
        };
        let manifest = message["manifest_path"].as_str().unwrap_or_default();
        let folder = Path::new(manifest).parent().unwrap_or(root);
        load.carried.push(Carried::same(Path::new(program))?);
        let mut environment = vec![
            // As cargo does.
            (
                "CARGO_MANIFEST_DIR".to_owned(),
                folder.display().to_string(),
            ),
            ("VMREPL_REQUIRE_ALL".to_owned(), "1".to_owned()),
            ("RUST_BACKTRACE".to_owned(), "1".to_owned()),
        ];
        if is_slow() {
            environment.push(("VMREPL_SLOW".to_owned(), "1".to_owned()));
        }
        load.jobs.push(Job {
            folder: folder.to_owned(),
            environment,
            command: vec![program.to_owned()],
        });
    }
    if load.jobs.is_empty() {
        bail!(
            "cargo test --no-run {} makes no test program",
            selection.join(" ")
        );
    }
    Ok(load)
}
