//! The memory of a module, and the functions of the C library that hand it out: they take the place of its own.
//!
//! The standard library of Rust allocates by them, and so does whatever else is linked.
#![expect(unsafe_code, reason = "addresses and linear memory, ADR 0021")]

use core::cell::UnsafeCell;
use core::ptr::{null_mut, with_exposed_provenance_mut};

use super::{Heap, Memory};

/// A page of WebAssembly.
const PAGE: usize = 64 << 10;

/// The linear memory behind what the module has of its own.
struct Linear {
    /// Whether what was there when the module began has been given.
    begun: bool,
}

impl Memory for Linear {
    fn load(&self, at: u32) -> u32 {
        // SAFETY: `at` is divisible by 4 and in what `grow` gave, where only the heap writes words of its own.
        unsafe { with_exposed_provenance_mut::<u32>(at as usize).read() }
    }

    fn store(&mut self, at: u32, value: u32) {
        // SAFETY: as for `load`.
        unsafe { with_exposed_provenance_mut::<u32>(at as usize).write(value) }
    }

    fn copy(&mut self, from: u32, to: u32, len: u32) {
        let to = with_exposed_provenance_mut::<u8>(to as usize);
        // SAFETY: both are blocks that were handed out, of at least `len` bytes, and not the same one.
        unsafe { to.copy_from_nonoverlapping(with_exposed_provenance_mut(from as usize), len as usize) }
    }

    fn grow(&mut self, len: u32) -> Option<(u32, u32)> {
        unsafe extern "C" {
            /// Where the module's own memory ends: the linker's word.
            static __heap_base: u8;
        }
        let end = core::arch::wasm32::memory_size(0) * PAGE;
        if !core::mem::replace(&mut self.begun, true) {
            let base = (&raw const __heap_base).expose_provenance();
            if end.checked_sub(base)? >= len as usize {
                return Some((base as u32, (end as u32) & !15));
            }
        }
        let pages = (len as usize).div_ceil(PAGE);
        if core::arch::wasm32::memory_grow(0, pages) == usize::MAX {
            return None;
        }
        // The last page of 4 GiB is not used: where it ends is no number of 32 bits.
        Some((end as u32, end.checked_add(pages * PAGE)? as u32))
    }
}

struct Only(UnsafeCell<Heap<Linear>>);

// SAFETY: modules of Proxy-Wasm have one thread.
unsafe impl Sync for Only {}

static HEAP: Only = Only(UnsafeCell::new(Heap::new(Linear { begun: false })));

fn heap<T>(act: impl FnOnce(&mut Heap<Linear>) -> T) -> T {
    // SAFETY: there is one thread, and nothing that `act` does in this file comes here again.
    act(unsafe { &mut *HEAP.0.get() })
}

fn pointer(at: Option<u32>) -> *mut u8 {
    at.map_or(null_mut(), |at| with_exposed_provenance_mut(at as usize))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn malloc(len: usize) -> *mut u8 {
    pointer(heap(|heap| heap.allocate(len as u32)))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn free(at: *mut u8) {
    if !at.is_null() {
        heap(|heap| heap.free(at.expose_provenance() as u32));
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, each: usize) -> *mut u8 {
    let Some(len) = count.checked_mul(each) else { return null_mut() };
    let made = pointer(heap(|heap| heap.allocate(len as u32)));
    if !made.is_null() {
        // SAFETY: so many bytes were handed out just now.
        unsafe { made.write_bytes(0, len) };
    }
    made
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn realloc(at: *mut u8, len: usize) -> *mut u8 {
    if at.is_null() {
        return malloc(len);
    }
    pointer(heap(|heap| heap.resize(at.expose_provenance() as u32, len as u32)))
}

#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, len: usize) -> *mut u8 {
    pointer(heap(|heap| heap.allocate_aligned(align as u32, len as u32)))
}

/// # Safety
/// `out` is the address of a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut u8, align: usize, len: usize) -> i32 {
    /// `ENOMEM`, as WASI counts.
    const OUT_OF_MEMORY: i32 = 48;
    let made = aligned_alloc(align, len);
    if made.is_null() {
        return OUT_OF_MEMORY;
    }
    // SAFETY: the caller's promise.
    unsafe { out.write(made) };
    0
}
