//! Builds the guest's static binaries, the agent and `exec`, and embeds them, with the runner's files, into this crate.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MUSL: &str = "x86_64-unknown-linux-musl";
/// What of the runner's files goes along.
const ENDINGS: [&str; 4] = [".py", ".js", ".sh", "py.typed"];
const GNU: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let here = PathBuf::from(var("CARGO_MANIFEST_DIR"));
    let root = here
        .join("../..")
        .canonicalize()
        .expect("the workspace is two folders up");
    let out = PathBuf::from(var("OUT_DIR"));
    for path in [
        "kernel/agent",
        "kernel/exec",
        "kernel/wire",
        "runner-py/runner",
        "Cargo.lock",
        "Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let binaries = build_binaries(&root, &target_folder(&out));
    let mut code = String::new();
    for (name, comment) in [
        ("agent", "The agent."),
        ("exec", "gRPC on port 2222, which the agent starts."),
    ] {
        fs::copy(binaries.join(format!("vmrepl-{name}")), out.join(name))
            .expect("a binary can be copied");
        let constant = name.to_uppercase();
        writeln!(
            code,
            "/// {comment}\npub(crate) static {constant}: &[u8] = include_bytes!(\"{name}\");"
        )
        .expect("a String takes it all");
    }
    code.push_str("/// The runner's files, by their path in the package.\npub(crate) static RUNNER: &[(&str, &[u8])] = &[\n");
    let mut files = Vec::new();
    let runner = root.join("runner-py/runner");
    list(&runner, Path::new(""), &mut files);
    files.sort();
    for file in files {
        let path = runner.join(&file);
        writeln!(code, "    ({file:?}, include_bytes!({path:?})),").expect("a String takes it all");
    }
    code.push_str("];\n");
    fs::write(out.join("embedded.rs"), code).expect("the list can be written");
}

/// One folder for all profiles of the outer build, so that the binaries are compiled once.
fn target_folder(out: &Path) -> PathBuf {
    let profile = out
        .ancestors()
        .find(|path| path.file_name().is_some_and(|name| name == "build"));
    let target = profile
        .and_then(|build| build.parent()?.parent())
        .unwrap_or(out);
    target.join("agent-build")
}

/// musl where its standard library is installed, else the C library of the host linked statically. Returns their folder.
fn build_binaries(root: &Path, target_folder: &Path) -> PathBuf {
    let rustc = var("RUSTC");
    let target = if has_target(&rustc, MUSL) { MUSL } else { GNU };
    let mut cargo = Command::new(var("CARGO"));
    cargo
        .current_dir(root)
        .args([
            "build",
            "--locked",
            "--package",
            "vmrepl-agent",
            "--package",
            "vmrepl-exec",
            "--profile",
            "agent",
            "--target",
            target,
        ])
        .arg("--target-dir")
        .arg(target_folder);
    // The outer build's choices (its flags, its lints, its target) are not the guest's.
    for (name, _) in env::vars() {
        let outer = [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_TARGET_DIR",
            "CLIPPY_ARGS",
        ];
        let outer_prefix = [
            "CARGO_BUILD_",
            "CARGO_PROFILE_",
            "CARGO_FEATURE_",
            "CARGO_CFG_",
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
        ];
        let rustflags = name.starts_with("CARGO_TARGET_") && name.ends_with("_RUSTFLAGS");
        if outer.contains(&name.as_str())
            || outer_prefix.iter().any(|prefix| name.starts_with(prefix))
            || rustflags
        {
            cargo.env_remove(name);
        }
    }
    if target == GNU {
        cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(
        status.success(),
        "the guest's binaries do not build for {target}; see the messages above"
    );
    target_folder.join(target).join("agent")
}

fn has_target(rustc: &str, target: &str) -> bool {
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", target])
        .output();
    output.is_ok_and(|output| {
        let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success()
            && fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
    })
}

fn list(root: &Path, relative: &Path, files: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(root.join(relative)) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let path = relative.join(&name);
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        match name.to_str() {
            Some(name) if name == "__pycache__" || name.starts_with('.') => {}
            Some(_) if is_folder => list(root, &path, files),
            Some(name) if ENDINGS.iter().any(|ending| name.ends_with(ending)) => {
                files.push(path.display().to_string());
            }
            _ => {}
        }
    }
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
