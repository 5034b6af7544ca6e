//! The three standard descriptors: lines that become log lines, and events that are always ready.

use weir_abi::{LogLevel, WasiErrno};

use crate::plugin::abi::memory::Host;
use crate::plugin::abi::wasi::Result;
use crate::plugin::abi::{Int, OutInt, OutPtr, Ptr};
use crate::plugin::vm::Vm;

pub const STDIN: u32 = 0;
pub const STDOUT: u32 = 1;
pub const STDERR: u32 = 2;

/// The longest line; a longer one is cut in pieces.
const MAX_LINE: usize = 8 * 1024;

/// The most bytes that one write takes; the guest is told how many it were.
pub const MAX_WRITE: usize = 64 * 1024;

/// The most subscriptions of one call.
const MAX_SUBSCRIPTIONS: u32 = 1024;

/// What differs between the two module names. `wasi_unstable` is snapshot 0, older than preview 1. The order of
/// `whence` in `fd_seek` differs as well, but nothing can be sought here.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Bytes of a subscription: in snapshot 0 a clock has an identifier of its own before its id.
    subscription: u32,
    /// Where the id of a subscription's clock is.
    clock: usize,
    /// Bytes of a file's attributes: in snapshot 0 the count of links has 32 bits.
    filestat: usize,
}

impl Layout {
    /// `wasi_snapshot_preview1`
    pub const PREVIEW1: Self = Self { subscription: 48, clock: 16, filestat: 64 };
    /// `wasi_unstable`
    pub const UNSTABLE: Self = Self { subscription: 56, clock: 24, filestat: 56 };
}

/// Whether a descriptor is one of the three.
pub fn check(fd: u32) -> Result {
    if fd <= STDERR { Ok(()) } else { Err(WasiErrno::BadF) }
}

/// The beginnings of lines on stdout and stderr.
#[derive(Debug, Default)]
pub struct Lines([Vec<u8>; 2]);

/// Appends to a line, and logs the lines that are complete.
pub fn print(vm: &mut Vm, fd: u32, text: &[u8]) {
    let at = usize::from(fd == STDERR);
    for piece in text.split_inclusive(|&byte| byte == b'\n') {
        let mut rest = piece;
        while !rest.is_empty() {
            let Some(line) = vm.wasi.lines.0.get_mut(at) else { return };
            let room = MAX_LINE.saturating_sub(line.len()).min(rest.len());
            let (fits, more) = rest.split_at(room);
            line.extend_from_slice(fits);
            rest = more;
            if line.ends_with(b"\n") || line.len() >= MAX_LINE {
                log_line(vm, at);
            }
        }
    }
}

/// Logs what has been printed without an end of line: nothing more will come.
pub fn flush(vm: &mut Vm) {
    for at in 0..2 {
        if vm.wasi.lines.0.get(at).is_some_and(|line| !line.is_empty()) {
            log_line(vm, at);
        }
    }
}

fn log_line(vm: &mut Vm, at: usize) {
    let line = vm.wasi.lines.0.get_mut(at).map(std::mem::take).unwrap_or_default();
    let level = if at == 1 { LogLevel::Error } else { LogLevel::Info };
    vm.log(level, String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
}

/// A character device, with the rights that it has: reading for stdin, writing for the others.
pub fn fdstat(host: &mut Host<'_>, fd: Int, stat: OutPtr) -> Result {
    const SIZE: usize = 24;
    const RIGHTS: usize = 8;
    check(fd)?;
    let mut bytes = [0; SIZE];
    put(&mut bytes, 0, &[CHARACTER_DEVICE]);
    put(&mut bytes, RIGHTS, &[if fd == STDIN { FD_READ } else { FD_WRITE }]);
    Ok(host.write(stat, &bytes)?)
}

/// A character device, of which nothing else is known.
pub fn filestat(host: &mut Host<'_>, layout: Layout, fd: Int, stat: OutPtr) -> Result {
    const TYPE: usize = 16;
    check(fd)?;
    let mut bytes = vec![0; layout.filestat];
    put(&mut bytes, TYPE, &[CHARACTER_DEVICE]);
    Ok(host.write(stat, &bytes)?)
}

const CHARACTER_DEVICE: u8 = 2;
const FD_READ: u8 = 1 << 1;
const FD_WRITE: u8 = 1 << 6;

/// Nothing is waited for: every clock that the guest asks for has run down, and every descriptor is ready, at
/// once. What sleeps in a loop until the time has come uses up its CPU time.
pub fn poll(
    host: &mut Host<'_>,
    layout: Layout,
    subscriptions: Ptr,
    events: OutPtr,
    count: Int,
    ready: OutInt,
) -> Result {
    if count > MAX_SUBSCRIPTIONS {
        return Err(WasiErrno::Inval);
    }
    let asked = host.bytes(subscriptions, count * layout.subscription)?.0.to_vec();
    let mut told = Vec::new();
    for subscription in asked.chunks_exact(layout.subscription as usize) {
        told.extend_from_slice(&event(layout, subscription)?);
    }
    host.bytes(ready, 4)?;
    host.write(events, &told)?;
    Ok(host.write_int(ready, count)?)
}

/// What came of a subscription. Both layouts of it begin with a number of the guest's own and the kind; an event
/// is the same in both.
fn event(layout: Layout, subscription: &[u8]) -> std::result::Result<[u8; 32], WasiErrno> {
    const KIND: usize = 8;
    const DESCRIPTOR: usize = 16;
    const HANGUP: u8 = 1;
    let number = |at: usize| {
        let bytes = subscription.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes))
    };
    let kind = subscription.get(KIND).copied().unwrap_or(u8::MAX);
    let (error, bytes, flags) = match (kind, number(DESCRIPTOR)) {
        (0, _) if number(layout.clock) <= 3 => (WasiErrno::Success, 0, 0),
        (0, _) => (WasiErrno::NotSup, 0, 0),
        (1, STDIN) => (WasiErrno::Success, 0, HANGUP),
        (2, STDOUT | STDERR) => (WasiErrno::Success, MAX_WRITE as u64, 0),
        (1 | 2, _) => (WasiErrno::BadF, 0, 0),
        _ => return Err(WasiErrno::Inval),
    };
    let mut event = [0; 32];
    put(&mut event, 0, subscription.get(..8).unwrap_or_default());
    put(&mut event, 8, &u32::from(error).to_le_bytes()[..2]);
    put(&mut event, 10, &[kind]);
    put(&mut event, 16, &bytes.to_le_bytes());
    put(&mut event, 24, &[flags]);
    Ok(event)
}

/// Copies to a place that is there.
fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
