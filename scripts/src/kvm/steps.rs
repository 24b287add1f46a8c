//! The registered steps: what `cargo xtask kvm` runs.

use std::path::Path;
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
const STEPS: [Step; 1] = [
    Step {
        name: "vmm",
        load: vmm,
    },
    // The transcripts come here: the test `it` of the root package and `vmrepl` itself, with the images carried to
    // `/scratch/vmrepl/images`, VMREPL_HOME=/scratch/vmrepl and VMREPL_ENGINE=kvm.
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
    tests_of(root, &["--package", "vmrepl-vmm"])
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
        load.jobs.push(Job {
            folder: folder.to_owned(),
            environment: vec![
                // As cargo does.
                (
                    "CARGO_MANIFEST_DIR".to_owned(),
                    folder.display().to_string(),
                ),
                ("VMREPL_REQUIRE_ALL".to_owned(), "1".to_owned()),
                ("RUST_BACKTRACE".to_owned(), "1".to_owned()),
            ],
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
