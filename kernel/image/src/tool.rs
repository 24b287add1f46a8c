//! Runs one program of the host to its end: lines as they come, the tail of its output if it fails, and its whole
//! process group ended when the build is cancelled.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::limits::{
    CANCEL_POLL_MS, TOOL_END_MS, TOOL_END_POLL_MS, TOOL_GRACE_MS, TOOL_LINE_BYTES,
    TOOL_TAIL_LINE_CHARS, TOOL_TAIL_LINES,
};
use crate::progress::Cancel;

/// How a program of the host failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// It was ended because the build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// It is not installed.
    #[error("`{name}` is not installed")]
    Missing {
        /// The program.
        name: String,
        /// The Debian package that has it.
        debian_package: &'static str,
    },
    /// It ended with a failure.
    #[error("`{name}` failed ({status}); the end of its output:\n{tail}")]
    Failed {
        /// The program.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        tail: String,
    },
    /// It could not be started or listened to.
    #[error("running `{name}`")]
    Io {
        /// The program.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl ToolError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { debian_package, .. } => {
                Some(format!("install it: sudo apt-get install {debian_package}"))
            }
            _ => None,
        }
    }
}

/// Which of a program's two outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// A program to run, and the Debian package to name when it is missing.
#[derive(Debug)]
pub(crate) struct Tool {
    command: Command,
    name: String,
    debian_package: &'static str,
    output: Option<std::fs::File>,
}

impl Tool {
    pub(crate) fn new(program: &str, debian_package: &'static str) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        Self {
            command,
            name: program.to_owned(),
            debian_package,
            output: None,
        }
    }

    /// Sets one variable of the program's environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives the program a file as its standard input.
    pub(crate) fn input(mut self, file: std::fs::File) -> Self {
        self.command.stdin(file);
        self
    }

    /// Writes the program's standard output to a file instead of cutting it into lines.
    pub(crate) fn output_to(mut self, file: std::fs::File) -> Self {
        self.output = Some(file);
        self
    }

    /// Adds one argument.
    pub(crate) fn arg(mut self, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(value);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<S: AsRef<std::ffi::OsStr>>(
        mut self,
        values: impl IntoIterator<Item = S>,
    ) -> Self {
        self.command.args(values);
        self
    }

    /// Runs the program and drops what it prints.
    pub(crate) fn run(self, cancel: &Cancel) -> Result<(), ToolError> {
        self.run_lines(cancel, &mut |_, _| {})
    }

    /// Runs the program and returns its standard output's lines.
    pub(crate) fn output(self, cancel: &Cancel) -> Result<Vec<String>, ToolError> {
        let mut lines = Vec::new();
        self.run_lines(cancel, &mut |from, line| {
            if from == Stream::Stdout {
                lines.push(line.to_owned());
            }
        })?;
        Ok(lines)
    }

    /// Runs the program and hands each line to `on_line`; a line without an end is handed over when the stream ends.
    pub(crate) fn run_lines(
        mut self,
        cancel: &Cancel,
        on_line: &mut dyn FnMut(Stream, &str),
    ) -> Result<(), ToolError> {
        if cancel.is_cancelled() {
            return Err(ToolError::Cancelled);
        }
        // Its own group: a terminal's Ctrl-C reaches us alone, and we end the tool with everything that it started.
        self.command.process_group(0).stderr(Stdio::piped());
        self.command
            .stdout(self.output.take().map_or_else(Stdio::piped, Stdio::from));
        let child = self
            .command
            .spawn()
            .map_err(|source| self.cannot_start(source))?;
        let mut running = Running {
            child,
            ended: false,
        };
        let mut tail = VecDeque::new();
        let mut keep = |from, line: &str| {
            if tail.len() == TOOL_TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(cut(line));
            on_line(from, line);
        };
        let listened = listen(&mut running, cancel, &mut keep);
        let status = running.end().map_err(|source| self.io(source))?;
        let cancelled = listened.map_err(|source| self.io(source))?;
        if cancelled {
            return Err(ToolError::Cancelled);
        }
        if !status.success() {
            return Err(ToolError::Failed {
                name: self.name,
                status,
                tail: Vec::from(tail).join("\n"),
            });
        }
        Ok(())
    }

    fn cannot_start(&self, source: io::Error) -> ToolError {
        // A folder of the path that may not be read answers "permission denied" for a program that is nowhere.
        let is_missing = match source.kind() {
            io::ErrorKind::NotFound => true,
            io::ErrorKind::PermissionDenied => !self.name.contains('/'),
            _ => false,
        };
        if is_missing {
            return ToolError::Missing {
                name: self.name.clone(),
                debian_package: self.debian_package,
            };
        }
        self.io(source)
    }

    fn io(&self, source: io::Error) -> ToolError {
        ToolError::Io {
            name: self.name.clone(),
            source,
        }
    }
}

/// A started program; its process group never outlives this value.
struct Running {
    child: Child,
    ended: bool,
}

impl Running {
    fn signal(&self, signal: Signal) {
        // The child is not reaped yet, so its number still means this group; a group that is gone needs no signal.
        if let Err(error) = kill_process_group(Pid::from_child(&self.child), signal) {
            debug_assert_eq!(error, rustix::io::Errno::SRCH);
        }
    }

    /// Whether a process of the group still runs. A killed one does until the system has taken it down; one that waits
    /// to be reaped does not.
    fn has_members(&self) -> bool {
        let group = self.child.id().to_string();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        processes.into_iter().any(|process| {
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            // After the name, which may hold anything, come the state, the parent and the group.
            let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
            let state = fields.next();
            fields.nth(1) == Some(&group) && !matches!(state, Some("Z" | "X"))
        })
    }

    /// Kills what is left of the group, then reaps: in this order the number cannot be another process's.
    fn end(&mut self) -> io::Result<ExitStatus> {
        self.ended = true;
        self.signal(Signal::KILL);
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            drop(self.end());
        }
    }
}

/// Reads both outputs until the program has ended. Returns whether it was cancelled.
fn listen(
    running: &mut Running,
    cancel: &Cancel,
    on_line: &mut dyn FnMut(Stream, &str),
) -> io::Result<bool> {
    let ended = pidfd_open(Pid::from_child(&running.child), PidfdFlags::empty())?;
    let mut streams = Vec::new();
    if let Some(stdout) = running.child.stdout.take() {
        streams.push(Lines::new(Stream::Stdout, stdout.into()));
    }
    if let Some(stderr) = running.child.stderr.take() {
        streams.push(Lines::new(Stream::Stderr, stderr.into()));
    }
    let mut deadline: Option<Instant> = None;
    loop {
        match deadline {
            None if cancel.is_cancelled() => {
                running.signal(Signal::TERM);
                deadline = Some(Instant::now() + Duration::from_millis(TOOL_GRACE_MS));
            }
            Some(at) if Instant::now() >= at => return Ok(true),
            _ => {}
        }
        if wait(&ended, &mut streams, CANCEL_POLL_MS, on_line)? {
            // What the program started must not outlive it: it may still write where the build tidies up.
            running.signal(Signal::KILL);
            let until = Instant::now() + Duration::from_millis(TOOL_END_MS);
            while (!streams.is_empty() || running.has_members()) && Instant::now() < until {
                wait_for_pipes(&mut streams, TOOL_END_POLL_MS, on_line)?;
            }
            streams.iter_mut().for_each(|stream| stream.flush(on_line));
            return Ok(deadline.is_some());
        }
    }
}

/// Waits once, reads what is ready, and returns whether the program has ended.
fn wait(
    ended: &OwnedFd,
    streams: &mut Vec<Lines>,
    timeout_ms: u64,
    on_line: &mut dyn FnMut(Stream, &str),
) -> io::Result<bool> {
    let mut fds = vec![PollFd::new(ended, PollFlags::IN)];
    fds.extend(streams.iter().map(Lines::poll_fd));
    let ready = poll_once(&mut fds, timeout_ms)?;
    drop(fds);
    read_ready(streams, &ready[1..], on_line)?;
    Ok(ready[0])
}

fn wait_for_pipes(
    streams: &mut Vec<Lines>,
    timeout_ms: u64,
    on_line: &mut dyn FnMut(Stream, &str),
) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = streams.iter().map(Lines::poll_fd).collect();
    let ready = poll_once(&mut fds, timeout_ms)?;
    drop(fds);
    read_ready(streams, &ready, on_line)
}

fn poll_once(fds: &mut [PollFd<'_>], timeout_ms: u64) -> io::Result<Vec<bool>> {
    let timeout =
        Timespec::try_from(Duration::from_millis(timeout_ms)).map_err(io::Error::other)?;
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// Reads each ready pipe once, and lets go of those that have ended.
fn read_ready(
    streams: &mut Vec<Lines>,
    ready: &[bool],
    on_line: &mut dyn FnMut(Stream, &str),
) -> io::Result<()> {
    for (stream, _) in streams.iter_mut().zip(ready).filter(|(_, ready)| **ready) {
        stream.is_open = stream.read(on_line)?;
        if !stream.is_open {
            stream.flush(on_line);
        }
    }
    streams.retain(|stream| stream.is_open);
    Ok(())
}

/// Cuts one pipe's bytes into lines.
struct Lines {
    from: Stream,
    pipe: std::fs::File,
    partial: Vec<u8>,
    is_open: bool,
}

impl Lines {
    fn new(from: Stream, pipe: OwnedFd) -> Self {
        Self {
            from,
            pipe: pipe.into(),
            partial: Vec::new(),
            is_open: true,
        }
    }

    fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.pipe, PollFlags::IN)
    }

    /// Reads once; false at the end of the stream.
    fn read(&mut self, on_line: &mut dyn FnMut(Stream, &str)) -> io::Result<bool> {
        let mut bytes = [0; 16 * 1024];
        let count = match self.pipe.read(&mut bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        for byte in &bytes[..count] {
            match byte {
                b'\n' | b'\r' => self.flush(on_line),
                byte if self.partial.len() < TOOL_LINE_BYTES => self.partial.push(*byte),
                _ => {}
            }
        }
        Ok(count > 0)
    }

    fn flush(&mut self, on_line: &mut dyn FnMut(Stream, &str)) {
        if !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial);
            on_line(self.from, &String::from_utf8_lossy(&line));
        }
    }
}

/// The start and the end of a line that is too long to be told whole.
fn cut(line: &str) -> String {
    let count = line.chars().count();
    if count <= TOOL_TAIL_LINE_CHARS {
        return line.to_owned();
    }
    let half = TOOL_TAIL_LINE_CHARS / 2;
    let head: String = line.chars().take(half).collect();
    let tail: String = line.chars().skip(count - half).collect();
    format!("{head} [...] {tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Tool {
        Tool::new("sh", "dash").arg("-c").arg(script)
    }

    #[test]
    fn lines_of_both_outputs_arrive_and_stdout_is_returned() {
        let mut seen = Vec::new();
        sh("echo one; echo two >&2; printf three")
            .run_lines(&Cancel::new(), &mut |from, line| {
                seen.push((from, line.to_owned()));
            })
            .unwrap();
        assert!(seen.contains(&(Stream::Stderr, "two".to_owned())));
        assert!(seen.contains(&(Stream::Stdout, "three".to_owned())));
        assert_eq!(
            sh("echo a; echo b >&2; echo c")
                .output(&Cancel::new())
                .unwrap(),
            ["a", "c"]
        );
    }

    #[test]
    fn a_failure_shows_the_end_of_the_output() {
        let error = sh("seq 1 100; echo sorry >&2; exit 3")
            .run(&Cancel::new())
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.ends_with("sorry"),
            "{text}"
        );
        assert!(!text.contains("\n50\n"), "{text}");
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = Tool::new("no-such-program-here", "some-package")
            .run(&Cancel::new())
            .unwrap_err();
        assert_eq!(error.to_string(), "`no-such-program-here` is not installed");
        assert!(error.hint().unwrap().ends_with("some-package"));
    }

    #[test]
    fn cancel_ends_the_whole_group() {
        let cancel = Cancel::new();
        let mut grandchild = None;
        let result = sh("sleep 1000 & echo $!; wait").run_lines(&cancel, &mut |_, line| {
            grandchild = Some(line.to_owned());
            cancel.cancel();
        });
        assert!(matches!(result, Err(ToolError::Cancelled)), "{result:?}");
        // The memory of a process, its arguments too, is gone before its pipes are.
        let arguments = format!("/proc/{}/cmdline", grandchild.unwrap());
        assert_eq!(std::fs::read(arguments).unwrap_or_default(), b"");
    }

    #[test]
    fn a_program_that_leaves_a_holder_of_its_pipes_still_ends() {
        assert_eq!(
            sh("sleep 1000 & echo done").output(&Cancel::new()).unwrap(),
            ["done"]
        );
    }
}
