//! Where a filter is: its plugin, the node, and the listener, route and cluster of its stream.
//!
//! Envoy 1.40 has most of it below `xds`, and versions before it at the top. Weir answers both.

use crate::config::metadata::{Metadata, Node};
use crate::plugin::abi::properties::message;
use crate::plugin::abi::properties::value::Value;
use crate::plugin::spec::FilterSpec;
use crate::plugin::stream::Stream;

/// What is known outside of streams too.
pub fn of_plugin<'a>(spec: &'a FilterSpec, segments: &[&str]) -> Option<Value<'a>> {
    match segments {
        ["plugin_name"] => Value::text(&spec.name),
        ["plugin_root_id"] => Value::text(&spec.root_id),
        ["plugin_vm_id"] => Value::text(&spec.vm_id),
        ["xds", rest @ ("node" | "listener_direction" | "listener_metadata"), path @ ..] => {
            around(spec, rest, path)
        }
        [name, path @ ..] => around(spec, name, path),
        [] => None,
    }
}

fn around<'a>(spec: &'a FilterSpec, name: &str, path: &[&str]) -> Option<Value<'a>> {
    match (name, path) {
        ("node", path) => node(&spec.surroundings.node, path),
        ("listener_metadata", path) => metadata(&spec.surroundings.metadata, path),
        // Envoy's numbers: 0 unspecified, 1 inbound, 2 outbound. A gateway's listener is neither.
        ("listener_direction", []) => Some(Value::Int(0)),
        _ => None,
    }
}

/// What is known of a stream.
pub fn of_stream<'a>(stream: &'a Stream, segments: &[&str]) -> Option<Value<'a>> {
    let info = &stream.info;
    // The one that was chosen, or the one that the route plans.
    let cluster = || info.cluster.as_ref().or(info.route.as_ref()?.cluster.as_ref());
    match segments.strip_prefix(&["xds"]).unwrap_or(segments) {
        ["route_name"] => Value::text(&info.route.as_ref()?.name),
        ["route_metadata", path @ ..] => metadata(&info.route.as_ref()?.metadata, path),
        ["cluster_name"] => Value::text(&cluster()?.name),
        ["cluster_metadata", path @ ..] => metadata(&cluster()?.metadata, path),
        // Endpoints have none: in Envoy that is null, which cannot be written.
        ["upstream_host_metadata"] if info.upstream.is_some() => Some(Value::Group),
        // Nor has anything by which they are grouped.
        _ if segments == ["xds", "upstream_host_locality_metadata"] && info.upstream.is_some() => {
            Some(Value::Group)
        }
        // No filters run on the way to an endpoint that could leave something there.
        _ if segments == ["upstream_filter_state"] && info.upstream.is_some() => Some(Value::Group),
        // What filters tell each other in Envoy. Here they do that by properties.
        ["metadata", path @ ..] => nothing(path),
        // A listener has one chain, without a name.
        _ if segments == ["xds", "filter_chain_name"] => Value::text(""),
        _ => None,
    }
}

fn node<'a>(node: &'a Node, path: &[&str]) -> Option<Value<'a>> {
    match path {
        [] => Some(Value::Message(message::node(node))),
        ["id"] => Value::text(&node.id),
        ["cluster"] => Value::text(&node.cluster),
        ["metadata", rest @ ..] => Value::within_struct(&node.metadata.0, rest),
        ["locality"] => Some(Value::Message(message::locality(&node.locality))),
        ["locality", "region"] => Value::text(&node.locality.region),
        ["locality", "zone"] => Value::text(&node.locality.zone),
        ["locality", "sub_zone"] => Value::text(&node.locality.sub_zone),
        _ => None,
    }
}

fn metadata<'a>(metadata: &'a Metadata, path: &[&str]) -> Option<Value<'a>> {
    match path {
        [] => Some(Value::Message(message::metadata(metadata))),
        ["filter_metadata"] => Some(Value::Namespaces(metadata)),
        ["filter_metadata", name, rest @ ..] => Value::within_struct(&metadata.get(*name)?.0, rest),
        ["typed_filter_metadata"] => Some(Value::Nothing),
        _ => None,
    }
}

/// Metadata that nothing is in.
fn nothing<'a>(path: &[&str]) -> Option<Value<'a>> {
    match path {
        [] => Some(Value::Message(Vec::new())),
        ["filter_metadata" | "typed_filter_metadata"] => Some(Value::Nothing),
        _ => None,
    }
}
