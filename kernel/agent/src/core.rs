//! The agent's state between two events.

use std::time::Instant;

use rustix::process::Pid;
use vmrepl_wire::control::ControlReply;
use vmrepl_wire::line::to_line;

use crate::boot::Cgroups;
use crate::bounds::Step;
use crate::client::{Number, Service};
use crate::clients::Clients;
use crate::keeper::{Keeper, Loss};
use crate::limits;
use crate::log;
use crate::output::Captured;
use crate::processes;
use crate::relay::{News, Relay};
use crate::requests::{Failure, Head, write_failure};
use crate::resume::Identity;
use crate::runner::Runner;

/// Whether bytes for cells may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// The machine was resumed; the runner has not acknowledged yet.
    Waiting {
        client: Number,
        generation: u64,
        deadline: Option<Instant>,
    },
    /// A resume has failed: this copy may draw the same random numbers as another.
    Shut,
}

/// A host that waits for the guest to fall silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quiesce {
    pub(crate) client: Number,
    deadline: Instant,
}

/// Everything but the sources of events.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) clients: Clients,
    pub(crate) relay: Relay,
    pub(crate) keeper: Keeper,
    pub(crate) gate: Gate,
    pub(crate) quiesce: Option<Quiesce>,
    /// The guest has said that it is silent: what it would say unasked waits.
    silent: bool,
    unsaid: Vec<ControlReply>,
    pub(crate) generation: u64,
    pub(crate) identity: Identity,
    /// Memory and processes that the running cell may have, as the system was told.
    bound: (Option<u64>, Option<u64>),
    /// The agent is to end, and the machine with it.
    pub(crate) leaving: bool,
}

impl Core {
    pub(crate) fn new(clients: Clients, keeper: Keeper) -> Self {
        Self {
            clients,
            relay: Relay::default(),
            keeper,
            gate: Gate::Open,
            quiesce: None,
            silent: false,
            unsaid: Vec::new(),
            generation: 0,
            identity: Identity::default(),
            bound: (None, None),
            leaving: false,
        }
    }

    pub(crate) fn in_machine(&self) -> bool {
        self.keeper.cgroups.is_some()
    }

    /// Answers on a control connection.
    pub(crate) fn reply(&mut self, client: Number, reply: &ControlReply) {
        if let Some(client) = self.clients.get_mut(client) {
            client.out.push(&to_line(reply));
        }
    }

    /// Says something unasked on every control connection.
    pub(crate) fn tell_all(&mut self, reply: ControlReply) {
        if self.silent {
            self.unsaid.push(reply);
            return;
        }
        let line = to_line(&reply);
        for (_, client) in self.clients.iter_mut() {
            if let Service::Control = client.service {
                client.out.push(&line);
            }
        }
    }

    /// The host speaks: so may the guest.
    pub(crate) fn spoken_to(&mut self) {
        self.clients.held = false;
        if std::mem::take(&mut self.silent) {
            for reply in std::mem::take(&mut self.unsaid) {
                self.tell_all(reply);
            }
        }
    }

    /// Takes requests from the clients of the cells port.
    pub(crate) fn take_requests(&mut self) {
        let numbers: Vec<Number> = self
            .clients
            .iter_mut()
            .filter(|(_, client)| matches!(client.service, Service::Cells))
            .filter(|(_, client)| client.has_lines || client.is_readable())
            .map(|(number, _)| number)
            .collect();
        for number in numbers {
            self.take_requests_of(number);
        }
    }

    /// Whether requests of this client must wait: the runner is not there yet or the copy not its
    /// own yet, the guest was silenced and nobody has spoken to it since, or somebody reads too slowly.
    fn is_paused(&mut self, client: Number) -> bool {
        if self.gate != Gate::Open || self.silent || self.relay.requests.is_full() {
            return true;
        }
        let slow = |client: &crate::client::Client| client.out.len() > limits::OUTBOX_SOFT_BYTES;
        if self.clients.get(client).is_some_and(slow) {
            return true;
        }
        match self.keeper.ready_runner() {
            Some(runner) => runner.waiting_bytes() > limits::RUNNER_OUTBOX_SOFT_BYTES,
            None => self.keeper.trouble().is_none(),
        }
    }

    /// Whether a client has something for the agent that it may take now.
    pub(crate) fn has_requests(&mut self) -> bool {
        let numbers: Vec<Number> = self
            .clients
            .iter_mut()
            .filter(|(_, client)| match client.service {
                Service::Cells => client.has_lines || client.is_readable(),
                _ => false,
            })
            .map(|(number, _)| number)
            .collect();
        numbers.into_iter().any(|number| !self.is_paused(number))
    }

    fn take_requests_of(&mut self, number: Number) {
        if self.is_paused(number) {
            return;
        }
        self.clients.read(number);
        // Once for all lines: a client that sends many small ones is stopped by the runner's queue.
        while !self.is_paused(number) {
            let Self {
                clients,
                relay,
                keeper,
                ..
            } = self;
            let Some(client) = clients.get_mut(number) else {
                return;
            };
            let line = match client.lines.line() {
                Some(Ok(line)) => line,
                Some(Err(error)) => {
                    let message = error.to_string();
                    refuse(&message, &mut client.out);
                    client.held_bytes = 0;
                    continue;
                }
                None if client.ended => match client.lines.rest() {
                    Some(line) => line,
                    None => {
                        client.has_lines = false;
                        break;
                    }
                },
                None => {
                    client.has_lines = false;
                    break;
                }
            };
            match keeper.ready_runner() {
                Some(runner) => relay.request(number, line, runner),
                None => {
                    let message = keeper.trouble().unwrap_or("no runner").to_owned();
                    let failure = Failure {
                        message: &message,
                        status: "runner_lost",
                    };
                    let head = Head::parse(line).unwrap_or_default();
                    write_failure(failure, &head, false, &Captured::default(), &mut client.out);
                }
            }
            client.held_bytes = 0;
        }
        self.clients.acknowledge(number);
        self.bound_held_lines(number);
    }

    /// One client too many holds the beginning of a long line.
    fn bound_held_lines(&mut self, number: Number) {
        let long = self
            .clients
            .get(number)
            .is_some_and(|client| client.held_bytes > limits::READ_BYTES);
        if long
            && self.clients.held_bytes() > limits::HELD_LINES_BYTES
            && let Some(client) = self.clients.get_mut(number)
        {
            refuse(
                "too many bytes of unfinished requests are held",
                &mut client.out,
            );
            client.closing = true;
            client.ended = true;
            client.lines = vmrepl_wire::line::LineDecoder::default();
            client.held_bytes = 0;
        }
    }

    /// Takes what the runner says and its cells print.
    pub(crate) fn hear_runner(&mut self) {
        let Self {
            clients,
            relay,
            keeper,
            ..
        } = self;
        if !keeper.is_heard() {
            return;
        }
        let is_ready = keeper.is_ready();
        let Some(runner) = keeper.runner() else {
            return;
        };
        let mut open = true;
        let mut first_words = Vec::new();
        if runner.is_readable() && !relay.is_held_back(clients) {
            open = runner.read();
        }
        let news = relay.frames(runner, clients);
        if is_ready {
            relay.output(runner, clients);
        } else {
            runner.read_output(&mut |_, bytes| first_words.extend_from_slice(bytes));
        }
        self.keeper.note_words(&first_words);
        for item in news {
            self.learn(item);
        }
        if !open && !self.relay.frames_wait {
            self.keeper.socket_closed();
        }
    }

    /// Whether the runner has something for the agent that it may take now.
    pub(crate) fn has_answers(&mut self) -> bool {
        let held_back = self.relay.is_held_back(&self.clients);
        let waiting = self.relay.frames_wait;
        self.keeper.is_heard()
            && !held_back
            && self
                .keeper
                .runner()
                .is_some_and(|runner| waiting || runner.is_readable() || runner.has_output())
    }

    fn learn(&mut self, news: News) {
        match news {
            News::Ready => {
                self.keeper.became_ready();
                self.tell_all(ControlReply::RunnerReady {
                    generation: self.generation,
                });
            }
            News::Resumed { generation } => self.acknowledged(generation),
            News::Broken(reason) => {
                self.keeper
                    .give_up_on(format!("it broke its protocol: {reason}"));
            }
        }
    }

    /// The runner has made itself differ from its siblings, or is a new one.
    pub(crate) fn acknowledged(&mut self, acknowledged: u64) {
        if let Gate::Waiting {
            client, generation, ..
        } = self.gate
            && generation == acknowledged
        {
            self.gate = Gate::Open;
            self.reply(client, &ControlReply::Resumed { generation });
        }
    }

    /// Holds the running cell to its limits. `others` are children of the agent that are not the runner's.
    pub(crate) fn hold_to_limits(&mut self, others: &[Pid]) {
        let Self { relay, keeper, .. } = self;
        let limits = relay.cell.as_ref().map(|cell| &cell.bounds.limits);
        let bound = limits.map_or((None, None), |limits| {
            (limits.memory_bytes, limits.processes)
        });
        if bound != self.bound {
            self.bound = bound;
            let told = keeper
                .cgroups
                .as_ref()
                .map(|cgroups| cgroups.bound_runner(bound.0, bound.1));
            if let Some(Err(error)) = told {
                log::warn(format_args!("the limits of a cell: {error}"));
            }
        }
        let Some(cell) = &mut relay.cell else {
            return;
        };
        let used = || keeper.cgroups.as_ref().and_then(Cgroups::runner_cpu);
        match cell.bounds.due(used) {
            None => {}
            Some(Step::Interrupt(over)) => {
                if let Some(runner) = keeper.runner() {
                    runner.exceeded(&cell.name, &over);
                }
            }
            Some(Step::KillChildren) => {
                keeper.kill_started_since(cell.since, others);
            }
            Some(Step::KillRunner) => {
                keeper.kill_runner();
            }
        }
    }

    /// The runner has ended.
    pub(crate) fn runner_ended(&mut self, status: rustix::process::WaitStatus) {
        if self.keeper.is_ready() {
            self.hear_last_words();
        } else if let Some(runner) = self.keeper.runner() {
            let mut last_words = Vec::new();
            runner.drain_output(&mut |_, bytes| last_words.extend_from_slice(bytes));
            self.keeper.note_words(&last_words);
        }
        let loss = self.keeper.reaped(status, self.bound.0);
        let over = self
            .relay
            .cell
            .as_ref()
            .and_then(|cell| cell.bounds.verdict().cloned());
        let failure = match &over {
            Some(over) => Failure {
                message: &over.message,
                status: over.status,
            },
            None => Failure {
                message: &loss.message,
                status: loss.status(),
            },
        };
        let cell = self.relay.lost(failure, &mut self.clients);
        let Loss {
            exit_code,
            signal,
            out_of_memory,
            ..
        } = loss;
        self.tell_all(ControlReply::RunnerLost {
            cell,
            exit_code,
            signal,
            out_of_memory,
        });
        // The next runner starts from fresh random numbers.
        if let Gate::Waiting { generation, .. } = self.gate {
            self.acknowledged(generation);
        }
    }

    /// Handles what the runner sent before it ended, however slowly its clients read.
    fn hear_last_words(&mut self) {
        let Self {
            clients,
            relay,
            keeper,
            ..
        } = self;
        let Some(runner) = keeper.runner() else {
            return;
        };
        runner.read_to_end();
        let news = relay.last_frames(runner, clients);
        for item in news {
            if let News::Resumed { generation } = item {
                self.acknowledged(generation);
            }
        }
    }

    pub(crate) fn begin_quiesce(&mut self, client: Number) {
        self.clients.held = true;
        self.quiesce = Some(Quiesce {
            client,
            deadline: Instant::now() + limits::QUIESCE,
        });
    }

    /// Answers a quiesce once all is said; with `busy` when that cannot be.
    pub(crate) fn settle_quiesce(&mut self) {
        let Some(Quiesce { client, deadline }) = self.quiesce else {
            return;
        };
        let waiting = self
            .clients
            .iter_mut()
            .any(|(_, client)| matches!(client.service, Service::Cells) && client.has_lines);
        let flushed = self
            .keeper
            .runner()
            .is_none_or(|runner: &mut Runner| runner.waiting_bytes() == 0);
        let busy = waiting
            || self.relay.is_busy()
            || !self.keeper.is_sound()
            || self.gate != Gate::Open
            || deadline <= Instant::now();
        if busy {
            self.clients.held = false;
            let (busy, runner_rss_bytes) = (true, None);
            let reply = ControlReply::Quiesced {
                busy,
                runner_rss_bytes,
            };
            self.reply(client, &reply);
        } else if flushed && self.clients.is_quiet() {
            let (busy, runner) = (false, self.keeper.pid());
            let reply = ControlReply::Quiesced {
                busy,
                runner_rss_bytes: runner.and_then(processes::resident_bytes),
            };
            self.reply(client, &reply);
            self.silent = true;
        } else {
            return;
        }
        self.quiesce = None;
    }

    /// Marks connections whose clients send no more and wait for nothing.
    pub(crate) fn close_what_is_over(&mut self) {
        let Self { clients, relay, .. } = self;
        for (number, client) in clients.iter_mut() {
            let waits = match client.service {
                Service::Cells => relay.requests.any_of(number),
                Service::Control => false,
                Service::Greeting | Service::Waiting | Service::Bridge { .. } => continue,
            };
            client.closing |= client.ended && !client.has_lines && !waits;
        }
    }

    /// Deals with what has taken too long.
    pub(crate) fn check_deadlines(&mut self) {
        if let Gate::Waiting {
            client,
            generation,
            deadline: Some(deadline),
        } = self.gate
            && deadline <= Instant::now()
        {
            // It may still come; until then no cell passes.
            self.gate = Gate::Waiting {
                client,
                generation,
                deadline: None,
            };
            let seconds = limits::RESUME_ACK.as_secs();
            let message =
                format!("resume {generation}: the runner did not acknowledge in {seconds} s");
            self.reply(client, &ControlReply::Error { message });
        }
    }

    /// When something is due.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let resume = match self.gate {
            Gate::Waiting { deadline, .. } => deadline,
            Gate::Open | Gate::Shut => None,
        };
        let quiesce = self.quiesce.map(|quiesce| quiesce.deadline);
        let limit = self
            .relay
            .cell
            .as_ref()
            .and_then(|cell| cell.bounds.wake_at());
        [resume, quiesce, limit, self.keeper.wake_at()]
            .into_iter()
            .flatten()
            .min()
    }
}

fn refuse(message: &str, out: &mut crate::outbox::Outbox) {
    let failure = Failure {
        message,
        status: "error",
    };
    write_failure(failure, &Head::default(), false, &Captured::default(), out);
}
