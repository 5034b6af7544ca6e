//! The host functions, made safe. This is the only file of the SDK with unsafe code.
//!
//! Every answer of the host is a `Result`; a number that the contract does not know counts as an internal
//! failure of the host. Outside WebAssembly (in a filter's own unit tests) there is no host: everything is
//! unimplemented.
#![expect(unsafe_code, reason = "the boundary to the host")]

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr::null;

use weir_abi::{BufferKind, LogLevel, MapKind, MetricKind, Status, StreamKind, host_functions};

// What the type names of the table mean to a guest.
type Int = u32;
type Long = u64;
type Delta = i64;
type Ptr = *const u8;
type Len = usize;
type OutInt = *mut u32;
type OutLong = *mut u64;
type OutPtr = *mut *mut u8;
type OutLen = *mut usize;

macro_rules! import {
    ($($(#[$doc:meta])* $topic:ident::$name:ident($($arg:ident: $ty:ty),* $(,)?);)*) => {
        #[cfg(target_family = "wasm")]
        #[allow(dead_code, reason = "the table has more than this SDK uses")]
        mod host {
            use super::*;

            #[link(wasm_import_module = "env")]
            unsafe extern "C" {
                $(pub(super) fn $name($($arg: $ty),*) -> u32;)*
            }
        }

        /// Where there is no host.
        #[cfg(not(target_family = "wasm"))]
        #[expect(
            dead_code, clippy::too_many_arguments,
            reason = "stands in for the imports, whatever they are"
        )]
        mod host {
            use super::*;

            $(pub(super) unsafe fn $name($(_: $ty),*) -> u32 {
                Status::Unimplemented as u32
            })*
        }
    };
}

host_functions!(import);

#[cfg(target_family = "wasm")]
const NAME: &str = concat!("weir-sdk ", env!("CARGO_PKG_VERSION"));

/// Tells whoever inspects a plugin what it was built with: a custom section, [`weir_abi::SDK_SECTION`].
#[cfg(target_family = "wasm")]
#[used]
#[unsafe(link_section = "weir_sdk")]
static MARK: [u8; NAME.len()] = {
    let mut mark = [0; NAME.len()];
    mark.copy_from_slice(NAME.as_bytes());
    mark
};

type Answer<T> = Result<T, Status>;

fn check(status: u32) -> Answer<()> {
    match Status::try_from(status) {
        Ok(Status::Ok) => Ok(()),
        Ok(status) => Err(status),
        Err(_) => Err(Status::InternalFailure),
    }
}

/// Runs what libraries have to be run before anything else.
pub fn initialize() {
    #[cfg(target_family = "wasm")]
    {
        unsafe extern "C" {
            /// The linker makes it.
            fn __wasm_call_ctors();
        }
        // SAFETY: `_initialize` is called once, and before everything else.
        unsafe { __wasm_call_ctors() }
    }
}

thread_local! {
    /// Whether the host allocates by [`allocate`]. One that finds `malloc` may prefer that (ADR 0021), and what comes from there is
    /// not what a `#[global_allocator]` of the filter's can take back.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Memory for the host to write into. It comes back through `take`.
#[must_use]
pub fn allocate(len: usize) -> *mut u8 {
    ASKED.set(true);
    // A box has exactly the size that `take` gives back; a vector may have more.
    Box::into_raw(Box::<[u8]>::new_uninit_slice(len)).cast()
}

/// Takes over bytes that the host wrote.
fn take(data: *mut u8, len: usize) -> Vec<u8> {
    if data.is_null() {
        return Vec::new();
    }
    #[cfg(target_family = "wasm")]
    if !ASKED.get() {
        // SAFETY: the host has written `len` bytes there, and nobody else knows the address.
        let bytes = unsafe { std::slice::from_raw_parts(data, len) }.to_vec();
        crate::heap::free(data);
        return bytes;
    }
    // SAFETY: the host got `data` from `allocate(len)`, which made a box of that size, and has written `len` bytes
    // there; nobody else knows the address.
    unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(data, len)) }.into_vec()
}

/// The room that a call offers for what it asks for, in words: most header values are shorter.
const ROOM: usize = 16;
const WORD: usize = size_of::<u64>();
/// What the offer says: one more than there is room for, so that no length of what is written there is the same.
const UNTOUCHED: usize = ROOM * WORD + 1;

/// Calls a host function that returns bytes. Weir writes what fits into the room that is offered; other hosts overwrite the
/// offer, and allocate.
fn bytes(call: impl FnOnce(OutPtr, OutLen) -> u32) -> Answer<Vec<u8>> {
    let mut room = [MaybeUninit::<u64>::uninit(); ROOM];
    let offered: *mut u8 = room.as_mut_ptr().cast();
    let (mut data, mut len) = (offered, UNTOUCHED);
    check(call(&raw mut data, &raw mut len))?;
    Ok(match len {
        // There are hosts that write nothing where there are no bytes.
        UNTOUCHED if data == offered => Vec::new(),
        _ if data == offered => copy(&room, len),
        _ => take(data, len),
    })
}

/// The bytes that the host wrote into the room that it was offered. They are copied word by word: to copy all at once is an
/// instruction for which the host is entered, and takes longer than a short value.
#[inline(never)]
fn copy(room: &[MaybeUninit<u64>; ROOM], len: usize) -> Vec<u8> {
    let words = len.div_ceil(WORD).min(ROOM);
    let mut bytes = Vec::<u8>::with_capacity(words * WORD);
    let to: *mut MaybeUninit<u64> = bytes.as_mut_ptr().cast();
    for (at, word) in room.iter().take(words).enumerate() {
        // SAFETY: there is room for so many words. That one is read as volatile keeps them from being copied all at once.
        unsafe { to.add(at).write_unaligned((&raw const *word).read_volatile()) };
    }
    // SAFETY: the host has written so many, which is no more than there is room for.
    unsafe { bytes.set_len(len.min(words * WORD)) };
    bytes
}

/// Turns "there is none" into `None`.
fn optional<T>(answer: Answer<T>) -> Answer<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Status::NotFound) => Ok(None),
        Err(status) => Err(status),
    }
}

pub fn log(level: LogLevel, message: &str) {
    // SAFETY: the host reads `message` during the call.
    let _ = unsafe { host::proxy_log(level.into(), message.as_ptr(), message.len()) };
}

/// What WASI has and Proxy-Wasm has not: functions of preview 1, which every host of Proxy-Wasm gives.
mod wasi {
    #[cfg(target_family = "wasm")]
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub(super) fn random_get(data: *mut u8, len: usize) -> u32;
        pub(super) fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
    }

    #[cfg(not(target_family = "wasm"))]
    pub(super) unsafe fn random_get(_: *mut u8, _: usize) -> u32 {
        1
    }

    #[cfg(not(target_family = "wasm"))]
    pub(super) unsafe fn clock_time_get(_: u32, _: u64, _: *mut u64) -> u32 {
        1
    }
}

/// Fills `data` with random bytes.
pub fn random(data: &mut [u8]) -> Answer<()> {
    // SAFETY: the host writes into `data` during the call, and no further.
    let errno = unsafe { wasi::random_get(data.as_mut_ptr(), data.len()) };
    if errno == 0 { Ok(()) } else { Err(Status::InternalFailure) }
}

/// Nanoseconds of a clock that is never set; 0 when the host has none.
pub fn monotonic() -> u64 {
    const MONOTONIC: u32 = 1;
    let mut time = 0;
    // SAFETY: the host writes 8 bytes to a place that lives during the call.
    let errno = unsafe { wasi::clock_time_get(MONOTONIC, 1_000_000, &raw mut time) };
    if errno == 0 { time } else { 0 }
}

/// Nanoseconds since 1970.
pub fn time() -> Answer<u64> {
    let mut time = 0;
    // SAFETY: the host writes 8 bytes to a place that lives during the call.
    check(unsafe { host::proxy_get_current_time_nanoseconds(&raw mut time) })?;
    Ok(time)
}

/// Has the functions that follow act on another context.
pub fn set_effective_context(context: u32) -> Answer<()> {
    // SAFETY: no memory is passed.
    check(unsafe { host::proxy_set_effective_context(context) })
}

/// Sends an HTTP request; the token of its answer.
pub fn http_call(cluster: &str, headers: &[u8], body: &[u8], timeout: u32) -> Answer<u32> {
    let mut token = 0;
    // SAFETY: the host reads all of it, and writes to a place that lives during the call.
    check(unsafe {
        host::proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            null(),
            0,
            timeout,
            &raw mut token,
        )
    })?;
    Ok(token)
}

/// Where a gRPC call goes.
pub struct GrpcTarget<'a> {
    pub service: &'a [u8],
    pub name: &'a str,
    pub method: &'a str,
    pub metadata: &'a [u8],
}

/// Sends a gRPC message; the token of its answer.
pub fn grpc_call(target: &GrpcTarget<'_>, message: &[u8], timeout: u32) -> Answer<u32> {
    let GrpcTarget { service, name, method, metadata } = target;
    let mut token = 0;
    // SAFETY: the host reads all of it, and writes to a place that lives during the call.
    check(unsafe {
        host::proxy_grpc_call(
            service.as_ptr(),
            service.len(),
            name.as_ptr(),
            name.len(),
            method.as_ptr(),
            method.len(),
            metadata.as_ptr(),
            metadata.len(),
            message.as_ptr(),
            message.len(),
            timeout,
            &raw mut token,
        )
    })?;
    Ok(token)
}

pub fn grpc_cancel(token: u32) -> Answer<()> {
    // SAFETY: no memory is passed.
    check(unsafe { host::proxy_grpc_cancel(token) })
}

/// What was said about the end of a gRPC call.
pub fn status_message() -> Answer<Vec<u8>> {
    let mut code = 0;
    // SAFETY: the host writes to places that live during the call.
    bytes(|data, len| unsafe { host::proxy_get_status(&raw mut code, data, len) })
}

/// Sets the interval of the timer.
pub fn set_tick(millis: u32) {
    // SAFETY: no memory is passed.
    let _ = unsafe { host::proxy_set_tick_period_milliseconds(millis) };
}

pub fn buffer(kind: BufferKind, start: usize, max_len: usize) -> Answer<Vec<u8>> {
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (start, max_len) = (size(start), size(max_len).min(u32::MAX - size(start)));
    // SAFETY: the host writes address and length to places that live during the call.
    bytes(|data, len| unsafe { host::proxy_get_buffer_bytes(kind as u32, start, max_len, data, len) })
}

pub fn set_buffer(kind: BufferKind, start: u32, len: u32, data: &[u8]) -> Answer<()> {
    // SAFETY: the host reads `data` during the call.
    check(unsafe { host::proxy_set_buffer_bytes(kind as u32, start, len, data.as_ptr(), data.len()) })
}

pub fn pairs(map: MapKind) -> Answer<Vec<u8>> {
    // SAFETY: the host writes address and length to places that live during the call.
    bytes(|data, len| unsafe { host::proxy_get_header_map_pairs(map as u32, data, len) })
}

pub fn header(map: MapKind, name: &str) -> Answer<Option<Vec<u8>>> {
    // SAFETY: the host reads `name`, and writes to places that live during the call.
    optional(bytes(|data, len| unsafe {
        host::proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, len)
    }))
}

pub fn add_header(map: MapKind, name: &str, value: &[u8]) -> Answer<()> {
    // SAFETY: the host reads both during the call.
    check(unsafe {
        host::proxy_add_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

pub fn set_header(map: MapKind, name: &str, value: &[u8]) -> Answer<()> {
    // SAFETY: the host reads both during the call.
    check(unsafe {
        host::proxy_replace_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

pub fn remove_header(map: MapKind, name: &str) -> Answer<()> {
    // SAFETY: the host reads `name` during the call.
    check(unsafe { host::proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

pub fn continue_stream(stream: StreamKind) -> Answer<()> {
    // SAFETY: no memory is passed.
    check(unsafe { host::proxy_continue_stream(stream as u32) })
}

pub fn close_stream(stream: StreamKind) -> Answer<()> {
    // SAFETY: no memory is passed.
    check(unsafe { host::proxy_close_stream(stream as u32) })
}

pub fn send_reply(status: u32, details: &str, body: &[u8], headers: &[u8], grpc: Option<u32>) -> Answer<()> {
    let grpc = grpc.unwrap_or(u32::MAX);
    // SAFETY: the host reads all of it during the call.
    check(unsafe {
        host::proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc,
        )
    })
}

pub fn property(path: &str) -> Answer<Option<Vec<u8>>> {
    // SAFETY: the host reads `path`, and writes to places that live during the call.
    optional(bytes(|data, len| unsafe { host::proxy_get_property(path.as_ptr(), path.len(), data, len) }))
}

pub fn set_property(path: &str, value: &[u8]) -> Answer<()> {
    // SAFETY: the host reads both during the call.
    check(unsafe { host::proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

pub fn shared_data(key: &str) -> Answer<Option<(Vec<u8>, u32)>> {
    let mut cas = 0;
    // SAFETY: the host reads `key`, and writes to places that live during the call.
    let value = optional(bytes(|data, len| unsafe {
        host::proxy_get_shared_data(key.as_ptr(), key.len(), data, len, &raw mut cas)
    }))?;
    Ok(value.map(|value| (value, cas)))
}

pub fn set_shared_data(key: &str, value: &[u8], cas: u32) -> Answer<()> {
    // SAFETY: the host reads both during the call.
    check(unsafe { host::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) })
}

/// Opens a queue, and has the host tell of what is put into it.
pub fn register_queue(name: &str) -> Answer<u32> {
    let mut queue = 0;
    // SAFETY: the host reads `name`, and writes to a place that lives during the call.
    check(unsafe { host::proxy_register_shared_queue(name.as_ptr(), name.len(), &raw mut queue) })?;
    Ok(queue)
}

pub fn resolve_queue(vm_id: &str, name: &str) -> Answer<Option<u32>> {
    let mut queue = 0;
    // SAFETY: the host reads both, and writes to a place that lives during the call.
    let found = check(unsafe {
        host::proxy_resolve_shared_queue(
            vm_id.as_ptr(),
            vm_id.len(),
            name.as_ptr(),
            name.len(),
            &raw mut queue,
        )
    });
    optional(found.map(|()| queue))
}

pub fn enqueue(queue: u32, value: &[u8]) -> Answer<()> {
    // SAFETY: the host reads `value` during the call.
    check(unsafe { host::proxy_enqueue_shared_queue(queue, value.as_ptr(), value.len()) })
}

pub fn dequeue(queue: u32) -> Answer<Vec<u8>> {
    // SAFETY: the host writes address and length to places that live during the call.
    bytes(|data, len| unsafe { host::proxy_dequeue_shared_queue(queue, data, len) })
}

pub fn define_metric(kind: MetricKind, name: &str) -> Answer<u32> {
    let mut id = 0;
    // SAFETY: the host reads `name`, and writes to a place that lives during the call.
    check(unsafe { host::proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

pub fn record_metric(id: u32, value: u64) -> Answer<()> {
    // SAFETY: no memory is passed.
    check(unsafe { host::proxy_record_metric(id, value) })
}

pub fn increment_metric(id: u32, by: i64) -> Answer<()> {
    // SAFETY: no memory is passed.
    check(unsafe { host::proxy_increment_metric(id, by) })
}

pub fn metric(id: u32) -> Answer<u64> {
    let mut value = 0;
    // SAFETY: the host writes 8 bytes to a place that lives during the call.
    check(unsafe { host::proxy_get_metric(id, &raw mut value) })?;
    Ok(value)
}

pub fn call_foreign(name: &str, argument: &[u8]) -> Answer<Vec<u8>> {
    // SAFETY: the host reads both, and writes to places that live during the call.
    bytes(|data, len| unsafe {
        host::proxy_call_foreign_function(
            name.as_ptr(),
            name.len(),
            argument.as_ptr(),
            argument.len(),
            data,
            len,
        )
    })
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut;

    use super::*;

    /// A host that answers with some bytes: in the room that it is offered, or where it has the guest allocate.
    fn answers(text: &[u8], takes_offers: bool) -> Answer<Vec<u8>> {
        bytes(|data, len| {
            // SAFETY: the places are those of the call, and what is offered or allocated has room for as many bytes as are written.
            unsafe {
                if !takes_offers || text.len() >= *len {
                    *data = if text.is_empty() { null_mut() } else { allocate(text.len()) };
                }
                if !text.is_empty() {
                    (*data).copy_from_nonoverlapping(text.as_ptr(), text.len());
                }
                *len = text.len();
            }
            Status::Ok as u32
        })
    }

    #[test]
    fn what_a_host_writes_is_read_whether_it_takes_the_offer_or_not() {
        let text: Vec<u8> = (0..=255).collect();
        for len in [0, 1, 7, 8, 9, 127, 128, 129, 256] {
            let text = &text[..len];
            for takes_offers in [false, true] {
                assert_eq!(answers(text, takes_offers).as_deref(), Ok(text), "{len}, {takes_offers}");
            }
        }
    }

    #[test]
    fn of_a_host_that_writes_nothing_nothing_is_read() {
        assert_eq!(bytes(|_, _| Status::Ok as u32), Ok(Vec::new()));
        assert_eq!(bytes(|_, _| Status::NotFound as u32), Err(Status::NotFound));
    }
}
