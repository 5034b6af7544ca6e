//! `compress` and `uncompress`: zlib (RFC 1950), as Envoy's.
//!
//! Two things bound them: the result has to fit into the guest's memory, and the work takes no more CPU time than
//! the guest itself has for one call.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status as Progress};
use weir_abi::Status;

use crate::clock::thread_cpu_time;
use crate::plugin::vm::Vm;

/// The most bytes of a result, whatever memory the guest has.
const MOST: usize = 16 << 20;

/// What is done between two looks at the clock.
const STEP: usize = 64 << 10;

pub fn compress(vm: &Vm, data: &[u8]) -> Result<Vec<u8>, Status> {
    let mut zlib = Compress::new(Compression::default(), true);
    work(vm, data, |input, last, out| {
        let (before, flush) =
            (zlib.total_in(), if last { FlushCompress::Finish } else { FlushCompress::None });
        let progress = zlib.compress_vec(input, out, flush).map_err(|_| Status::SerializationFailure)?;
        Ok((zlib.total_in() - before, progress))
    })
}

pub fn uncompress(vm: &Vm, data: &[u8]) -> Result<Vec<u8>, Status> {
    let mut zlib = Decompress::new(true);
    work(vm, data, |input, _, out| {
        let (before, written) = (zlib.total_in(), out.len());
        let progress = zlib.decompress_vec(input, out, FlushDecompress::None);
        let progress = progress.map_err(|_| Status::SerializationFailure)?;
        let read = zlib.total_in() - before;
        // There was room, and nothing came of what there is: the rest is missing.
        let stuck = read == 0 && out.len() == written;
        if stuck && progress != Progress::StreamEnd {
            Err(Status::SerializationFailure)
        } else {
            Ok((read, progress))
        }
    })
}

/// Has `step` work through `data` piece by piece, within the bounds. It is told whether a piece is the last, and
/// tells how much of it it has read.
fn work(
    vm: &Vm,
    data: &[u8],
    mut step: impl FnMut(&[u8], bool, &mut Vec<u8>) -> Result<(u64, Progress), Status>,
) -> Result<Vec<u8>, Status> {
    let (most, began) = (vm.limiter.limit().min(MOST), thread_cpu_time());
    let (mut rest, mut out) = (data, Vec::new());
    loop {
        let input = rest.get(..STEP).unwrap_or(rest);
        out.reserve_exact(STEP.min(most.saturating_sub(out.len())));
        let (read, progress) = step(input, input.len() == rest.len(), &mut out)?;
        rest = usize::try_from(read).ok().and_then(|read| rest.get(read..)).unwrap_or_default();
        if progress == Progress::StreamEnd {
            return Ok(out);
        }
        let full = out.len() >= most;
        if full || thread_cpu_time().saturating_sub(began) > vm.budget.limit() {
            return Err(Status::InternalFailure);
        }
    }
}
