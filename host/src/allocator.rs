//! Memory that is free goes back to the system.
//!
//! The allocator of the process (mimalloc, see `main.rs`) keeps what was freed for whoever needs it next, and looks whether
//! it is too much only when it is asked for more. After a flood nobody asks.

/// Gives the free memory of this thread, and what threads share, back to the system. It takes some milliseconds when
/// that is much.
#[expect(unsafe_code, reason = "docs/adr/0017-memory-given-back.md")]
pub fn give_back() {
    // SAFETY: it takes no pointer, and may be called by any thread at any time, whatever the process allocates with.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
