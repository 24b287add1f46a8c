//! The page index of a layer: which pages it holds, and how each is stored in the file beside it.

use crate::SnapshotId;
use crate::encoding::Encoding;
use crate::fields::Fields;

pub(crate) const SECTION: &str = "page-index";
/// The pages of a layer as it was published.
pub(crate) const PAGES_FILE: &str = "pages";
/// The pages of a layer that was encoded.
pub(crate) const ENCODED_FILE: &str = "encoded";
const HEAD_BYTES: usize = 24;
const ENTRY_BYTES: usize = 8;

/// What an index can say, by the version of its section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum IndexVersion {
    /// Pages that are zero or raw: how a layer is published while a cell waits.
    #[default]
    Plain = 1,
    /// Pages that are stored in any way: what a layer is made into later.
    Encoded = 2,
}

/// One page of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageEntry {
    pub(crate) page: u32,
    pub(crate) encoding: Encoding,
    pub(crate) length: u16,
    /// Where its stored bytes begin in the file: the sum of the lengths before it.
    pub(crate) offset: u64,
}

/// All pages of one layer, in page order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageIndex {
    pub(crate) version: IndexVersion,
    /// The ancestor that differences are against.
    pub(crate) ancestor: Option<SnapshotId>,
    pub(crate) entries: Vec<PageEntry>,
    /// Bytes of the file.
    pub(crate) stored_bytes: u64,
}

/// Why a page index, or a page of it, was refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PageIndexError {
    #[error("version {found} of the page index; this program reads versions 1 and 2")]
    Version { found: u32 },
    #[error("a page index of {bytes} bytes that says {count} pages")]
    Length { bytes: usize, count: u32 },
    #[error("page {page} does not come after page {before}")]
    Order { page: u64, before: u64 },
    #[error("page {page} lies outside the memory of {page_count} pages")]
    Outside { page: u64, page_count: u64 },
    #[error("page {page} is stored in the unknown way {tag}")]
    UnknownEncoding { page: u64, tag: u8 },
    #[error(
        "page {page} is stored as {encoding:?}, which version 1 of the page index does not have"
    )]
    NotPlain { page: u64, encoding: Encoding },
    #[error("page {page} is a difference, and the index names no ancestor")]
    NoAncestor { page: u64 },
    #[error(
        "the pages are differences against snapshot {ancestor}, which the layer does not lie on"
    )]
    Ancestor { ancestor: SnapshotId },
    #[error("page {page} is stored as {encoding:?} in {bytes} bytes")]
    StoredLength {
        page: u64,
        encoding: Encoding,
        bytes: u16,
    },
    #[error("a reserved field is not zero")]
    Reserved,
}

impl IndexVersion {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [Self::Plain, Self::Encoded]
            .into_iter()
            .find(|version| *version as u32 == number)
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Plain => Self::Encoded,
            Self::Encoded => Self::Plain,
        }
    }

    /// The file of the stored pages. Two names, so that the other is never read with this index.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Plain => PAGES_FILE,
            Self::Encoded => ENCODED_FILE,
        }
    }
}

impl PageIndex {
    pub(crate) fn new(version: IndexVersion, ancestor: Option<SnapshotId>) -> Self {
        Self {
            version,
            ancestor,
            ..Self::default()
        }
    }

    /// Appends a page that comes after all others; false if it does not, or lies beyond what the index can name.
    pub(crate) fn push(&mut self, page: u64, encoding: Encoding, length: usize) -> bool {
        let (Ok(page), Ok(length)) = (u32::try_from(page), u16::try_from(length)) else {
            return false;
        };
        if self.entries.last().is_some_and(|last| last.page >= page) {
            return false;
        }
        self.entries.push(PageEntry {
            page,
            encoding,
            length,
            offset: self.stored_bytes,
        });
        self.stored_bytes += u64::from(length);
        true
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.entries.len() * ENTRY_BYTES);
        let count = u32::try_from(self.entries.len()).expect("pages are distinct 32-bit numbers");
        out.extend_from_slice(
            &self
                .ancestor
                .map_or([0; 16], |ancestor| *ancestor.as_bytes()),
        );
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for entry in &self.entries {
            out.extend_from_slice(&entry.page.to_le_bytes());
            out.extend_from_slice(&entry.length.to_le_bytes());
            out.extend_from_slice(&[entry.encoding as u8, 0]);
        }
        out
    }

    pub(crate) fn decode(
        bytes: &[u8],
        version: u32,
        page_count: u64,
    ) -> Result<Self, PageIndexError> {
        let version =
            IndexVersion::from_number(version).ok_or(PageIndexError::Version { found: version })?;
        let mut fields = Fields::new(bytes);
        let short = || PageIndexError::Length {
            bytes: bytes.len(),
            count: 0,
        };
        let ancestor = SnapshotId::from_bytes(fields.array().ok_or_else(short)?);
        let count = fields.u32().ok_or_else(short)?;
        let reserved = fields.u32().ok_or_else(short)?;
        if reserved != 0 || version == IndexVersion::Plain && !ancestor.is_nil() {
            return Err(PageIndexError::Reserved);
        }
        if !fields.left().is_multiple_of(ENTRY_BYTES)
            || u32::try_from(fields.left() / ENTRY_BYTES) != Ok(count)
        {
            return Err(PageIndexError::Length {
                bytes: bytes.len(),
                count,
            });
        }
        let mut index = Self::new(version, (!ancestor.is_nil()).then_some(ancestor));
        index.entries.reserve_exact(fields.left() / ENTRY_BYTES);
        while fields.left() > 0 {
            let page = u64::from(fields.u32().ok_or_else(short)?);
            let length = fields.u16().ok_or_else(short)?;
            let tag = fields.byte().ok_or_else(short)?;
            if fields.byte() != Some(0) {
                return Err(PageIndexError::Reserved);
            }
            if page >= page_count {
                return Err(PageIndexError::Outside { page, page_count });
            }
            let encoding =
                Encoding::from_tag(tag).ok_or(PageIndexError::UnknownEncoding { page, tag })?;
            index.check_encoding(page, encoding)?;
            if !encoding.allows(length) {
                return Err(PageIndexError::StoredLength {
                    page,
                    encoding,
                    bytes: length,
                });
            }
            let before = index.entries.last().map_or(0, |last| u64::from(last.page));
            if !index.push(page, encoding, usize::from(length)) {
                return Err(PageIndexError::Order { page, before });
            }
        }
        Ok(index)
    }

    fn check_encoding(&self, page: u64, encoding: Encoding) -> Result<(), PageIndexError> {
        let is_plain = matches!(encoding, Encoding::Zero | Encoding::Raw);
        if self.version == IndexVersion::Plain && !is_plain {
            return Err(PageIndexError::NotPlain { page, encoding });
        }
        if encoding == Encoding::Difference && self.ancestor.is_none() {
            return Err(PageIndexError::NoAncestor { page });
        }
        Ok(())
    }
}
