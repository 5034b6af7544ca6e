//! `set_envoy_filter_state`: values that mean something to the proxy.

use std::net::{IpAddr, SocketAddr};

use weir_abi::{FilterState, Status, TCP_PROXY_CLUSTER};

use crate::plugin::grants::Right;
use crate::plugin::vm::Vm;

/// What a value has to look like.
#[derive(Debug, Clone, Copy)]
enum Form {
    Text,
    Number,
    Ip,
    Address,
}

/// The keys that Envoy 1.40 can set from text. Weir acts on the first. It keeps the others, so that filters which set
/// them run; other filters read them as properties.
const KEYS: &[(&str, Form)] = &[
    (TCP_PROXY_CLUSTER, Form::Text),
    ("envoy.filters.listener.original_dst.local_ip", Form::Address),
    ("envoy.filters.listener.original_dst.remote_ip", Form::Address),
    ("envoy.hashable_string", Form::Text),
    ("envoy.network.application_protocols", Form::Text),
    ("envoy.network.ip", Form::Ip),
    ("envoy.network.network_namespace", Form::Text),
    ("envoy.network.transport_socket.original_dst_address", Form::Address),
    ("envoy.network.upstream_server_name", Form::Text),
    ("envoy.network.upstream_subject_alt_names", Form::Text),
    ("envoy.ratelimit.hits_addend", Form::Number),
    ("envoy.string", Form::Text),
    ("envoy.tcp_proxy.disable_tunneling", Form::Text),
    ("envoy.tcp_proxy.per_connection_idle_timeout_ms", Form::Number),
    ("envoy.upstream.dynamic_host", Form::Text),
    ("envoy.upstream.dynamic_port", Form::Number),
];

pub fn set(vm: &mut Vm, argument: &[u8]) -> Result<(), Status> {
    let state = FilterState::decode(argument).map_err(|_| Status::BadArgument)?;
    let (_, form) = KEYS.iter().find(|(key, _)| *key == state.path).ok_or(Status::NotFound)?;
    if !form.fits(state.value) {
        return Err(Status::BadArgument);
    }
    let right = if state.path == TCP_PROXY_CLUSTER { Right::Route } else { Right::FilterState };
    if !vm.may(right, state.path) {
        return Err(Status::NotFound);
    }
    let context = vm.stream().map_err(|_| Status::NotFound)?;
    context.stream.borrow_mut().info.state.set(state.path.as_bytes(), state.value)
}

impl Form {
    fn fits(self, value: &[u8]) -> bool {
        let text = str::from_utf8(value);
        match self {
            Self::Text => true,
            Self::Number => text.is_ok_and(|text| text.parse::<u64>().is_ok()),
            Self::Ip => text.is_ok_and(|text| text.parse::<IpAddr>().is_ok()),
            Self::Address => text.is_ok_and(|text| text.parse::<SocketAddr>().is_ok()),
        }
    }
}
