//! What each function makes of its arguments: good ones, those at a boundary, and those that make no sense; and
//! what it writes.

use super::guest::Arg::{N, Out, S};
use super::guest::Out::{Any, Bytes, Int, Long, Nothing};
use super::guest::Phase::{
    Answer, Configure, RequestBody, RequestHeaders, RequestTrailers, ResponseBody, ResponseHeaders,
    ResponseTrailers,
};
use super::guest::{Arg, Case, Phase, case};
use super::{assert_right, guest, later, run_http};

pub const OK: u32 = 0;
pub const NOT_FOUND: u32 = 1;
pub const BAD_ARGUMENT: u32 = 2;
const SERIALIZATION_FAILURE: u32 = 3;
const INVALID_MEMORY: u32 = 6;
const CAS: u32 = 8;

/// A call, and what is to come of it.
pub type Row = (Phase, &'static str, &'static [Arg], u32, &'static [guest::Out]);

/// A request for a call: `GET`, `/`, `a`.
pub const REQUEST: &[u8] =
    b"\x03\0\0\0\x07\0\0\0\x03\0\0\0\x05\0\0\0\x01\0\0\0\x0a\0\0\0\x01\0\0\0:method\0GET\0:path\0/\0:authority\0a\0";
/// The same without its path.
const NO_PATH: &[u8] = b"\x02\0\0\0\x07\0\0\0\x03\0\0\0\x0a\0\0\0\x01\0\0\0:method\0GET\0:authority\0a\0";
/// The same with a line break in a header.
pub const SPLIT: &[u8] =
    b"\x04\0\0\0\x07\0\0\0\x03\0\0\0\x05\0\0\0\x01\0\0\0\x0a\0\0\0\x01\0\0\0\x01\0\0\0\x03\0\0\0\
    :method\0GET\0:path\0/\0:authority\0a\0x\0a\r\n\0";
/// `path` "envoy.string", `value` "1"; and the same of a key that nobody knows.
pub const STATE: &[u8] = b"\x0a\x0cenvoy.string\x12\x011";
const OWN_STATE: &[u8] = b"\x0a\x03own\x12\x011";
/// `x-set: 1`, and the same without its last NUL, with more behind it, and with a length beyond all bounds.
const ONE_PAIR: &[u8] = b"\x01\0\0\0\x05\0\0\0\x01\0\0\0x-set\x001\0";
const NO_NUL: &[u8] = b"\x01\0\0\0\x05\0\0\0\x01\0\0\0x-set\x001x";
const LONGER: &[u8] = b"\x01\0\0\0\x05\0\0\0\x01\0\0\0x-set\x001\0\0";
pub const HUGE: &[u8] = b"\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xffx-set\x001\0";
const MANY: &[u8] = b"\xff\xff\xff\xff";
const TOO_MANY: &[u8] = b"\x01\x04\0\0";

const LOG: &[Row] = &[
    (RequestHeaders, "proxy_log", &[N(0), S(b"")], OK, &[]),
    (RequestHeaders, "proxy_log", &[N(5), S(b"not \xff text\r\n")], OK, &[]),
    (RequestHeaders, "proxy_log", &[N(6), S(b"x")], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_log", &[N(-1), S(b"x")], BAD_ARGUMENT, &[]),
    // The tests run the gateway at its level `debug`.
    (RequestHeaders, "proxy_get_log_level", &[Out], OK, &[Int(1)]),
    (RequestHeaders, "proxy_get_current_time_nanoseconds", &[Out], OK, &[Any]),
    (RequestHeaders, "proxy_set_tick_period_milliseconds", &[N(-1)], OK, &[]),
    (RequestHeaders, "proxy_set_tick_period_milliseconds", &[N(0)], OK, &[]),
];

const BUFFERS: &[Row] = &[
    (RequestBody, "proxy_get_buffer_bytes", &[N(0), N(0), N(100), Out, Out], OK, &[Bytes(b"asked")]),
    (RequestBody, "proxy_get_buffer_bytes", &[N(0), N(1), N(3), Out, Out], OK, &[Bytes(b"ske")]),
    (RequestBody, "proxy_get_buffer_bytes", &[N(0), N(5), N(1), Out, Out], OK, &[Bytes(b"")]),
    (RequestBody, "proxy_get_buffer_bytes", &[N(0), N(6), N(1), Out, Out], OK, &[Bytes(b"")]),
    (RequestBody, "proxy_get_buffer_bytes", &[N(0), N(0), N(0), Out, Out], OK, &[Bytes(b"")]),
    (RequestBody, "proxy_get_buffer_bytes", &[N(0), N(0), N(0xffff_ffff), Out, Out], OK, &[Bytes(b"asked")]),
    (
        RequestBody,
        "proxy_get_buffer_bytes",
        &[N(0), N(1), N(0xffff_ffff), Out, Out],
        BAD_ARGUMENT,
        &[Nothing],
    ),
    (RequestBody, "proxy_get_buffer_bytes", &[N(9), N(0), N(1), Out, Out], BAD_ARGUMENT, &[Nothing]),
    (RequestBody, "proxy_get_buffer_bytes", &[N(-1), N(0), N(1), Out, Out], BAD_ARGUMENT, &[Nothing]),
    (RequestBody, "proxy_get_buffer_bytes", &[N(1), N(0), N(1), Out, Out], NOT_FOUND, &[Nothing]),
    (RequestBody, "proxy_get_buffer_bytes", &[N(5), N(0), N(1), Out, Out], NOT_FOUND, &[Nothing]),
    (RequestBody, "proxy_get_buffer_bytes", &[N(8), N(0), N(1), Out, Out], NOT_FOUND, &[Nothing]),
    (RequestBody, "proxy_get_buffer_status", &[N(0), Out, Out], OK, &[Int(5), Int(0)]),
    (RequestBody, "proxy_get_buffer_status", &[N(99), Out, Out], BAD_ARGUMENT, &[Nothing]),
    (RequestBody, "proxy_set_buffer_bytes", &[N(99), N(0), N(0), S(b"x")], BAD_ARGUMENT, &[]),
    (RequestBody, "proxy_set_buffer_bytes", &[N(1), N(0), N(0), S(b"x")], NOT_FOUND, &[]),
    (RequestBody, "proxy_set_buffer_bytes", &[N(5), N(0), N(0), S(b"x")], NOT_FOUND, &[]),
    (RequestBody, "proxy_set_buffer_bytes", &[N(8), N(0), N(0), S(b"x")], NOT_FOUND, &[]),
    (RequestBody, "proxy_set_buffer_bytes", &[N(0), N(2), N(0xffff_ffff), S(b"x")], BAD_ARGUMENT, &[]),
    // Before it, behind it, in the place of it all, and in the place of nothing.
    (RequestBody, "proxy_set_buffer_bytes", &[N(0), N(0), N(0), S(b"<")], OK, &[]),
    (RequestBody, "proxy_set_buffer_bytes", &[N(0), N(0xffff_ff00), N(0), S(b">")], OK, &[]),
    (RequestBody, "proxy_get_buffer_bytes", &[N(0), N(0), N(100), Out, Out], OK, &[Bytes(b"<asked>")]),
    (RequestBody, "proxy_set_buffer_bytes", &[N(0), N(0), N(0xffff_ffff), S(b"")], OK, &[]),
    (RequestBody, "proxy_get_buffer_bytes", &[N(0), N(0), N(100), Out, Out], OK, &[Bytes(b"")]),
    (RequestBody, "proxy_set_buffer_bytes", &[N(0), N(0), N(0), S(b"new")], OK, &[]),
    (RequestBody, "proxy_get_buffer_bytes", &[N(0), N(0), N(100), Out, Out], OK, &[Bytes(b"new")]),
    (ResponseBody, "proxy_get_buffer_bytes", &[N(1), N(0), N(100), Out, Out], OK, &[Bytes(b"answered")]),
    (Configure, "proxy_get_buffer_bytes", &[N(7), N(0), N(100), Out, Out], OK, &[Bytes(b"for the plugin")]),
    (Configure, "proxy_get_buffer_bytes", &[N(7), N(4), N(3), Out, Out], OK, &[Bytes(b"the")]),
    (Configure, "proxy_get_configuration", &[Out, Out], OK, &[Bytes(b"for the plugin")]),
    (Phase::VmStart, "proxy_get_buffer_bytes", &[N(6), N(0), N(100), Out, Out], OK, &[Bytes(b"for the VM")]),
    (Phase::VmStart, "proxy_get_configuration", &[Out, Out], OK, &[Bytes(b"for the VM")]),
];

const HEADERS: &[Row] = &[
    (RequestHeaders, "proxy_get_header_map_size", &[N(99), Out], BAD_ARGUMENT, &[Nothing]),
    (RequestHeaders, "proxy_get_header_map_size", &[N(-1), Out], BAD_ARGUMENT, &[Nothing]),
    (RequestHeaders, "proxy_get_header_map_size", &[N(4), Out], BAD_ARGUMENT, &[Nothing]),
    (RequestHeaders, "proxy_get_header_map_pairs", &[N(8), Out, Out], BAD_ARGUMENT, &[Nothing]),
    (
        RequestHeaders,
        "proxy_get_header_map_value",
        &[N(0), S(b"User-Agent"), Out, Out],
        OK,
        &[Bytes(b"test")],
    ),
    (RequestHeaders, "proxy_get_header_map_value", &[N(0), S(b"x-many"), Out, Out], OK, &[Bytes(b"1")]),
    (RequestHeaders, "proxy_get_header_map_value", &[N(0), S(b":method"), Out, Out], OK, &[Bytes(b"POST")]),
    (RequestHeaders, "proxy_get_header_map_value", &[N(0), S(b"none"), Out, Out], NOT_FOUND, &[Nothing]),
    (RequestHeaders, "proxy_get_header_map_value", &[N(0), S(b""), Out, Out], NOT_FOUND, &[Nothing]),
    (RequestHeaders, "proxy_get_header_map_value", &[N(0), S(b"\xff\xfe"), Out, Out], NOT_FOUND, &[Nothing]),
    (RequestHeaders, "proxy_get_header_map_value", &[N(99), S(b":path"), Out, Out], BAD_ARGUMENT, &[Nothing]),
    (RequestHeaders, "proxy_add_header_map_value", &[N(0), S(b"x-new"), S(b"")], OK, &[]),
    (RequestHeaders, "proxy_get_header_map_value", &[N(0), S(b"x-new"), Out, Out], OK, &[Bytes(b"")]),
    (RequestHeaders, "proxy_add_header_map_value", &[N(0), S(b"x-new"), S(b"a\r\nb: c")], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_add_header_map_value", &[N(0), S(b"x-new"), S(b"a\0b")], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_add_header_map_value", &[N(0), S(b"x new"), S(b"1")], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_add_header_map_value", &[N(0), S(b""), S(b"1")], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_add_header_map_value", &[N(0), S(b":new"), S(b"1")], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_add_header_map_value", &[N(99), S(b"x-new"), S(b"1")], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_replace_header_map_value", &[N(0), S(b"X-Many"), S(b"one")], OK, &[]),
    (RequestHeaders, "proxy_get_header_map_value", &[N(0), S(b"x-many"), Out, Out], OK, &[Bytes(b"one")]),
    (
        RequestHeaders,
        "proxy_replace_header_map_value",
        &[N(0), S(b":method"), S(b"BAD METHOD")],
        BAD_ARGUMENT,
        &[],
    ),
    (RequestHeaders, "proxy_replace_header_map_value", &[N(0), S(b":path"), S(b"")], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_replace_header_map_value", &[N(0), S(b":path"), S(b"/a b")], BAD_ARGUMENT, &[]),
    (
        RequestHeaders,
        "proxy_replace_header_map_value",
        &[N(0), S(b":authority"), S(b"a b")],
        BAD_ARGUMENT,
        &[],
    ),
    (RequestHeaders, "proxy_replace_header_map_value", &[N(0), S(b":scheme"), S(b"ftp")], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_remove_header_map_value", &[N(0), S(b"x-many")], OK, &[]),
    (RequestHeaders, "proxy_remove_header_map_value", &[N(0), S(b"x-many")], OK, &[]),
    (RequestHeaders, "proxy_remove_header_map_value", &[N(0), S(b":method")], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_remove_header_map_value", &[N(99), S(b"x-many")], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_set_header_map_pairs", &[N(0), S(NO_NUL)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_set_header_map_pairs", &[N(0), S(LONGER)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_set_header_map_pairs", &[N(0), S(HUGE)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_set_header_map_pairs", &[N(0), S(MANY)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_set_header_map_pairs", &[N(0), S(TOO_MANY)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_set_header_map_pairs", &[N(0), S(ONE_PAIR)], OK, &[]),
    (RequestHeaders, "proxy_get_header_map_value", &[N(0), S(b"x-set"), Out, Out], OK, &[Bytes(b"1")]),
    // The pseudo-headers stay.
    (
        RequestHeaders,
        "proxy_get_header_map_value",
        &[N(0), S(b":path"), Out, Out],
        OK,
        &[Bytes(b"/path?query")],
    ),
    (RequestHeaders, "proxy_set_header_map_pairs", &[N(0), S(b"\0")], OK, &[]),
    (RequestTrailers, "proxy_get_header_map_pairs", &[N(1), Out, Out], OK, &[Bytes(REQUEST_TRAILERS)]),
    (RequestTrailers, "proxy_get_header_map_size", &[N(1), Out], OK, &[Int(12)]),
    (RequestTrailers, "proxy_remove_header_map_value", &[N(1), S(b"x-end")], OK, &[]),
    (RequestTrailers, "proxy_get_header_map_size", &[N(1), Out], OK, &[Int(0)]),
    (RequestTrailers, "proxy_get_header_map_pairs", &[N(1), Out, Out], OK, &[Bytes(b"")]),
    (ResponseHeaders, "proxy_get_header_map_value", &[N(2), S(b":status"), Out, Out], OK, &[Bytes(b"200")]),
    (ResponseHeaders, "proxy_replace_header_map_value", &[N(2), S(b":status"), S(b"99")], BAD_ARGUMENT, &[]),
    (ResponseHeaders, "proxy_replace_header_map_value", &[N(2), S(b":status"), S(b"101")], BAD_ARGUMENT, &[]),
    (ResponseHeaders, "proxy_remove_header_map_value", &[N(2), S(b":status")], BAD_ARGUMENT, &[]),
    (
        ResponseTrailers,
        "proxy_get_header_map_value",
        &[N(3), S(b"x-end"), Out, Out],
        OK,
        &[Bytes(b"response")],
    ),
    (Answer, "proxy_get_header_map_value", &[N(6), S(b":status"), Out, Out], OK, &[Bytes(b"200")]),
    (Answer, "proxy_get_header_map_value", &[N(7), S(b"x-end"), Out, Out], OK, &[Bytes(b"response")]),
    (Answer, "proxy_get_buffer_bytes", &[N(4), N(0), N(100), Out, Out], OK, &[Bytes(b"answered")]),
    // An answer is only read.
    (Answer, "proxy_add_header_map_value", &[N(6), S(b"x-new"), S(b"1")], BAD_ARGUMENT, &[]),
    (Answer, "proxy_set_buffer_bytes", &[N(4), N(0), N(0), S(b"x")], NOT_FOUND, &[]),
];

const REQUEST_TRAILERS: &[u8] = b"\x01\0\0\0\x05\0\0\0\x07\0\0\0x-end\0request\0";

const STREAMS: &[Row] = &[
    (RequestHeaders, "proxy_continue_stream", &[N(4)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_continue_stream", &[N(-1)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_close_stream", &[N(4)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_close_stream", &[N(-1)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_continue_request", &[], OK, &[]),
    (RequestHeaders, "proxy_continue_response", &[], OK, &[]),
    (RequestHeaders, "proxy_clear_route_cache", &[], OK, &[]),
    // It is no context, and in no context's name nothing can be done to a stream.
    (RequestTrailers, "proxy_set_effective_context", &[N(0)], OK, &[]),
    (RequestTrailers, "proxy_close_stream", &[N(0)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_set_effective_context", &[N(-1)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_set_effective_context", &[N(424_242)], BAD_ARGUMENT, &[]),
    // Of what the stream is not.
    (RequestHeaders, "proxy_continue_stream", &[N(2)], OK, &[]),
    (RequestHeaders, "proxy_close_stream", &[N(3)], OK, &[]),
    (RequestHeaders, "proxy_done", &[], NOT_FOUND, &[]),
    (RequestHeaders, "proxy_get_status", &[Out, Out, Out], OK, &[Int(0), Bytes(b"")]),
    // It ends the exchange, so it is last; the matrix has it, too.
    (Phase::Log, "proxy_send_local_response", &[N(999), S(b""), S(b""), S(MANY), N(-1)], OK, &[]),
];

const CALLS: &[Row] = &[
    (
        RequestHeaders,
        "proxy_http_call",
        &[S(b"up"), S(REQUEST), S(b"body"), S(ONE_PAIR), N(5000), Out],
        OK,
        &[Any],
    ),
    (RequestHeaders, "proxy_http_call", &[S(b"up"), S(REQUEST), S(b""), S(b""), N(0), Out], OK, &[Any]),
    (
        RequestHeaders,
        "proxy_http_call",
        &[S(b"up"), S(REQUEST), S(b""), S(b""), N(-1), Out],
        BAD_ARGUMENT,
        &[Nothing],
    ),
    (
        RequestHeaders,
        "proxy_http_call",
        &[S(b"nobody"), S(REQUEST), S(b""), S(b""), N(100), Out],
        BAD_ARGUMENT,
        &[Nothing],
    ),
    (
        RequestHeaders,
        "proxy_http_call",
        &[S(b"\xff"), S(REQUEST), S(b""), S(b""), N(100), Out],
        BAD_ARGUMENT,
        &[Nothing],
    ),
    (
        RequestHeaders,
        "proxy_http_call",
        &[S(b""), S(REQUEST), S(b""), S(b""), N(100), Out],
        BAD_ARGUMENT,
        &[Nothing],
    ),
    (
        RequestHeaders,
        "proxy_http_call",
        &[S(b"up"), S(b""), S(b""), S(b""), N(100), Out],
        BAD_ARGUMENT,
        &[Nothing],
    ),
    (
        RequestHeaders,
        "proxy_http_call",
        &[S(b"up"), S(NO_PATH), S(b""), S(b""), N(100), Out],
        BAD_ARGUMENT,
        &[Nothing],
    ),
    (
        RequestHeaders,
        "proxy_http_call",
        &[S(b"up"), S(SPLIT), S(b""), S(b""), N(100), Out],
        BAD_ARGUMENT,
        &[Nothing],
    ),
    (
        RequestHeaders,
        "proxy_http_call",
        &[S(b"up"), S(REQUEST), S(b""), S(HUGE), N(100), Out],
        BAD_ARGUMENT,
        &[Nothing],
    ),
];

const SHARED: &[Row] = &[
    (RequestHeaders, "proxy_get_shared_data", &[S(b"none"), Out, Out, Out], NOT_FOUND, &[Nothing, Nothing]),
    (RequestHeaders, "proxy_set_shared_data", &[S(b"a"), S(b"one"), N(0)], OK, &[]),
    (RequestHeaders, "proxy_get_shared_data", &[S(b"a"), Out, Out, Out], OK, &[Bytes(b"one"), Int(1)]),
    (RequestHeaders, "proxy_set_shared_data", &[S(b"a"), S(b"two"), N(77)], CAS, &[]),
    (RequestHeaders, "proxy_set_shared_data", &[S(b"a"), S(b"two"), N(1)], OK, &[]),
    (RequestHeaders, "proxy_get_shared_data", &[S(b"a"), Out, Out, Out], OK, &[Bytes(b"two"), Int(2)]),
    (RequestHeaders, "proxy_set_shared_data", &[S(b"b"), S(b""), N(99)], OK, &[]),
    (RequestHeaders, "proxy_get_shared_data", &[S(b"b"), Out, Out, Out], OK, &[Bytes(b""), Int(1)]),
    (RequestHeaders, "proxy_set_shared_data", &[S(b""), S(b"no name"), N(0)], OK, &[]),
    (RequestHeaders, "proxy_get_shared_data", &[S(b""), Out, Out, Out], OK, &[Bytes(b"no name"), Int(1)]),
];

const METRICS: &[Row] = &[
    // Whoever does not learn the number of a metric has not defined it.
    (RequestHeaders, "proxy_define_metric", &[N(0), S(b"lost"), N(guest::MEMORY)], INVALID_MEMORY, &[]),
    (RequestHeaders, "proxy_define_metric", &[N(0), S(b"counter"), Out], OK, &[Int(1)]),
    (RequestHeaders, "proxy_define_metric", &[N(1), S(b"gauge"), Out], OK, &[Int(2)]),
    (RequestHeaders, "proxy_define_metric", &[N(2), S(b"histogram"), Out], OK, &[Int(3)]),
    (RequestHeaders, "proxy_define_metric", &[N(3), S(b"x"), Out], BAD_ARGUMENT, &[Nothing]),
    (RequestHeaders, "proxy_define_metric", &[N(-1), S(b"x"), Out], BAD_ARGUMENT, &[Nothing]),
    (RequestHeaders, "proxy_define_metric", &[N(0), S(b""), Out], BAD_ARGUMENT, &[Nothing]),
    (RequestHeaders, "proxy_define_metric", &[N(0), S(b"\xff"), Out], BAD_ARGUMENT, &[Nothing]),
    (RequestHeaders, "proxy_increment_metric", &[N(1), N(3)], OK, &[]),
    (RequestHeaders, "proxy_increment_metric", &[N(1), N(0)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_increment_metric", &[N(1), N(-1)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_record_metric", &[N(1), N(1)], OK, &[]),
    (RequestHeaders, "proxy_get_metric", &[N(1), Out], OK, &[Long(4)]),
    (RequestHeaders, "proxy_record_metric", &[N(2), N(7)], OK, &[]),
    (RequestHeaders, "proxy_increment_metric", &[N(2), N(-2)], OK, &[]),
    (RequestHeaders, "proxy_get_metric", &[N(2), Out], OK, &[Long(5)]),
    (RequestHeaders, "proxy_record_metric", &[N(3), N(5)], OK, &[]),
    (RequestHeaders, "proxy_increment_metric", &[N(3), N(1)], BAD_ARGUMENT, &[]),
    (RequestHeaders, "proxy_get_metric", &[N(3), Out], BAD_ARGUMENT, &[Nothing]),
    (RequestHeaders, "proxy_increment_metric", &[N(0), N(1)], NOT_FOUND, &[]),
    (RequestHeaders, "proxy_record_metric", &[N(-1), N(1)], NOT_FOUND, &[]),
    (RequestHeaders, "proxy_get_metric", &[N(4), Out], NOT_FOUND, &[Nothing]),
];

const PROPERTIES: &[Row] = &[
    (RequestHeaders, "proxy_get_property", &[S(b"plugin_name"), Out, Out], OK, &[Bytes(b"guest")]),
    (RequestHeaders, "proxy_get_property", &[S(b"plugin_root_id\0"), Out, Out], OK, &[Bytes(b"root")]),
    (RequestHeaders, "proxy_get_property", &[S(b"plugin_vm_id"), Out, Out], OK, &[Bytes(b"vm")]),
    (RequestHeaders, "proxy_get_property", &[S(b"request\0url_path"), Out, Out], OK, &[Bytes(b"/path")]),
    (RequestHeaders, "proxy_get_property", &[S(b"request\0headers\0X-Many"), Out, Out], OK, &[Bytes(b"1,2")]),
    (RequestHeaders, "proxy_get_property", &[S(b""), Out, Out], SERIALIZATION_FAILURE, &[Nothing]),
    (RequestHeaders, "proxy_get_property", &[S(b"\0"), Out, Out], NOT_FOUND, &[Nothing]),
    (RequestHeaders, "proxy_get_property", &[S(b"request"), Out, Out], SERIALIZATION_FAILURE, &[Nothing]),
    (RequestHeaders, "proxy_get_property", &[S(b"request\0\0path"), Out, Out], NOT_FOUND, &[Nothing]),
    (RequestHeaders, "proxy_get_property", &[S(b"no\0such"), Out, Out], NOT_FOUND, &[Nothing]),
    (RequestHeaders, "proxy_set_property", &[S(b"own\0thing"), S(b"1")], OK, &[]),
    (RequestHeaders, "proxy_get_property", &[S(b"own\0thing\0"), Out, Out], OK, &[Bytes(b"1")]),
    (RequestHeaders, "proxy_set_property", &[S(b"plugin_name"), S(b"another")], OK, &[]),
    (RequestHeaders, "proxy_get_property", &[S(b"plugin_name"), Out, Out], OK, &[Bytes(b"guest")]),
    // A name that is no text is one nevertheless.
    (RequestHeaders, "proxy_set_property", &[S(b"\xff\xfe"), S(b"2")], OK, &[]),
    (RequestHeaders, "proxy_get_property", &[S(b"\xff\xfe"), Out, Out], OK, &[Bytes(b"2")]),
    (
        ResponseHeaders,
        "proxy_get_property",
        &[S(b"response\0code"), Out, Out],
        OK,
        &[Bytes(b"\xc8\0\0\0\0\0\0\0")],
    ),
    (ResponseHeaders, "proxy_get_property", &[S(b"own\0thing"), Out, Out], OK, &[Bytes(b"1")]),
    (RequestHeaders, "proxy_get_configuration", &[Out, Out], OK, &[Bytes(b"for the plugin")]),
    (RequestHeaders, "proxy_call_foreign_function", &[S(b"none"), S(b""), Out, Out], NOT_FOUND, &[Nothing]),
    (RequestHeaders, "proxy_call_foreign_function", &[S(b""), S(b""), Out, Out], NOT_FOUND, &[Nothing]),
    (
        RequestHeaders,
        "proxy_call_foreign_function",
        &[S(b"set_envoy_filter_state"), S(STATE), N(0), N(0)],
        OK,
        &[],
    ),
    (RequestHeaders, "proxy_get_property", &[S(b"filter_state\0envoy.string"), Out, Out], OK, &[Bytes(b"1")]),
    (
        RequestHeaders,
        "proxy_call_foreign_function",
        &[S(b"set_envoy_filter_state"), S(OWN_STATE), N(0), N(0)],
        NOT_FOUND,
        &[],
    ),
    (
        RequestHeaders,
        "proxy_call_foreign_function",
        &[S(b"set_envoy_filter_state"), S(b"\x0a\xff"), N(0), N(0)],
        BAD_ARGUMENT,
        &[],
    ),
    (
        RequestHeaders,
        "proxy_call_foreign_function",
        &[S(b"set_envoy_filter_state"), S(HUGE), N(0), N(0)],
        BAD_ARGUMENT,
        &[],
    ),
];

fn topics() -> [&'static [Row]; 11] {
    [
        LOG,
        BUFFERS,
        HEADERS,
        STREAMS,
        CALLS,
        SHARED,
        METRICS,
        PROPERTIES,
        later::GRPC,
        later::GRPC_EVENTS,
        later::QUEUES,
    ]
}

/// All of them, in their order.
pub fn all() -> Vec<Case> {
    let row = |(phase, name, args, status, out): &Row| case(*phase, name, args, *status, out);
    topics().concat().iter().map(row).collect()
}

/// The same, topic by topic.
pub fn by_topic() -> impl Iterator<Item = Vec<Case>> {
    let row = |(phase, name, args, status, out): &Row| case(*phase, name, args, *status, out);
    topics().into_iter().map(move |topic| topic.iter().map(row).collect())
}

#[tokio::test]
async fn every_function_makes_of_its_arguments_what_the_contract_says() {
    // Topic by topic: what one changes is not to disturb another.
    for topic in by_topic() {
        assert_right(&run_http(&topic, guest::SOUND).await);
    }
}
