//! A base's memory file: where it has data, which of its pages are zero, and the sums of the rest.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::PAGE_BYTES;
use crate::disk::{self, Disk};
use crate::encoding::is_zero;
use crate::error::{Step, StoreError};
use crate::limits::SUM_CHUNK_BYTES;
use crate::sums::{Sums, chunk_range};

/// Makes holes of the zero pages and sums what is left, in one pass.
pub(crate) fn punch_and_sum(
    disk: &Disk,
    file: &File,
    path: &Path,
    memory_bytes: u64,
) -> Result<Sums, StoreError> {
    let mut sums = Sums::default();
    let mut has_holes = true;
    for_each_data_chunk(file, path, memory_bytes, |chunk, content| {
        let (offset, length) = chunk_range(chunk, memory_bytes);
        let zeros = zero_runs(content);
        let all_zero = zeros.first() == Some(&(0..length));
        for run in zeros {
            if has_holes {
                has_holes = disk.punch(file, path, offset + run.start as u64, run.len() as u64)?;
            }
        }
        if !all_zero {
            sums.push(chunk, content);
        }
        Ok(())
    })?;
    Ok(sums)
}

/// Calls `each` with number and content of every chunk that is not a hole from end to end, in order.
pub(crate) fn for_each_data_chunk(
    file: &File,
    path: &Path,
    memory_bytes: u64,
    mut each: impl FnMut(u32, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut buffer = vec![0; SUM_CHUNK_BYTES];
    let mut from = 0;
    while let Some(data) = next_data(file, path, from, memory_bytes)? {
        let chunk = u32::try_from(data / SUM_CHUNK_BYTES as u64)
            .expect("the limit on memory keeps chunks in 32 bits");
        let (offset, length) = chunk_range(chunk, memory_bytes);
        let content = &mut buffer[..length];
        disk::read_at(file, path, content, offset)?;
        each(chunk, content)?;
        from = offset + length as u64;
    }
    Ok(())
}

/// Where the next data begins at or after `from`.
fn next_data(file: &File, path: &Path, from: u64, end: u64) -> Result<Option<u64>, StoreError> {
    if from >= end {
        return Ok(None);
    }
    match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(data) => Ok(Some(data).filter(|data| *data < end)),
        Err(Errno::NXIO) => Ok(None),
        // A file system that cannot tell: all is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(from)),
        Err(error) => Err(StoreError::disk(Step::Read, path)(error)),
    }
}

/// The runs of zero pages in a chunk, as byte ranges.
fn zero_runs(content: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (page, bytes) in content.chunks(PAGE_BYTES).enumerate() {
        if !is_zero(bytes) {
            continue;
        }
        let start = page * PAGE_BYTES;
        match runs.last_mut().filter(|run| run.end == start) {
            Some(run) => run.end += bytes.len(),
            None => runs.push(start..start + bytes.len()),
        }
    }
    runs
}

/// Writes what of a chunk is not zero into a file that is a hole there.
pub(crate) fn write_sparse(
    disk: &Disk,
    file: &File,
    path: &Path,
    content: &[u8],
    offset: u64,
) -> Result<(), StoreError> {
    let mut from = 0;
    for run in zero_runs(content)
        .into_iter()
        .chain(std::iter::once(content.len()..content.len()))
    {
        if from < run.start {
            disk.write_at(file, path, &content[from..run.start], offset + from as u64)?;
        }
        from = run.end;
    }
    Ok(())
}

/// The first byte that is not zero.
pub(crate) fn first_data(content: &[u8]) -> Option<usize> {
    content.iter().position(|&byte| byte != 0)
}

/// Reads one page of a memory file.
pub(crate) fn read_page(
    file: &File,
    path: &Path,
    page: u64,
    out: &mut [u8; PAGE_BYTES],
) -> Result<(), StoreError> {
    file.read_exact_at(out, page * PAGE_BYTES as u64)
        .map_err(StoreError::disk(Step::Read, path))
}
