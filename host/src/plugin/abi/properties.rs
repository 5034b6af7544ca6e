//! Properties: what a guest may know of its stream and of where it is, by Envoy's attribute names.
//!
//! A path is names joined by NUL. `http.rs`, `peers.rs` and `place.rs` know the values, `value.rs` how each kind is
//! written; expressions (`abi/foreign`) read the same values. Where Envoy has a value in some phases only, Weir has it
//! in all in which it is known.

mod http;
mod message;
mod peers;
mod place;
mod value;

use smallvec::SmallVec;
use weir_abi::{Status, split_path};

use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Len, OutLen, OutPtr, Ptr};
use crate::plugin::grants::Right;
use crate::plugin::stream::Stream;
use crate::plugin::vm::{Starting, Vm};

pub use value::Value;

pub fn proxy_get_property(
    host: &mut Host<'_>,
    path: Ptr,
    path_len: Len,
    data: OutPtr,
    data_len: OutLen,
) -> Answer {
    let (path, vm) = host.bytes(path, path_len)?;
    let value = if path.is_empty() {
        Err(Status::SerializationFailure)
    } else {
        find(vm, path, |value| value.bytes()).unwrap_or(Err(Status::NotFound))
    };
    host.give(&value?, data, data_len)
}

pub fn proxy_set_property(
    host: &mut Host<'_>,
    path: Ptr,
    path_len: Len,
    value: Ptr,
    value_len: Len,
) -> Answer {
    let ((path, value), vm) = host.two((path, path_len), (value, value_len))?;
    let path = path.strip_suffix(&[0]).unwrap_or(path);
    // A property belongs to a stream, and a plugin as a whole has none.
    let context = vm.stream().map_err(|_| Status::NotFound)?;
    if !vm.may(Right::WriteProperties, "a property of its own") {
        return Err(Status::BadArgument.into());
    }
    let readonly = vm.root().is_ok_and(|root| root.kept.is_readonly(path));
    context.stream.borrow_mut().info.state.set_own(path, value, readonly)?;
    Ok(())
}

pub fn proxy_get_configuration(host: &mut Host<'_>, data: OutPtr, data_len: OutLen) -> Answer {
    let root = host.vm().root()?;
    let bytes = match root.starting {
        Some(Starting::Vm) => root.spec.vm_config.clone(),
        Some(Starting::Plugin) | None => root.spec.config.clone(),
    };
    host.give(&bytes, data, data_len)
}

/// Gives `f` the value of a property for the context that host functions act on; `None` when there is no such value.
pub fn find<T>(vm: &Vm, path: &[u8], f: impl FnOnce(Value<'_>) -> T) -> Option<T> {
    let segments = segments(path);
    if !may_read(vm, segments.first().copied().unwrap_or_default()) {
        return None;
    }
    if let Some(value) = vm.root().ok().and_then(|root| place::of_plugin(&root.spec, &segments)) {
        return Some(f(value));
    }
    in_stream(&vm.stream().ok()?.stream.borrow(), path, &segments, f)
}

/// Whether the filter may look at what has this first name. What its own plugin is called, it is always told: SDKs
/// find their way by it. And who is denied headers does not get them by another name.
fn may_read(vm: &Vm, first: &str) -> bool {
    if first.starts_with("plugin_") {
        return true;
    }
    let of_message = matches!(first, "request" | "response");
    vm.may(Right::ReadProperties, first) && (!of_message || vm.may(Right::ReadHeaders, first))
}

/// The value of a stream's property by its path, whose segments are joined by NUL: what Weir knows of the stream, or
/// else what a filter has set under that name. `None` when there is no such thing.
pub fn property(stream: &Stream, path: &[u8]) -> Option<Vec<u8>> {
    let bytes = |value: Value<'_>| value.bytes().ok().map(|bytes| bytes.to_vec());
    in_stream(stream, path, &segments(path), bytes).flatten()
}

/// Nothing has a longer path, and a guest may write millions of segments.
const MOST_SEGMENTS: usize = 32;

/// The segments of a path. None of one that is no text: it names nothing of the host's, but a filter may have set it.
fn segments(path: &[u8]) -> SmallVec<[&str; 4]> {
    let segments: Option<SmallVec<[&str; 4]>> =
        split_path(path).take(MOST_SEGMENTS).map(|part| str::from_utf8(part).ok()).collect();
    segments.unwrap_or_default()
}

fn in_stream<T>(
    stream: &Stream,
    path: &[u8],
    segments: &[&str],
    f: impl FnOnce(Value<'_>) -> T,
) -> Option<T> {
    if segments.first().is_some_and(|root| ROOTS.contains(root)) {
        return of_stream(stream, segments).map(f);
    }
    let own = path.strip_suffix(&[0]).unwrap_or(path);
    stream.info.state.own(own).map(|value| f(Value::Bytes(value)))
}

/// The first names of all that Weir or Envoy answers. Nothing of a guest's own stands in for one of them, not even
/// where it has no value.
const ROOTS: [&str; 22] = [
    "request",
    "response",
    "connection",
    "source",
    "destination",
    "upstream",
    "metadata",
    "filter_state",
    "upstream_filter_state",
    "xds",
    "node",
    "connection_id",
    "cluster_name",
    "cluster_metadata",
    "route_name",
    "route_metadata",
    "upstream_host_metadata",
    "listener_direction",
    "listener_metadata",
    "plugin_name",
    "plugin_root_id",
    "plugin_vm_id",
];

fn of_stream<'a>(stream: &'a Stream, segments: &[&str]) -> Option<Value<'a>> {
    match segments {
        ["request" | "response" | "connection" | "source" | "destination" | "upstream" | "filter_state"]
        | ["xds"] => Some(Value::Group),
        ["request", rest @ ..] => http::request(stream, rest),
        ["response", rest @ ..] => http::response(stream, rest),
        ["connection", name] => peers::connection(stream, name),
        ["source", name] => peers::address(stream.connection.peer, name),
        ["destination", name] => peers::address(stream.connection.local, name),
        ["upstream", "locality", path @ ..] => peers::locality(stream, path),
        ["upstream", name] => peers::upstream(stream, name),
        ["connection_id"] => Some(Value::Uint(stream.connection.id)),
        ["filter_state", key] => stream.info.state.get(key.as_bytes()).map(|value| Value::Bytes(value)),
        segments => place::of_stream(stream, segments),
    }
}
