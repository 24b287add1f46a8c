//! What the command line asks for.

use std::num::{NonZeroU8, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::carry::{Carried, Job, Load};

pub(crate) const USAGE: &str =
    "cargo xtask kvm [OPTION...] [STEP...]             the registered steps, all or these
cargo xtask kvm [OPTION...] -- COMMAND [ARG...]   one command; files that it names are carried along
cargo xtask kvm [OPTION...] --shell               a shell in the lane
  --emulated              in the lane, also where the processor can virtualise
  --carry HOST[=GUEST]    a file, or a folder whose changes are dropped; repeated
  --env NAME=VALUE        repeated; nothing of this environment is passed on by itself
  --deadline MINUTES      after which the lane is stopped (60)
  --processors N          of the lane (1); with more it is faster, and ends now and then by a fault of the emulator";

/// What is to be run.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// These steps, or all.
    Steps(Vec<String>),
    Command(Vec<String>),
    Shell,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) wanted: Wanted,
    pub(crate) is_emulated: bool,
    pub(crate) carried: Vec<Carried>,
    environment: Vec<(String, String)>,
    pub(crate) deadline: Duration,
    pub(crate) processors: NonZeroU8,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            wanted: Wanted::Steps(Vec::new()),
            is_emulated: false,
            carried: Vec::new(),
            environment: Vec::new(),
            deadline: Duration::from_secs(60 * 60),
            processors: NonZeroU8::MIN,
        };
        let mut steps = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || {
                rest.next()
                    .with_context(|| format!("{argument} needs a value\n{USAGE}"))
            };
            match argument.as_str() {
                "--" => {
                    options.wanted = Wanted::Command(rest.cloned().collect());
                    break;
                }
                "--shell" => options.wanted = Wanted::Shell,
                "--emulated" => options.is_emulated = true,
                "--carry" => options.carried.push(carried(value()?)?),
                "--env" => {
                    let text = value()?;
                    let (name, value) = text
                        .split_once('=')
                        .with_context(|| format!("--env {text}: NAME=VALUE is needed"))?;
                    options
                        .environment
                        .push((name.to_owned(), value.to_owned()));
                }
                "--deadline" => {
                    let text = value()?;
                    let minutes: NonZeroU64 = text.parse().with_context(|| {
                        format!("--deadline {text}: a number of minutes is needed")
                    })?;
                    options.deadline = Duration::from_secs(60 * minutes.get());
                }
                "--processors" => {
                    let text = value()?;
                    options.processors = text
                        .parse()
                        .with_context(|| format!("--processors {text}: a number is needed"))?;
                }
                "--help" => bail!("what to run where /dev/kvm works\n{USAGE}"),
                option if option.starts_with('-') => bail!("{option} is not known\n{USAGE}"),
                step => steps.push(step.to_owned()),
            }
        }
        match &mut options.wanted {
            Wanted::Steps(names) => *names = steps,
            _ if !steps.is_empty() => {
                bail!("either steps ({}) or a command\n{USAGE}", steps.join(", "))
            }
            Wanted::Command(command) if command.is_empty() => bail!("-- needs a command\n{USAGE}"),
            Wanted::Command(_) | Wanted::Shell => {}
        }
        Ok(options)
    }

    /// One command in the current folder, with the files that it names.
    pub(crate) fn load(&self, command: &[String]) -> Result<Load> {
        let folder = std::env::current_dir().context("asking for the current folder")?;
        let mut command = command.to_owned();
        let mut carried = Vec::new();
        for (number, word) in command.iter_mut().enumerate() {
            let path = folder.join(word.as_str());
            if !word.contains('/') || !path.is_file() || is_of_the_guest(word) {
                continue;
            }
            if number == 0 {
                // Found wherever the command starts.
                *word = path
                    .to_str()
                    .context("a command's path must be UTF-8")?
                    .to_owned();
            }
            carried.push(Carried::same(&path)?);
        }
        let has_terminal = matches!(self.wanted, Wanted::Shell);
        let mut environment = self.environment.clone();
        if let (true, Ok(terminal)) = (has_terminal, std::env::var("TERM")) {
            environment.push(("TERM".to_owned(), terminal));
        }
        Ok(Load {
            jobs: vec![Job {
                folder,
                environment,
                command,
            }],
            carried,
            has_terminal,
        })
    }
}

/// The programs and settings of the system are the outer guest's own.
fn is_of_the_guest(path: &str) -> bool {
    const SYSTEM: [&str; 8] = [
        "/usr/", "/bin/", "/sbin/", "/lib", "/etc/", "/dev/", "/proc/", "/sys/",
    ];
    SYSTEM.iter().any(|start| path.starts_with(start))
}

fn carried(text: &str) -> Result<Carried> {
    match text.split_once('=') {
        None => Carried::same(Path::new(text)),
        Some((host, guest)) => Carried::new(Path::new(host), PathBuf::from(guest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options> {
        Options::parse(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        let options = parse(&[
            "--emulated",
            "--env",
            "A=b=c",
            "--deadline",
            "2",
            "--processors",
            "2",
            "--",
            "x",
            "--carry",
            "--",
        ])
        .unwrap();
        assert!(options.is_emulated);
        assert_eq!(options.environment, [("A".to_owned(), "b=c".to_owned())]);
        assert_eq!(options.deadline, Duration::from_secs(120));
        assert_eq!(options.processors.get(), 2);
        assert!(
            matches!(options.wanted, Wanted::Command(command) if command == ["x", "--carry", "--"])
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            &["--"][..],
            &["--env", "A"],
            &["--env"],
            &["--deadline", "0"],
            &["--processors", "0"],
            &["--unknown"],
            &["vmm", "--", "x"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
