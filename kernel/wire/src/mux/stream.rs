//! One stream: what each end may send, and what waits to be sent.

use std::collections::VecDeque;

use super::error::MuxError;
use super::event::ResetReason;
use super::frame::{Control, encode_header};
use super::kind::{HEADER_BYTES, Kind};
use crate::limits::{MUX_CREDIT_STEP_BYTES, MUX_TURN_BYTES, MUX_WINDOW_BYTES};
use crate::port;

#[derive(Debug)]
pub(super) struct Stream {
    port: u32,
    /// The other end, or this one when the other end opened it, has taken the stream.
    pub(super) accepted: bool,
    opened_here: bool,
    /// Stands in a queue of streams with something to send.
    pub(super) ready: bool,

    // Our direction.
    queue: VecDeque<u8>,
    /// What the peer allows beyond what is queued.
    credit_bytes: usize,
    /// The application ends its direction; FIN follows the queue.
    pub(super) finishing: bool,
    fin_sent: bool,
    /// The application has left; RESET follows the queue, and what still comes is dropped.
    pub(super) closing: bool,
    reset_sent: bool,

    // The peer's direction.
    /// What the peer may still send.
    window_bytes: usize,
    /// What the application has taken and the peer was not told yet.
    ungranted_bytes: usize,
    pub(super) finished: bool,
}

impl Stream {
    pub(super) fn opened_here(port: u32) -> Self {
        Self {
            port,
            accepted: false,
            opened_here: true,
            ready: false,
            queue: VecDeque::new(),
            credit_bytes: MUX_WINDOW_BYTES,
            finishing: false,
            fin_sent: false,
            closing: false,
            reset_sent: false,
            window_bytes: MUX_WINDOW_BYTES,
            ungranted_bytes: 0,
            finished: false,
        }
    }

    pub(super) fn opened_there(port: u32) -> Self {
        Self {
            opened_here: false,
            ..Self::opened_here(port)
        }
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.port == port::CONTROL
    }

    pub(super) fn send_room(&self) -> usize {
        let may_send = !self.finishing && !self.closing && (self.opened_here || self.accepted);
        if may_send { self.credit_bytes } else { 0 }
    }

    pub(super) fn queue(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.send_room());
        self.queue.extend(&bytes[..count]);
        self.credit_bytes -= count;
        count
    }

    pub(super) fn granted(&mut self, id: u32, granted_bytes: u32) -> Result<(), MuxError> {
        let error = MuxError::Grant {
            stream: id,
            granted_bytes,
        };
        let credit = usize::try_from(granted_bytes)
            .ok()
            .filter(|granted| *granted > 0)
            .and_then(|granted| self.credit_bytes.checked_add(granted))
            .ok_or(error)?;
        if credit + self.queue.len() > MUX_WINDOW_BYTES {
            return Err(error);
        }
        self.credit_bytes = credit;
        Ok(())
    }

    pub(super) fn received(&mut self, id: u32, length_bytes: usize) -> Result<(), MuxError> {
        self.window_bytes =
            self.window_bytes
                .checked_sub(length_bytes)
                .ok_or(MuxError::Credit {
                    stream: id,
                    length_bytes,
                    credit_bytes: self.window_bytes,
                })?;
        Ok(())
    }

    /// The application took `bytes`; returns what to grant, once it is worth a frame.
    pub(super) fn consumed(&mut self, bytes: usize) -> Option<u32> {
        let taken = MUX_WINDOW_BYTES - self.window_bytes;
        self.ungranted_bytes = self.ungranted_bytes.saturating_add(bytes).min(taken);
        if self.finished || self.ungranted_bytes < MUX_CREDIT_STEP_BYTES {
            return None;
        }
        let grant = std::mem::take(&mut self.ungranted_bytes);
        self.window_bytes += grant;
        u32::try_from(grant).ok()
    }

    pub(super) fn has_output(&self) -> bool {
        let end = if self.closing {
            !self.reset_sent
        } else {
            self.finishing && !self.fin_sent
        };
        end || !self.queue.is_empty()
    }

    /// Both directions have ended and nothing waits.
    pub(super) fn is_over(&self) -> bool {
        let ended = self.fin_sent && self.finished && !self.closing;
        ended || self.reset_sent
    }

    /// Appends at most one DATA frame and the FIN or RESET behind it, within `room` bytes (enough
    /// for a control frame), and returns their length.
    pub(super) fn encode_turn(
        &mut self,
        epoch: u32,
        id: u32,
        room: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let before = out.len();
        let count = self
            .queue
            .len()
            .min(MUX_TURN_BYTES)
            .min(room - HEADER_BYTES);
        if count > 0 {
            encode_header(Kind::Data, epoch, id, count, out);
            let (front, back) = self.queue.as_slices();
            let split = count.min(front.len());
            out.extend_from_slice(&front[..split]);
            out.extend_from_slice(&back[..count - split]);
            self.queue.drain(..count);
        }
        let left = room - (out.len() - before);
        if self.queue.is_empty() && self.closing {
            if left >= Control::MAX_BYTES {
                Control::reset(id, ResetReason::Closed).encode(epoch, out);
                self.reset_sent = true;
            }
        } else if self.queue.is_empty() && self.finishing && !self.fin_sent && left >= HEADER_BYTES
        {
            encode_header(Kind::Fin, epoch, id, 0, out);
            self.fin_sent = true;
        }
        out.len() - before
    }
}
