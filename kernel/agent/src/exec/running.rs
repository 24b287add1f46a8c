//! A running program: its streams are moved, its time is counted, its end is told.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group,
    set_child_subreaper, wait,
};
use rustix::termios::tcgetpgrp;
use vmrepl_wire::exec::{ExecEnd, ExecUsage, WindowSize};
use vmrepl_wire::limits::FILES_CHUNK_BYTES;

use super::child::{Ends, Program, StartError, Started, Stream};
use super::group::Group;
use super::terminal::{end_of_input, resize};
use super::{Defaults, Hangup};
use crate::launch::words_of;
use crate::limits;
use crate::outbox::Outbox;
use crate::processes::{children_usage, descendants};
use crate::sandbox::layers;
use crate::signals::Signals;

/// Where a program's input comes from and its output goes to.
pub(crate) trait Face {
    /// The peer's socket.
    fn socket(&self) -> BorrowedFd<'_>;

    /// What to wait for on it, besides its end; `takes_input` tells whether more input may come now.
    fn wants(&self, takes_input: bool) -> PollFlags;

    /// Sends and receives what the socket is ready for.
    fn attend(&mut self, ready: PollFlags, input: &mut Input) -> Result<(), Hangup>;

    /// Whether output must wait.
    fn is_full(&self) -> bool;

    /// Takes output. An error is its refusal to take any more: the program is then killed.
    fn take(&mut self, from: Stream, bytes: &[u8]) -> Result<(), Hangup>;
}

/// What the peer has for the program.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(crate) bytes: Outbox,
    /// No more will come.
    pub(crate) has_ended: bool,
    pub(crate) window: Option<WindowSize>,
    pub(crate) signals: Vec<Signal>,
}

/// How a program ended, and what it took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) end: ExecEnd,
    /// Its own word on it; none when it was killed for its time.
    pub(crate) left: Option<Left>,
    pub(crate) usage: ExecUsage,
}

/// What a program has left by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Code(i32),
    Signal(i32),
}

impl From<WaitStatus> for Left {
    fn from(status: WaitStatus) -> Self {
        match status.terminating_signal() {
            Some(signal) => Self::Signal(signal),
            None => Self::Code(status.exit_status().unwrap_or(0)),
        }
    }
}

/// A program and all that it has started. They are killed when this is dropped before its end.
#[derive(Debug)]
pub(crate) struct Running {
    pid: Pid,
    ends: Ends,
    group: Option<Group>,
    signals: Signals,
    began: Instant,
    cpu_limit: Option<Duration>,
    next_cpu_look: Instant,
    scratch: Vec<u8>,
    left: Option<Left>,
    /// Of one in a sandbox: what its process tells.
    words: Option<OwnedFd>,
    told: Vec<u8>,
    is_over: bool,
}

/// What a wait has shown.
#[derive(Debug, Clone, Copy)]
struct Ready {
    peer: PollFlags,
    child: bool,
}

impl Running {
    pub(crate) fn start(program: &Program, defaults: &Defaults) -> Result<Self, StartError> {
        let setup = |step| move |source| StartError::Setup { step, source };
        // What the program starts and leaves becomes ours to see, and to end.
        set_child_subreaper(Some(getpid()))
            .map_err(|error| setup("adopt orphans")(error.into()))?;
        let signals = Signals::new().map_err(setup("hear of its end"))?;
        let began = Instant::now();
        let Started {
            pid,
            ends,
            group,
            words,
        } = Started::start(program, defaults)?;
        Ok(Self {
            pid,
            ends,
            group,
            signals,
            began,
            cpu_limit: program.limits.cpu_ms.map(Duration::from_millis),
            next_cpu_look: began,
            scratch: vec![0; FILES_CHUNK_BYTES],
            left: None,
            words,
            told: Vec::new(),
            is_over: false,
        })
    }

    /// Moves bytes until the program has ended and its output is taken, or it has been killed for its time. Processes that
    /// it leaves behind live on.
    pub(crate) fn watch(
        &mut self,
        face: &mut dyn Face,
        wall_limit: Option<Duration>,
    ) -> Result<Ended, Hangup> {
        let deadline = wall_limit.and_then(|limit| self.began.checked_add(limit));
        let mut input = Input::default();
        // What came with the request is there already, and no event will tell of it.
        face.attend(PollFlags::empty(), &mut input)?;
        self.obey(&mut input);
        loop {
            let ready = self.wait(face, &input, deadline)?;
            face.attend(ready.peer, &mut input)?;
            self.obey(&mut input);
            if ready.child {
                self.reap();
            }
            if self.left.is_none()
                && let Some(end) = self.over_time(deadline)
            {
                return Ok(self.end_by_force(end));
            }
            if !face.is_full() {
                self.read_outputs(face)?;
            }
            if self.left.is_some() && !face.is_full() {
                self.read_rest(face)?;
                return Ok(self.ended());
            }
        }
    }

    fn wait(
        &self,
        face: &dyn Face,
        input: &Input,
        deadline: Option<Instant>,
    ) -> Result<Ready, Hangup> {
        let takes_input = input.bytes.len() < limits::EXEC_INPUT_BYTES;
        let mut sources = vec![
            PollFd::from_borrowed_fd(face.socket(), face.wants(takes_input)),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        if let Some(end) = &self.ends.input
            && !input.bytes.is_empty()
        {
            sources.push(PollFd::new(end, PollFlags::OUT));
        }
        if !face.is_full() {
            let outputs = self.ends.outputs.iter();
            sources.extend(outputs.map(|(_, end)| PollFd::new(end, PollFlags::IN)));
        }
        let look = self.cpu_limit.map(|_| self.next_cpu_look);
        // Dead, and its output waits for the peer: time no longer counts.
        let due = match self.left {
            None => [deadline, look].into_iter().flatten().min(),
            Some(_) => None,
        };
        let timeout = due.map(|due| {
            let left = due.saturating_duration_since(Instant::now());
            Timespec::try_from(left).unwrap_or_default()
        });
        match poll(&mut sources, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Err(Hangup),
        }
        Ok(Ready {
            peer: sources[0].revents(),
            child: !sources[1].revents().is_empty(),
        })
    }

    /// Does what the peer has said.
    fn obey(&mut self, input: &mut Input) {
        let Some(end) = &self.ends.input else {
            input.bytes.clear();
            return self.pass_signals(input);
        };
        if let Some(size) = input.window.take()
            && self.ends.is_terminal
        {
            resize(end, size).ok();
        }
        if input.has_ended && self.ends.is_terminal {
            // A terminal stays open: its program reads an end as often as it is typed.
            input.has_ended = false;
            let typed = end_of_input(end);
            input.bytes.push(&[typed]);
        }
        let broken = input.bytes.write_to(end).is_err();
        if broken {
            // It reads no more: what comes is for nobody.
            input.bytes.clear();
        }
        if !self.ends.is_terminal && (broken || (input.has_ended && input.bytes.is_empty())) {
            self.ends.input = None;
        }
        self.pass_signals(input);
    }

    fn pass_signals(&self, input: &mut Input) {
        for signal in input.signals.drain(..) {
            let foreground = self.ends.input.as_ref().filter(|_| self.ends.is_terminal);
            let group = foreground
                .and_then(|terminal| tcgetpgrp(terminal).ok())
                .unwrap_or(self.pid);
            if self.left.is_none() {
                kill_process_group(group, signal).ok();
            }
        }
    }

    /// Takes the ends of all children: the program, and orphans that it has left.
    fn reap(&mut self) {
        self.signals.take();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.pid {
                self.left = Some(Left::from(status));
                self.listen();
            }
        }
    }

    /// Hears what the process of a program in a sandbox has told: its own end tells no signal.
    fn listen(&mut self) {
        if let Some(words) = &self.words {
            self.told.extend(words_of(words));
            let signal = self.told.iter().position(|word| *word == b's');
            if let Some(signal) = signal.and_then(|at| self.told.get(at + 1)) {
                self.left = Some(Left::Signal(i32::from(*signal)));
            }
        }
    }

    /// The layers between a program and the guest, as its process has told them.
    pub(crate) fn layers(&mut self) -> Vec<String> {
        self.listen();
        layers(&self.told)
    }

    /// Whether it has used its time up, and which.
    fn over_time(&mut self, deadline: Option<Instant>) -> Option<ExecEnd> {
        let now = Instant::now();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Some(ExecEnd::TimedOut);
        }
        let limit = self.cpu_limit?;
        let group = self.group.as_ref()?;
        if self.next_cpu_look > now {
            return None;
        }
        self.next_cpu_look = now + limits::CPU_LOOK;
        let (user, system) = group.cpu();
        (user + system >= limit).then_some(ExecEnd::CpuExceeded)
    }

    /// Reads once from each output; whether there was anything.
    fn read_outputs(&mut self, face: &mut dyn Face) -> Result<bool, Hangup> {
        let Self { ends, scratch, .. } = self;
        let (mut any, mut refused) = (false, Ok(()));
        ends.outputs.retain(
            |(stream, end)| match rustix::io::read(end, scratch.as_mut_slice()) {
                Ok(0) => false,
                Ok(count) => {
                    any = true;
                    let taken = face.take(*stream, &scratch[..count]);
                    let goes_on = taken.is_ok();
                    if !goes_on {
                        refused = taken;
                    }
                    goes_on
                }
                Err(Errno::AGAIN | Errno::INTR) => true,
                // A terminal that nobody has open any more says so by an error.
                Err(_) => false,
            },
        );
        refused.map(|()| any)
    }

    /// What the program had still in its pipes. What processes that it has left write is not waited for.
    fn read_rest(&mut self, face: &mut dyn Face) -> Result<(), Hangup> {
        // A pipe or a terminal holds less than what these turns take.
        for _ in 0..limits::LAST_READS {
            if !self.read_outputs(face)? {
                break;
            }
        }
        Ok(())
    }

    fn ended(&mut self) -> Ended {
        self.is_over = true;
        let (left, usage) = (self.left, self.usage());
        let out_of_memory = self.group.as_ref().is_some_and(Group::ran_out_of_memory);
        let used = Duration::from_micros(usage.user_us.saturating_add(usage.system_us));
        let out_of_time = self.cpu_limit.is_some_and(|limit| used >= limit);
        let end = match left {
            Some(Left::Signal(libc::SIGKILL)) if out_of_memory => ExecEnd::MemoryExceeded,
            Some(Left::Signal(libc::SIGKILL | libc::SIGXCPU)) if out_of_time => {
                ExecEnd::CpuExceeded
            }
            Some(Left::Signal(_)) => ExecEnd::Signalled,
            Some(Left::Code(_)) | None => ExecEnd::Exited,
        };
        Ended { end, left, usage }
    }

    /// Ends it because its face takes no more.
    pub(crate) fn stop(&mut self) -> Ended {
        self.end_by_force(ExecEnd::Signalled)
    }

    fn end_by_force(&mut self, end: ExecEnd) -> Ended {
        self.kill();
        Ended {
            end,
            left: None,
            usage: self.usage(),
        }
    }

    fn usage(&self) -> ExecUsage {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let of_children = children_usage();
        let (user, system, peak_memory_bytes) = match &self.group {
            Some(group) => {
                let (user, system) = group.cpu();
                (user, system, group.peak_memory_bytes())
            }
            None => of_children,
        };
        ExecUsage {
            wall_us: micros(self.began.elapsed()),
            user_us: micros(user),
            system_us: micros(system),
            peak_memory_bytes,
        }
    }

    /// Kills the program and all that it has started, and waits for their end.
    pub(crate) fn kill(&mut self) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let until = Instant::now() + limits::STEP;
        if let Some(group) = &self.group {
            group.kill().ok();
        } else {
            self.kill_descendants();
        }
        while Instant::now() < until {
            self.reap();
            let is_empty = match &self.group {
                Some(group) => group.is_empty(),
                None => descendants(getpid(), &[]).is_empty(),
            };
            if is_empty {
                break;
            }
            let mut source = [PollFd::new(&self.signals, PollFlags::IN)];
            let pause = Timespec::try_from(limits::REAP_LOOK).unwrap_or_default();
            poll(&mut source, Some(&pause)).ok();
        }
    }

    /// In rounds: each finds what was started meanwhile.
    fn kill_descendants(&self) {
        if self.left.is_none() {
            kill_process_group(self.pid, Signal::KILL).ok();
        }
        for _ in 0..limits::KILL_ROUNDS {
            let family = descendants(getpid(), &[]);
            let alive = family.iter().filter(|process| !process.has_ended());
            let killed = alive.filter(|process| kill_process(process.pid, Signal::KILL).is_ok());
            if killed.count() == 0 {
                break;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
