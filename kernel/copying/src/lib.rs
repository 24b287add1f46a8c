//! Files and folders on their way between two file systems that do not trust each other.
//!
//! In: bytes of a file, or a tar stream, from anyone; a folder to read. Out: a file with its holes, a folder that is
//! whole or not there, a tar stream, checksums, and a list of what was left out. Never: a write outside the
//! target, a step through a link of the target, memory by a length that somebody claims.

mod limits;

mod mtime;
mod sum;
mod tally;

mod draft;
mod holes;
mod landing;

mod below;
mod error;
mod pack;
mod record;
mod unpack;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

pub use draft::{DraftFile, DraftFolder, Ground};
pub use error::UnpackError;
pub use holes::HoleWriter;
pub use landing::{base_name, landing};
pub use mtime::Mtime;
pub use pack::{measure, pack};
pub use sum::{Sum, Summed};
pub use tally::{Skipped, Tally, Watch};
pub use unpack::{Trust, unpack};
