//! Descriptors that this program was started with and knows nothing of: a lock, a secret, somebody's socket.
#![expect(unsafe_code, reason = "the call has no safe wrapper")]

/// Keeps them from every process that is started from here on: a worker's jail lets it read and write what it holds.
/// On a Linux before 5.11 they are passed on as ever.
pub fn keep_descriptors() {
    const FIRST: libc::c_uint = 3;
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: the call sets a flag of descriptors and closes none; nothing here relies on one being inherited.
    unsafe { libc::close_range(FIRST, libc::c_uint::MAX, flags) };
}
