//! Snapshot format and store: what a paused machine was, on disk.
//!
//! In: named sections of opaque bytes, a memory file that an engine has filled, or pages as (page index, 4096 bytes).
//! Out: ids; sections whose checksum held; a base file and the pages that lie over it.
//! Never: an engine, a guest, a session. Nothing here starts a process, and nothing of a memory is hashed to read it.
//!
//! `FORMAT.md` beside this crate documents the bytes.

pub mod limits;

mod error;
mod id;

mod encoding;
mod fields;
mod header;
mod page_index;
mod sums;

mod disk;
mod store;

mod memory;
mod staging;

mod chain;
mod draft;
mod encode;
mod layer_encoder;
mod page_writer;
mod pages;
mod scratch;
mod snapshot;

mod collect;
mod flatten;
mod names;
mod remove;
mod transfer;
mod verify;

mod sound;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

pub use chain::Chain;
pub use collect::{Collected, Policy};

pub use draft::{BaseDraft, Form, LayerDraft, LayerPages};
pub use encoding::{Encoding, EncodingError};
pub use error::{Step, StoreError};
pub use header::{Difference, Facts, Header, HeaderError, Kind, SectionEntry};
pub use id::{IdError, SnapshotId};
pub use names::Named;
pub use page_index::PageIndexError;
pub use pages::Pages;
pub use scratch::Scratch;
pub use snapshot::{Hold, Section, Snapshot};
pub use store::{Listed, Size, Store};
pub use sums::SumsError;
pub use transfer::TransferError;
pub use verify::{Damage, Report};

/// Bytes of one page, the unit of layers.
pub const PAGE_BYTES: usize = 4096;

/// The content of one page.
pub type Page = [u8; PAGE_BYTES];
