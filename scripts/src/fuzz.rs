//! `cargo xtask fuzz`: the fuzz targets, one after the other, each for some minutes on the stable compiler.

use std::fs::{self, File};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

const USAGE: &str = "cargo xtask fuzz [--minutes N] [TARGET...]   all fuzz targets or these, for 10 minutes each or as many as given";

/// Of one input. The slowest takes milliseconds.
const TIMEOUT_S: u32 = 10;
/// Of the fuzzer, corpus and sanitizer included.
const MEMORY_MB: u32 = 2048;
/// The longest input: a saved state with one processor, twice.
const INPUT_BYTES: u32 = 8192;

#[derive(Debug, PartialEq, Eq)]
struct Options {
    minutes: u64,
    targets: Vec<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let (mut minutes, mut targets) = (10, Vec::new());
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--minutes" => {
                    let text = rest.next().map_or("", String::as_str);
                    let number: NonZeroU64 = text.parse().with_context(|| {
                        format!("--minutes {text}: a number is needed\n{USAGE}")
                    })?;
                    minutes = number.get();
                }
                option if option.starts_with('-') => bail!("{option} is not known\n{USAGE}"),
                target => targets.push(target.to_owned()),
            }
        }
        Ok(Self { minutes, targets })
    }
}

/// Runs what the arguments ask for and prints a line a target; the exit code says whether all were clean.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<ExitCode> {
    let options = Options::parse(arguments)?;
    let known = targets(root)?;
    for target in &options.targets {
        if !known.contains(target) {
            bail!(
                "there is no target {target:?}; there are {}",
                known.join(", ")
            );
        }
    }
    let wanted = if options.targets.is_empty() {
        known
    } else {
        options.targets
    };
    install()?;
    let build = cargo_fuzz(root, &["build"]).status();
    if !build.context("starting cargo fuzz")?.success() {
        bail!("the fuzz targets could not be built");
    }
    let mut ended = Vec::new();
    for target in wanted {
        eprintln!("fuzz: {target} for {} minutes", options.minutes);
        ended.push(fuzz(root, target, options.minutes)?);
    }
    for one in &ended {
        println!("{}", one.line());
    }
    let is_clean = ended.iter().all(|one| one.is_clean);
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The names of the targets, in order.
fn targets(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("fuzz/fuzz_targets")).context("looking for targets")? {
        let path = entry?.path();
        if let Some(stem) = path.file_stem() {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn install() -> Result<()> {
    let there = Command::new("cargo")
        .args(["fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if there {
        return Ok(());
    }
    let status = Command::new("cargo")
        .args(["install", "cargo-fuzz", "--locked"])
        .status()
        .context("starting cargo")?;
    if !status.success() {
        bail!("cargo-fuzz could not be installed");
    }
    Ok(())
}

/// Sanitizers are for nightly compilers only, unless a stable one is told that it is one.
fn cargo_fuzz(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.arg("fuzz").args(arguments);
    command.env("RUSTC_BOOTSTRAP", "1").current_dir(root);
    command
}

fn fuzz(root: &Path, target: String, minutes: u64) -> Result<Ended> {
    let folder = |kind: &str| -> PathBuf { root.join("fuzz").join(kind).join(&target) };
    let (corpus, findings) = (folder("corpus"), folder("artifacts"));
    for folder in [&corpus, &findings] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let log_path = root.join("fuzz/artifacts").join(format!("{target}.log"));
    let log = File::create(&log_path).with_context(|| format!("making {}", log_path.display()))?;
    let before = count(&findings)?;
    let status = cargo_fuzz(root, &["run", &target])
        .args([&corpus, &folder("seeds")])
        .arg("--")
        .args([
            format!("-max_total_time={}", 60 * minutes),
            format!("-timeout={TIMEOUT_S}"),
            format!("-rss_limit_mb={MEMORY_MB}"),
            format!("-max_len={INPUT_BYTES}"),
            "-print_final_stats=1".to_owned(),
        ])
        .stdin(Stdio::null())
        .stderr(log)
        .status()
        .context("starting cargo fuzz")?;
    let said = fs::read(&log_path).with_context(|| format!("reading {}", log_path.display()))?;
    let (runs, coverage) = figures(&String::from_utf8_lossy(&said));
    Ok(Ended {
        target,
        runs,
        coverage,
        findings: count(&findings)?.saturating_sub(before),
        is_clean: status.success(),
        log_path,
    })
}

fn count(folder: &Path) -> Result<usize> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    Ok(entries.count())
}

/// Runs and coverage that a fuzzer's log ends with.
fn figures(log: &str) -> (u64, u64) {
    let last = |key: &str| {
        let words = log.lines().rev().find_map(|line| line.split_once(key));
        let word = words.and_then(|(_, rest)| rest.split_whitespace().next());
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    (last("number_of_executed_units: "), last("cov: "))
}

/// What came of one target.
#[derive(Debug)]
struct Ended {
    target: String,
    runs: u64,
    coverage: u64,
    findings: usize,
    is_clean: bool,
    log_path: PathBuf,
}

impl Ended {
    fn line(&self) -> String {
        let Self {
            target,
            runs,
            coverage,
            findings,
            ..
        } = self;
        let verdict = if self.is_clean {
            "clean".to_owned()
        } else {
            format!("NOT CLEAN, see {}", self.log_path.display())
        };
        format!("{target}: {runs} runs, coverage {coverage}, {findings} findings: {verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_ends_with_its_figures() {
        let log = "#2\tINITED cov: 7 ft: 8\n#901\tDONE   cov: 1902 ft: 10064 corp: 991/44Kb\n\
                   stat::number_of_executed_units: 901\nstat::peak_rss_mb: 420\n";
        assert_eq!(figures(log), (901, 1902));
        assert_eq!(figures("no target of this name"), (0, 0));
    }

    #[test]
    fn arguments_are_minutes_and_targets() {
        let parse = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            Options::parse(&words)
        };
        assert_eq!(parse(&[]).unwrap().minutes, 10);
        let some = parse(&["vsock", "--minutes", "3", "block"]).unwrap();
        assert_eq!((some.minutes, some.targets.len()), (3, 2));
        parse(&["--minutes", "0"]).unwrap_err();
        parse(&["--hours"]).unwrap_err();
    }

    #[test]
    fn every_target_has_seeds_and_a_binary() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        let targets = targets(&root).unwrap();
        assert!(!targets.is_empty());
        for target in targets {
            assert!(
                manifest.contains(&format!("name = \"{target}\"")),
                "{target}"
            );
            assert!(count(&root.join("fuzz/seeds").join(&target)).unwrap() > 0);
        }
    }
}
