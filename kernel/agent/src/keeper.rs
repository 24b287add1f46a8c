//! Keeps one runner alive: starts it, tells why it died, starts the next.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitStatus, getpid, kill_process};

use crate::boot::Cgroups;
use crate::limits;
use crate::log;
use crate::poller::{Poller, Token};
use crate::processes::{Process, StartTicks, descendants, is_dying};
use crate::runner::{Recipe, Runner, TOKENS};
use crate::spawn::Descent;

/// The first token of runners; each one takes the next [`TOKENS`].
pub(crate) const FIRST_TOKEN: Token = 1 << 16;

/// Holds the runner, or the plan to start one.
#[derive(Debug)]
pub(crate) struct Keeper {
    recipe: Recipe,
    /// The groups of a machine; none on a host.
    pub(crate) cgroups: Option<Cgroups>,
    runner: Option<Runner>,
    ready: bool,
    /// Frames that no honest runner sends: it is being killed for them.
    broken: Option<String>,
    /// It has closed its socket, as the dying do: by then it is reaped, or killed for it.
    closed_until: Option<Instant>,
    /// It is being killed.
    is_killed: bool,
    /// What a runner has said before it was ready.
    first_words: Vec<u8>,
    started: u64,
    starts_in_vain: u32,
    /// Why the last start was in vain.
    trouble: String,
    start_at: Option<Instant>,
    oom_kills: u64,
}

/// How a runner ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) message: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) out_of_memory: bool,
}

impl Loss {
    /// The value of `status` in answers.
    pub(crate) fn status(&self) -> &'static str {
        if self.out_of_memory {
            "memory_exceeded"
        } else {
            "runner_lost"
        }
    }
}

impl Keeper {
    pub(crate) fn new(recipe: Recipe, cgroups: Option<Cgroups>) -> Self {
        Self {
            recipe,
            cgroups,
            runner: None,
            ready: false,
            broken: None,
            closed_until: None,
            is_killed: false,
            first_words: Vec::new(),
            started: 0,
            starts_in_vain: 0,
            trouble: String::new(),
            start_at: Some(Instant::now()),
            oom_kills: 0,
        }
    }

    pub(crate) fn runner(&mut self) -> Option<&mut Runner> {
        self.runner.as_mut()
    }

    /// The runner, if it waits for cells.
    pub(crate) fn ready_runner(&mut self) -> Option<&mut Runner> {
        self.runner
            .as_mut()
            .filter(|_| self.ready && self.broken.is_none() && self.closed_until.is_none())
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready && self.broken.is_none()
    }

    /// Whether the runner is listened to: it has neither lied nor closed its socket.
    pub(crate) fn is_heard(&self) -> bool {
        self.broken.is_none() && self.closed_until.is_none()
    }

    /// The runner has closed its socket. Most that do are dying: how, their end will tell.
    pub(crate) fn socket_closed(&mut self) {
        self.closed_until
            .get_or_insert_with(|| Instant::now() + limits::CLOSED_GRACE);
    }

    /// Keeps the end of what a runner says before it is ready.
    pub(crate) fn note_words(&mut self, words: &[u8]) {
        self.first_words.extend_from_slice(words);
        let over = self
            .first_words
            .len()
            .saturating_sub(limits::LAST_WORDS_BYTES);
        self.first_words.drain(..over);
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        self.runner.as_ref().map(|runner| runner.pid)
    }

    /// Why no runner starts, once that is certain enough to tell clients.
    pub(crate) fn trouble(&self) -> Option<&str> {
        (self.starts_in_vain >= limits::STARTS_IN_VAIN && !self.ready).then_some(&self.trouble)
    }

    /// When [`tend`](Self::tend) has something to do.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let waits = [
            self.start_at,
            self.closed_until.filter(|_| self.broken.is_none()),
        ];
        waits.into_iter().flatten().min()
    }

    /// Starts a runner, or kills a deaf one, when it is time.
    pub(crate) fn tend(&mut self, poller: &Poller) {
        if self
            .closed_until
            .is_some_and(|until| until <= Instant::now())
        {
            self.give_up_on("it closed its socket".to_owned());
        }
        if self.runner.is_some() || self.start_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.start_at = None;
        self.oom_kills = self.cgroups.as_ref().map_or(0, Cgroups::runner_oom_kills);
        let tokens = FIRST_TOKEN + self.started * TOKENS;
        self.started += 1;
        let descent = Descent {
            identity: self.recipe.identity,
            cgroup: self.cgroups.as_ref().map(|cgroups| &cgroups.runner),
        };
        match Runner::start(&self.recipe, descent, poller, tokens) {
            Ok(runner) => self.runner = Some(runner),
            Err(error) => {
                let python = self.recipe.python.display();
                self.in_vain(&format!("{python} cannot be started: {error}"));
            }
        }
    }

    pub(crate) fn became_ready(&mut self) {
        self.ready = true;
        self.first_words.clear();
        self.starts_in_vain = 0;
    }

    /// Ends a runner whose words make no sense.
    pub(crate) fn give_up_on(&mut self, reason: String) {
        if self.broken.is_none() {
            self.broken = Some(reason);
            self.kill_runner();
        }
    }

    /// The runner was reaped. The caller has taken all it said, and tells what the cell might use of memory at most.
    pub(crate) fn reaped(&mut self, status: WaitStatus, memory_bytes: Option<u64>) -> Loss {
        let broken = self.broken.take();
        self.closed_until = None;
        self.is_killed = false;
        let last_words = std::mem::take(&mut self.first_words);
        self.runner = None;
        let oom_kills = self.cgroups.as_ref().map_or(0, Cgroups::runner_oom_kills);
        let (exit_code, signal) = (status.exit_status(), status.terminating_signal());
        let killed = signal == Some(Signal::KILL.as_raw());
        let out_of_memory = killed && oom_kills > self.oom_kills;
        let reason = if out_of_memory {
            let of_all = self
                .cgroups
                .as_ref()
                .map(|cgroups| cgroups.memory_max_bytes);
            let mib = memory_bytes.or(of_all).unwrap_or(0) >> 20;
            format!("out of memory, cells may use {mib} MB")
        } else {
            match (broken.filter(|_| killed), signal, exit_code) {
                (Some(broken), ..) => broken,
                (None, Some(number), _) => format!("killed by signal {}", signal_name(number)),
                (None, None, code) => format!("it left with exit code {}", code.unwrap_or(0)),
            }
        };
        self.end_stragglers();
        if std::mem::take(&mut self.ready) {
            self.start_at = Some(Instant::now());
        } else {
            let last_words = String::from_utf8_lossy(&last_words);
            self.in_vain(&format!("{reason}: {}", last_words.trim()));
        }
        let message = format!("the runner was lost: {reason}");
        Loss {
            message,
            exit_code,
            signal,
            out_of_memory,
        }
    }

    fn in_vain(&mut self, reason: &str) {
        self.trouble = format!(
            "the runner does not start: {}",
            reason.trim_end_matches([':', ' '])
        );
        log::warn(format_args!("{}", self.trouble));
        let wait = limits::RESTART_FIRST * 2_u32.saturating_pow(self.starts_in_vain.min(16));
        self.starts_in_vain = self.starts_in_vain.saturating_add(1);
        self.start_at = Some(Instant::now() + wait.min(limits::RESTART_MAX));
    }

    /// What a dead runner's cells left behind would hold memory and pipes of the past.
    fn end_stragglers(&mut self) {
        match &self.cgroups {
            Some(cgroups) => {
                if let Err(error) = cgroups.kill_runner_group() {
                    log::warn(format_args!("the runner's group: {error}"));
                }
            }
            None => {
                self.kill_started_since(StartTicks::default(), &[]);
            }
        }
    }

    pub(crate) fn kill_runner(&mut self) -> bool {
        let killed = self.runner.as_ref().is_some_and(Runner::kill);
        self.is_killed |= killed;
        killed
    }

    /// Whether the runner lives and waits for cells: it is not being killed, and has not ended unheard.
    pub(crate) fn is_sound(&self) -> bool {
        self.is_ready()
            && !self.is_killed
            && self.is_heard()
            && self.pid().is_some_and(|pid| !is_dying(pid))
    }

    /// Kills what descends from the runner, but not the runner, and was started since. `others` are
    /// children of the agent with another purpose. Returns how many.
    pub(crate) fn kill_started_since(&self, since: StartTicks, others: &[Pid]) -> u32 {
        let mut killed: Vec<Pid> = Vec::new();
        for _ in 0..limits::KILL_ROUNDS {
            let before = killed.len();
            for process in self.family(others) {
                let fresh = !killed.contains(&process.pid) && process.lives_since(since);
                if fresh && kill_process(process.pid, Signal::KILL).is_ok() {
                    killed.push(process.pid);
                }
            }
            if killed.len() == before {
                break;
            }
        }
        u32::try_from(killed.len()).unwrap_or(u32::MAX)
    }

    /// All processes of cells.
    fn family(&self, others: &[Pid]) -> Vec<Process> {
        let runner = self.pid();
        match &self.cgroups {
            Some(cgroups) => {
                let pids = cgroups.runner_processes();
                pids.into_iter()
                    .filter(|pid| Some(*pid) != runner)
                    .filter_map(Process::read)
                    .collect()
            }
            // Orphans become children of the agent, so the family is complete.
            None => descendants(getpid(), others)
                .into_iter()
                .filter(|process| Some(process.pid) != runner)
                .collect(),
        }
    }

    /// Ends everything, for good.
    pub(crate) fn end(&mut self) {
        self.kill_runner();
        self.end_stragglers();
        self.start_at = None;
    }

    /// How long until `at`.
    pub(crate) fn until(at: Instant) -> Duration {
        at.saturating_duration_since(Instant::now())
    }
}

fn signal_name(number: i32) -> String {
    let names = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGXFSZ, "SIGXFSZ"),
        (libc::SIGSYS, "SIGSYS"),
    ];
    match names.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => format!("{number} ({name})"),
        None => number.to_string(),
    }
}
