//! Processes that each serve one connection of the files port.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitStatus};

use crate::boot::Cgroups;
use crate::client::{Number, Peer, Service};
use crate::clients::Clients;
use crate::exec::{Defaults, Groups};
use crate::poller::Poller;
use crate::spawn::{Forked, fork, leave};
use crate::{files, limits, log};

/// The workers that live.
#[derive(Debug)]
pub(crate) struct Workers {
    defaults: Defaults,
    pids: BTreeMap<i32, Pid>,
    groups: Groups,
    /// Connections that came when all places were taken, the oldest first.
    waiting: VecDeque<Number>,
}

impl Workers {
    pub(crate) fn new(defaults: Defaults) -> Self {
        Self {
            defaults,
            pids: BTreeMap::new(),
            groups: Groups::default(),
            waiting: VecDeque::new(),
        }
    }

    pub(crate) fn pids(&self) -> Vec<Pid> {
        self.pids.values().copied().collect()
    }

    /// A child has ended: one of these, or what one of them has left.
    pub(crate) fn reaped(&mut self, pid: Pid, status: WaitStatus) {
        let Some(groups) = &self.defaults.groups else {
            self.pids.remove(&pid.as_raw_nonzero().get());
            return;
        };
        if self.pids.remove(&pid.as_raw_nonzero().get()).is_some() {
            self.groups.ended(groups, pid, !status.exited());
        }
        self.groups.tidy();
    }

    /// Gives a connection to a new worker, or has it wait for a place.
    pub(crate) fn serve(
        &mut self,
        number: Number,
        clients: &mut Clients,
        cgroups: Option<&Cgroups>,
        poller: &Poller,
    ) {
        if self.pids.len() >= limits::FILES_WORKERS {
            if let Some(client) = clients.get_mut(number) {
                client.serve(Service::Waiting);
                self.waiting.push_back(number);
            }
            return;
        }
        if let Err(error) = self.start(number, clients, cgroups, poller) {
            log::warn(format_args!("files port: {error}"));
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
        while self.pids.len() < limits::FILES_WORKERS
            && let Some(number) = self.waiting.pop_front()
        {
            // One that has gone meanwhile takes no place.
            if clients.get(number).is_some_and(|client| !client.gone) {
                self.serve(number, clients, cgroups, poller);
            }
        }
    }

    fn start(
        &mut self,
        number: Number,
        clients: &mut Clients,
        cgroups: Option<&Cgroups>,
        poller: &Poller,
    ) -> io::Result<()> {
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
        self.fork(socket, cgroups)
    }

    fn fork(&mut self, socket: OwnedFd, cgroups: Option<&Cgroups>) -> io::Result<()> {
        let cgroup = cgroups.map(|cgroups| &cgroups.workers);
        match fork(cgroup, &socket)? {
            Forked::Agent(pid) => {
                self.pids.insert(pid.as_raw_nonzero().get(), pid);
                Ok(())
            }
            Forked::Worker => leave(files::serve(socket, &self.defaults)),
        }
    }
}
