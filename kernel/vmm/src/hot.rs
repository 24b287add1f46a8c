//! The pages that a restored guest touches before its first answer, recorded once for a template. A restore that
//! maps them ahead, all at once, pays no fault for each.
//!
//! Layout, little-endian: for each extent its first page u32, then u32: the number of pages, with the highest bit
//! set when the guest writes them. Only a hint: a wrong one costs time and changes nothing.

use crate::limits::HOT_EXTENTS;

const WRITTEN: u32 = 1 << 31;

/// Neighbours of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) first: u64,
    pub(crate) pages: u64,
    pub(crate) written: bool,
}

/// Encodes pages that were touched and, among them, written; both rising.
#[must_use]
pub fn encode_hot_pages(touched: &[u64], written: &[u64]) -> Vec<u8> {
    let mut extents: Vec<Extent> = Vec::new();
    for &page in touched {
        let is_written = written.binary_search(&page).is_ok();
        match extents.last_mut() {
            Some(last) if last.first + last.pages == page && last.written == is_written => {
                last.pages += 1;
            }
            _ => extents.push(Extent {
                first: page,
                pages: 1,
                written: is_written,
            }),
        }
    }
    extents.truncate(HOT_EXTENTS);
    let word = |value: u64| u32::try_from(value).unwrap_or(0);
    extents
        .iter()
        .flat_map(|extent| {
            let flag = if extent.written { WRITTEN } else { 0 };
            let pages = word(extent.pages) & !WRITTEN;
            [word(extent.first), pages | flag]
        })
        .flat_map(u32::to_le_bytes)
        .collect()
}

/// The extents that lie in a memory of `pages`; others are passed over.
pub(crate) fn decode(bytes: &[u8], pages: u64) -> Vec<Extent> {
    let words = bytes.as_chunks::<8>().0.iter().take(HOT_EXTENTS);
    words
        .map(|words| {
            let (first, count) = words.split_first_chunk::<4>().expect("eight bytes");
            let count = u32::from_le_bytes(count.try_into().expect("four bytes"));
            Extent {
                first: u64::from(u32::from_le_bytes(*first)),
                pages: u64::from(count & !WRITTEN),
                written: count & WRITTEN != 0,
            }
        })
        .filter(|extent| extent.pages > 0 && extent.first + extent.pages <= pages)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_kind_are_one_extent() {
        let bytes = encode_hot_pages(&[3, 4, 5, 9], &[5]);
        let extent = |first, pages, written| Extent {
            first,
            pages,
            written,
        };
        let all = [extent(3, 2, false), extent(5, 1, true), extent(9, 1, false)];
        assert_eq!(decode(&bytes, 10), all);
        assert_eq!(
            decode(&bytes, 9),
            all[..2],
            "what lies outside is passed over"
        );
        assert_eq!(decode(&bytes[..bytes.len() - 1], 10), all[..2]);
        assert_eq!(decode(&[0xff; 64], 1 << 40), decode(&[0xff; 64], 1 << 40));
    }
}
