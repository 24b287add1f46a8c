//! Processes that each serve one connection of a port where programs and files are asked for.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitStatus};
use vmrepl_wire::port;

use crate::boot::Cgroups;
use crate::client::{Peer, Service};
use crate::clients::{Arrival, Clients};
use crate::exec::{Defaults, kill_group_of, sweep_groups};
use crate::poller::Poller;
use crate::spawn::{Forked, fork, work};
use crate::{files, grpc, languages, limits, log};

/// The workers that live.
#[derive(Debug)]
pub(crate) struct Workers {
    defaults: Defaults,
    /// With the ports that they serve.
    pids: BTreeMap<i32, (Pid, u32)>,
    /// Connections that came when all places of their port were taken, the oldest first.
    waiting: VecDeque<Arrival>,
}

/// How many connections of a port are served at once.
fn places(number: u32) -> usize {
    match number {
        port::FILES => limits::FILES_WORKERS,
        _ => limits::EXEC_WORKERS,
    }
}

impl Workers {
    pub(crate) fn new(defaults: Defaults) -> Self {
        Self {
            defaults,
            pids: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Whether workers serve this port.
    pub(crate) fn serves(number: u32) -> bool {
        matches!(number, port::FILES | port::EXEC | port::LANGUAGES)
    }

    pub(crate) fn pids(&self) -> Vec<Pid> {
        self.pids.values().map(|(pid, _)| *pid).collect()
    }

    /// A child has ended: one of these, or what one of them has left.
    pub(crate) fn reaped(&mut self, pid: Pid, status: WaitStatus) {
        let was_worker = self.pids.remove(&pid.as_raw_nonzero().get()).is_some();
        if let Some(groups) = &self.defaults.groups {
            if was_worker && !status.exited() {
                kill_group_of(groups, pid);
            }
            sweep_groups(groups);
        }
    }

    fn is_full(&self, number: u32) -> bool {
        let taken = self.pids.values().filter(|(_, port)| *port == number);
        taken.count() >= places(number)
    }

    /// Gives a connection to a new worker, or has it wait for a place.
    pub(crate) fn serve(
        &mut self,
        arrival: Arrival,
        clients: &mut Clients,
        cgroups: Option<&Cgroups>,
        poller: &Poller,
    ) {
        let Arrival { number, port } = arrival;
        if self.is_full(port) {
            if let Some(client) = clients.get_mut(number) {
                client.serve(Service::Waiting);
                self.waiting.push_back(arrival);
            }
            return;
        }
        if let Err(error) = self.start(arrival, clients, cgroups, poller) {
            log::warn(format_args!("port {port}: {error}"));
            if let Some(client) = clients.get_mut(number) {
                // Refused is refused: not even the handshake is answered.
                client.out.clear();
                client.gone = true;
            }
        }
    }

    /// Gives places that have become free to those who wait.
    pub(crate) fn serve_waiting(
        &mut self,
        clients: &mut Clients,
        cgroups: Option<&Cgroups>,
        poller: &Poller,
    ) {
        for arrival in std::mem::take(&mut self.waiting) {
            // One that has gone meanwhile takes no place; one for whom there is none yet waits on.
            let is_there = |client: &crate::client::Client| !client.gone;
            if clients.get(arrival.number).is_some_and(is_there) {
                self.serve(arrival, clients, cgroups, poller);
            }
        }
    }

    fn start(
        &mut self,
        arrival: Arrival,
        clients: &mut Clients,
        cgroups: Option<&Cgroups>,
        poller: &Poller,
    ) -> io::Result<()> {
        let Arrival { number, port } = arrival;
        if port == port::EXEC && self.defaults.grpc.is_none() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let socket = match clients.get_mut(number) {
            None => return Ok(()),
            // The stream has no descriptor to give away: it is bridged to one.
            Some(client) if matches!(client.peer, Peer::Stream { .. }) => {
                let (ours, theirs) = socketpair(
                    AddressFamily::UNIX,
                    SocketType::STREAM,
                    SocketFlags::CLOEXEC,
                    None,
                )?;
                rustix::io::ioctl_fionbio(&ours, true)?;
                clients.bridge(number, ours, poller)?;
                theirs
            }
            Some(client) => {
                // An empty socket takes the handshake's answer whole.
                client.flush(None, poller)?;
                let Some(socket) = clients.give_away(number) else {
                    return Ok(());
                };
                rustix::io::ioctl_fionbio(&socket, false)?;
                socket
            }
        };
        self.fork(socket, port, cgroups)
    }

    fn fork(&mut self, socket: OwnedFd, number: u32, cgroups: Option<&Cgroups>) -> io::Result<()> {
        let cgroup = cgroups.map(|cgroups| &cgroups.workers);
        match fork(cgroup, &socket)? {
            Forked::Agent(pid) => {
                self.pids.insert(pid.as_raw_nonzero().get(), (pid, number));
                Ok(())
            }
            Forked::Worker => {
                let defaults = &self.defaults;
                work(|| match (number, &defaults.grpc) {
                    (port::EXEC, Some(program)) => grpc::serve(socket, program, defaults),
                    (port::LANGUAGES, _) => languages::serve(socket, defaults),
                    _ => files::serve(socket, defaults),
                })
            }
        }
    }
}
