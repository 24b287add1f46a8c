//! `cargo xtask`: what is done to the tree rather than by the product.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for people at a terminal"
)]

mod check;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "cargo xtask check    everything that must hold before a commit: fmt, clippy, tidy, tests, docs, Python
cargo xtask tidy     only the rules of the house
cargo xtask bless    rewrite the goldens of the current format";

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match std::env::args()
        .nth(1)
        .as_deref()
        .map_or_else(bail, |verb| run(verb, &root))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bail() -> Result<()> {
    bail!("say what to do\n{USAGE}")
}

fn run(verb: &str, root: &Path) -> Result<()> {
    match verb {
        "check" => check::check(root),
        "tidy" => {
            let found = tidy::tidy(root)?;
            for problem in &found {
                println!("{problem}");
            }
            if found.is_empty() {
                Ok(())
            } else {
                bail!("tidy: {} problems", found.len())
            }
        }
        "bless" => check::bless(root),
        other => bail!("{other:?} is not known\n{USAGE}"),
    }
}
