//! What small cells leave in the store, and what it costs: synthetic ones, with as many pages and as many changes in
//! each as a guest of Linux and CPython showed after `x = 1`.
//!
//!     cargo run --release -p vmrepl-snapshots --example small_cell

#![expect(clippy::print_stdout, reason = "its output is all that it is for")]

use std::error::Error;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use vmrepl_snapshots::{Facts, PAGE_BYTES, Page, SnapshotId, Store, StoreError};

const CELLS: usize = 64;
const CHANGED_PAGES: usize = 515;
/// A cell finds half of its pages changed by others before it, as those of the allocator and the scheduler are.
const HOT_PAGES: usize = 256;
const MEMORY_PAGES: usize = 4096;
/// Words of a page.
const SLOTS: usize = PAGE_BYTES / 8;

/// Numbers without a pattern, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// A word as memory is full of them: a pointer into one region, or a small number.
    fn word(&mut self) -> [u8; 8] {
        match self.below(3) {
            0 => (self.next() % 1000).to_le_bytes(),
            _ => (0x7fff_8000_0000_u64 | (self.next() & 0x3f_fff8)).to_le_bytes(),
        }
    }

    /// Most pages change in a few words, and mostly in those that changed before: counters, list heads, a stack.
    fn change(&mut self, number: usize, page: &mut Page) {
        let words = match self.below(100) {
            0 => 300,
            1..10 => 20 + self.below(30),
            _ => 1 + self.below(6),
        };
        for word in 0..words {
            let slot = if words < 20 && self.below(8) > 0 {
                (number * 37 + word * 61) % SLOTS
            } else {
                self.below(SLOTS)
            };
            let word = self.word();
            page[slot * 8..][..8].copy_from_slice(&word);
        }
    }
}

fn publish_base(store: &Store, memory: &[Page]) -> Result<SnapshotId, Box<dyn Error>> {
    let facts = Facts {
        engine: "none".to_owned(),
        compat: String::new(),
        architecture: String::new(),
        cpu: String::new(),
        memory_bytes: (memory.len() * PAGE_BYTES) as u64,
    };
    let draft = store.base_draft(facts.memory_bytes)?;
    let file = fs::OpenOptions::new()
        .write(true)
        .open(draft.memory_path())?;
    file.write_all_at(memory.as_flattened(), 0)?;
    Ok(draft.publish(&facts)?)
}

/// Time to read all pages that lie over the base, and how many they are.
fn read_all(store: &Store, id: &SnapshotId) -> Result<(Duration, usize), StoreError> {
    let pages = store.chain(id)?.pages()?;
    let begin = Instant::now();
    pages.for_each(|_, page| {
        std::hint::black_box(page);
        Ok::<(), StoreError>(())
    })?;
    Ok((begin.elapsed(), pages.count()))
}

fn microseconds_each(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(&folder.path().join("store"))?;
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut memory = vec![[0; PAGE_BYTES]; MEMORY_PAGES];
    for word in memory.as_flattened_mut().chunks_mut(8) {
        word.copy_from_slice(&numbers.word());
    }
    let mut ids = vec![publish_base(&store, &memory)?];
    for _ in 0..CELLS {
        let mut changed: Vec<usize> = (0..HOT_PAGES).collect();
        while changed.len() < CHANGED_PAGES {
            let page = HOT_PAGES + numbers.below(MEMORY_PAGES - HOT_PAGES);
            if !changed.contains(&page) {
                changed.push(page);
            }
        }
        for page in &changed {
            numbers.change(*page, &mut memory[*page]);
        }
        let mut draft = store.layer_draft(ids.last().ok_or("no base")?)?;
        draft.section("machine", 1, &[0x5a; 9 << 10])?;
        let pages = changed.iter().map(|page| (*page as u64, &memory[*page]));
        ids.push(draft.publish(pages)?);
    }
    let layers = &ids[1..];
    let plain = store.size(&layers[0])?.apparent_bytes;
    let depths = [1, 8, 32, CELLS];
    let mut plain_reads = Vec::new();
    for depth in depths {
        plain_reads.push(read_all(&store, &layers[depth - 1])?);
    }
    let (mut sizes, mut time) = (Vec::new(), Duration::ZERO);
    for id in layers {
        let begin = Instant::now();
        store.encode(id)?;
        time += begin.elapsed();
        sizes.push(store.size(id)?.apparent_bytes);
    }
    let largest = sizes.iter().max().ok_or("no layer")?;
    let mean = sizes.iter().sum::<u64>() / sizes.len() as u64;
    println!("a cell of {CHANGED_PAGES} pages, with 9 KiB of state: {plain} bytes as published");
    println!(
        "encoded: {} the first, {mean} in the mean, {largest} at most",
        sizes[0]
    );
    let each = microseconds_each(time, CELLS * CHANGED_PAGES);
    println!("encoding: {each:.1} µs a page, syncs included");
    for (depth, (plain, count)) in depths.into_iter().zip(plain_reads) {
        let (encoded, _) = read_all(&store, &layers[depth - 1])?;
        println!(
            "reading {count} pages of {depth} layers: {:.2} µs a page, as published {:.2}",
            microseconds_each(encoded, count),
            microseconds_each(plain, count),
        );
    }
    Ok(())
}
