//! What can go wrong in the store: always with the step and the path.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::{EncodingError, HeaderError, PageIndexError, SnapshotId, SumsError, limits};

/// One thing that the store does to a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words below say it")]
pub enum Step {
    MakeFolder,
    Create,
    Write,
    Punch,
    SyncFile,
    SyncFolder,
    Rename,
    Remove,
    Lock,
    Open,
    Read,
    List,
    Random,
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::MakeFolder => "make the folder",
            Self::Create => "create",
            Self::Write => "write",
            Self::Punch => "punch holes into",
            Self::SyncFile => "sync",
            Self::SyncFolder => "sync the folder",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::Lock => "lock",
            Self::Open => "open",
            Self::Read => "read",
            Self::List => "list",
            Self::Random => "read random bytes for",
        })
    }
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StoreError {
    #[error("cannot {step} {path}", path = path.display())]
    Disk {
        step: Step,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path} can be written by other users (mode {mode:o})", path = path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("the header of {path} is refused", path = path.display())]
    Header { path: PathBuf, source: HeaderError },
    #[error("these facts cannot be stored")]
    Facts { source: HeaderError },
    #[error("{path} says that it is snapshot {found}", path = path.display())]
    WrongId { path: PathBuf, found: SnapshotId },
    #[error("{path} has no section {section:?}", path = path.display())]
    SectionMissing { section: String, path: PathBuf },
    #[error("the checksum of section {section:?} in {path} does not match", path = path.display())]
    SectionDamaged { section: String, path: PathBuf },
    #[error("the section name {name:?} belongs to the format")]
    SectionReserved { name: String },
    #[error("section {name:?} of {bytes} bytes (at most {limit})")]
    SectionTooLong {
        name: String,
        bytes: usize,
        limit: u64,
    },
    #[error(
        "a snapshot file of {bytes} bytes (at most {})",
        limits::SNAPSHOT_FILE_BYTES
    )]
    FileTooLong { bytes: u64 },
    #[error("section \"page-index\" in {path} is refused", path = path.display())]
    PageIndex {
        path: PathBuf,
        source: PageIndexError,
    },
    #[error("page {page} in {path} is refused", path = path.display())]
    Page {
        page: u64,
        path: PathBuf,
        source: EncodingError,
    },
    #[error("section {section:?} in {path} is refused", path = path.display())]
    Sums {
        section: &'static str,
        path: PathBuf,
        source: SumsError,
    },
    #[error("{path} has {found} bytes instead of {expected}", path = path.display())]
    FileLength {
        path: PathBuf,
        found: u64,
        expected: u64,
    },
    #[error("{path} is damaged at byte {offset}", path = path.display())]
    Damaged { path: PathBuf, offset: u64 },
    #[error("there is no snapshot {id} in {store}", store = store.display())]
    NotFound { id: SnapshotId, store: PathBuf },
    #[error("there is another snapshot with the id {id}")]
    IdTaken { id: SnapshotId },
    #[error("no snapshot id begins with {text:?}")]
    NoMatch { text: String },
    #[error("{text:?} begins more than one snapshot id: {candidates}", candidates = candidates.join(", "))]
    Ambiguous {
        text: String,
        candidates: Vec<String>,
    },
    #[error(
        "{text:?} is not a name (1 to 64 letters, digits, '.', '_', '+' and '-', beginning with a letter or digit)"
    )]
    Name { text: String },
    #[error("{path} does not hold a snapshot id", path = path.display())]
    Pointer { path: PathBuf },
    #[error("snapshot {id} is needed by {dependents}", dependents = dependents.join(", "))]
    Needed {
        id: SnapshotId,
        dependents: Vec<String>,
    },
    #[error("snapshot {id} is in use by a live machine")]
    InUse { id: SnapshotId },
    #[error("snapshot {id} has {layers} layers over its base, the most that a chain may have")]
    ChainFull { id: SnapshotId, layers: u32 },
    #[error("layer {layer} does not fit its parent {parent}: {what}")]
    ChainBroken {
        layer: SnapshotId,
        parent: SnapshotId,
        what: &'static str,
    },
    #[error(
        "snapshot {id} is needed but damaged, so nobody can tell what else is needed: verify it, then remove it or its name"
    )]
    ReachableDamaged { id: SnapshotId },
    #[error("page {page} lies outside the memory of {page_count} pages")]
    PageOutside { page: u64, page_count: u64 },
    #[error("page {page} was given twice")]
    PageTwice { page: u64 },
}

impl StoreError {
    /// For `map_err`: adds the step and the path to an error of the system.
    pub(crate) fn disk<E: Into<io::Error>>(
        step: Step,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Disk {
            step,
            path: path.into(),
            source: source.into(),
        }
    }
}
