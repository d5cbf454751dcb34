//! The system's allocator.

/// Buffers from this size on go back to the system when they are freed.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: i32 = 512 << 10;

/// Keeps glibc from holding on to the memory of large buffers.
///
/// It would learn from the first such buffer freed that more of them will come, and keep what is freed from then on in
/// the pools of its threads: a full backup to S3 with two processes then took 76 MiB instead of 58 MiB.
#[cfg(target_env = "gnu")]
pub fn give_back_large_buffers() {
    // SAFETY: sets a number inside of the allocator, under its own lock.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}

/// Other allocators give back what they should.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_large_buffers() {}
