//! What was asked for and how it went, and the last lines of the log: in memory that the agent shares with the workers that it
//! splits off, so that these write down what they have done and need no channel for it.
//!
//! One region of 64-bit words, first counts, then a ring of lines. Each word is changed atomically, each by whoever is there;
//! a line that is read while it is written anew shows as none.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use vmrepl_wire::stats::{LogLevel, Tally};

/// All kinds of requests that are counted.
const KINDS: [&str; 20] = [
    "cell",
    "ping",
    "run",
    "exec",
    "exec_source",
    "put_file",
    "get_file",
    "put_stream",
    "get_stream",
    "put_tree",
    "get_tree",
    "stat",
    "python",
    "typescript",
    "javascript",
    "csharp",
    "cpp",
    "rust",
    "go",
    "bash",
];

/// Up to 2^35 microseconds, nine hours.
const BUCKETS: usize = 36;
const COUNT: usize = 0;
const SUCCEEDED: usize = 1;
const TOTAL: usize = 2;
const LONGEST: usize = 3;
const HISTOGRAM: usize = 4;
const KIND_WORDS: usize = HISTOGRAM + BUCKETS;

const LINES: usize = 64;
/// Number, length, text.
const LINE_WORDS: usize = 64;
const TEXT: usize = 2;
pub(crate) const TEXT_BYTES: usize = (LINE_WORDS - TEXT) * 8;

const NEXT_LINE: usize = KINDS.len() * KIND_WORDS;
const LEVEL: usize = NEXT_LINE + 1;
const FIRST_LINE: usize = LEVEL + 1;
const WORDS: usize = FIRST_LINE + LINES * LINE_WORDS;

static REGION: OnceLock<&'static [AtomicU64]> = OnceLock::new();

/// Makes the memory. Until then, and without it, nothing is written down.
pub(crate) fn open() {
    let length = WORDS * size_of::<AtomicU64>();
    let flags = MapFlags::SHARED;
    #[expect(
        unsafe_code,
        reason = "memory that is shared across forks has no safe wrapper"
    )]
    // SAFETY: the kernel chooses the address, so no other memory is touched.
    let mapped = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            length,
            ProtFlags::READ | ProtFlags::WRITE,
            flags,
        )
    };
    if let Ok(address) = mapped {
        #[expect(unsafe_code, reason = "see above")]
        // SAFETY: the mapping is of this length, aligned to a page, zeroed, never unmapped, and only ever seen as atomics.
        let words = unsafe { std::slice::from_raw_parts(address.cast::<AtomicU64>(), WORDS) };
        words[LEVEL].store(weight(LogLevel::default()), Ordering::Relaxed);
        // A second call leaves the first region in place.
        let (Ok(()) | Err(_)) = REGION.set(words);
    }
}

fn weight(level: LogLevel) -> u64 {
    match level {
        LogLevel::Error => 0,
        LogLevel::Warn => 1,
        LogLevel::Info => 2,
        LogLevel::Debug => 3,
    }
}

/// The lines that are kept from now on: those of this level, and those that weigh more.
pub(crate) fn set_level(level: LogLevel) {
    if let Some(words) = REGION.get() {
        words[LEVEL].store(weight(level), Ordering::Relaxed);
    }
}

/// Which lines are kept.
pub(crate) fn level() -> LogLevel {
    let words = REGION.get();
    match words.map(|words| words[LEVEL].load(Ordering::Relaxed)) {
        Some(0) => LogLevel::Error,
        Some(1) => LogLevel::Warn,
        Some(3..) => LogLevel::Debug,
        Some(2) | None => LogLevel::Info,
    }
}

/// Writes down that a request has ended.
pub(crate) fn count(kind: &str, succeeded: bool, took: Duration) {
    let kind = KINDS.iter().position(|known| *known == kind);
    let (Some(words), Some(kind)) = (REGION.get(), kind) else {
        return;
    };
    let words = &words[kind * KIND_WORDS..][..KIND_WORDS];
    let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    words[COUNT].fetch_add(1, Ordering::Relaxed);
    words[SUCCEEDED].fetch_add(u64::from(succeeded), Ordering::Relaxed);
    words[TOTAL].fetch_add(took, Ordering::Relaxed);
    words[LONGEST].fetch_max(took, Ordering::Relaxed);
    let power = (u64::BITS - took.leading_zeros()) as usize;
    words[HISTOGRAM + power.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
}

/// All kinds that were asked for.
pub(crate) fn tallies() -> Vec<Tally> {
    let Some(words) = REGION.get() else {
        return Vec::new();
    };
    let of = |(kind, words): (&&str, &[AtomicU64])| {
        let word = |at: usize| words[at].load(Ordering::Relaxed);
        let mut histogram: Vec<u64> = (HISTOGRAM..KIND_WORDS).map(word).collect();
        let last = histogram.iter().rposition(|count| *count > 0);
        histogram.truncate(last.map_or(0, |last| last + 1));
        Tally {
            kind: (*kind).to_owned(),
            count: word(COUNT),
            succeeded: word(SUCCEEDED),
            total_us: word(TOTAL),
            longest_us: word(LONGEST),
            histogram,
        }
    };
    let all = KINDS.iter().zip(words.chunks(KIND_WORDS)).map(of);
    all.filter(|tally| tally.count > 0).collect()
}

/// Keeps a line of at most [`TEXT_BYTES`] in the place of the oldest.
pub(crate) fn keep_line(text: &[u8]) {
    let Some(words) = REGION.get() else {
        return;
    };
    let text = &text[..text.len().min(TEXT_BYTES)];
    let number = words[NEXT_LINE].fetch_add(1, Ordering::Relaxed);
    let line = line(words, number);
    // None until it is whole.
    line[0].store(0, Ordering::Release);
    line[1].store(text.len() as u64, Ordering::Relaxed);
    for (word, bytes) in line[TEXT..].iter().zip(text.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_le_bytes(whole), Ordering::Relaxed);
    }
    line[0].store(number + 1, Ordering::Release);
}

/// The lines that are kept, the oldest first.
pub(crate) fn lines() -> Vec<Vec<u8>> {
    let Some(words) = REGION.get() else {
        return Vec::new();
    };
    let next = words[NEXT_LINE].load(Ordering::Relaxed);
    let numbers = next.saturating_sub(LINES as u64)..next;
    numbers.filter_map(|number| read(words, number)).collect()
}

fn read(words: &[AtomicU64], number: u64) -> Option<Vec<u8>> {
    let line = line(words, number);
    let is_whole = || line[0].load(Ordering::Acquire) == number + 1;
    if !is_whole() {
        return None;
    }
    let length = usize::try_from(line[1].load(Ordering::Relaxed)).ok()?;
    let bytes = line[TEXT..]
        .iter()
        .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
    let text = bytes.take(length.min(TEXT_BYTES)).collect();
    is_whole().then_some(text)
}

fn line(words: &[AtomicU64], number: u64) -> &[AtomicU64] {
    let place = usize::try_from(number % LINES as u64).unwrap_or(0);
    &words[FIRST_LINE + place * LINE_WORDS..][..LINE_WORDS]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, for there is one region a process.
    #[test]
    fn what_is_written_down_is_read() {
        assert!(tallies().is_empty() && lines().is_empty());
        count("cell", true, Duration::ZERO);
        open();
        open();
        count("cell", true, Duration::from_micros(3));
        count("cell", false, Duration::from_micros(1000));
        count("no such kind", true, Duration::ZERO);
        let tallies = tallies();
        assert_eq!(tallies.len(), 1);
        let cell = &tallies[0];
        assert_eq!((cell.count, cell.succeeded), (2, 1));
        assert_eq!((cell.total_us, cell.longest_us), (1003, 1000));
        assert_eq!(cell.histogram, [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        for number in 0..LINES + 3 {
            keep_line(format!("line {number}").as_bytes());
        }
        keep_line(&[b'x'; 4096]);
        let lines = lines();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[0], b"line 4");
        assert_eq!(lines[LINES - 1], [b'x'; TEXT_BYTES]);
        assert_eq!(level(), LogLevel::Info);
        set_level(LogLevel::Debug);
        assert_eq!(level(), LogLevel::Debug);
    }
}
