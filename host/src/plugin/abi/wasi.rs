//! WASI preview 1, as far as filters need it, without ever blocking a worker.
//!
//! There are clocks, random numbers, an environment, and lines to the log. There are no files, no directories
//! and no sockets: what asks for one is told that its descriptor is bad.
#![expect(clippy::too_many_arguments, reason = "the signatures are WASI's")]

mod standard;

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Caller, Linker};
use weir_abi::{WASI_MODULES, WasiErrno};

use crate::clock::thread_cpu_time;
use crate::plugin::abi::memory::Host;
use crate::plugin::abi::time::unix_nanos;
use crate::plugin::abi::wasi::standard::{Layout, Lines, MAX_WRITE, STDERR, STDIN, STDOUT};
use crate::plugin::abi::{Delta, Int, Len, Long, OutInt, OutLong, OutPtr, Ptr};
use crate::plugin::vm::Vm;

pub use standard::flush;

/// What the host keeps for a guest's WASI.
#[derive(Debug, Default)]
pub struct Wasi {
    /// The environment, as `NAME=value` with a NUL behind it.
    environment: Vec<Vec<u8>>,
    /// The beginnings of lines on stdout and stderr.
    lines: Lines,
}

impl Wasi {
    /// A WASI with these environment variables.
    pub fn new(environment: &[(String, String)]) -> Self {
        let entry = |(name, value): &(String, String)| format!("{name}={value}\0").into_bytes();
        Self { environment: environment.iter().map(entry).collect(), lines: Lines::default() }
    }
}

/// What a WASI function returns.
pub type Result = std::result::Result<(), WasiErrno>;

/// The call ended because the guest exited.
#[derive(Debug, thiserror::Error)]
#[error("the plugin exited with status {0}")]
pub struct Exited(pub u32);

/// The most pieces that one write is made of (IOV_MAX).
const MAX_VECTORS: u32 = 1024;

/// The most that one call of `random_get` gives (proxy-wasm-cpp-host's limit).
const MAX_RANDOM: u32 = 64 * 1024;

pub fn proc_exit(_: Caller<'_, Vm>, status: u32) -> wasmtime::Result<()> {
    Err(wasmtime::Error::new(Exited(status)))
}

pub fn fd_write(host: &mut Host<'_>, fd: Int, vectors: Ptr, count: Int, written: OutInt) -> Result {
    if fd != STDOUT && fd != STDERR {
        return Err(WasiErrno::BadF);
    }
    // As on Linux: no call works through more than that.
    if count > MAX_VECTORS {
        return Err(WasiErrno::Inval);
    }
    // Looked at, not written: it may be the place of a vector.
    host.bytes(written, 4)?;
    let vectors = host.bytes(vectors, count * 8)?.0.to_vec();
    let mut text = Vec::new();
    for vector in vectors.chunks_exact(8) {
        let (Some(ptr), Some(len)) = (vector.first_chunk::<4>(), vector.last_chunk::<4>()) else { break };
        let (bytes, _) = host.bytes(u32::from_le_bytes(*ptr), u32::from_le_bytes(*len))?;
        let room = MAX_WRITE - text.len();
        text.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or(&[]));
        if text.len() == MAX_WRITE {
            break;
        }
    }
    standard::print(host.vm(), fd, &text);
    Ok(host.write_int(written, u32::try_from(text.len()).unwrap_or(u32::MAX))?)
}

pub fn clock_time_get(host: &mut Host<'_>, clock: Int, _precision: Long, time: OutLong) -> Result {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let now = match clock {
        0 => unix_nanos(host.vm().services.wall()),
        1 => nanos(host.vm().services.outside.as_ref().map_or_else(monotonic, |outside| outside.monotonic())),
        2 | 3 => nanos(thread_cpu_time()),
        _ => return Err(WasiErrno::NotSup),
    };
    Ok(host.write_long(time, now)?)
}

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

pub fn clock_res_get(host: &mut Host<'_>, clock: Int, resolution: OutLong) -> Result {
    match clock {
        0..=3 => Ok(host.write_long(resolution, 1)?),
        _ => Err(WasiErrno::NotSup),
    }
}

pub fn random_get(host: &mut Host<'_>, buffer: OutPtr, len: Len) -> Result {
    if len > MAX_RANDOM {
        return Err(WasiErrno::Inval);
    }
    host.bytes(buffer, len)?;
    let mut random = vec![0; len as usize];
    let mut filled = 0;
    while let Some(rest) = random.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let flags = rustix::rand::GetRandomFlags::empty();
        let got = rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut *rest, flags));
        filled += got.map_err(|_| WasiErrno::NoSys)?;
    }
    Ok(host.write(buffer, &random)?)
}

pub fn environ_sizes_get(host: &mut Host<'_>, count: OutInt, size: OutInt) -> Result {
    let environment = &host.vm().wasi.environment;
    let (entries, bytes) = (environment.len(), environment.iter().map(Vec::len).sum::<usize>());
    host.write_int(count, u32::try_from(entries).unwrap_or(0))?;
    Ok(host.write_int(size, u32::try_from(bytes).unwrap_or(0))?)
}

pub fn environ_get(host: &mut Host<'_>, vector: OutPtr, buffer: OutPtr) -> Result {
    let environment = host.vm().wasi.environment.clone();
    let (mut vector, mut buffer) = (vector, buffer);
    for entry in &environment {
        host.write_int(vector, buffer)?;
        host.write(buffer, entry)?;
        let len = u32::try_from(entry.len()).map_err(|_| WasiErrno::Fault)?;
        vector = vector.checked_add(4).ok_or(WasiErrno::Fault)?;
        buffer = buffer.checked_add(len).ok_or(WasiErrno::Fault)?;
    }
    Ok(())
}

pub fn args_sizes_get(host: &mut Host<'_>, count: OutInt, size: OutInt) -> Result {
    host.write_int(count, 0)?;
    Ok(host.write_int(size, 0)?)
}

pub fn args_get(_: &mut Host<'_>, _vector: OutPtr, _buffer: OutPtr) -> Result {
    Ok(())
}

pub fn sched_yield(_: &mut Host<'_>) -> Result {
    Ok(())
}

pub fn poll_oneoff(
    host: &mut Host<'_>,
    subscriptions: Ptr,
    events: OutPtr,
    count: Int,
    ready: OutInt,
) -> Result {
    standard::poll(host, Layout::PREVIEW1, subscriptions, events, count, ready)
}

/// Standard input is empty.
pub fn fd_read(host: &mut Host<'_>, fd: Int, _vectors: Ptr, _count: Int, read: OutInt) -> Result {
    if fd != STDIN {
        return Err(WasiErrno::BadF);
    }
    Ok(host.write_int(read, 0)?)
}

pub fn fd_fdstat_get(host: &mut Host<'_>, fd: Int, stat: OutPtr) -> Result {
    standard::fdstat(host, fd, stat)
}

pub fn fd_filestat_get(host: &mut Host<'_>, fd: Int, stat: OutPtr) -> Result {
    standard::filestat(host, Layout::PREVIEW1, fd, stat)
}

pub fn fd_fdstat_set_flags(_: &mut Host<'_>, fd: Int, _flags: Int) -> Result {
    standard::check(fd)
}

pub fn fd_close(_: &mut Host<'_>, fd: Int) -> Result {
    standard::check(fd)
}

pub fn fd_seek(_: &mut Host<'_>, fd: Int, _offset: Delta, _whence: Int, _position: OutLong) -> Result {
    standard::check(fd).and(Err(WasiErrno::SPipe))
}

pub fn fd_tell(_: &mut Host<'_>, fd: Int, _position: OutLong) -> Result {
    standard::check(fd).and(Err(WasiErrno::SPipe))
}

/// Functions on files, directories and sockets. There are none, so every descriptor is a bad one.
macro_rules! no_descriptor {
    ($($name:ident($($ty:ty),*);)*) => {
        $(pub fn $name(_: &mut Host<'_>, $(_: $ty),*) -> Result {
            Err(WasiErrno::BadF)
        })*
    };
}

no_descriptor! {
    fd_pread(Int, Ptr, Int, Long, OutInt);
    fd_pwrite(Int, Ptr, Int, Long, OutInt);
    fd_sync(Int);
    fd_datasync(Int);
    fd_advise(Int, Long, Long, Int);
    fd_allocate(Int, Long, Long);
    fd_renumber(Int, Int);
    fd_fdstat_set_rights(Int, Long, Long);
    fd_filestat_set_size(Int, Long);
    fd_filestat_set_times(Int, Long, Long, Int);
    fd_prestat_get(Int, OutPtr);
    fd_prestat_dir_name(Int, OutPtr, Len);
    fd_readdir(Int, OutPtr, Len, Long, OutInt);
    path_create_directory(Int, Ptr, Len);
    path_filestat_get(Int, Int, Ptr, Len, OutPtr);
    path_filestat_set_times(Int, Int, Ptr, Len, Long, Long, Int);
    path_link(Int, Int, Ptr, Len, Int, Ptr, Len);
    path_open(Int, Int, Ptr, Len, Int, Long, Long, Int, OutInt);
    path_readlink(Int, Ptr, Len, OutPtr, Len, OutInt);
    path_remove_directory(Int, Ptr, Len);
    path_rename(Int, Ptr, Len, Int, Ptr, Len);
    path_symlink(Ptr, Len, Int, Ptr, Len);
    path_unlink_file(Int, Ptr, Len);
    sock_accept(Int, Int, OutInt);
    sock_recv(Int, Ptr, Int, Int, OutInt, OutInt);
    sock_send(Int, Ptr, Int, Int, OutInt);
    sock_shutdown(Int, Int);
}

pub fn proc_raise(_: &mut Host<'_>, _signal: Int) -> Result {
    Err(WasiErrno::NoSys)
}

/// Gives the linker the functions that differ in `wasi_unstable`, in the place of those of preview 1.
pub fn link_unstable(linker: &mut Linker<Vm>) -> wasmtime::Result<()> {
    let [_, unstable] = WASI_MODULES;
    let status = |result: Result| result.err().map_or(0, u32::from);
    linker.allow_shadowing(true);
    linker.func_wrap(
        unstable,
        "poll_oneoff",
        move |caller: Caller<'_, Vm>, subscriptions: Ptr, events: OutPtr, count: Int, ready: OutInt| {
            let mut host = Host::new(caller);
            status(standard::poll(&mut host, Layout::UNSTABLE, subscriptions, events, count, ready))
        },
    )?;
    linker.func_wrap(unstable, "fd_filestat_get", move |caller: Caller<'_, Vm>, fd: Int, stat: OutPtr| {
        status(standard::filestat(&mut Host::new(caller), Layout::UNSTABLE, fd, stat))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}
