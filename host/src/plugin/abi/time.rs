//! The clock and the timer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Int, OutLong};
use crate::plugin::vm::Outgoing;

pub fn proxy_get_current_time_nanoseconds(host: &mut Host<'_>, time: OutLong) -> Answer {
    let now = host.vm().services.wall();
    Ok(host.write_long(time, unix_nanos(now))?)
}

pub fn proxy_set_tick_period_milliseconds(host: &mut Host<'_>, period: Int) -> Answer {
    let root = host.vm().root_mut()?;
    root.ticks_set += 1;
    root.tick = (period > 0).then(|| (Duration::from_millis(period.into()), root.ticks_set));
    let id = root.id;
    // One word of it is enough, however often it is set in one callback: each starts a timer of its own.
    let outbox = &mut host.vm().outbox;
    let told = outbox.iter().any(|outgoing| matches!(outgoing, Outgoing::Tick { root } if *root == id));
    if !told {
        outbox.push(Outgoing::Tick { root: id });
    }
    Ok(())
}

/// Nanoseconds since 1970, as Proxy-Wasm and WASI count time.
pub fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
