//! Everything that must hold before a commit, in the order of what fails soonest.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Runs all checks; the first that fails ends it.
pub(crate) fn check(root: &Path) -> Result<()> {
    step(root, "fmt", &["cargo", "fmt", "--all", "--check"])?;
    step(
        &root.join("fuzz"),
        "fmt of the fuzz targets",
        &["cargo", "fmt", "--check"],
    )?;
    let problems = crate::tidy::tidy(root)?;
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        bail!("tidy: {} problems", problems.len());
    }
    step(
        root,
        "clippy",
        &[
            "cargo",
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    step(
        root,
        "unit tests",
        &[
            "cargo",
            "test",
            "--workspace",
            "--all-features",
            "--exclude",
            "vmrepl",
            "--lib",
            "--bins",
            "--tests",
        ],
    )?;
    step(
        root,
        "unit tests of the program",
        &["cargo", "test", "--package", "vmrepl", "--bins"],
    )?;
    step(
        root,
        "docs",
        &[
            "cargo",
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--quiet",
        ],
    )?;
    python(&root.join("runner-py"))
}

/// The runner's code and tests, and the clients of the machine tests by the same rules.
fn python(runner: &Path) -> Result<()> {
    let ruff = ["python3", "-m", "ruff"];
    let what = ["--config", "pyproject.toml", ".", "../tests/clients"];
    step(runner, "ruff", &[&ruff[..], &["check"], &what].concat())?;
    step(
        runner,
        "ruff format",
        &[&ruff[..], &["format", "--check"], &what].concat(),
    )?;
    step(runner, "mypy", &["python3", "-m", "mypy"])?;
    step(runner, "pytest", &["python3", "-m", "pytest", "-q"])
}

/// Rewrites the goldens of the current formats.
pub(crate) fn bless(root: &Path) -> Result<()> {
    let status = Command::new("cargo")
        .args([
            "test",
            "--package",
            "vmrepl-wire",
            "--package",
            "vmrepl-copying",
            "--package",
            "vmrepl-snapshots",
            "--package",
            "vmrepl-vmm",
        ])
        .env("VMREPL_BLESS", "1")
        .current_dir(root)
        .status()
        .context("could not start cargo")?;
    if status.success() {
        Ok(())
    } else {
        bail!("the goldens could not be rewritten")
    }
}

fn step(folder: &Path, name: &str, command: &[&str]) -> Result<()> {
    println!("== {name}");
    let began = Instant::now();
    let status = Command::new(command[0])
        .args(&command[1..])
        .current_dir(folder)
        .status()
        .with_context(|| format!("could not start {}", command[0]))?;
    if !status.success() {
        bail!("{name} failed: {}", command.join(" "));
    }
    println!("== {name}: {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
