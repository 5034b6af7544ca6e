//! The size of the pages that the process's memory comes in.

use rustix::thread::disable_transparent_huge_pages;

/// Has the kernel hand out memory by small pages, and not by 2 MiB (transparent huge pages), which the allocator asks for. Whoever
/// first touches such a page waits until all of it has been zeroed, about 0.2 ms, and on a worker everybody waits with it: a plugin that
/// takes new memory by megabytes (shared data, queues, calls by the thousand) tripled its neighbours' p99 by that, and a third of
/// the process's memory had never been used.
pub fn keep_small() {
    // Without it (a kernel that has no such pages) there is nothing to disable.
    let _ = disable_transparent_huge_pages(true);
}
