//! Moments that a live machine can go back to in place: what it was restored from, and every freeze since.
//!
//! A mark keeps the state of that moment and the pages that had changed since the mark before, in a file in
//! memory that the parent shares. The content of a page at a mark is found in the newest mark up to it that has
//! the page, or else in the base.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::limits::PAGE_BYTES;
use crate::mapping::Mapping;
use crate::state::MachineState;

/// Pages with their indices: contents first, one behind the other, then the indices in the same, rising order.
#[derive(Debug)]
pub(crate) struct Slab {
    indices: Vec<u64>,
    contents: Mapping,
}

impl Slab {
    /// Takes pages that somebody else has written: `count` of a memory that has `limit`.
    pub(crate) fn open(file: &File, count: u64, limit: u64) -> io::Result<Self> {
        let indices = indices(file, count, limit)?;
        let contents = Mapping::read_only(file, indices.len())?;
        Ok(Self { indices, contents })
    }

    /// Writes pages, whose contents `fill` gives.
    pub(crate) fn create<E: From<io::Error>>(
        file: &File,
        indices: Vec<u64>,
        mut fill: impl FnMut(u64, &mut [u8; PAGE_BYTES]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let contents_bytes = (indices.len() * PAGE_BYTES) as u64;
        file.set_len(contents_bytes)?;
        let mut contents = Mapping::writable(file, indices.len())?;
        for (place, index) in indices.iter().enumerate() {
            let page = contents.page_mut(place).expect("a page for each index");
            fill(*index, page)?;
        }
        let words: Vec<u8> = indices
            .iter()
            .flat_map(|index| index.to_le_bytes())
            .collect();
        file.write_all_at(&words, contents_bytes)?;
        Ok(Self { indices, contents })
    }

    pub(crate) fn indices(&self) -> &[u64] {
        &self.indices
    }

    pub(crate) fn page(&self, index: u64) -> Option<&[u8; PAGE_BYTES]> {
        let place = self.indices.binary_search(&index).ok()?;
        self.contents.page(place)
    }
}

/// Reads the indices of `count` pages of a memory that has `limit`.
pub(crate) fn indices(file: &File, count: u64, limit: u64) -> io::Result<Vec<u64>> {
    if count > limit {
        let why = format!("{count} pages of a memory that has {limit}");
        return Err(io::Error::other(why));
    }
    let bytes = usize::try_from(count * 8).map_err(io::Error::other)?;
    let mut words = vec![0; bytes];
    file.read_exact_at(&mut words, count * PAGE_BYTES as u64)?;
    let indices: Vec<u64> = words
        .as_chunks::<8>()
        .0
        .iter()
        .map(|chunk| u64::from_le_bytes(*chunk))
        .collect();
    let rising = indices.is_sorted_by(|a, b| a < b);
    if !rising || indices.last().is_some_and(|last| *last >= limit) {
        return Err(io::Error::other("the indices of pages are out of order"));
    }
    Ok(indices)
}

/// One moment.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) state: MachineState,
    pub(crate) changed: Slab,
}

/// The moments on the way to where the machine stands, the oldest first.
#[derive(Debug)]
pub(crate) struct Marks {
    /// The memory file of a restored machine.
    base: Mapping,
    marks: Vec<Mark>,
}

impl Marks {
    /// Begins with what the machine is restored from.
    pub(crate) fn new(base: Mapping, first: Mark) -> Self {
        Self {
            base,
            marks: vec![first],
        }
    }

    /// Adds a moment and returns its number.
    pub(crate) fn push(&mut self, mark: Mark) -> usize {
        self.marks.push(mark);
        self.marks.len() - 1
    }

    pub(crate) fn get(&self, number: usize) -> Option<&Mark> {
        self.marks.get(number)
    }

    /// The pages that changed between a mark and the newest one, in rising order.
    pub(crate) fn changed_since(&self, number: usize) -> Vec<u64> {
        let later = self.marks.iter().skip(number + 1);
        let mut changed: Vec<u64> = later
            .flat_map(|mark| mark.changed.indices())
            .copied()
            .collect();
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    /// The content that a page had at a mark.
    pub(crate) fn page_at(&self, number: usize, index: u64) -> Option<&[u8; PAGE_BYTES]> {
        let until = self.marks.iter().take(number + 1).rev();
        let changed = until.filter_map(|mark| mark.changed.page(index)).next();
        changed.or_else(|| self.base.page(usize::try_from(index).ok()?))
    }

    /// Forgets what came after a mark: the machine has gone back to it.
    pub(crate) fn forget_after(&mut self, number: usize) {
        self.marks.truncate(number + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slab(pages: &[(u64, u8)]) -> (File, Slab) {
        let file = tempfile::tempfile().unwrap();
        let indices = pages.iter().map(|(index, _)| *index).collect();
        let slab = Slab::create(&file, indices, |index, page| {
            let (_, byte) = pages.iter().find(|(known, _)| *known == index).unwrap();
            page.fill(*byte);
            Ok::<_, io::Error>(())
        });
        (file, slab.unwrap())
    }

    #[test]
    fn pages_come_back_and_lies_are_told() {
        let (file, slab) = slab(&[(3, 1), (9, 2)]);
        assert_eq!(slab.page(9).unwrap()[0], 2);
        assert!(slab.page(4).is_none());
        let again = Slab::open(&file, 2, 10).unwrap();
        assert_eq!(
            (again.indices(), again.page(3).unwrap()[4095]),
            (&[3, 9][..], 1)
        );
        Slab::open(&file, 2, 9).expect_err("outside of memory");
        Slab::open(&file, 3, 10).expect_err("more than there are");
        Slab::open(&file, u64::MAX, 10).expect_err("more than there can be");
        let (file, _) = self::slab(&[(9, 1), (3, 2)]);
        Slab::open(&file, 2, 10).expect_err("out of order");
        let (file, empty) = self::slab(&[]);
        assert!(empty.page(0).is_none() && Slab::open(&file, 0, 10).is_ok());
    }
}
