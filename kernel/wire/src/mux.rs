//! Many streams on one byte stream: the state machine of one end, without I/O.
//!
//! Bytes from the channel go into [`Mux::receive`]; what they mean comes out of [`Mux::event`]. What
//! the application sends waits per stream and leaves through [`Mux::take_output`], in an order that
//! lets no stream starve another: control frames, then streams of the control port, then the others
//! in turn. Each direction of a stream has its own credit, so a reader that stops costs its writer
//! one window of memory and nobody else anything.
//!
//! `PROTOCOL.md` tells the frames, the sequence of a restore and the states of a stream.

mod error;
mod event;
mod frame;
mod input;
mod kind;
mod state;
mod stream;

pub use error::MuxError;
pub use event::{MuxEvent, ResetReason, Role, StreamId};
pub use kind::{HEADER_BYTES, Kind, MAGIC};
pub use state::Mux;
