//! What every test stands on: a template, a clock, and honesty about what was not tested.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::process::{self, Run};

/// The template that tests restore.
pub(crate) const TEMPLATE: &str = "base";

/// Nothing that a test waits for takes longer; what does is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// The folder with store and images, prepared once and tried once: when no machine answers here, each
/// test that needs one says so at once instead of waiting for its own deadline.
pub(crate) fn home() -> &'static Path {
    static HOME: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match HOME.get_or_init(prepared) {
        Ok(home) => home,
        Err(why) => panic!("no machine answers here: {why}"),
    }
}

fn prepared() -> Result<PathBuf, String> {
    let home = match std::env::var_os("VMREPL_HOME").filter(|home| !home.is_empty()) {
        Some(home) => PathBuf::from(home),
        None => prepare_once()?,
    };
    let ended = Run::bare(["--template", TEMPLATE, "-c", "6 * 7"])
        .env("VMREPL_HOME", &home)
        .deadline(Duration::from_secs(120))
        .finish();
    if ended.stdout == b"42\n" {
        return Ok(home);
    }
    Err(format!("the first cell: {ended}"))
}

fn prepare_once() -> Result<PathBuf, String> {
    let home = target_folder().join("test-home");
    std::fs::create_dir_all(&home).map_err(|error| error.to_string())?;
    let engine = process::engine().unwrap_or_else(|| "auto".to_owned());
    let status = Command::new(process::VMREPL)
        .args(["prepare", TEMPLATE, "--engine", &engine])
        .env("VMREPL_HOME", &home)
        .stdin(Stdio::null())
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(home);
    }
    Err(format!("vmrepl prepare {TEMPLATE}: {status}"))
}

/// The template with the data stack.
pub(crate) const DATA_TEMPLATE: &str = "python";

/// Whether a template is there; that it is not is a skip, and said.
pub(crate) fn has_template(name: &str) -> bool {
    let is_there = names_of(&home().join("store"), name).is_some();
    if !is_there {
        skip(&format!("no template {name}: vmrepl prepare {name}"));
    }
    is_there
}

/// The folder of names, within a store, that has this template for the engine under test; for any, when none
/// is named.
pub(crate) fn names_of(store: &Path, name: &str) -> Option<&'static str> {
    let folders: &[&str] = match process::engine().as_deref() {
        Some("kvm") => &["names/templates-kvm"],
        Some("qemu") => &["names/templates"],
        _ => &["names/templates", "names/templates-kvm"],
    };
    let mut folders = folders.iter().copied();
    folders.find(|folder| store.join(folder).join(name).exists())
}

/// The folder that cargo builds into.
pub(crate) fn target_folder() -> PathBuf {
    Path::new(process::VMREPL)
        .ancestors()
        .nth(2)
        .expect("the binary lies in target/PROFILE")
        .to_owned()
}

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Picks the short form of a test, or the long one when `VMREPL_SLOW` is set.
pub(crate) fn count(short: usize, slow: usize) -> usize {
    let is_slow = std::env::var_os("VMREPL_SLOW").is_some_and(|value| !value.is_empty());
    if is_slow { slow } else { short }
}

/// Counts and prints what cannot be tested here; where all is required, it fails.
#[expect(clippy::print_stderr, reason = "a skip must be seen")]
pub(crate) fn skip(what: &str) {
    let number = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    eprintln!("SKIPPED ({number}): {what}");
    let all = std::env::var_os("VMREPL_REQUIRE_ALL").is_some_and(|value| !value.is_empty());
    assert!(!all, "skipped although all is required: {what}");
}

/// A folder that goes with the test.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
