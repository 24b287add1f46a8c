//! The socket device (virtio 1.2, section 5.10): streams between the guest's ports and the host's
//! Unix sockets.
//!
//! In come packets of the guest's transmit queue and sockets of clients; out go bytes to those sockets
//! and packets for the guest's receive queue. The device is a model: registers, interrupts and threads
//! belong to its transport, which calls in under one lock. Nothing here blocks, sleeps or sets a timer,
//! and what is held for one stream never passes its credit.
//!
//! After [`Vsock::transmit`], [`Vsock::on_host`], [`Vsock::open`] and [`Vsock::rollback`] there may be
//! packets for the guest: the transport calls [`Vsock::receive`] then, and whenever the guest offers
//! receive buffers.

mod chain;
mod credit;
mod device;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod header;
mod limits;
mod poller;
mod save;
mod socket;
mod spec;
mod state;
mod stream;
mod streams;

#[cfg(test)]
pub(crate) use chain::Broken;
#[cfg(test)]
pub(crate) use state::{Connection, StateError};
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use device::Vsock;
pub(crate) use state::VsockState;
pub use stream::Greeting;
