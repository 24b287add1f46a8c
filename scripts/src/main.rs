//! `cargo xtask`: what is done to the tree rather than by the product.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for people at a terminal"
)]

mod check;
mod fuzz;
mod kvm;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "cargo xtask check    everything that must hold before a commit: fmt, clippy, tidy, tests, docs, Python
cargo xtask tidy     only the rules of the house
cargo xtask kvm      what needs /dev/kvm, in a machine that has it; --help tells more
cargo xtask fuzz     the fuzz targets, 10 minutes each; [--minutes N] [TARGET...]
cargo xtask bless    rewrite the goldens of the current format";

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments, &root) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String], root: &Path) -> Result<ExitCode> {
    let Some((verb, arguments)) = arguments.split_first() else {
        bail!("say what to do\n{USAGE}");
    };
    match verb.as_str() {
        "check" => check::check(root)?,
        "tidy" => {
            let found = tidy::tidy(root)?;
            for problem in &found {
                println!("{problem}");
            }
            if !found.is_empty() {
                bail!("tidy: {} problems", found.len());
            }
        }
        "bless" => check::bless(root)?,
        "fuzz" => return fuzz::run(root, arguments),
        "kvm" => return kvm::run(root, arguments),
        // Said by this program from inside the lane.
        "kvm-facts" => kvm::print_facts(),
        other => bail!("{other:?} is not known\n{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}
