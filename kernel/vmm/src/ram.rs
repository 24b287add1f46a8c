//! Guest memory: one stretch of our address space that KVM knows from the start, and files mapped over it.
//!
//! Order matters: the range is reserved and given to KVM before anything is mapped into it, so that the slow
//! step (a memory slot costs KVM a grace period) can be done ahead, and a restore is one `mmap`.
#![expect(
    unsafe_code,
    reason = "guest memory is mapped at addresses that KVM knows"
)]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;

use kvm_ioctls::VmFd;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestRegionMmap,
};

use crate::hot::Extent;
use crate::layout::{Stretch, stretches};
use crate::limits::{MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, PAGE_BYTES};

/// Guest memory as devices see it. The bitmap holds what the monitor itself has written.
pub(crate) type Memory = GuestMemoryMmap<AtomicBitmap>;

/// Bytes that are written into a base at once.
const WRITE_BYTES: usize = 1 << 20;

/// What can go wrong with guest memory.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    #[error(
        "{bytes} bytes are no size for guest memory: whole pages, {MEMORY_BYTES_MIN} to {MEMORY_BYTES_MAX} bytes"
    )]
    Size { bytes: u64 },
    #[error("could not reserve {bytes} bytes of address space for guest memory")]
    Reserve {
        bytes: u64,
        #[source]
        source: io::Error,
    },
    #[error("the memory file has {found} bytes, guest memory needs {bytes}")]
    FileSize { bytes: u64, found: u64 },
    #[error("could not map the memory file")]
    Map(#[source] io::Error),
    #[error("could not write guest memory into the base")]
    Write(#[source] io::Error),
    #[error("page {index} lies outside of guest memory")]
    Page { index: u64 },
    #[error("could not describe guest memory: {0}")]
    Region(String),
}

/// A reserved range for guest memory.
#[derive(Debug)]
pub(crate) struct Ram {
    address: NonNull<u8>,
    bytes: usize,
    memory: Memory,
    /// Pages that are known to have been written and that nobody has dealt with yet, in rising order.
    written: Vec<u64>,
}

// SAFETY: the pointer names a mapping that lives as long as the value and is only reached through `Memory`,
// which is Send and Sync itself, and through `map`, which takes `&mut self`.
unsafe impl Send for Ram {}
// SAFETY: as above; no method with `&self` writes through the pointer.
unsafe impl Sync for Ram {}

impl Ram {
    /// Reserves address space; nothing can be read or written before [`Ram::map`].
    pub(crate) fn reserve(memory_bytes: u64) -> Result<Self, RamError> {
        let wrong = RamError::Size {
            bytes: memory_bytes,
        };
        let fits = (MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&memory_bytes)
            && memory_bytes.is_multiple_of(PAGE_BYTES as u64);
        let Ok(bytes) = usize::try_from(memory_bytes) else {
            return Err(wrong);
        };
        if !fits {
            return Err(wrong);
        }
        let failed = |errno: rustix::io::Errno| RamError::Reserve {
            bytes: memory_bytes,
            source: errno.into(),
        };
        // SAFETY: a new anonymous mapping at an address of the kernel's choice overlaps nothing.
        let pointer = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(failed)?;
        let address =
            NonNull::new(pointer.cast::<u8>()).ok_or_else(|| failed(rustix::io::Errno::NOMEM))?;
        let memory = match describe(address, memory_bytes) {
            Ok(memory) => memory,
            Err(error) => {
                // SAFETY: the range was mapped above and nothing refers to it yet.
                unsafe { munmap(pointer, bytes) }.ok();
                return Err(error);
            }
        };
        Ok(Self {
            address,
            bytes,
            memory,
            written: Vec::new(),
        })
    }

    /// Maps a base of exactly the reserved size over the range: what the guest writes stays here, and the file
    /// never changes.
    pub(crate) fn map(&mut self, file: &File) -> Result<(), RamError> {
        let found = crate::mapping::length(file).map_err(RamError::Map)?;
        if found != self.bytes as u64 {
            return Err(RamError::FileSize {
                bytes: self.bytes as u64,
                found,
            });
        }
        // SAFETY: the range is ours alone (`reserve`), so replacing what is mapped there touches no other
        // memory; the file is as long as the range, and a base never shrinks.
        unsafe {
            mmap(
                self.address.as_ptr().cast(),
                self.bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                file.as_fd(),
                0,
            )
        }
        .map_err(|errno| RamError::Map(errno.into()))?;
        Ok(())
    }

    /// Maps zeroes over the range, for a boot. Not the file that becomes the base: Linux would write it back all
    /// the while, and take the pages from the guest for that.
    pub(crate) fn map_zeroes(&mut self) -> Result<(), RamError> {
        // SAFETY: as in `map`: the range is ours alone.
        unsafe {
            mmap_anonymous(
                self.address.as_ptr().cast(),
                self.bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            )
        }
        .map_err(|errno| RamError::Map(errno.into()))?;
        Ok(())
    }

    /// Writes all that is not zero into `file`, which has the length of memory and reads as zeroes: in order and in
    /// large pieces, so that the page cache holds it in large ones, too.
    pub(crate) fn write_to(&self, file: &File) -> Result<(), RamError> {
        let mut piece = vec![0; WRITE_BYTES];
        for index in (0..self.bytes()).step_by(WRITE_BYTES) {
            let left = usize::try_from(self.bytes() - index).unwrap_or(WRITE_BYTES);
            let piece = &mut piece[..left.min(WRITE_BYTES)];
            for (page, bytes) in (index / PAGE_BYTES as u64..).zip(piece.chunks_mut(PAGE_BYTES)) {
                self.read_page(page, bytes)?;
            }
            if piece.iter().any(|byte| *byte != 0) {
                file.write_all_at(piece, index).map_err(RamError::Write)?;
            }
        }
        Ok(())
    }

    fn address_of(&self, index: u64) -> Result<GuestAddress, RamError> {
        let offset = index.saturating_mul(PAGE_BYTES as u64);
        self.stretches()
            .into_iter()
            .find(|stretch| (stretch.offset..stretch.offset + stretch.bytes).contains(&offset))
            .map(|stretch| GuestAddress(stretch.address + (offset - stretch.offset)))
            .ok_or(RamError::Page { index })
    }

    /// Writes one page; the index is that of the memory file.
    pub(crate) fn write_page(&mut self, index: u64, page: &[u8]) -> Result<(), RamError> {
        let address = self.address_of(index)?;
        self.memory
            .write_slice(page, address)
            .map_err(|_| RamError::Page { index })
    }

    /// Reads one page.
    pub(crate) fn read_page(&self, index: u64, page: &mut [u8]) -> Result<(), RamError> {
        let address = self.address_of(index)?;
        self.memory
            .read_slice(page, address)
            .map_err(|_| RamError::Page { index })
    }

    /// The pages that were written since [`Ram::forget_written`], in rising order: what KVM and the devices have
    /// noted. Asking empties their books, so what was told is kept until it is dealt with.
    pub(crate) fn written(&mut self, vm: &VmFd) -> Result<&[u64], kvm_ioctls::Error> {
        let mut indices = std::mem::take(&mut self.written);
        let known = indices.len();
        let noted = self.harvest(vm, &mut indices);
        if known > 0 {
            indices.sort_unstable();
            indices.dedup();
        }
        self.written = indices;
        noted?;
        Ok(&self.written)
    }

    fn harvest(&self, vm: &VmFd, indices: &mut Vec<u64>) -> Result<(), kvm_ioctls::Error> {
        for ((slot, stretch), region) in (0..).zip(self.stretches()).zip(self.memory.iter()) {
            let bytes = usize::try_from(stretch.bytes).unwrap_or(0);
            let guest = vm.get_dirty_log(slot, bytes)?;
            let own = region.get_mmap().bitmap().get_and_reset();
            let first = stretch.offset / PAGE_BYTES as u64;
            for (at, (guest, own)) in (0..).zip(guest.into_iter().zip(own)) {
                let mut left: u64 = guest | own;
                while left != 0 {
                    indices.push(first + at * 64 + u64::from(left.trailing_zeros()));
                    left &= left - 1;
                }
            }
        }
        Ok(())
    }

    /// Begins a new book: the pages stand in a snapshot, or are as they were.
    pub(crate) fn forget_written(&mut self) {
        self.written.clear();
        for region in self.memory.iter() {
            region.get_mmap().bitmap().reset();
        }
    }

    /// Asks Linux not to read ahead: what is in the page cache afterwards is what was touched.
    pub(crate) fn no_read_ahead(&self) {
        self.advise(0, self.bytes, Advice::Random);
    }

    /// Maps pages before anybody touches them; those that will be written get their private copy. An older Linux
    /// does not, and they are mapped when they are touched.
    pub(crate) fn populate(&self, extent: &Extent) {
        let bytes = |pages: u64| usize::try_from(pages).unwrap_or(0) * PAGE_BYTES;
        let advice = if extent.written {
            Advice::LinuxPopulateWrite
        } else {
            Advice::LinuxPopulateRead
        };
        self.advise(bytes(extent.first), bytes(extent.pages), advice);
    }

    fn advise(&self, offset: usize, bytes: usize, advice: Advice) {
        if offset.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            return;
        }
        // SAFETY: the range lies within the mapping, see above.
        let start = unsafe { self.address.as_ptr().add(offset) };
        // SAFETY: none of the advices used here changes what is in memory.
        unsafe { madvise(start.cast(), bytes, advice) }.ok();
    }

    /// The guest physical address of a page of the memory file.
    pub(crate) fn guest_address(&self, index: u64) -> Option<u64> {
        Some(self.address_of(index).ok()?.0)
    }

    /// Where the memory file's byte `offset` lies in our address space.
    pub(crate) fn host_address(&self, offset: u64) -> u64 {
        self.address.as_ptr() as u64 + offset
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    pub(crate) fn stretches(&self) -> Vec<Stretch> {
        stretches(self.bytes())
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `reserve` and belongs to this value alone. Whoever cloned
        // `memory` holds a device of the same machine, which is dropped before.
        unsafe { munmap(self.address.as_ptr().cast(), self.bytes) }.ok();
    }
}

fn describe(address: NonNull<u8>, memory_bytes: u64) -> Result<Memory, RamError> {
    let wrong = |error: &dyn std::fmt::Display| RamError::Region(error.to_string());
    let page = NonZeroUsize::new(PAGE_BYTES).expect("a page has bytes");
    let mut regions = Vec::new();
    for stretch in stretches(memory_bytes) {
        let bytes = usize::try_from(stretch.bytes).map_err(|error| wrong(&error))?;
        let offset = usize::try_from(stretch.offset).map_err(|error| wrong(&error))?;
        let bitmap = AtomicBitmap::new(bytes, page);
        // SAFETY: `offset` lies within the reserved range, see `stretches`.
        let start = unsafe { address.as_ptr().add(offset) };
        // SAFETY: the range is page-aligned and stays mapped until `Ram` is dropped.
        let builder = unsafe {
            MmapRegionBuilder::new_with_bitmap(bytes, bitmap).with_raw_mmap_pointer(start)
        };
        let mapping = builder.build().map_err(|error| wrong(&error))?;
        let region = GuestRegionMmap::new(mapping, GuestAddress(stretch.address))
            .ok_or_else(|| RamError::Region("a stretch of memory has no end".to_owned()))?;
        regions.push(region);
    }
    Memory::from_regions(regions).map_err(|error| wrong(&error))
}
