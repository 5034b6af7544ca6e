//! The table of the process's descriptors.

use std::io::stderr;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};

/// The most that there is room for from the start: a process that may have millions of descriptors is not to pay for
/// them all. These take half a MiB of the kernel's memory.
pub const MOST: u64 = 1 << 16;

/// Has the kernel make the table of descriptors as large as it can become, up to [`MOST`]. Each time that a table grows
/// which threads share, the kernel waits until no processor looks at the old one, and whoever opens a descriptor waits,
/// too: 10 to 20 ms in which no worker accepts or connects, at 256 connections, at 512, and so on. A process with one
/// thread, as this one is at its start, waits for nobody.
pub fn make_room() {
    let most = getrlimit(Resource::Nofile).current.unwrap_or(MOST).min(MOST);
    if let Some(highest) = most.checked_sub(1).and_then(|highest| i32::try_from(highest).ok()) {
        // To have had it is enough. Where it is not to be had, the table grows as it is used.
        drop(fcntl_dupfd_cloexec(stderr(), highest));
    }
}
