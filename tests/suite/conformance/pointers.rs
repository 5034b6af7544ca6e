//! Addresses that are wrong: of arguments and of results, beyond the memory, across its end, and around the end of
//! all addresses. Nothing of it is done, whatever else the call asks for.

use weir_tests::trampoline::{FUNCTIONS, Kind, function};

use super::guest::Arg::{N, Out, S};
use super::guest::Phase::{RequestBody, RequestHeaders};
use super::guest::{Arg, Case, MEMORY, Phase, Value, values};
use super::values::{REQUEST, STATE};
use super::{assert_right, guest, run_http};

/// A call that answers with this status when its addresses are good.
type Good = (&'static str, Phase, &'static [Arg], u32);

const BAD_DESCRIPTOR: u32 = 8;

const GOOD: &[Good] = &[
    ("proxy_log", RequestHeaders, &[N(2), S(b"x")], 0),
    ("proxy_get_log_level", RequestHeaders, &[Out], 0),
    ("proxy_get_current_time_nanoseconds", RequestHeaders, &[Out], 0),
    ("proxy_set_tick_period_milliseconds", RequestHeaders, &[N(0)], 0),
    ("proxy_get_buffer_bytes", RequestBody, &[N(0), N(0), N(9), Out, Out], 0),
    ("proxy_set_buffer_bytes", RequestBody, &[N(0), N(0), N(0), S(b"x")], 0),
    ("proxy_get_buffer_status", RequestBody, &[N(0), Out, Out], 0),
    ("proxy_get_header_map_size", RequestHeaders, &[N(0), Out], 0),
    ("proxy_get_header_map_pairs", RequestHeaders, &[N(0), Out, Out], 0),
    ("proxy_set_header_map_pairs", RequestHeaders, &[N(0), S(b"")], 0),
    ("proxy_get_header_map_value", RequestHeaders, &[N(0), S(b":path"), Out, Out], 0),
    ("proxy_add_header_map_value", RequestHeaders, &[N(0), S(b"x-new"), S(b"1")], 0),
    ("proxy_replace_header_map_value", RequestHeaders, &[N(0), S(b"x-new"), S(b"1")], 0),
    ("proxy_remove_header_map_value", RequestHeaders, &[N(0), S(b"x-new")], 0),
    ("proxy_continue_stream", RequestHeaders, &[N(0)], 0),
    ("proxy_close_stream", RequestHeaders, &[N(0)], 0),
    ("proxy_continue_request", RequestHeaders, &[], 0),
    ("proxy_continue_response", RequestHeaders, &[], 0),
    ("proxy_clear_route_cache", RequestHeaders, &[], 0),
    ("proxy_send_local_response", RequestHeaders, &[N(200), S(b""), S(b""), S(b""), N(-1)], 0),
    ("proxy_set_effective_context", RequestHeaders, &[N(1)], 0),
    ("proxy_done", RequestHeaders, &[], 1),
    ("proxy_get_status", RequestHeaders, &[Out, Out, Out], 0),
    ("proxy_http_call", RequestHeaders, &[S(b"up"), S(REQUEST), S(b""), S(b""), N(5000), Out], 0),
    ("proxy_grpc_call", RequestHeaders, &[S(b"up"), S(b"s"), S(b"m"), S(b""), S(b""), N(5000), Out], 0),
    ("proxy_grpc_stream", RequestHeaders, &[S(b"up"), S(b"s"), S(b"m"), S(b""), Out], 0),
    ("proxy_grpc_send", RequestHeaders, &[N(1), S(b"x"), N(0)], 0),
    ("proxy_grpc_cancel", RequestHeaders, &[N(4000)], 1),
    ("proxy_grpc_close", RequestHeaders, &[N(1)], 0),
    ("proxy_set_shared_data", RequestHeaders, &[S(b"key"), S(b"value"), N(0)], 0),
    ("proxy_get_shared_data", RequestHeaders, &[S(b"key"), Out, Out, Out], 0),
    ("proxy_register_shared_queue", RequestHeaders, &[S(b"queue"), Out], 0),
    ("proxy_resolve_shared_queue", RequestHeaders, &[S(b""), S(b"queue"), Out], 0),
    ("proxy_enqueue_shared_queue", RequestHeaders, &[N(1), S(b"x")], 0),
    ("proxy_dequeue_shared_queue", RequestHeaders, &[N(1), Out, Out], 0),
    ("proxy_define_metric", RequestHeaders, &[N(0), S(b"metric"), Out], 0),
    ("proxy_record_metric", RequestHeaders, &[N(1), N(1)], 0),
    ("proxy_increment_metric", RequestHeaders, &[N(1), N(1)], 0),
    ("proxy_get_metric", RequestHeaders, &[N(1), Out], 0),
    ("proxy_get_property", RequestHeaders, &[S(b"plugin_name"), Out, Out], 0),
    ("proxy_set_property", RequestHeaders, &[S(b"own"), S(b"1")], 0),
    ("proxy_get_configuration", RequestHeaders, &[Out, Out], 0),
    ("proxy_call_foreign_function", RequestHeaders, &[S(b"set_envoy_filter_state"), S(STATE), Out, Out], 0),
    ("args_sizes_get", RequestHeaders, &[Out, Out], 0),
    ("environ_sizes_get", RequestHeaders, &[Out, Out], 0),
    ("environ_get", RequestHeaders, &[N(0x80), N(0xa0)], 0),
    ("clock_res_get", RequestHeaders, &[N(0), Out], 0),
    ("clock_time_get", RequestHeaders, &[N(0), N(0), Out], 0),
    ("random_get", RequestHeaders, &[N(0x80), N(8)], 0),
    ("sched_yield", RequestHeaders, &[], 0),
    ("fd_write", RequestHeaders, &[N(1), N(0x140), N(1), Out], 0),
    ("fd_read", RequestHeaders, &[N(0), N(0x140), N(0), Out], 0),
    ("fd_fdstat_get", RequestHeaders, &[N(1), N(0x80)], 0),
    ("fd_filestat_get", RequestHeaders, &[N(1), N(0xc0)], 0),
    ("fd_fdstat_set_flags", RequestHeaders, &[N(1), N(0)], 0),
    ("fd_close", RequestHeaders, &[N(1)], 0),
    ("fd_seek", RequestHeaders, &[N(1), N(0), N(0), Out], 70),
    ("fd_tell", RequestHeaders, &[N(1), Out], 70),
    // A timer of no time, which is what memory full of nulls asks for.
    ("poll_oneoff", RequestHeaders, &[N(0x30), N(0x60), N(1), Out], 0),
    ("proc_raise", RequestHeaders, &[N(9)], 52),
    // There are no arguments, so that nothing is written.
    ("args_get", RequestHeaders, &[N(0x80), N(0x80)], 0),
];

/// Every function with a call that is good: those above, and what WASI has of files and sockets, which are not there.
pub fn good() -> Vec<(&'static str, Phase, Vec<Value>, u32)> {
    let row = |(name, phase, args, status): &Good| (*name, *phase, values(args), *status);
    let mut all: Vec<_> = GOOD.iter().map(row).collect();
    for function in FUNCTIONS.iter().filter(|f| !f.is_host()) {
        if all.iter().all(|(name, ..)| *name != function.name) {
            let args = function.params.iter().map(|_| Value::Number(0)).collect();
            all.push((function.name, RequestHeaders, args, BAD_DESCRIPTOR));
        }
    }
    all
}

/// Whether a parameter is an address.
pub fn is_address(kind: &Kind) -> bool {
    match kind {
        Kind::Ptr | Kind::OutInt | Kind::OutLong | Kind::OutPtr | Kind::OutLen => true,
        Kind::Int | Kind::Long | Kind::Delta | Kind::Len => false,
    }
}

/// Parameters that a function does not look at.
const IGNORED: &[(&str, usize)] = &[("args_get", 0), ("args_get", 1), ("fd_read", 1)];

/// Addresses and lengths of arguments that are not in memory.
const BAD_BYTES: [(i64, i64); 8] = [
    (MEMORY, 1),
    (MEMORY - 1, 2),
    (0xffff_ffff, 1),
    (16, 0xffff_ffff),
    (16, 0x7fff_ffff),
    (0xffff_fff0, 0x20),
    (0x8000_0000, 0x8000_0000),
    (1, MEMORY),
];

/// The good calls, with one address at a time gone bad.
pub fn hostile() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, phase, args, status) in good() {
        let signature = FUNCTIONS[function(name)];
        let refused = if signature.is_host() { 6 } else { 21 };
        for (at, kind) in signature.params.iter().enumerate() {
            // What is not there is refused before anything is looked at.
            let status = if status != 0 || IGNORED.contains(&(name, at)) { status } else { refused };
            let mut push = |changes: &[(usize, i64)]| {
                let mut args = args.clone();
                changes.iter().for_each(|(at, number)| args[*at] = Value::Number(*number));
                cases.push(Case { phase, function: name, args, status, out: Vec::new() });
            };
            match kind {
                Kind::Ptr if signature.params.get(at + 1) == Some(&Kind::Len) => {
                    BAD_BYTES.iter().for_each(|(ptr, len)| push(&[(at, *ptr), (at + 1, *len)]));
                }
                Kind::Ptr | Kind::OutInt | Kind::OutLong | Kind::OutPtr | Kind::OutLen => {
                    [MEMORY, MEMORY - 1, 0xffff_ffff, 0x8000_0000].iter().for_each(|ptr| push(&[(at, *ptr)]));
                }
                Kind::Int | Kind::Long | Kind::Delta | Kind::Len => {}
            }
        }
    }
    cases
}

/// The good calls, with results at the very beginning and the very end of memory, and all in the same place.
fn at_the_edge() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, phase, args, status) in good() {
        let signature = FUNCTIONS[function(name)];
        let is_out = |kind: &Kind| is_address(kind) && *kind != Kind::Ptr;
        let places: Vec<usize> = (0..args.len())
            .filter(|at| is_out(&signature.params[*at]) && args[*at] == Value::Place)
            .collect();
        let mut push = |place: &dyn Fn(&Kind) -> i64, which: &[usize]| {
            let mut args = args.clone();
            which.iter().for_each(|at| args[*at] = Value::Number(place(&signature.params[*at])));
            cases.push(Case { phase, function: name, args, status, out: Vec::new() });
        };
        let last = |kind: &Kind| if *kind == Kind::OutLong { MEMORY - 8 } else { MEMORY - 4 };
        for at in &places {
            push(&|_| 0, &[*at]);
            push(&last, &[*at]);
        }
        if !places.is_empty() {
            push(&|_| 0x101, &places);
        }
    }
    cases
}

#[tokio::test]
async fn no_function_reads_or_writes_outside_of_the_guests_memory() {
    assert_right(&run_http(&with_data(hostile()), guest::SOUND).await);
}

#[tokio::test]
async fn results_may_stand_at_either_end_of_memory_or_all_in_one_place() {
    assert_right(&run_http(&with_data(at_the_edge()), guest::SOUND).await);
}

/// With what the good calls find: a value of shared data, a metric, a gRPC stream and a queue, each the first of its
/// kind, and enough in the queue for all who take something out.
pub fn with_data(cases: Vec<Case>) -> Vec<Case> {
    let call = |name, args: &[Arg], out: &[guest::Out]| guest::case(RequestHeaders, name, args, 0, out);
    let first = [guest::Out::Int(1)];
    let mut all = vec![
        call("proxy_set_shared_data", &[S(b"key"), S(b"value"), N(0)], &[]),
        call("proxy_define_metric", &[N(0), S(b"first"), Out], &first),
        call("proxy_grpc_stream", &[S(b"up"), S(b"s"), S(b"m"), S(b""), Out], &first),
        call("proxy_register_shared_queue", &[S(b"queue"), Out], &first),
    ];
    let takers = cases.iter().filter(|case| case.function == "proxy_dequeue_shared_queue").count();
    let filled = call("proxy_enqueue_shared_queue", &[N(1), S(b"value")], &[]);
    all.extend(std::iter::repeat_n(filled, takers));
    [all, cases].concat()
}

/// What a refusal for the sake of an address leaves behind: nothing. A queue, a call, a metric or a value of a filter's
/// that nobody knows of could never be undone.
#[tokio::test]
async fn what_is_refused_for_a_bad_address_has_not_been_done() {
    let call =
        |name, args: &[Arg], status, out: &[guest::Out]| guest::case(RequestHeaders, name, args, status, out);
    let queue = |name: &'static [u8]| [S(b""), S(name), Out];
    let state = [S(b"set_envoy_filter_state"), S(STATE), N(MEMORY), Out];
    assert_right(
        &run_http(
            &[
                call("proxy_register_shared_queue", &[S(b"lost"), N(MEMORY)], 6, &[]),
                call("proxy_resolve_shared_queue", &queue(b"lost"), 1, &[guest::Out::Nothing]),
                call("proxy_register_shared_queue", &[S(b"kept"), Out], 0, &[guest::Out::Int(1)]),
                call("proxy_enqueue_shared_queue", &[N(1), S(b"value")], 0, &[]),
                call("proxy_dequeue_shared_queue", &[N(1), N(MEMORY), Out], 6, &[]),
                call("proxy_dequeue_shared_queue", &[N(1), Out, N(MEMORY)], 6, &[]),
                call("proxy_dequeue_shared_queue", &[N(1), Out, Out], 0, &[guest::Out::Bytes(b"value")]),
                call("proxy_grpc_stream", &[S(b"up"), S(b"s"), S(b"m"), S(b""), N(MEMORY)], 6, &[]),
                call("proxy_http_call", &[S(b"up"), S(REQUEST), S(b""), S(b""), N(0), N(MEMORY)], 6, &[]),
                // Neither took a token that could be guessed.
                call("proxy_grpc_cancel", &[N(1)], 1, &[]),
                call("proxy_grpc_cancel", &[N(2)], 1, &[]),
                call("proxy_define_metric", &[N(0), S(b"lost"), N(MEMORY)], 6, &[]),
                call("proxy_get_metric", &[N(1), Out], 1, &[guest::Out::Nothing]),
                call("proxy_call_foreign_function", &state, 6, &[]),
                call(
                    "proxy_get_property",
                    &[S(b"filter_state\0envoy.string"), Out, Out],
                    1,
                    &[guest::Out::Nothing],
                ),
            ],
            guest::SOUND,
        )
        .await,
    );
}
