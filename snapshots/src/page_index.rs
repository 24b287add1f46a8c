//! The page index of a layer: which pages it holds, and how each is stored in the file `pages`.

use crate::fields::Fields;
use crate::{PAGE_BYTES, Page, SnapshotId};

pub(crate) const SECTION: &str = "page-index";
pub(crate) const VERSION: u32 = 1;
const HEAD_BYTES: usize = 24;
const ENTRY_BYTES: usize = 8;

/// How a page is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// All bytes are zero; nothing is stored.
    Zero = 0,
    /// The 4096 bytes.
    Raw = 1,
    /// One lz4 block. Reserved: this version neither writes nor reads it.
    Lz4 = 2,
    /// A difference against the ancestor that the index names. Reserved: this version neither writes nor reads it.
    Difference = 3,
}

/// One page of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageEntry {
    pub(crate) page: u32,
    pub(crate) encoding: Encoding,
    pub(crate) length: u16,
    /// Where its stored bytes begin in the file `pages`: the sum of the lengths before it.
    pub(crate) offset: u64,
}

/// All pages of one layer, in page order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageIndex {
    /// The ancestor that differences are against.
    pub(crate) ancestor: Option<SnapshotId>,
    pub(crate) entries: Vec<PageEntry>,
    /// Bytes of the file `pages`.
    pub(crate) stored_bytes: u64,
}

/// Why a page index, or a page of it, was refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PageIndexError {
    #[error("version {found} of the page index; this program reads version {VERSION}")]
    Version { found: u32 },
    #[error("a page index of {bytes} bytes that says {count} pages")]
    Length { bytes: usize, count: u32 },
    #[error("page {page} does not come after page {before}")]
    Order { page: u64, before: u64 },
    #[error("page {page} lies outside the memory of {page_count} pages")]
    Outside { page: u64, page_count: u64 },
    #[error("page {page} is stored in the unknown way {tag}")]
    UnknownEncoding { page: u64, tag: u8 },
    #[error("page {page} is stored as {encoding:?}, which this program does not read")]
    UnreadEncoding { page: u64, encoding: Encoding },
    #[error("page {page} is stored as {encoding:?} in {bytes} bytes")]
    StoredLength {
        page: u64,
        encoding: Encoding,
        bytes: u16,
    },
    #[error("a reserved field is not zero")]
    Reserved,
}

impl Encoding {
    /// The way in which this version stores a page.
    pub(crate) fn of(page: &Page) -> Self {
        if is_zero(page) { Self::Zero } else { Self::Raw }
    }

    fn from_tag(tag: u8) -> Option<Self> {
        [Self::Zero, Self::Raw, Self::Lz4, Self::Difference]
            .into_iter()
            .find(|encoding| *encoding as u8 == tag)
    }

    pub(crate) fn stored(self, page: &Page) -> &[u8] {
        if self == Self::Zero { &[] } else { page }
    }

    fn allows(self, length: u16) -> bool {
        match self {
            Self::Zero => length == 0,
            Self::Raw => usize::from(length) == PAGE_BYTES,
            Self::Lz4 | Self::Difference => (1..PAGE_BYTES).contains(&usize::from(length)),
        }
    }
}

impl PageEntry {
    /// Makes the page from its stored bytes.
    pub(crate) fn decode<'a>(&self, stored: &'a [u8]) -> Result<&'a Page, PageIndexError> {
        static ZERO_PAGE: Page = [0; PAGE_BYTES];
        let page = u64::from(self.page);
        match self.encoding {
            Encoding::Zero => Ok(&ZERO_PAGE),
            Encoding::Raw => stored.try_into().map_err(|_| PageIndexError::StoredLength {
                page,
                encoding: self.encoding,
                bytes: self.length,
            }),
            Encoding::Lz4 | Encoding::Difference => Err(PageIndexError::UnreadEncoding {
                page,
                encoding: self.encoding,
            }),
        }
    }
}

/// Whether a page or any other run of at most a page is all zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // A comparison with zeros is one `memcmp`, several times faster than a loop over the bytes.
    static ZEROS: Page = [0; PAGE_BYTES];
    bytes == &ZEROS[..bytes.len()]
}

impl PageIndex {
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
        if version != VERSION {
            return Err(PageIndexError::Version { found: version });
        }
        let mut fields = Fields::new(bytes);
        let short = || PageIndexError::Length {
            bytes: bytes.len(),
            count: 0,
        };
        let ancestor = SnapshotId::from_bytes(fields.array().ok_or_else(short)?);
        let count = fields.u32().ok_or_else(short)?;
        let reserved = fields.u32().ok_or_else(short)?;
        if reserved != 0 {
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
        let mut index = Self {
            ancestor: (!ancestor.is_nil()).then_some(ancestor),
            ..Self::default()
        };
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
}
