//! A file of pages in our address space.
#![expect(unsafe_code, reason = "mapped memory is reached through pointers")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::limits::PAGE_BYTES;

/// A whole number of pages from the start of a file.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: NonNull<u8>,
    pages: usize,
}

// SAFETY: the mapping belongs to the value, and is written only through `&mut self`.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `pages` pages for reading. The file must not shrink while the mapping lives: it is a
    /// published base, or a file in memory that the parent made for this.
    pub(crate) fn read_only(file: &File, pages: usize) -> io::Result<Self> {
        Self::new(file, pages, ProtFlags::READ)
    }

    /// As [`Mapping::read_only`], for writing into the file.
    pub(crate) fn writable(file: &File, pages: usize) -> io::Result<Self> {
        Self::new(file, pages, ProtFlags::READ | ProtFlags::WRITE)
    }

    fn new(file: &File, pages: usize, protection: ProtFlags) -> io::Result<Self> {
        if pages == 0 {
            return Ok(Self {
                address: NonNull::dangling(),
                pages,
            });
        }
        let bytes = pages
            .checked_mul(PAGE_BYTES)
            .filter(|bytes| length(file).is_ok_and(|length| *bytes as u64 <= length))
            .ok_or_else(|| io::Error::other(format!("the file has fewer than {pages} pages")))?;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let pointer = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED,
                file.as_fd(),
                0,
            )
        }?;
        let address = NonNull::new(pointer.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { address, pages })
    }

    /// One page, if it is that long.
    pub(crate) fn page(&self, number: usize) -> Option<&[u8; PAGE_BYTES]> {
        if number >= self.pages {
            return None;
        }
        // SAFETY: the page lies within the mapping.
        let start = unsafe { self.address.as_ptr().add(number * PAGE_BYTES) };
        // SAFETY: the page is mapped for reading as long as `self` is borrowed, bytes have no invalid values,
        // and nobody writes it: see the constructors.
        Some(unsafe { &*start.cast() })
    }

    /// One page of a writable mapping.
    pub(crate) fn page_mut(&mut self, number: usize) -> Option<&mut [u8; PAGE_BYTES]> {
        if number >= self.pages {
            return None;
        }
        // SAFETY: the page lies within the mapping.
        let start = unsafe { self.address.as_ptr().add(number * PAGE_BYTES) };
        // SAFETY: the page is mapped as long as `self` is borrowed, and the borrow is the only one.
        Some(unsafe { &mut *start.cast() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.pages > 0 {
            // SAFETY: the range was mapped by `new` and belongs to this value alone.
            unsafe { munmap(self.address.as_ptr().cast(), self.pages * PAGE_BYTES) }.ok();
        }
    }
}

/// The length of a file. By its descriptor alone: the call that std makes can look at any path.
pub(crate) fn length(file: &File) -> io::Result<u64> {
    u64::try_from(rustix::fs::fstat(file)?.st_size).map_err(io::Error::other)
}
