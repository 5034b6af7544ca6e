//! Metrics that guests define.

use std::sync::Arc;

use weir_abi::{MetricKind, Status};

use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Delta, Int, Len, Long, OutInt, OutLong, Ptr};
use crate::plugin::services::GuestMetric;
use crate::plugin::vm::Vm;

pub fn proxy_define_metric(
    host: &mut Host<'_>,
    kind: Int,
    name: Ptr,
    name_len: Len,
    metric: OutInt,
) -> Answer {
    let kind = MetricKind::try_from(kind).map_err(|_| Status::BadArgument)?;
    let (name, vm) = host.bytes(name, name_len)?;
    let name = str::from_utf8(name).map_err(|_| Status::BadArgument)?;
    if name.is_empty() || name.len() > MAX_NAME || vm.metrics.len() >= MAX_METRICS {
        return Err(Status::BadArgument.into());
    }
    let name = name.to_owned();
    let id = u32::try_from(vm.metrics.len() + 1).map_err(|_| Status::InternalFailure)?;
    let spec = Arc::clone(&vm.root()?.spec);
    // Nothing is defined for a guest that will not learn its number.
    host.check(metric, 4)?;
    let vm = host.vm();
    let defined = vm.services.define_metric(kind, &name, &spec.plugin, &spec.name)?;
    Arc::make_mut(&mut vm.metrics).push(defined);
    Ok(host.write_int(metric, id)?)
}

/// Metrics that one VM may define.
const MAX_METRICS: usize = 1024;

/// The longest name of a metric.
const MAX_NAME: usize = 256;

fn find(vm: &Vm, metric: u32) -> Result<&GuestMetric, Status> {
    let place = (metric as usize).checked_sub(1).ok_or(Status::NotFound)?;
    vm.metrics.get(place).ok_or(Status::NotFound)
}

pub fn proxy_record_metric(host: &mut Host<'_>, metric: Int, value: Long) -> Answer {
    match find(host.vm(), metric)? {
        // As in Envoy it is what a counter grows by.
        GuestMetric::Counter(counter) => counter.add(value),
        GuestMetric::Gauge(gauge) => gauge.set(i64::try_from(value).unwrap_or(i64::MAX)),
        GuestMetric::Histogram(histogram) => histogram.record_value(value),
    }
    Ok(())
}

pub fn proxy_increment_metric(host: &mut Host<'_>, metric: Int, by: Delta) -> Answer {
    match find(host.vm(), metric)? {
        GuestMetric::Counter(counter) => match u64::try_from(by) {
            Ok(by) if by > 0 => counter.add(by),
            Ok(_) | Err(_) => return Err(Status::BadArgument.into()),
        },
        GuestMetric::Gauge(gauge) => gauge.add(by),
        GuestMetric::Histogram(_) => return Err(Status::BadArgument.into()),
    }
    Ok(())
}

pub fn proxy_get_metric(host: &mut Host<'_>, metric: Int, value: OutLong) -> Answer {
    let current = match find(host.vm(), metric)? {
        GuestMetric::Counter(counter) => counter.value(),
        GuestMetric::Gauge(gauge) => gauge.value() as u64,
        GuestMetric::Histogram(_) => return Err(Status::BadArgument.into()),
    };
    Ok(host.write_long(value, current)?)
}
