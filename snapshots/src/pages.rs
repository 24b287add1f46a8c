//! The pages that the layers of a chain lay over its base: where each is stored, and what it says.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk;
use crate::encoding::{self, Encoding, EncodingError};
use crate::error::StoreError;
use crate::page_index::PageEntry;
use crate::{PAGE_BYTES, Page, memory};

/// How much of a layer one read brings.
const WINDOW_BYTES: usize = 256 << 10;

/// The pages over a base, the newest content of each, in page order.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Every page of every layer, by page, and of one page the newest first.
    places: Vec<Place>,
    count: usize,
    /// The newest first.
    layers: Arc<[Layer]>,
    base: Arc<Base>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) entry: PageEntry,
    /// Which of the layers; the newest is 0.
    pub(crate) layer: u32,
}

/// The stored pages of one layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) stored_bytes: u64,
    /// Which of the layers its differences are against, always a later one; the base comes after the last.
    pub(crate) ancestor: u32,
}

/// The memory under all layers.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

/// Reads a layer's pages; each lies after the one before, so every read goes forward.
struct Window<'a> {
    layer: &'a Layer,
    bytes: Vec<u8>,
    start: u64,
}

/// Reads pages in rising order, as they stood in any of the snapshots of the chain.
pub(crate) struct Reader<'a> {
    pages: &'a Pages,
    windows: Vec<Window<'a>>,
    window_bytes: usize,
    /// The differences on the way down to a page that is none; kept, so that nothing is allocated for a page.
    differences: Vec<Place>,
}

impl Pages {
    pub(crate) fn new(mut places: Vec<Place>, layers: Vec<Layer>, base: Base) -> Self {
        places.sort_unstable_by_key(|place| (place.entry.page, place.layer));
        let mut pages = Self {
            places,
            count: 0,
            layers: layers.into(),
            base: base.into(),
        };
        pages.count = pages.by_page().count();
        pages
    }

    /// How many pages there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The page indices in order.
    pub fn indices(&self) -> impl Iterator<Item = u64> {
        self.by_page().map(|places| u64::from(places[0].entry.page))
    }

    /// Calls `each` with every page index and its content, in page order; stops at the first error.
    ///
    /// # Errors
    /// When a page cannot be read, or `each` fails.
    pub fn for_each<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(u64, &Page) -> Result<(), E>,
    ) -> Result<(), E> {
        static ZERO_PAGE: Page = [0; PAGE_BYTES];
        let mut reader = self.reader();
        let mut decoded = [0; PAGE_BYTES];
        for places in self.by_page() {
            let newest = places[0];
            let content = match newest.entry.encoding {
                Encoding::Zero => &ZERO_PAGE,
                Encoding::Raw => as_page(reader.stored(newest)?),
                Encoding::Lz4 | Encoding::Difference => {
                    reader.read(newest.entry.page.into(), places, 0, &mut decoded)?;
                    &decoded
                }
            };
            each(newest.entry.page.into(), content)?;
        }
        Ok(())
    }

    /// Calls `each` with the first page index and the bytes of every run of neighbouring pages, at most `most_pages`
    /// a run, in page order; stops at the first error.
    ///
    /// # Errors
    /// When a page cannot be read, or `each` fails.
    pub fn for_each_run<E: From<StoreError>>(
        &self,
        most_pages: usize,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let most_bytes = most_pages.max(1) * PAGE_BYTES;
        let (mut first, mut run): (u64, Vec<u8>) = (0, Vec::new());
        self.for_each(|page, content| {
            let next = first + (run.len() / PAGE_BYTES) as u64;
            if !run.is_empty() && (page != next || run.len() >= most_bytes) {
                each(first, &run)?;
                run.clear();
            }
            if run.is_empty() {
                first = page;
            }
            run.extend_from_slice(content);
            Ok::<(), E>(())
        })?;
        if run.is_empty() {
            Ok(())
        } else {
            each(first, &run)
        }
    }

    /// The content of one page; nothing if no layer has it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get(&self, page: u64) -> Result<Option<Page>, StoreError> {
        let places = self.places_of(page);
        if places.is_empty() {
            return Ok(None);
        }
        let mut content = [0; PAGE_BYTES];
        // One page, so no more is read than it takes.
        let mut reader = self.reader();
        reader.window_bytes = 0;
        reader.read(page, places, 0, &mut content)?;
        Ok(Some(content))
    }

    /// Reads a page of the base, as if no layer had it.
    pub(crate) fn read_base(&self, page: u64, out: &mut Page) -> Result<(), StoreError> {
        memory::read_page(&self.base.file, &self.base.path, page, out)
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        let window = |layer| Window {
            layer,
            bytes: Vec::new(),
            start: 0,
        };
        Reader {
            pages: self,
            windows: self.layers.iter().map(window).collect(),
            window_bytes: WINDOW_BYTES,
            differences: Vec::new(),
        }
    }

    /// The page indices of the newest layer, in order.
    pub(crate) fn indices_of_newest(&self) -> impl Iterator<Item = u64> {
        let newest = self.places.iter().filter(|place| place.layer == 0);
        newest.map(|place| u64::from(place.entry.page))
    }

    fn by_page(&self) -> impl Iterator<Item = &[Place]> {
        self.places
            .chunk_by(|one, next| one.entry.page == next.entry.page)
    }

    fn places_of(&self, page: u64) -> &[Place] {
        let of = |place: &Place| u64::from(place.entry.page);
        let from = self.places.partition_point(|place| of(place) < page);
        let places = &self.places[from..];
        &places[..places.partition_point(|place| of(place) == page)]
    }
}

impl Reader<'_> {
    /// Reads a page as it stood in the snapshot that is number `layer` of the chain, the newest 0.
    pub(crate) fn page(&mut self, page: u64, layer: u32, out: &mut Page) -> Result<(), StoreError> {
        self.read(page, self.pages.places_of(page), layer, out)
    }

    /// Goes down to the newest content that is no difference, then lays the differences over it, the oldest first.
    ///
    /// Each goes to a layer below its own, so no way is longer than the chain, and none visits a stored page twice.
    fn read(
        &mut self,
        page: u64,
        places: &[Place],
        layer: u32,
        out: &mut Page,
    ) -> Result<(), StoreError> {
        self.differences.clear();
        let mut layer = layer;
        loop {
            let Some(place) = places.iter().find(|place| place.layer >= layer).copied() else {
                self.pages.read_base(page, out)?;
                break;
            };
            match place.entry.encoding {
                Encoding::Zero => out.fill(0),
                Encoding::Raw => out.copy_from_slice(as_page(self.stored(place)?)),
                Encoding::Lz4 => {
                    let unpacked = encoding::unpack(self.stored(place)?, out);
                    unpacked.map_err(|source| self.refused(place, source))?;
                }
                Encoding::Difference => {
                    self.differences.push(place);
                    layer = self.layer(place).ancestor;
                    continue;
                }
            }
            break;
        }
        while let Some(place) = self.differences.pop() {
            let applied = encoding::apply(self.stored(place)?, out);
            applied.map_err(|source| self.refused(place, source))?;
        }
        Ok(())
    }

    fn stored(&mut self, place: Place) -> Result<&[u8], StoreError> {
        self.windows[place.layer as usize].stored(&place.entry, self.window_bytes)
    }

    fn layer(&self, place: Place) -> &Layer {
        &self.pages.layers[place.layer as usize]
    }

    fn refused(&self, place: Place, source: EncodingError) -> StoreError {
        StoreError::Page {
            page: place.entry.page.into(),
            path: self.layer(place).path.clone(),
            source,
        }
    }
}

impl Window<'_> {
    fn stored(&mut self, entry: &PageEntry, window_bytes: usize) -> Result<&[u8], StoreError> {
        let length = usize::from(entry.length);
        let within = |window: &Self| usize::try_from(entry.offset.checked_sub(window.start)?).ok();
        let here = within(self).filter(|from| from + length <= self.bytes.len());
        let from = match here {
            Some(from) => from,
            None => {
                self.refill(entry.offset, window_bytes.max(length))?;
                0
            }
        };
        Ok(&self.bytes[from..from + length])
    }

    fn refill(&mut self, offset: u64, bytes: usize) -> Result<(), StoreError> {
        let left = usize::try_from(self.layer.stored_bytes - offset).unwrap_or(usize::MAX);
        self.bytes.resize(left.min(bytes), 0);
        self.start = offset;
        disk::read_at(&self.layer.file, &self.layer.path, &mut self.bytes, offset)
    }
}

fn as_page(stored: &[u8]) -> &Page {
    stored
        .try_into()
        .expect("the index allows no other length of a raw page")
}
