//! How one page is stored: the four ways, the shortest of them for a page, and the way back.

use lz4_flex::block::{
    CompressTable, DecompressError, compress_into_with_table, decompress_into,
    get_maximum_output_size,
};

use crate::fields::Fields;
use crate::{PAGE_BYTES, Page};

/// Equal bytes between two runs that cost no less than a new run: its gap and its length, a byte each.
const MERGED_GAP_BYTES: usize = 2;
/// A difference that no lz4 block of a page beats by much: most are so short, and compressing takes most of the time.
const SHORT_DIFFERENCE_BYTES: usize = 64;
/// Bytes that are compared at once where nothing differs.
const COMPARED_BYTES: usize = 64;

/// How a page is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// All bytes are zero; nothing is stored.
    Zero = 0,
    /// The 4096 bytes.
    Raw = 1,
    /// One [lz4 block](https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md), without a frame.
    Lz4 = 2,
    /// The bytes that differ from the same page of the ancestor that the index names.
    Difference = 3,
}

/// Why the stored bytes of a page were refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum EncodingError {
    #[error("not an lz4 block of one page")]
    Lz4 { source: DecompressError },
    #[error("an lz4 block of {found} bytes instead of {PAGE_BYTES}")]
    Lz4Length { found: usize },
    #[error("a difference that ends within a number or a run")]
    Cut,
    #[error("a number in a difference takes more than two bytes, or more than it needs")]
    Number,
    #[error("a run of {length} bytes at byte {start} of a page")]
    Run { start: usize, length: usize },
}

/// Finds the shortest way to store a page. Keeps its buffers: nothing is allocated for a page.
pub(crate) struct Encoder {
    table: CompressTable,
    block: Vec<u8>,
    runs: Vec<u8>,
}

impl Encoding {
    /// The way in which a page is stored that nobody has the time to encode.
    pub(crate) fn plain(page: &Page) -> Self {
        if is_zero(page) { Self::Zero } else { Self::Raw }
    }

    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        [Self::Zero, Self::Raw, Self::Lz4, Self::Difference]
            .into_iter()
            .find(|encoding| *encoding as u8 == tag)
    }

    /// Whether a page that is stored so can take up that many bytes.
    pub(crate) fn allows(self, length: u16) -> bool {
        let length = usize::from(length);
        match self {
            Self::Zero => length == 0,
            Self::Raw => length == PAGE_BYTES,
            Self::Lz4 => (1..PAGE_BYTES).contains(&length),
            // Nothing stored: the page is what it was in the ancestor.
            Self::Difference => length < PAGE_BYTES,
        }
    }
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self {
            table: CompressTable::small(),
            block: vec![0; get_maximum_output_size(PAGE_BYTES)],
            runs: Vec::new(),
        }
    }

    /// The shortest way, or a difference that is short enough, and the bytes that are stored.
    pub(crate) fn encode<'a>(
        &'a mut self,
        page: &'a Page,
        ancestor: &Page,
    ) -> (Encoding, &'a [u8]) {
        if is_zero(page) {
            return (Encoding::Zero, &[]);
        }
        difference(page, ancestor, &mut self.runs);
        if self.runs.len() <= SHORT_DIFFERENCE_BYTES {
            return (Encoding::Difference, &self.runs);
        }
        let length = compress_into_with_table(page, &mut self.block, &mut self.table)
            .expect("the buffer holds the longest block of a page");
        let block = &self.block[..length];
        if block.len().min(self.runs.len()) >= PAGE_BYTES {
            (Encoding::Raw, page)
        } else if block.len() <= self.runs.len() {
            (Encoding::Lz4, block)
        } else {
            (Encoding::Difference, &self.runs)
        }
    }
}

/// Unpacks an lz4 block, which must hold one page and no more.
pub(crate) fn unpack(stored: &[u8], page: &mut Page) -> Result<(), EncodingError> {
    match decompress_into(stored, page) {
        Ok(PAGE_BYTES) => Ok(()),
        Ok(found) => Err(EncodingError::Lz4Length { found }),
        Err(source) => Err(EncodingError::Lz4 { source }),
    }
}

/// Replaces in the ancestor's page what a stored difference says.
pub(crate) fn apply(stored: &[u8], page: &mut Page) -> Result<(), EncodingError> {
    let (mut fields, mut at) = (Fields::new(stored), 0);
    while fields.left() > 0 {
        let start = at + number(&mut fields)?;
        let length = number(&mut fields)?;
        let run = page
            .get_mut(start..start + length)
            .filter(|run| !run.is_empty())
            .ok_or(EncodingError::Run { start, length })?;
        run.copy_from_slice(fields.slice(length).ok_or(EncodingError::Cut)?);
        at = start + length;
    }
    Ok(())
}

/// Whether a page or any other run of at most a page is all zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // A comparison with zeros is one `memcmp`, several times faster than a loop over the bytes.
    static ZEROS: Page = [0; PAGE_BYTES];
    bytes == &ZEROS[..bytes.len()]
}

/// Writes the runs of bytes in which `page` differs: how far after the last run, how long, the bytes.
fn difference(page: &Page, ancestor: &Page, out: &mut Vec<u8>) {
    out.clear();
    let mut at = 0;
    while let Some(start) = first_difference(page, ancestor, at) {
        let differs = |byte: &usize| page[*byte] != ancestor[*byte];
        let mut end = start + 1;
        while let Some(next) = (end..PAGE_BYTES.min(end + MERGED_GAP_BYTES + 1)).find(differs) {
            end = next + 1;
        }
        put_number(out, start - at);
        put_number(out, end - start);
        out.extend_from_slice(&page[start..end]);
        at = end;
    }
}

fn first_difference(page: &Page, ancestor: &Page, from: usize) -> Option<usize> {
    let mut at = from;
    while at < PAGE_BYTES {
        let end = PAGE_BYTES.min(at + COMPARED_BYTES);
        if page[at..end] != ancestor[at..end] {
            return (at..end).find(|byte| page[*byte] != ancestor[*byte]);
        }
        at = end;
    }
    None
}

/// LEB128, which takes at most two bytes for what a page needs.
fn put_number(out: &mut Vec<u8>, number: usize) {
    debug_assert!(number <= PAGE_BYTES);
    let [low, high] = [number & 0x7f, number >> 7]
        .map(|bits| u8::try_from(bits).expect("a place in a page has 13 bits"));
    if high == 0 {
        out.push(low);
    } else {
        out.extend_from_slice(&[low | 0x80, high]);
    }
}

fn number(fields: &mut Fields<'_>) -> Result<usize, EncodingError> {
    let low = usize::from(fields.byte().ok_or(EncodingError::Cut)?);
    if low < 0x80 {
        return Ok(low);
    }
    let high = usize::from(fields.byte().ok_or(EncodingError::Cut)?);
    if !(1..0x80).contains(&high) {
        return Err(EncodingError::Number);
    }
    Ok(low & 0x7f | high << 7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_page() -> impl Strategy<Value = Box<Page>> {
        let bytes = |byte: BoxedStrategy<u8>| prop::collection::vec(byte, PAGE_BYTES);
        prop_oneof![
            bytes(any::<u8>().boxed()),
            bytes((0..2_u8).boxed()),
            any::<u8>().prop_map(|byte| vec![byte; PAGE_BYTES]),
        ]
        .prop_map(|bytes| Box::new(Page::try_from(bytes).unwrap()))
    }

    /// A page and one that differs from it in a few places, or in all.
    fn pair() -> impl Strategy<Value = (Box<Page>, Box<Page>)> {
        let place = prop_oneof![0..PAGE_BYTES, 0..8_usize, PAGE_BYTES - 8..PAGE_BYTES];
        let changes = prop::collection::vec((place, any::<[u8; 8]>(), 1..=8_usize), 0..40);
        let few = (any_page(), changes).prop_map(|(page, changes)| {
            let mut other = page.clone();
            for (at, bytes, length) in changes {
                let end = PAGE_BYTES.min(at + length);
                other[at..end].copy_from_slice(&bytes[..end - at]);
            }
            (page, other)
        });
        prop_oneof![4 => few, 1 => (any_page(), any_page())]
    }

    proptest! {
        #[test]
        fn a_page_comes_back((ancestor, page) in pair()) {
            let mut encoder = Encoder::new();
            let (encoding, stored) = encoder.encode(&page, &ancestor);
            prop_assert!(encoding.allows(u16::try_from(stored.len()).unwrap()));
            let mut back = ancestor;
            match encoding {
                Encoding::Zero => back.fill(0),
                Encoding::Raw => back.copy_from_slice(stored),
                Encoding::Lz4 => unpack(stored, &mut back).unwrap(),
                Encoding::Difference => apply(stored, &mut back).unwrap(),
            }
            prop_assert!(back == page);
        }

        #[test]
        fn what_is_no_page_is_refused_or_makes_one(
            stored in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..300),
            ancestor in any_page(),
        ) {
            let mut page = ancestor;
            drop(unpack(&stored, &mut page));
            drop(apply(&stored, &mut page));
        }
    }

    #[test]
    fn a_difference_is_as_long_as_the_document_says() {
        let ancestor: Page = [7; PAGE_BYTES];
        let mut page = ancestor;
        let mut runs = Vec::new();
        difference(&page, &ancestor, &mut runs);
        assert_eq!(runs, []);
        // Two equal bytes between them: one run. Three: two.
        page[..5].copy_from_slice(&[1, 2, 7, 7, 3]);
        page[8] = 4;
        page[PAGE_BYTES - 1] = 5;
        difference(&page, &ancestor, &mut runs);
        let far = PAGE_BYTES - 1 - 9;
        let far = [
            u8::try_from(far & 0x7f).unwrap() | 0x80,
            u8::try_from(far >> 7).unwrap(),
        ];
        let expected = [&[0, 5, 1, 2, 7, 7, 3, 3, 1, 4], &far[..], &[1, 5]].concat();
        assert_eq!(runs, expected);
        page = [9; PAGE_BYTES];
        difference(&page, &ancestor, &mut runs);
        assert_eq!(runs[..3], [0, 0x80, 32]);
        assert_eq!(runs.len(), 3 + PAGE_BYTES);
    }

    #[test]
    fn a_lying_difference_is_told_from_a_true_one() {
        let told = |stored: &[u8]| apply(stored, &mut [0; PAGE_BYTES]).unwrap_err().to_string();
        assert_eq!(told(&[0, 0]), "a run of 0 bytes at byte 0 of a page");
        assert_eq!(
            told(&[0xff, 0x1f, 2, 1, 1]),
            "a run of 2 bytes at byte 4095 of a page"
        );
        assert_eq!(
            told(&[0xff, 0x7f, 0xff, 0x7f]),
            "a run of 16383 bytes at byte 16383 of a page"
        );
        for cut in [&[0][..], &[0x80], &[0, 0x81], &[0, 2, 1], &[0, 1, 1, 0]] {
            assert!(told(cut).contains("ends within"), "{cut:?}");
        }
        for long in [[0x80, 0, 1, 1], [0, 0x80, 0x80, 1], [0x81, 0x80, 1, 1]] {
            assert!(told(&long).contains("more than"), "{long:?}");
        }
        apply(&[0xff, 0x1f, 1, 1], &mut [0; PAGE_BYTES]).unwrap();
    }

    #[test]
    fn a_block_of_another_length_is_refused() {
        let mut page = [0; PAGE_BYTES];
        for length in [0, 1, PAGE_BYTES - 1] {
            let block = lz4_flex::block::compress(&vec![1; length]);
            let told = unpack(&block, &mut page).unwrap_err().to_string();
            assert_eq!(
                told,
                format!("an lz4 block of {length} bytes instead of 4096")
            );
        }
        let block = lz4_flex::block::compress(&[1; PAGE_BYTES + 1]);
        let told = unpack(&block, &mut page).unwrap_err().to_string();
        assert_eq!(told, "not an lz4 block of one page");
    }
}
