//! What the agent is told: by the Linux command line in a machine, by arguments on a host.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::limits;

/// Options of a machine; `vmrepl.NAME=VALUE` on the Linux command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MachineOptions {
    /// `root`: the disk with the read-only root.
    pub(crate) root: PathBuf,
    /// `rootfstype`: its format; without it those that images come in are tried.
    pub(crate) root_format: Option<String>,
    /// `overlay_size`: bound of the writable layer, as tmpfs takes it.
    pub(crate) overlay_size: String,
    /// `hostname`: until a resume gives another.
    pub(crate) hostname: Option<String>,
    /// `python`: the interpreter of the runner.
    pub(crate) python: PathBuf,
    /// `memory_max`: what cells may have together, in bytes; else all but a reserve.
    pub(crate) memory_max_bytes: Option<u64>,
    /// `pids_max`: processes that cells may have together.
    pub(crate) pids_max: u32,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/dev/vda"),
            root_format: None,
            overlay_size: "50%".to_owned(),
            hostname: None,
            python: PathBuf::from("/usr/bin/python3"),
            memory_max_bytes: None,
            pids_max: limits::PROCESSES,
        }
    }
}

/// A `vmrepl.` option that was passed over.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("option vmrepl.{name}={value} is not understood")]
pub(crate) struct PassedOver {
    name: String,
    value: String,
}

impl MachineOptions {
    /// Reads the Linux command line. A mistake in it must not keep a machine from booting: what is
    /// not understood is returned for the log.
    pub(crate) fn parse(command_line: &str) -> (Self, Vec<PassedOver>) {
        let mut options = Self::default();
        let mut passed_over = Vec::new();
        for word in command_line.split_ascii_whitespace() {
            let Some(option) = word.strip_prefix("vmrepl.") else {
                continue;
            };
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if !options.set(name, value) {
                passed_over.push(PassedOver {
                    name: name.to_owned(),
                    value: value.to_owned(),
                });
            }
        }
        (options, passed_over)
    }

    fn set(&mut self, name: &str, value: &str) -> bool {
        match name {
            _ if value.is_empty() => return false,
            "root" => self.root = PathBuf::from(value),
            "rootfstype" => self.root_format = Some(value.to_owned()),
            "overlay_size" => value.clone_into(&mut self.overlay_size),
            "hostname" => self.hostname = Some(value.to_owned()),
            "python" => self.python = PathBuf::from(value),
            "memory_max" => match value.parse() {
                Ok(bytes) => self.memory_max_bytes = Some(bytes),
                Err(_) => return false,
            },
            "pids_max" => match value.parse() {
                Ok(count) => self.pids_max = count,
                Err(_) => return false,
            },
            _ => return false,
        }
        true
    }
}

/// Where connections come from when the agent runs without a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A Unix socket to be made.
    Path(PathBuf),
    /// A descriptor that was handed over.
    Descriptor(i32),
    /// Ports of the vsock device, each so much above its number.
    Vsock { shift: u32 },
}

/// Arguments of the agent without a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct HostOptions {
    /// `--listen unix:PATH|fd:N|vsock[:SHIFT]`: takes `CONNECT <port>` on each connection, or has a vsock
    /// port for each.
    pub(crate) listen: Option<Place>,
    /// `--channel fd:N`: a connected stream that carries the multiplexer.
    pub(crate) channel: Option<i32>,
    /// `--runner DIR`: the runner's package.
    pub(crate) runner: PathBuf,
    /// `--python PATH`.
    pub(crate) python: PathBuf,
    /// `--exec PATH`: the program that speaks gRPC on port 2222; without it nobody does.
    pub(crate) exec: Option<PathBuf>,
}

/// Arguments that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgumentError {
    #[error("argument {0:?} is not understood")]
    Unknown(OsString),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("{name} takes {expected}, not `{value}`")]
    Value {
        name: &'static str,
        expected: &'static str,
        value: String,
    },
    #[error("--runner DIR and one of --listen, --channel are needed outside a machine")]
    Missing,
}

impl HostOptions {
    /// Reads the arguments behind the program's name.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, ArgumentError> {
        let mut options = Self {
            python: PathBuf::from("python3"),
            ..Self::default()
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = |name| arguments.next().ok_or(ArgumentError::NoValue(name));
            match argument.to_str() {
                Some("--listen") => options.listen = Some(place(&value("--listen")?)?),
                Some("--channel") => options.channel = Some(channel(&value("--channel")?)?),
                Some("--runner") => options.runner = PathBuf::from(value("--runner")?),
                Some("--python") => options.python = PathBuf::from(value("--python")?),
                Some("--exec") => options.exec = Some(PathBuf::from(value("--exec")?)),
                _ => return Err(ArgumentError::Unknown(argument)),
            }
        }
        let reachable = options.listen.is_some() || options.channel.is_some();
        if options.runner.as_os_str().is_empty() || !reachable {
            return Err(ArgumentError::Missing);
        }
        Ok(options)
    }
}

fn place(value: &OsString) -> Result<Place, ArgumentError> {
    let text = value.to_string_lossy();
    if let Some(path) = text.strip_prefix("unix:")
        && !path.is_empty()
    {
        return Ok(Place::Path(PathBuf::from(path)));
    }
    let vsock = match text.strip_prefix("vsock") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix(':').and_then(|shift| shift.parse().ok()),
        None => None,
    };
    if let Some(shift) = vsock {
        return Ok(Place::Vsock { shift });
    }
    descriptor(&text)
        .map(Place::Descriptor)
        .ok_or_else(|| ArgumentError::Value {
            name: "--listen",
            expected: "unix:PATH, fd:N, vsock or vsock:SHIFT",
            value: text.into_owned(),
        })
}

fn channel(value: &OsString) -> Result<i32, ArgumentError> {
    let text = value.to_string_lossy();
    descriptor(&text).ok_or_else(|| ArgumentError::Value {
        name: "--channel",
        expected: "fd:N",
        value: text.into_owned(),
    })
}

/// Numbers 0 to 2 are taken: the runner's output and the log must never be somebody's connection.
fn descriptor(text: &str) -> Option<i32> {
    text.strip_prefix("fd:")?
        .parse()
        .ok()
        .filter(|number| *number > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_of_a_machine() {
        let (options, passed_over) = MachineOptions::parse(
            "console=ttyS0 vmrepl.root=/dev/vdb vmrepl.pids_max=99 quiet vmrepl.hostname=a \
             vmrepl.memory_max=many vmrepl.color=red vmrepl.python\n",
        );
        assert_eq!(options.root, PathBuf::from("/dev/vdb"));
        assert_eq!(options.pids_max, 99);
        assert_eq!(options.hostname.as_deref(), Some("a"));
        assert_eq!(options.memory_max_bytes, None);
        let passed_over: Vec<_> = passed_over.iter().map(ToString::to_string).collect();
        assert_eq!(
            passed_over,
            [
                "option vmrepl.memory_max=many is not understood",
                "option vmrepl.color=red is not understood",
                "option vmrepl.python= is not understood",
            ]
        );
    }

    #[test]
    fn arguments_of_a_host() {
        let parse = |line: &str| {
            HostOptions::parse(line.split(' ').map(OsString::from)).map_err(|e| e.to_string())
        };
        let options = parse("--listen unix:/run/a.sock --runner /r --python /p").unwrap();
        assert_eq!(
            options.listen,
            Some(Place::Path(PathBuf::from("/run/a.sock")))
        );
        assert_eq!((options.runner, options.python), ("/r".into(), "/p".into()));
        assert_eq!(
            parse("--runner /r --channel fd:7").unwrap().channel,
            Some(7)
        );
        for (line, shift) in [("vsock", 0), ("vsock:70000", 70_000)] {
            let options = parse(&format!("--listen {line} --runner /r")).unwrap();
            assert_eq!(options.listen, Some(Place::Vsock { shift }));
        }
        for (line, message) in [
            (
                "--runner /r",
                "--runner DIR and one of --listen, --channel are needed",
            ),
            (
                "--listen fd:1 --runner /r",
                "--listen takes unix:PATH, fd:N, vsock or vsock:SHIFT, not `fd:1`",
            ),
            (
                "--listen vsock:x --runner /r",
                "--listen takes unix:PATH, fd:N, vsock or vsock:SHIFT, not `vsock:x`",
            ),
            (
                "--channel unix:a --runner /r",
                "--channel takes fd:N, not `unix:a`",
            ),
            ("--runner", "--runner needs a value"),
            ("--lisen x", "argument \"--lisen\" is not understood"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.starts_with(message), "{line}: {error}");
        }
    }
}
