//! The terminal face: keys in, cells to the session, what they say to a writer.
//!
//! In: a live session, keys, and settings. Out: text and pictures on the writer that it was given.
//! Never: a decision about what a session is, a word printed past that writer, a guest's byte that
//! steers the terminal.

mod colour;
mod sanitise;
mod settings;
mod shared;
mod transfer;
mod travel;
mod typed;

mod editor;

mod picture;
mod screen;

mod commands;
mod face;

pub use face::{LineError, run};
pub use picture::Inline;
pub use sanitise::Sanitiser;
pub use settings::{AskLine, Settings};
