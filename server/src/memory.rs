//! Returns memory to the kernel after a burst of commands or connections.

use std::fs;
use std::time::Duration;

use nix::libc;
use tokio::sync::Notify;
use tokio::time::sleep;

/// The delay between the use of memory and the check whether it can be returned.
const TRIM_DELAY: Duration = Duration::from_secs(10);

/// The growth since the start from which memory is returned, in bytes.
const MIN_GROWTH: u64 = 2 << 20;

/// Returns memory that the allocator holds and nothing uses. It returns by itself only what is at
/// the top of its heaps, and a small allocation that outlives a burst is often above a large gap.
#[derive(Debug, Default)]
pub(crate) struct Memory(Notify);

impl Memory {
    /// Notes that memory is used, which may be free a little later.
    pub(crate) fn note_use(&self) {
        self.0.notify_one();
    }

    /// Returns memory a while after each use, if there is more than at the start. Waits without
    /// waking up while nothing is used.
    pub(crate) async fn return_unused(&self) {
        let at_start = resident();
        loop {
            self.0.notified().await;
            sleep(TRIM_DELAY).await;
            let (Some(at_start), Some(before)) = (at_start, resident()) else { return };
            if before > at_start + MIN_GROWTH {
                // Takes milliseconds, in which others can allocate only from other heaps.
                if tokio::task::spawn_blocking(trim).await.is_err() {
                    return;
                }
                tracing::debug!(before, after = resident(), "memory returned");
            }
        }
    }
}

/// Returns the memory of this process that is in RAM, in bytes (proc_pid_statm(5)).
fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// Makes all threads allocate from one heap. Of others, malloc_trim(3) keeps the end, which may
/// be many megabytes. Call it before there is a second thread.
pub fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) changes a parameter of the allocator, while no other thread uses it.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) touches no memory that is in use, and may be called by any thread.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}
