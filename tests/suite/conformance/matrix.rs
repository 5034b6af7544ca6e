//! What each function answers in each phase.

use super::guest::Arg::{N, Out, S};
use super::guest::{Arg, Case, Phase, case};
use super::values::{REQUEST, STATE};
use super::{assert_right, guest, run_http, run_tcp};

const HTTP: [Phase; 21] = [
    Phase::Start,
    Phase::VmStart,
    Phase::Configure,
    Phase::Tick,
    Phase::Answer,
    Phase::Create,
    Phase::RequestHeaders,
    Phase::RequestBody,
    Phase::RequestTrailers,
    Phase::ResponseHeaders,
    Phase::ResponseBody,
    Phase::ResponseTrailers,
    Phase::Done,
    Phase::Log,
    Phase::Delete,
    Phase::GrpcInitial,
    Phase::GrpcMessage,
    Phase::GrpcTrailing,
    Phase::GrpcClose,
    Phase::QueueReady,
    Phase::RootDone,
];

/// A row: a function, its arguments, and a status for each phase as a digit. Start, VM start and configuration, timer and
/// answer; creation; headers, body and trailers of the request, and of the response; done, log and delete; what a gRPC
/// stream brings, a queue that is ready, and the end of the plugin. What is not tried is `.`.
type Row = (&'static str, &'static [Arg], &'static str);

const HTTP_ROWS: &[Row] = &[
    ("proxy_log", &[N(2), S(b"x")], "000000 000000 000 000000"),
    ("proxy_get_log_level", &[Out], "000000 000000 000 000000"),
    ("proxy_get_current_time_nanoseconds", &[Out], "000000 000000 000 000000"),
    ("proxy_set_tick_period_milliseconds", &[N(1)], "200000 000000 000 000000"),
    ("proxy_get_buffer_bytes", &[N(0), N(0), N(9), Out, Out], "111111 101111 111 111111"),
    ("proxy_get_buffer_bytes", &[N(1), N(0), N(9), Out, Out], "111111 111101 111 111111"),
    ("proxy_get_buffer_bytes", &[N(4), N(0), N(9), Out, Out], "211101 111111 111 111111"),
    ("proxy_get_buffer_bytes", &[N(6), N(0), N(9), Out, Out], "200000 000000 000 000000"),
    ("proxy_get_buffer_bytes", &[N(7), N(0), N(9), Out, Out], "200000 000000 000 000000"),
    ("proxy_get_buffer_bytes", &[N(5), N(0), N(9), Out, Out], "211111 111111 111 101111"),
    ("proxy_set_buffer_bytes", &[N(0), N(0), N(0), S(b"x")], "111111 101111 111 111111"),
    ("proxy_set_buffer_bytes", &[N(1), N(0), N(0), S(b"x")], "111111 111101 111 111111"),
    ("proxy_get_buffer_status", &[N(0), Out, Out], "111111 101111 111 111111"),
    ("proxy_get_header_map_size", &[N(0), Out], "222222 022222 202 222222"),
    ("proxy_get_header_map_pairs", &[N(0), Out, Out], "000000 000000 000 000000"),
    ("proxy_get_header_map_pairs", &[N(2), Out, Out], "000000 000000 000 000000"),
    ("proxy_set_header_map_pairs", &[N(0), S(b"")], "222222 022222 222 222222"),
    ("proxy_get_header_map_value", &[N(0), S(b":path"), Out, Out], "222222 022222 202 222222"),
    ("proxy_get_header_map_value", &[N(1), S(b"x-end"), Out, Out], "222222 220222 202 222222"),
    ("proxy_get_header_map_value", &[N(2), S(b":status"), Out, Out], "222222 222022 202 222222"),
    ("proxy_get_header_map_value", &[N(3), S(b"x-end"), Out, Out], "222222 222220 202 222222"),
    ("proxy_get_header_map_value", &[N(6), S(b":status"), Out, Out], "222202 222222 222 222222"),
    ("proxy_get_header_map_value", &[N(4), S(b"x-begin"), Out, Out], "222222 222222 222 022222"),
    ("proxy_get_header_map_value", &[N(5), S(b"x-end"), Out, Out], "222222 222222 222 220222"),
    ("proxy_add_header_map_value", &[N(0), S(b"x-new"), S(b"1")], "222222 022222 222 222222"),
    ("proxy_replace_header_map_value", &[N(0), S(b"x-new"), S(b"1")], "222222 022222 222 222222"),
    ("proxy_remove_header_map_value", &[N(0), S(b"x-new")], "222222 022222 222 222222"),
    ("proxy_continue_stream", &[N(0)], "200000 000000 000 000000"),
    ("proxy_continue_stream", &[N(1)], "200000 000000 000 000000"),
    ("proxy_close_stream", &[N(0)], "22222. ...... .00 222222"),
    ("proxy_continue_request", &[], "200000 000000 000 000000"),
    ("proxy_continue_response", &[], "200000 000000 000 000000"),
    ("proxy_clear_route_cache", &[], "222220 000000 000 222222"),
    ("proxy_send_local_response", &[N(200), S(b""), S(b""), S(b""), N(-1)], "20000. ...... .00 000000"),
    ("proxy_done", &[], "111111 111111 111 111111"),
    ("proxy_get_status", &[Out, Out, Out], "000000 000000 000 000000"),
    ("proxy_http_call", &[S(b"up"), S(REQUEST), S(b""), S(b""), N(5000), Out], "200000 000000 000 000000"),
    (
        "proxy_grpc_call",
        &[S(b"up"), S(b"s"), S(b"m"), S(b""), S(b""), N(5000), Out],
        "400000 000000 000 000000",
    ),
    ("proxy_grpc_stream", &[S(b"up"), S(b"s"), S(b"m"), S(b""), Out], "400000 000000 000 000000"),
    ("proxy_grpc_send", &[N(4242), S(b""), N(0)], "211111 111111 111 111111"),
    ("proxy_grpc_cancel", &[N(4242)], "211111 111111 111 111111"),
    ("proxy_grpc_close", &[N(4242)], "211111 111111 111 111111"),
    ("proxy_set_shared_data", &[S(b"key"), S(b"value"), N(0)], "000000 000000 000 000000"),
    ("proxy_get_shared_data", &[S(b"key"), Out, Out, Out], "000000 000000 000 000000"),
    ("proxy_register_shared_queue", &[S(b"queue"), Out], "200000 000000 000 000000"),
    ("proxy_resolve_shared_queue", &[S(b""), S(b"queue"), Out], "100000 000000 000 000000"),
    ("proxy_enqueue_shared_queue", &[N(1), S(b"x")], "100000 000000 000 000000"),
    ("proxy_dequeue_shared_queue", &[N(1), Out, Out], "100000 000000 000 000000"),
    ("proxy_define_metric", &[N(0), S(b"metric"), Out], "200000 000000 000 000000"),
    ("proxy_record_metric", &[N(4000), N(5)], "111111 111111 111 111111"),
    ("proxy_increment_metric", &[N(1), N(1)], "100000 000000 000 000000"),
    ("proxy_get_metric", &[N(1), Out], "100000 000000 000 000000"),
    ("proxy_get_property", &[S(b"plugin_name"), Out, Out], "100000 000000 000 000000"),
    ("proxy_get_property", &[S(b"request\0path"), Out, Out], "111110 000000 000 111111"),
    ("proxy_get_property", &[S(b"response\0code"), Out, Out], "111111 111000 000 111111"),
    ("proxy_get_property", &[S(b"connection_id"), Out, Out], "111110 000000 000 111111"),
    ("proxy_set_property", &[S(b"own"), S(b"1")], "111110 000000 000 111111"),
    ("proxy_get_configuration", &[Out, Out], "200000 000000 000 000000"),
    (
        "proxy_call_foreign_function",
        &[S(b"set_envoy_filter_state"), S(STATE), N(0), N(0)],
        "111110 000000 000 111111",
    ),
    // The last: what follows acts on that context.
    ("proxy_set_effective_context", &[N(1)], ".00000 000000 000 000000"),
];

const TCP: [Phase; 9] = [
    Phase::Create,
    Phase::NewConnection,
    Phase::DownstreamData,
    Phase::UpstreamData,
    Phase::DownstreamClose,
    Phase::UpstreamClose,
    Phase::Done,
    Phase::Log,
    Phase::Delete,
];

/// As [`HTTP_ROWS`]: creation and new connection; data and close, from downstream and from upstream; done, log and
/// delete.
const TCP_ROWS: &[Row] = &[
    ("proxy_get_buffer_bytes", &[N(2), N(0), N(9), Out, Out], "11 0111 111"),
    ("proxy_get_buffer_bytes", &[N(3), N(0), N(9), Out, Out], "11 1011 111"),
    ("proxy_get_buffer_bytes", &[N(0), N(0), N(9), Out, Out], "11 1111 111"),
    ("proxy_get_buffer_status", &[N(2), Out, Out], "11 0111 111"),
    ("proxy_set_buffer_bytes", &[N(2), N(0), N(0), S(b"")], "11 0111 111"),
    ("proxy_get_header_map_value", &[N(0), S(b":path"), Out, Out], "22 2222 212"),
    ("proxy_add_header_map_value", &[N(0), S(b"x-new"), S(b"1")], "22 2222 222"),
    ("proxy_continue_stream", &[N(2)], "00 0000 000"),
    ("proxy_continue_stream", &[N(3)], "00 0000 000"),
    ("proxy_send_local_response", &[N(200), S(b""), S(b""), S(b""), N(-1)], "00 0000 000"),
    ("proxy_get_property", &[S(b"request\0path"), Out, Out], "11 1111 111"),
    ("proxy_get_property", &[S(b"source\0port"), Out, Out], "00 0000 000"),
    ("proxy_get_property", &[S(b"connection_id"), Out, Out], "00 0000 000"),
    ("proxy_set_property", &[S(b"own"), S(b"1")], "00 0000 000"),
];

fn cases(phases: &[Phase], rows: &[Row]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (at, phase) in phases.iter().enumerate() {
        for (name, args, statuses) in rows {
            let statuses: Vec<char> = statuses.chars().filter(|c| *c != ' ').collect();
            assert_eq!(statuses.len(), phases.len(), "a status for each phase of {name}");
            if let Some(status) = statuses[at].to_digit(16) {
                cases.push(case(*phase, name, args, status, &[]));
            }
        }
    }
    cases
}

pub fn http() -> Vec<Case> {
    cases(&HTTP, HTTP_ROWS)
}

/// What is asked on a connection.
pub fn tcp() -> Vec<Case> {
    cases(&TCP, TCP_ROWS)
}

#[tokio::test]
async fn every_function_answers_with_the_status_of_its_phase_in_an_http_exchange() {
    assert_right(&run_http(&http(), guest::SOUND).await);
}

#[tokio::test]
async fn every_function_answers_with_the_status_of_its_phase_on_a_connection() {
    assert_right(&run_tcp(&tcp(), guest::SOUND).await);
}
