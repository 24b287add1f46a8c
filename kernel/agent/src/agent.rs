//! The loop: one thread that owns every source of events.
//!
//! A turn takes a bounded amount from each source, control first, so that neither a flood of output
//! nor a client that sends without end keeps an interrupt waiting.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use vmrepl_wire::port;

use crate::client::{Number, Service};
use crate::clients::{self, Arrival};
use crate::control;
use crate::core::Core;
use crate::keeper::{self, Keeper};
use crate::limits;
use crate::listener::Listener;
use crate::log;
use crate::poller::{Poller, Token};
use crate::signals::Signals;
use crate::workers::Workers;

const SIGNALS: Token = 0;

/// The channel's token.
pub(crate) const CHANNEL: Token = 1;

/// The first token of listeners.
pub(crate) const LISTENERS: Token = 2;

/// The agent.
#[derive(Debug)]
pub(crate) struct Agent {
    poller: Poller,
    signals: Signals,
    listeners: Vec<Listener>,
    workers: Workers,
    core: Core,
    /// The channel is the only way in, and its end is the agent's.
    ends_with_channel: bool,
}

impl Agent {
    pub(crate) fn new(
        poller: Poller,
        signals: Signals,
        listeners: Vec<Listener>,
        workers: Workers,
        core: Core,
    ) -> io::Result<Self> {
        poller.add(&signals, SIGNALS)?;
        let ends_with_channel = listeners.is_empty() && !core.in_machine();
        Ok(Self {
            poller,
            signals,
            listeners,
            workers,
            core,
            ends_with_channel,
        })
    }

    /// Runs until the agent is asked to leave.
    pub(crate) fn run(&mut self) -> Result<(), Errno> {
        let mut events = Vec::with_capacity(32);
        let mut faults = 0;
        while !self.core.leaving {
            let timeout = self.timeout();
            self.poller.wait(&mut events, timeout)?;
            match catch_unwind(AssertUnwindSafe(|| self.turn(&events))) {
                Ok(result) => {
                    result?;
                    faults = 0;
                }
                // A fault in the agent costs those who are connected, not the machine.
                Err(_) if faults < limits::FAULTS_IN_A_ROW => {
                    faults += 1;
                    log::warn(format_args!("a fault; all connections are cut off"));
                    self.core.clients.cut_all();
                    self.core.keeper.kill_runner();
                }
                Err(fault) => std::panic::resume_unwind(fault),
            }
        }
        self.core.keeper.end();
        Ok(())
    }

    /// How long to wait for events: not at all when a source still has something that may be taken.
    fn timeout(&mut self) -> Option<Duration> {
        let core = &mut self.core;
        let channel = core
            .clients
            .channel
            .as_ref()
            .is_some_and(|channel| channel.is_readable());
        let held = core.clients.held;
        let control = core
            .clients
            .iter_mut()
            .any(|(_, client)| match client.service {
                Service::Control => client.is_readable() || client.wants_turn(),
                Service::Greeting => client.is_readable(),
                Service::Bridge { .. } => !held && client.wants_turn(),
                Service::Cells | Service::Waiting => false,
            });
        if channel || control || core.has_requests() || core.has_answers() {
            return Some(Duration::ZERO);
        }
        core.wake_at().map(Keeper::until)
    }

    fn turn(&mut self, events: &[(Token, EventFlags)]) -> Result<(), Errno> {
        let mut signalled = false;
        for (token, flags) in events {
            match *token {
                SIGNALS => signalled = true,
                token => self.note(token, *flags),
            }
        }
        self.core.keeper.tend(&self.poller);
        let opened = self.core.clients.read_channel();
        self.begin(opened);
        self.accept()?;
        let greeted = self.core.clients.greet();
        self.begin(greeted);
        control::take_requests(&mut self.core, &self.workers.pids());
        self.core.hear_runner();
        self.core.hold_to_limits(&self.workers.pids());
        if signalled {
            self.take_signals();
        }
        self.core.take_requests();
        self.core.check_deadlines();
        self.flush()?;
        if self.core.quiesce.is_some() {
            self.core.settle_quiesce();
            self.flush()?;
        }
        let channel_ended = self
            .core
            .clients
            .channel
            .as_ref()
            .is_some_and(|channel| channel.ended);
        self.core.leaving |= self.ends_with_channel && channel_ended;
        Ok(())
    }

    fn note(&mut self, token: Token, flags: EventFlags) {
        if token >= clients::FIRST_TOKEN {
            self.core.clients.note(token, flags);
        } else if token >= keeper::FIRST_TOKEN {
            if let Some(runner) = self.core.keeper.runner() {
                runner.note(token, flags);
            }
        } else if token == CHANNEL {
            if let Some(channel) = &mut self.core.clients.channel {
                channel.note(flags);
            }
        } else {
            for listener in &mut self.listeners {
                listener.note(token);
            }
        }
    }

    fn accept(&mut self) -> Result<(), Errno> {
        let mut arrivals = Vec::new();
        for listener in &mut self.listeners {
            while let Some(accepted) = listener.accept() {
                let arrival = self.core.clients.add_socket(accepted, &self.poller)?;
                arrivals.extend(arrival);
            }
        }
        self.begin(arrivals);
        Ok(())
    }

    /// Gives new connections their service.
    fn begin(&mut self, arrivals: Vec<Arrival>) {
        for arrival in arrivals {
            let Arrival { number, port } = arrival;
            match port {
                port::CONTROL => {
                    self.serve(number, Service::Control);
                    control::welcome(&mut self.core, number);
                }
                port if Workers::serves(port) => {
                    let Core {
                        clients, keeper, ..
                    } = &mut self.core;
                    self.workers
                        .serve(arrival, clients, keeper.cgroups.as_ref(), &self.poller);
                }
                _ => self.serve(number, Service::Cells),
            }
        }
    }

    fn serve(&mut self, number: Number, service: Service) {
        if let Some(client) = self.core.clients.get_mut(number) {
            client.serve(service);
        }
    }

    fn take_signals(&mut self) {
        let arrived = self.signals.take();
        self.core.leaving |= arrived.leave;
        if !arrived.child {
            return;
        }
        // Every child there is, orphans of cells included: this is the one place that waits.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if Some(pid) == self.core.keeper.pid() {
                self.core.runner_ended(status);
            } else {
                self.workers.reaped(pid, status);
            }
        }
        let Core {
            clients, keeper, ..
        } = &mut self.core;
        self.workers
            .serve_waiting(clients, keeper.cgroups.as_ref(), &self.poller);
        self.core.keeper.tend(&self.poller);
    }

    fn flush(&mut self) -> Result<(), Errno> {
        self.core.close_what_is_over();
        for number in self.core.clients.flush(&self.poller)? {
            let Core { relay, keeper, .. } = &mut self.core;
            relay.closed(number, keeper.runner());
        }
        if let Some(runner) = self.core.keeper.runner() {
            runner.flush(&self.poller)?;
        }
        Ok(())
    }
}
