//! Counts what reading a request allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use weir_sdk::prelude::*;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: it is the system's allocator, which is counted.
#[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `read` allocates.
fn count<T>(read: impl FnOnce() -> Result<T>) -> Result<usize> {
    let before = ALLOCATIONS.get();
    let value = read()?;
    let after = ALLOCATIONS.get();
    drop(value);
    Ok(after - before)
}

struct Counts;

#[weir_sdk::http_filter]
impl HttpFilter for Counts {
    fn new(_: ()) -> Result<Self> {
        Ok(Self)
    }

    fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
        let one = count(|| request.header("x-one"))?;
        let none = count(|| request.header("x-none"))?;
        let path = count(|| request.path())?;
        let all = count(|| Ok(request.headers()?.get_all("x-one").count()))?;
        let set = count(|| request.set_header("x-set", "value"))?;
        request.set_header(
            "x-allocations",
            format!("one {one}, none {none}, path {path}, all {all}, set {set}"),
        )?;
        Ok(Action::Continue)
    }
}
