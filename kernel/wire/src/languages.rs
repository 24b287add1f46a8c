//! Programs in many languages on port 52000: frames of `length u32 big-endian, JSON`.
//!
//! A client sends requests ([`Execute`]); each is answered by an acknowledgement at once and a result in the end, or by an
//! error alone ([`Reply`]). Requests are checked to the last field by [`Execute::parse`].

mod frame;
mod language;
mod reply;
mod request;
#[cfg(test)]
mod tests;

pub use frame::{HEADER_BYTES, LanguagesDecoder, LanguagesFrameError, encode, header};
pub use language::{Language, UnknownLanguage};
pub use reply::{ErrorKind, Outcome, Received, Refusal, Reply, Status};
pub use request::Execute;
