//! The shortest form of a layer's pages: against which ancestor, and which pages not at all.

use crate::chain::Chain;
use crate::encoding::Encoder;
use crate::error::StoreError;
use crate::page_index::{IndexVersion, PageIndex};
use crate::page_writer::PageWriter;
use crate::pages::{Pages, Reader};
use crate::staging::Staging;
use crate::sums::Sums;
use crate::{PAGE_BYTES, Page};

/// How many layers the differences of one layer reach over at most.
const REACH: u32 = 8;

/// How deep the ancestor lies that the differences of a layer of this depth are against.
///
/// Against the parent each difference would be the shortest, and a page that every cell changes would be made from as
/// many of them as there are layers. So a layer reaches over as many as the greatest power of two in its depth: a page
/// that each of 64 layers changed is made from at most 10. The bound keeps a layer small: without it that of depth 64
/// would hold all that 64 cells changed in its pages; with it, each eighth takes up to twice what the others take.
fn ancestor_depth(depth: u32) -> u32 {
    let reach = depth & depth.wrapping_neg();
    depth - reach.min(REACH)
}

/// Stores the pages of a layer in the shortest way, and those not at all that are what they were in the parent.
pub(crate) struct LayerEncoder<'a> {
    reader: Reader<'a>,
    writer: PageWriter<'a>,
    /// Numbers of two snapshots of the chain.
    parent: u32,
    ancestor: u32,
    encoder: Encoder,
    parent_page: Page,
    ancestor_page: Page,
}

impl<'a> LayerEncoder<'a> {
    /// `pages` are those of `chain`, in which the parent of the layer is number `parent`.
    pub(crate) fn create(
        staging: &'a Staging,
        chain: &Chain,
        pages: &'a Pages,
        parent: usize,
    ) -> Result<Self, StoreError> {
        let parent_depth = chain.snapshots()[parent].header().depth();
        let over = parent_depth - ancestor_depth(parent_depth + 1);
        let number = |number: usize| u32::try_from(number).expect("chains are bounded");
        let ancestor = parent + over as usize;
        let id = chain.snapshots()[ancestor].id();
        let index = PageIndex::new(IndexVersion::Encoded, Some(id));
        Ok(Self {
            reader: pages.reader(),
            writer: PageWriter::create(staging, index)?,
            parent: number(parent),
            ancestor: number(ancestor),
            encoder: Encoder::new(),
            parent_page: [0; PAGE_BYTES],
            ancestor_page: [0; PAGE_BYTES],
        })
    }

    /// Appends a page, unless it is what it was in the parent. They come in order. Returns whether it was appended.
    pub(crate) fn push(&mut self, page: u64, content: &Page) -> Result<bool, StoreError> {
        self.reader.page(page, self.parent, &mut self.parent_page)?;
        if self.parent_page == *content {
            return Ok(false);
        }
        let mut ancestor = &self.parent_page;
        if self.ancestor != self.parent {
            self.reader
                .page(page, self.ancestor, &mut self.ancestor_page)?;
            ancestor = &self.ancestor_page;
        }
        let (encoding, stored) = self.encoder.encode(content, ancestor);
        self.writer.push(page, encoding, stored)?;
        Ok(true)
    }

    /// Writes the rest and syncs the file.
    pub(crate) fn finish(self) -> Result<(PageIndex, Sums), StoreError> {
        self.writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CHAIN_LAYERS;

    #[test]
    fn an_ancestor_lies_below_and_not_far() {
        for depth in 1..=CHAIN_LAYERS {
            let ancestor = ancestor_depth(depth);
            assert!(ancestor < depth && depth - ancestor <= REACH);
        }
    }

    #[test]
    fn few_differences_make_a_page_that_every_layer_changed() {
        let differences = |depth| {
            std::iter::successors(Some(depth), |depth| {
                (*depth > 0).then(|| ancestor_depth(*depth))
            })
            .count()
                - 1
        };
        assert_eq!((1..=64).map(differences).max(), Some(10));
        assert_eq!((1..=CHAIN_LAYERS).map(differences).max(), Some(34));
    }
}
