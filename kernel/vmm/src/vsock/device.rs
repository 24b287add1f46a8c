//! The device as its transport sees it.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use virtio_queue::Queue;

use super::chain::{self, Broken, Chains};
use super::limits::PACKET_BYTES;
use super::save;
use super::spec::{ANY, GUEST_CID_MIN};
use super::state::VsockState;
use super::stream::Greeting;
#[cfg(test)]
use super::stream::Stream;
use super::streams::Streams;
use crate::ram::Memory;

/// The socket device of one machine.
#[derive(Debug)]
pub(crate) struct Vsock {
    pub(super) streams: Streams,
    /// The payload of the packet that is under way, in either direction.
    scratch: Box<[u8; PACKET_BYTES]>,
}

impl Vsock {
    /// Creates the device of a machine that has not begun to run. `guest_cid` is at least 3.
    pub(crate) fn new(guest_cid: u32) -> io::Result<Self> {
        if !(GUEST_CID_MIN..ANY).contains(&guest_cid) {
            let message = format!("a guest cannot have the address {guest_cid}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Self {
            streams: Streams::new(guest_cid)?,
            scratch: Box::new([0; PACKET_BYTES]),
        })
    }

    /// Creates the device of a machine that goes on from a saved state.
    ///
    /// Each claim is a guest port and the socket that takes over the first settled connection to it
    /// which nobody has claimed; the guest does not notice. Without one it is opened anew. The guest
    /// gets a RST for every connection that nobody claims.
    pub(crate) fn restore(state: &VsockState, claims: Vec<(u32, UnixStream)>) -> io::Result<Self> {
        let mut device = Self::new(state.guest_cid)?;
        save::restore(&mut device.streams, state, claims);
        Ok(device)
    }

    /// Becomes ready when [`Self::on_host`] has something to collect; it nests in another set.
    pub(crate) fn poller(&self) -> BorrowedFd<'_> {
        self.streams.poller.fd()
    }

    /// The configuration space (virtio 1.2, section 5.10.4).
    pub(crate) fn config(&self) -> [u8; 8] {
        u64::from(self.streams.guest_cid).to_le_bytes()
    }

    /// Opens a stream from a client's socket to a port of the guest, as soon as the guest is up. The
    /// socket closes when the guest refuses, and at once when there are too many streams.
    pub(crate) fn open(&mut self, guest_port: u32, socket: UnixStream, greeting: Greeting) {
        self.streams.open(guest_port, socket, greeting);
    }

    /// Takes in what has happened to the clients' sockets. Whether there is something for the guest.
    pub(crate) fn on_host(&mut self) -> bool {
        self.streams.on_host();
        self.wants_to_send()
    }

    /// Handles what the guest has put into its transmit queue. Whether it got chains back.
    ///
    /// One call takes at most one ring's worth: what another CPU of the guest adds meanwhile comes
    /// with a notification of its own.
    pub(crate) fn transmit(&mut self, memory: &Memory, queue: &mut Queue) -> Result<bool, Broken> {
        let Some(mut chains) = Chains::new("transmit", memory, queue)? else {
            return Ok(false);
        };
        let mut used = false;
        for _ in 0..chains.size() {
            let Some(mut chain) = chains.pop()? else {
                break;
            };
            let (header, payload) = chain::read_packet(memory, &mut chain, &mut self.scratch)?;
            self.streams.handle(&header, payload);
            chains.put_used(chain.head_index(), 0)?;
            used = true;
        }
        Ok(used)
    }

    /// Fills the guest's receive buffers with what waits for it. Whether it got buffers back.
    ///
    /// One call fills at most one ring's worth: buffers that the guest adds meanwhile come with a
    /// notification of their own.
    pub(crate) fn receive(&mut self, memory: &Memory, queue: &mut Queue) -> Result<bool, Broken> {
        let Some(mut chains) = Chains::new("receive", memory, queue)? else {
            return Ok(false);
        };
        let mut used = false;
        for _ in 0..chains.size() {
            if !self.wants_to_send() {
                break;
            }
            let Some(mut chain) = chains.pop()? else {
                break;
            };
            let mut packet = chain::receive_buffer(memory, &mut chain)?;
            let Some(bytes) = self.streams.fill(&mut packet, &mut self.scratch[..])? else {
                chains.unpop();
                break;
            };
            chains.put_used(chain.head_index(), bytes)?;
            used = true;
        }
        Ok(used)
    }

    /// The driver has reset the device: the guest has forgotten its streams and has to knock again.
    /// Clients whose streams it had not heard of go on waiting.
    pub(crate) fn reset(&mut self) {
        self.streams.forget_guest();
    }

    /// Ends all streams towards their clients: the guest is no more.
    pub(crate) fn close_all(&mut self) {
        self.streams.close_all();
    }

    /// Whether a receive buffer would be of use now.
    pub(crate) fn wants_to_send(&self) -> bool {
        self.streams.wants_to_send()
    }

    /// Whether nothing is under way in either direction, as far as [`Self::on_host`] has seen. A
    /// stream that the guest has not accepted yet is under way.
    #[cfg(test)]
    pub(crate) fn quiet(&self) -> bool {
        let mut streams = self.streams.streams.values();
        self.streams.last_words.is_empty() && streams.all(Stream::is_quiet)
    }

    /// The state to restore or roll back to. Connections with something under way are lost then.
    pub(crate) fn save(&self) -> VsockState {
        save::save(&self.streams)
    }

    /// Goes back to a state that this device saved before, together with the guest's memory.
    ///
    /// Sockets of settled connections of that time stay attached, with the accounts of that time;
    /// bytes that their clients have not taken are dropped. Streams opened since close towards their
    /// clients, and the guest gets a RST for each connection of that time that is gone.
    pub(crate) fn rollback(&mut self, state: &VsockState) {
        save::rollback(&mut self.streams, state);
    }
    /// Bytes that wait for slow clients.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let streams = self.streams.streams.values();
        streams.map(|stream| stream.socket.pending_bytes()).sum()
    }

    /// Packets without data and without a stream that wait for the guest.
    #[cfg(test)]
    pub(super) fn held_packets(&self) -> usize {
        self.streams.last_words.len()
    }
}
