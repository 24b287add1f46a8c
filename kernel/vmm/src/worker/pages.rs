//! Pages on their way between a worker and its parent: a file in memory that holds their contents, one behind
//! the other, and after them their indices in the same, rising order.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;

use crate::limits::PAGE_BYTES;

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes pages into `file` and returns how many there were.
pub(crate) fn write<E>(
    mut file: &File,
    pages: impl Iterator<Item = Result<(u64, [u8; PAGE_BYTES]), E>>,
) -> Result<u64, E>
where
    E: From<io::Error>,
{
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    let mut indices = Vec::new();
    for page in pages {
        let (index, bytes) = page?;
        out.write_all(&bytes)?;
        indices.push(index);
    }
    for index in &indices {
        out.write_all(&index.to_le_bytes())?;
    }
    out.flush()?;
    Ok(indices.len() as u64)
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

/// Reads the content of the page that comes at `place` among the indices.
pub(crate) fn read(file: &File, place: usize, page: &mut [u8; PAGE_BYTES]) -> io::Result<()> {
    file.read_exact_at(page, (place * PAGE_BYTES) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back_and_lies_are_told() {
        let file = tempfile::tempfile().unwrap();
        let (one, two) = ([1; PAGE_BYTES], [2; PAGE_BYTES]);
        let pages = [Ok::<_, io::Error>((3, one)), Ok((9, two))];
        assert_eq!(write(&file, pages.into_iter()).unwrap(), 2);
        assert_eq!(indices(&file, 2, 10).unwrap(), [3, 9]);
        let mut page = [0; PAGE_BYTES];
        read(&file, 1, &mut page).unwrap();
        assert_eq!(page, two);
        assert!(indices(&file, 2, 9).is_err(), "outside of memory");
        assert!(indices(&file, 3, 10).is_err(), "more than there are");
        assert!(indices(&file, u64::MAX, 10).is_err());
        let swapped = [Ok::<_, io::Error>((9, one)), Ok((3, two))];
        write(&file, swapped.into_iter()).unwrap();
        assert!(indices(&file, 2, 10).is_err(), "out of order");
    }
}
