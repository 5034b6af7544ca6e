//! What comes later: gRPC calls and streams, and shared queues. What each function of theirs makes of its arguments.

use super::guest;
use super::guest::Arg::{N, Out, S};
use super::guest::Out::{Bytes, Int, Nothing};
use super::guest::Phase::{GrpcClose, GrpcInitial, GrpcMessage, GrpcTrailing, QueueReady, RequestHeaders};
use super::values::{BAD_ARGUMENT, HUGE, NOT_FOUND, OK, Row, SPLIT};

const PARSE_FAILURE: u32 = 4;
const EMPTY: u32 = 7;

/// A `GrpcService` message whose `envoy_grpc` names the cluster `up`, and one that names another.
const BY_MESSAGE: &[u8] = b"\x0a\x04\x0a\x02up";
const NOBODY: &[u8] = b"\x0a\x08\x0a\x06nobody";

/// What a call of this service answers, without metadata.
const fn call(service: &'static [u8]) -> [guest::Arg; 7] {
    [S(service), S(b"s"), S(b"m"), S(b""), S(b""), N(5000), Out]
}

/// The same of a stream.
const fn stream(service: &'static [u8]) -> [guest::Arg; 5] {
    [S(service), S(b"s"), S(b"m"), S(b""), Out]
}

const UNKNOWN: [&[u8]; 4] = [b"nobody", b"", b"\xff", NOBODY];

pub const GRPC: &[Row] = &[
    (RequestHeaders, "proxy_grpc_call", &call(b"up"), OK, &[Int(1)]),
    (RequestHeaders, "proxy_grpc_stream", &stream(b"up"), OK, &[Int(2)]),
    (RequestHeaders, "proxy_grpc_call", &call(BY_MESSAGE), OK, &[Int(3)]),
    (RequestHeaders, "proxy_grpc_call", &call(UNKNOWN[0]), PARSE_FAILURE, &[Nothing]),
    (RequestHeaders, "proxy_grpc_call", &call(UNKNOWN[1]), PARSE_FAILURE, &[Nothing]),
    (RequestHeaders, "proxy_grpc_stream", &stream(UNKNOWN[2]), PARSE_FAILURE, &[Nothing]),
    (RequestHeaders, "proxy_grpc_stream", &stream(UNKNOWN[3]), PARSE_FAILURE, &[Nothing]),
    (
        RequestHeaders,
        "proxy_grpc_call",
        &[S(b"up"), S(b"s"), S(b"m"), S(b""), S(b""), N(-1), Out],
        BAD_ARGUMENT,
        &[Nothing],
    ),
    // A path that is none.
    (
        RequestHeaders,
        "proxy_grpc_stream",
        &[S(b"up"), S(b"a b"), S(b"m"), S(b""), Out],
        BAD_ARGUMENT,
        &[Nothing],
    ),
    (
        RequestHeaders,
        "proxy_grpc_stream",
        &[S(b"up"), S(b"s"), S(b"\r\n"), S(b""), Out],
        BAD_ARGUMENT,
        &[Nothing],
    ),
    // What is no map is none; what is one and cannot be sent is refused.
    (RequestHeaders, "proxy_grpc_stream", &[S(b"up"), S(b"s"), S(b"m"), S(HUGE), Out], OK, &[Int(4)]),
    (
        RequestHeaders,
        "proxy_grpc_stream",
        &[S(b"up"), S(b"s"), S(b"m"), S(SPLIT), Out],
        BAD_ARGUMENT,
        &[Nothing],
    ),
    // A unary call has said everything.
    (RequestHeaders, "proxy_grpc_send", &[N(1), S(b"x"), N(0)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_grpc_send", &[N(2), S(b""), N(0)], OK, &[]),
    (RequestHeaders, "proxy_grpc_send", &[N(2), S(b"last"), N(1)], OK, &[]),
    // What comes after the end goes nowhere, as in Envoy.
    (RequestHeaders, "proxy_grpc_send", &[N(2), S(b"later"), N(0)], OK, &[]),
    (RequestHeaders, "proxy_grpc_close", &[N(2)], OK, &[]),
    (RequestHeaders, "proxy_grpc_close", &[N(4)], OK, &[]),
    (RequestHeaders, "proxy_grpc_close", &[N(4)], OK, &[]),
    (RequestHeaders, "proxy_grpc_cancel", &[N(4)], OK, &[]),
    (RequestHeaders, "proxy_grpc_cancel", &[N(4)], NOT_FOUND, &[]),
    (RequestHeaders, "proxy_grpc_send", &[N(4), S(b"x"), N(0)], NOT_FOUND, &[]),
    // A unary call that is closed is given up.
    (RequestHeaders, "proxy_grpc_close", &[N(1)], OK, &[]),
    (RequestHeaders, "proxy_grpc_close", &[N(1)], NOT_FOUND, &[]),
    (RequestHeaders, "proxy_grpc_send", &[N(0), S(b"x"), N(1)], NOT_FOUND, &[]),
    (RequestHeaders, "proxy_grpc_send", &[N(-1), S(b"x"), N(1)], NOT_FOUND, &[]),
    (RequestHeaders, "proxy_grpc_cancel", &[N(0)], NOT_FOUND, &[]),
    (RequestHeaders, "proxy_grpc_close", &[N(-1)], NOT_FOUND, &[]),
];

/// What comes of a stream of the guest's own, on which it said `ping`.
pub const GRPC_EVENTS: &[Row] = &[
    (GrpcInitial, "proxy_get_header_map_value", &[N(4), S(b"x-begin"), Out, Out], OK, &[Bytes(b"initial")]),
    (GrpcInitial, "proxy_get_header_map_value", &[N(5), S(b"x-end"), Out, Out], BAD_ARGUMENT, &[Nothing]),
    (GrpcInitial, "proxy_add_header_map_value", &[N(4), S(b"x-new"), S(b"1")], BAD_ARGUMENT, &[]),
    (GrpcMessage, "proxy_get_buffer_bytes", &[N(5), N(0), N(100), Out, Out], OK, &[Bytes(b"ping")]),
    (GrpcMessage, "proxy_get_buffer_bytes", &[N(5), N(1), N(2), Out, Out], OK, &[Bytes(b"in")]),
    (GrpcMessage, "proxy_get_buffer_status", &[N(5), Out, Out], OK, &[Int(4), Int(0)]),
    (GrpcMessage, "proxy_set_buffer_bytes", &[N(5), N(0), N(0), S(b"x")], NOT_FOUND, &[]),
    (GrpcTrailing, "proxy_get_header_map_value", &[N(5), S(b"x-end"), Out, Out], OK, &[Bytes(b"trailing")]),
    (GrpcTrailing, "proxy_get_header_map_value", &[N(4), S(b"x-begin"), Out, Out], BAD_ARGUMENT, &[Nothing]),
    (GrpcClose, "proxy_get_status", &[Out, Out, Out], OK, &[Int(7), Bytes(b"not for you")]),
];

pub const QUEUES: &[Row] = &[
    (RequestHeaders, "proxy_register_shared_queue", &[S(b"q"), Out], OK, &[Int(2)]),
    (RequestHeaders, "proxy_register_shared_queue", &[S(b"q"), Out], OK, &[Int(2)]),
    // The empty name is one.
    (RequestHeaders, "proxy_register_shared_queue", &[S(b""), Out], OK, &[Int(3)]),
    (RequestHeaders, "proxy_resolve_shared_queue", &[S(b""), S(b"q"), Out], OK, &[Int(2)]),
    (RequestHeaders, "proxy_resolve_shared_queue", &[S(b"vm"), S(b"q"), Out], OK, &[Int(2)]),
    (RequestHeaders, "proxy_resolve_shared_queue", &[S(b"vm"), S(b"none"), Out], NOT_FOUND, &[Nothing]),
    (RequestHeaders, "proxy_resolve_shared_queue", &[S(b"other"), S(b"q"), Out], NOT_FOUND, &[Nothing]),
    (RequestHeaders, "proxy_resolve_shared_queue", &[S(b"\xff"), S(b"q"), Out], NOT_FOUND, &[Nothing]),
    (RequestHeaders, "proxy_enqueue_shared_queue", &[N(2), S(b"")], OK, &[]),
    (RequestHeaders, "proxy_enqueue_shared_queue", &[N(2), S(b"item")], OK, &[]),
    (RequestHeaders, "proxy_enqueue_shared_queue", &[N(-1), S(b"x")], NOT_FOUND, &[]),
    (RequestHeaders, "proxy_enqueue_shared_queue", &[N(0), S(b"x")], NOT_FOUND, &[]),
    (RequestHeaders, "proxy_enqueue_shared_queue", &[N(4), S(b"x")], NOT_FOUND, &[]),
    (RequestHeaders, "proxy_dequeue_shared_queue", &[N(2), Out, Out], OK, &[Bytes(b"")]),
    (RequestHeaders, "proxy_dequeue_shared_queue", &[N(2), Out, Out], OK, &[Bytes(b"item")]),
    (RequestHeaders, "proxy_dequeue_shared_queue", &[N(2), Out, Out], EMPTY, &[Nothing]),
    (RequestHeaders, "proxy_dequeue_shared_queue", &[N(0), Out, Out], NOT_FOUND, &[Nothing]),
    (RequestHeaders, "proxy_dequeue_shared_queue", &[N(-1), Out, Out], NOT_FOUND, &[Nothing]),
    // The guest's own, which made it hear of it.
    (QueueReady, "proxy_dequeue_shared_queue", &[N(1), Out, Out], OK, &[Bytes(b"ready")]),
    (QueueReady, "proxy_dequeue_shared_queue", &[N(1), Out, Out], EMPTY, &[Nothing]),
];
