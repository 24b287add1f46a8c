//! Moments that a live machine can go back to in place: what it was restored from, and the last freezes since.
//!
//! A mark keeps the state of that moment and the pages that had changed since the mark before, in a file in
//! memory that the parent shares. The content of a page at a mark is found in the newest mark up to it that has
//! the page, or else in the floor: the oldest moment that is known, with all that was merged into it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::limits::{MARK_PAGES_MAX, MARKS_MAX, PAGE_BYTES};
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

    /// All of them, in rising order.
    fn pages(&self) -> impl Iterator<Item = (u64, &[u8; PAGE_BYTES])> {
        let indices = self.indices.iter().enumerate();
        indices.filter_map(|(place, index)| Some((*index, self.contents.page(place)?)))
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

/// The oldest moment that is still known: what the machine was restored from, or a later one.
#[derive(Debug)]
struct Floor {
    state: MachineState,
    /// The memory file of a restored machine.
    base: Mapping,
    /// What lies over it since the restore.
    laid: Slab,
    /// What lies over both, of moments that are forgotten.
    merged: BTreeMap<u64, Box<[u8; PAGE_BYTES]>>,
}

impl Floor {
    fn page(&self, index: u64) -> Option<&[u8; PAGE_BYTES]> {
        let merged = self.merged.get(&index).map(|page| &**page);
        merged
            .or_else(|| self.laid.page(index))
            .or_else(|| self.base.page(usize::try_from(index).ok()?))
    }
}

/// The moments on the way to where the machine stands, the oldest first. They are numbered from the restore on, which
/// is 0; only the last ones are known.
#[derive(Debug)]
pub(crate) struct Marks {
    floor: Floor,
    floor_number: usize,
    later: VecDeque<Mark>,
}

impl Marks {
    /// Begins with what the machine is restored from: a memory file, pages over it, and a state.
    pub(crate) fn new(base: Mapping, laid: Slab, state: MachineState) -> Self {
        let floor = Floor {
            state,
            base,
            laid,
            merged: BTreeMap::new(),
        };
        Self {
            floor,
            floor_number: 0,
            later: VecDeque::new(),
        }
    }

    /// Adds a moment and returns its number.
    pub(crate) fn push(&mut self, mark: Mark) -> usize {
        self.later.push_back(mark);
        self.floor_number + self.later.len()
    }

    /// The state at a moment, if it is known.
    pub(crate) fn state(&self, number: usize) -> Option<&MachineState> {
        match number.checked_sub(self.floor_number)? {
            0 => Some(&self.floor.state),
            place => self.later.get(place - 1).map(|mark| &mark.state),
        }
    }

    /// The pages that changed between a mark and the newest one, in rising order.
    pub(crate) fn changed_since(&self, number: usize) -> Vec<u64> {
        let later = self.later.iter().skip(self.place(number));
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
        let until = self.later.iter().take(self.place(number)).rev();
        let changed = until.filter_map(|mark| mark.changed.page(index)).next();
        changed.or_else(|| self.floor.page(index))
    }

    /// Forgets what came after a mark: the machine has gone back to it.
    pub(crate) fn forget_after(&mut self, number: usize) {
        self.later.truncate(self.place(number));
    }

    /// Forgets the oldest marks while there are too many, or they hold too much. The newest stays.
    pub(crate) fn forget_old(&mut self) {
        let mut pages: usize = self.later.iter().map(Mark::pages).sum();
        while self.later.len() > 1 && (self.later.len() > MARKS_MAX || pages > MARK_PAGES_MAX) {
            let oldest = self.later.pop_front().expect("there are two");
            pages -= oldest.pages();
            for (index, page) in oldest.changed.pages() {
                self.floor.merged.insert(index, Box::new(*page));
            }
            self.floor.state = oldest.state;
            self.floor_number += 1;
        }
    }

    /// How many of the later marks lie before the one behind this number.
    fn place(&self, number: usize) -> usize {
        number.saturating_sub(self.floor_number)
    }
}

impl Mark {
    fn pages(&self) -> usize {
        self.changed.indices().len()
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

    /// Each moment is all of memory as it was, whatever was forgotten on the way.
    #[test]
    fn a_page_is_what_it_was_at_each_moment() {
        const PAGES: u8 = 12;
        let base = tempfile::tempfile().unwrap();
        base.set_len(u64::from(PAGES) * PAGE_BYTES as u64).unwrap();
        let base = Mapping::read_only(&base, usize::from(PAGES)).unwrap();
        let mut memory = [0; PAGES as usize];
        (memory[2], memory[5]) = (100, 101);
        let (_, laid) = slab(&[(2, 100), (5, 101)]);
        let mut marks = Marks::new(base, laid, crate::tests::states::state());
        let mut moments = vec![memory];
        let mut dice = 1_u32;
        let mut throw = |sides: u8| {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            u8::try_from((u32::from(sides) * (dice >> 16)) >> 16).unwrap()
        };
        let (mut known, mut goings) = (0, 0);
        for _ in 0..10 * MARKS_MAX {
            let changed: BTreeMap<u64, u8> = (0..throw(4))
                .map(|_| (u64::from(throw(PAGES)), throw(250)))
                .collect();
            let changed: Vec<_> = changed.into_iter().collect();
            for (index, byte) in &changed {
                memory[usize::try_from(*index).unwrap()] = *byte;
            }
            let (state, (_, changed)) = (crate::tests::states::state(), slab(&changed));
            moments.push(memory);
            assert_eq!(marks.push(Mark { state, changed }), moments.len() - 1);
            marks.forget_old();
            known = known.max((moments.len() - 1).saturating_sub(MARKS_MAX));
            if throw(60) == 0 {
                goings += 1;
                let back = moments.len().saturating_sub(usize::from(throw(40)) + 1);
                let back = back.max(known);
                marks.forget_after(back);
                moments.truncate(back + 1);
                memory = moments[back];
            }
            for (number, moment) in moments.iter().enumerate() {
                assert_eq!(marks.state(number).is_some(), number >= known, "{number}");
                for (index, byte) in (0..).zip(moment).filter(|_| number >= known) {
                    assert_eq!(marks.page_at(number, index).unwrap()[7], *byte);
                    let differs = *byte != memory[usize::try_from(index).unwrap()];
                    assert!(!differs || marks.changed_since(number).contains(&index));
                }
            }
        }
        assert!(known > MARKS_MAX && goings > 3);
        assert!(marks.state(moments.len()).is_none());
    }

    #[test]
    fn large_moments_are_forgotten_sooner() {
        let count = u64::try_from(MARK_PAGES_MAX / 2 + 1).unwrap();
        let large = || {
            let indices = (0..count).collect();
            let file = tempfile::tempfile().unwrap();
            let changed = Slab::create(&file, indices, |_, _| Ok::<_, io::Error>(())).unwrap();
            let state = crate::tests::states::state();
            Mark { state, changed }
        };
        let (file, laid) = slab(&[]);
        let base = Mapping::read_only(&file, 0).unwrap();
        let mut marks = Marks::new(base, laid, crate::tests::states::state());
        assert_eq!((marks.push(large()), marks.push(large())), (1, 2));
        marks.forget_old();
        let known = |marks: &Marks| (0..4).filter(|at| marks.state(*at).is_some()).count();
        assert!(marks.state(1).is_some() && known(&marks) == 2);
    }
}
