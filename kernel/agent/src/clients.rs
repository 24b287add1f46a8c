//! All connections, and the channel that carries most of them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use vmrepl_wire::mux::{MuxEvent, StreamId};

use crate::channel::{Channel, Input};
use crate::client::{Client, Number, Peer, Service, is_served};
use crate::limits;
use crate::listener::Accepted;
use crate::poller::{Poller, Readiness, Token};

/// The first token of connections: each has two, its socket's and its worker's.
pub(crate) const FIRST_TOKEN: Token = 1 << 32;

/// The table of connections.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) channel: Option<Channel>,
    table: BTreeMap<Number, Client>,
    streams: BTreeMap<StreamId, Number>,
    last_number: Number,
    /// Bytes of bridged streams stay where they are: the host wants the channel quiet.
    pub(crate) held: bool,
    scratch: Vec<u8>,
    nowhere: Vec<u8>,
}

/// A connection that wants its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) number: Number,
    pub(crate) port: u32,
}

impl Clients {
    pub(crate) fn new(channel: Option<Channel>) -> Self {
        Self {
            channel,
            table: BTreeMap::new(),
            streams: BTreeMap::new(),
            last_number: 0,
            held: false,
            scratch: vec![0; limits::READ_BYTES],
            nowhere: Vec::new(),
        }
    }

    pub(crate) fn get(&self, number: Number) -> Option<&Client> {
        self.table.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: Number) -> Option<&mut Client> {
        self.table.get_mut(&number)
    }

    /// Where events for a connection are appended; for one that is gone, a place that is emptied.
    pub(crate) fn sink(&mut self, number: Number) -> &mut Vec<u8> {
        self.nowhere = Vec::new();
        match self.table.get_mut(&number) {
            Some(client) => client.out.buffer(),
            None => &mut self.nowhere,
        }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Number, &mut Client)> {
        self.table
            .iter_mut()
            .map(|(number, client)| (*number, client))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.table.len() >= limits::CONNECTIONS
    }

    /// Passes an event to the connection that it is about.
    pub(crate) fn note(&mut self, token: Token, flags: EventFlags) {
        let number = Number::try_from((token - FIRST_TOKEN) / 2).unwrap_or(0);
        if let Some(client) = self.table.get_mut(&number) {
            client.note(token, flags);
        }
    }

    fn tokens(number: Number) -> (Token, Token) {
        let first = FIRST_TOKEN + Token::from(number) * 2;
        (first, first + 1)
    }

    /// Takes an accepted socket; unless its port is known it must say that first. One too many is closed.
    pub(crate) fn add_socket(
        &mut self,
        accepted: Accepted,
        poller: &Poller,
    ) -> Result<Option<Arrival>, Errno> {
        let Accepted { socket, port } = accepted;
        if self.is_full() {
            return Ok(None);
        }
        self.last_number += 1;
        let number = self.last_number;
        let (token, _) = Self::tokens(number);
        poller.add(&socket, token)?;
        let readiness = Readiness::of_new_source();
        let peer = Peer::Socket {
            socket,
            readiness,
            token,
        };
        self.table
            .insert(number, Client::new(peer, Service::Greeting));
        Ok(port.map(|port| Arrival { number, port }))
    }

    /// Reads the channel; returns the streams that were opened.
    pub(crate) fn read_channel(&mut self) -> Vec<Arrival> {
        let Some(channel) = self
            .channel
            .as_mut()
            .filter(|channel| channel.is_readable())
        else {
            return Vec::new();
        };
        match channel.read() {
            Input::Closed => {
                self.drop_streams();
                Vec::new()
            }
            Input::Events { restarted, events } => {
                if restarted {
                    self.drop_streams();
                }
                events
                    .into_iter()
                    .filter_map(|event| self.channel_event(event))
                    .collect()
            }
        }
    }

    fn channel_event(&mut self, event: MuxEvent) -> Option<Arrival> {
        match event {
            MuxEvent::Opened { id, port } => return self.opened(id, port),
            MuxEvent::Data { id, bytes } => {
                let client = self.table.get_mut(self.streams.get(&id)?)?;
                if let Peer::Stream { owed_bytes, .. } = &mut client.peer {
                    *owed_bytes += bytes.len();
                }
                match &mut client.service {
                    Service::Bridge { to_worker, .. } => to_worker.push(&bytes),
                    Service::Greeting | Service::Waiting => client.early.extend_from_slice(&bytes),
                    _ => client.push_lines(&bytes),
                }
            }
            MuxEvent::Finished { id } => {
                self.table.get_mut(self.streams.get(&id)?)?.end();
            }
            MuxEvent::Reset { id, .. } => {
                self.table.get_mut(self.streams.get(&id)?)?.gone = true;
            }
            MuxEvent::Epoch { .. } | MuxEvent::Accepted { .. } | MuxEvent::Writable { .. } => {}
        }
        None
    }

    fn opened(&mut self, id: StreamId, port: u32) -> Option<Arrival> {
        let full = self.is_full();
        let channel = self.channel.as_mut()?;
        if full || !is_served(port) {
            channel.refuse(id);
            return None;
        }
        channel.accept(id);
        self.last_number += 1;
        let number = self.last_number;
        let peer = Peer::Stream { id, owed_bytes: 0 };
        self.table
            .insert(number, Client::new(peer, Service::Greeting));
        self.streams.insert(id, number);
        Some(Arrival { number, port })
    }

    /// The channel forgot every stream. What was under way on them, a request that waits for its
    /// turn included, belongs to a past in which nobody waits for it.
    fn drop_streams(&mut self) {
        for number in std::mem::take(&mut self.streams).values() {
            if let Some(client) = self.table.get_mut(number) {
                client.forgotten();
            }
        }
    }

    /// Reads the handshakes that have come; returns the sockets that named a served port.
    pub(crate) fn greet(&mut self) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        for (number, client) in &mut self.table {
            if !matches!(client.service, Service::Greeting) || !client.is_readable() {
                continue;
            }
            match client.greet() {
                Some(port) if is_served(port) => {
                    client.welcome(*number);
                    arrivals.push(Arrival {
                        number: *number,
                        port,
                    });
                }
                // A refused port closes the connection without a word.
                Some(_) => client.gone = true,
                None => {}
            }
        }
        arrivals
    }

    /// Puts a worker's socket behind a stream.
    pub(crate) fn bridge(
        &mut self,
        number: Number,
        socket: OwnedFd,
        poller: &Poller,
    ) -> Result<(), Errno> {
        let (_, token) = Self::tokens(number);
        let Some(client) = self.table.get_mut(&number) else {
            return Ok(());
        };
        poller.add(&socket, token)?;
        client.serve(Service::Bridge {
            socket,
            readiness: Readiness::default(),
            token,
            to_worker: crate::outbox::Outbox::default(),
        });
        Ok(())
    }

    /// Gives a socket away to a worker: the connection is no longer the agent's.
    pub(crate) fn give_away(&mut self, number: Number) -> Option<OwnedFd> {
        match self.table.remove(&number)?.peer {
            Peer::Socket { socket, .. } => Some(socket),
            Peer::Stream { .. } | Peer::Forgotten => None,
        }
    }

    /// Reads the socket of a connection.
    pub(crate) fn read(&mut self, number: Number) {
        if let Some(client) = self.table.get_mut(&number) {
            client.read_socket(&mut self.scratch);
        }
    }

    /// Acknowledges what a connection has received.
    pub(crate) fn acknowledge(&mut self, number: Number) {
        if let Some(client) = self.table.get_mut(&number) {
            client.acknowledge(self.channel.as_mut());
        }
    }

    /// Bytes of unfinished lines, of all connections.
    pub(crate) fn held_bytes(&self) -> usize {
        self.table.values().map(|client| client.held_bytes).sum()
    }

    /// Sends what can be sent, and lets go of connections that are over. Returns those.
    pub(crate) fn flush(&mut self, poller: &Poller) -> Result<Vec<Number>, Errno> {
        let mut over = Vec::new();
        for (number, client) in &mut self.table {
            if self.held && client.is_bridged() {
                continue;
            }
            client.pump_bridge(&mut self.scratch, self.channel.as_mut(), poller)?;
            client.flush(self.channel.as_mut(), poller)?;
            let unread = client.out.len() > limits::OUTBOX_HARD_BYTES;
            if client.gone || unread || (client.closing && client.out.is_empty()) {
                over.push(*number);
            }
        }
        for number in &over {
            self.close(*number);
        }
        if let Some(channel) = &mut self.channel {
            channel.flush(poller)?;
        }
        Ok(over)
    }

    fn close(&mut self, number: Number) {
        let Some(client) = self.table.remove(&number) else {
            return;
        };
        let Peer::Stream { id, .. } = client.peer else {
            return;
        };
        self.streams.remove(&id);
        if let Some(channel) = &mut self.channel {
            if client.gone || !client.out.is_empty() {
                channel.reset(id);
            } else {
                channel.close(id, client.ended);
            }
        }
    }

    /// Cuts every connection off.
    pub(crate) fn cut_all(&mut self) {
        for client in self.table.values_mut() {
            client.gone = true;
        }
    }

    /// Whether nothing waits to be sent, but for what is held.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut clients = self.table.values();
        clients.all(|client| client.out.is_empty() || (self.held && client.is_bridged()))
            && self.channel.as_ref().is_none_or(Channel::is_quiet)
    }
}
