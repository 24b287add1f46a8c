//! The rules of the house that no compiler knows. Each problem is one line: where, and what.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The package of the fuzz targets, in a workspace of its own.
const FUZZ: &str = "vmrepl-fuzz";

/// Who may use whom. An arrow that is not here is a problem.
const ARROWS: [(&str, &[&str]); 16] = [
    ("vmrepl-wire", &[]),
    ("vmrepl-copying", &[]),
    ("vmrepl-vmm", &[]),
    ("vmrepl-qemu", &[]),
    ("vmrepl-image", &[]),
    (
        "vmrepl-machine",
        &["vmrepl-vmm", "vmrepl-qemu", "vmrepl-wire"],
    ),
    ("vmrepl-exec", &["vmrepl-wire"]),
    ("vmrepl-agent", &["vmrepl-wire", "vmrepl-copying"]),
    ("vmrepl-snapshots", &[]),
    ("vmrepl-syntax", &[]),
    ("vmrepl-history", &[]),
    (
        "vmrepl-session",
        &[
            "vmrepl-wire",
            "vmrepl-copying",
            "vmrepl-machine",
            "vmrepl-snapshots",
            "vmrepl-history",
        ],
    ),
    ("vmrepl-line", &["vmrepl-session", "vmrepl-syntax"]),
    ("vmrepl-scripts", &[]),
    (
        FUZZ,
        &[
            "vmrepl-copying",
            "vmrepl-snapshots",
            "vmrepl-vmm",
            "vmrepl-wire",
        ],
    ),
    (
        "vmrepl",
        &[
            "vmrepl-line",
            "vmrepl-session",
            "vmrepl-image",
            "vmrepl-machine",
        ],
    ),
];

const BANNED_MODULES: [&str; 6] = ["utils", "common", "helpers", "manager", "misc", "types"];
const UNSAFE_HOMES: [&str; 5] = [
    "kernel/agent/",
    "kernel/exec/src/inherited.rs",
    "kernel/vmm/",
    "kernel/qemu/src/spawn.rs",
    "kernel/qemu/src/clock.rs",
];
const HEADINGS: [&str; 5] = ["Owns", "In", "Out", "Never", "Try it"];
const ROOMS: [&str; 15] = [
    "kernel/wire",
    "kernel/copying",
    "kernel/vmm",
    "kernel/qemu",
    "kernel/image",
    "kernel/machine",
    "kernel/agent",
    "kernel/exec",
    "snapshots",
    "repl/syntax",
    "repl/history",
    "repl/session",
    "repl/line",
    "runner-py",
    "fuzz",
];
const FILE_LINES_MAX: usize = 600;

/// Walks the tree and returns every problem.
pub(crate) fn tidy(root: &Path) -> Result<Vec<String>> {
    let mut problems = arrows(&metadata(root)?)?;
    problems.extend(arrows(&metadata(&root.join("fuzz"))?)?);
    for file in tracked(root)? {
        let path = root.join(&file);
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        if file.ends_with(".rs") {
            problems.extend(rust_file(&file, &text));
        }
    }
    for room in ROOMS {
        problems.extend(readme(
            room,
            &fs::read_to_string(root.join(room).join("README.md")).unwrap_or_default(),
        ));
    }
    Ok(problems)
}

fn metadata(root: &Path) -> Result<Value> {
    let output = Command::new("cargo")
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root)
        .output()
        .context("could not start cargo")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn tracked(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files"])
        .current_dir(root)
        .output()
        .context("could not start git")?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

/// Compares the arrows between our packages with the table.
fn arrows(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            problems.push(format!(
                "{name}: a room that the table of arrows does not know"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or_default();
            let is_test = dependency["kind"].as_str() == Some("dev");
            if target.starts_with("vmrepl") && !is_test && !allowed.contains(&target) {
                problems.push(format!(
                    "{name} -> {target}: an arrow that the table does not have"
                ));
            }
            let features = dependency["features"].as_array();
            if name != FUZZ && features.is_some_and(|all| all.iter().any(|one| one == "fuzzing")) {
                problems.push(format!(
                    "{name} -> {target}: only the fuzz targets see what is for fuzzing"
                ));
            }
        }
    }
    Ok(problems)
}

fn rust_file(file: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let stem = PathBuf::from(file)
        .file_stem()
        .map(|s| s.to_string_lossy().into_owned())
        .unwrap_or_default();
    if BANNED_MODULES.contains(&stem.as_str()) {
        problems.push(format!(
            "{file}: a module must say what it is about, {stem:?} does not"
        ));
    }
    let own = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = own.lines().count();
    if lines > FILE_LINES_MAX {
        problems.push(format!(
            "{file}: {lines} lines; is it still about one thing? (limit {FILE_LINES_MAX})"
        ));
    }
    let is_test = file.starts_with("tests/")
        || file.contains("/tests/")
        || file.ends_with("tests.rs")
        || file.ends_with("build.rs");
    for (number, line) in own.lines().enumerate() {
        let place = format!("{file}:{}", number + 1);
        let code = line.trim_start();
        let reads = code.contains("env::var") && !code.starts_with("//");
        // The agent's environment is the guest's, not the host's.
        let may_read = ["repl/cli/", "scripts/", "kernel/agent/"]
            .iter()
            .any(|home| file.starts_with(home));
        if reads && !is_test && !may_read {
            problems.push(format!("{place}: only repl/cli reads the environment"));
        }
        let is_unsafe = code.contains("unsafe {") || code.starts_with("unsafe fn");
        if is_unsafe
            && !UNSAFE_HOMES.iter().any(|home| file.starts_with(home))
            && !file.starts_with("scripts/")
        {
            problems.push(format!("{place}: unsafe lives elsewhere"));
        }
        if let Some(message) = code.strip_prefix("#[error(\"") {
            let end = message.split('"').next().unwrap_or(message);
            let name = end.split(|c: char| !c.is_ascii_alphabetic()).next();
            let shouts = |name: &str| name.chars().all(|c| c.is_ascii_uppercase());
            if end.starts_with(|c: char| c.is_ascii_uppercase()) && !name.is_some_and(shouts)
                || end.ends_with('.')
            {
                problems.push(format!(
                    "{place}: messages are lower case and have no full stop"
                ));
            }
        }
    }
    problems
}

fn readme(room: &str, text: &str) -> Vec<String> {
    HEADINGS
        .iter()
        .filter(|heading| {
            !text.contains(&format!("**{heading}**")) && !text.contains(&format!("## {heading}"))
        })
        .map(|heading| format!("{room}/README.md: says nothing under {heading:?}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_new_arrow_is_a_problem() {
        let package = |name: &str, on: &str| json!({"name": name, "dependencies": [{"name": on, "kind": null}]});
        let fine = json!({"packages": [package("vmrepl-machine", "vmrepl-qemu")]});
        assert_eq!(arrows(&fine).unwrap(), Vec::<String>::new());
        let upward = json!({"packages": [package("vmrepl-wire", "vmrepl-session")]});
        assert_eq!(arrows(&upward).unwrap().len(), 1);
        let inside = json!({"packages": [{"name": "vmrepl-machine", "dependencies":
            [{"name": "vmrepl-vmm", "kind": "dev", "features": ["fuzzing"]}]}]});
        assert_eq!(arrows(&inside).unwrap().len(), 1);
        let unknown = json!({"packages": [package("vmrepl-utils", "serde")]});
        assert_eq!(arrows(&unknown).unwrap().len(), 1);
    }

    #[test]
    fn planted_violations_are_found() {
        assert_eq!(rust_file("repl/session/src/utils.rs", "").len(), 1);
        assert_eq!(
            rust_file("repl/session/src/a.rs", "let x = std::env::var(\"X\");").len(),
            1
        );
        assert_eq!(
            rust_file("repl/cli/places.rs", "let x = std::env::var(\"X\");"),
            Vec::<String>::new()
        );
        assert_eq!(
            rust_file("repl/line/src/a.rs", "    unsafe { f() }").len(),
            1
        );
        assert_eq!(
            rust_file("kernel/agent/src/a.rs", "    unsafe { f() }"),
            Vec::<String>::new()
        );
        assert_eq!(rust_file("a/b.rs", "#[error(\"Wrong case\")]").len(), 1);
        assert_eq!(rust_file("a/b.rs", "#[error(\"a stop.\")]").len(), 1);
        assert_eq!(
            rust_file("a/b.rs", "#[error(\"fine\")]"),
            Vec::<String>::new()
        );
        assert_eq!(
            readme("x", "**Owns** **In** **Out** **Never**"),
            ["x/README.md: says nothing under \"Try it\""]
        );
    }
}
