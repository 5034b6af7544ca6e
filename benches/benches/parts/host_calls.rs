//! Host calls, one by one, by a guest that makes the same call many times in a callback. What a callback itself costs is in
//! `call`, and here in the row of no call.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use weir::plugin::vm::{Access, Intents};
use weir_abi::{BufferKind, MapKind, encode_pairs};
use weir_tests::made_up;
use weir_tests::trampoline::{ARENA, Allocator, Call, FUNCTIONS, MOST_CALLS, ROOTS, Trampoline, World, int};

static WORLD: LazyLock<World> = LazyLock::new(World::new);

/// Where results go, and what the host allocates in the guest.
const RESULT: usize = ARENA + 0x3000;
const ALLOCATED: u32 = ARENA as u32 + 0x4000;

/// Ample: nothing is cut off here.
const CPU: Duration = Duration::from_secs(5);

/// Of these each guest makes one: it begins something that counts towards a quota, ends that, or ends the stream.
const FEW: [&str; 7] = [
    "proxy_http_call",
    "proxy_grpc_call",
    "proxy_grpc_stream",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_send_local_response",
    "proxy_define_metric",
];

/// A guest with an HTTP stream.
struct Guest {
    trampoline: Trampoline,
    id: u32,
    /// Where the next text goes.
    free: usize,
}

impl Guest {
    fn start() -> Self {
        let mut trampoline = WORLD.start();
        let id = trampoline.instance.create_stream(ROOTS[0], 0, made_up::http(), CPU).expect("a context");
        let mut guest = Self { trampoline, id, free: ARENA };
        guest.refresh();
        guest
    }

    /// Puts the stream back to what it was.
    fn refresh(&mut self) {
        let context = self.trampoline.instance.stream(self.id).expect("a context");
        let mut access = Access::default();
        MapKind::ALL.iter().for_each(|kind| access.grant_map(*kind));
        BufferKind::ALL.iter().for_each(|kind| access.grant_buffer(*kind));
        context.access = access;
        context.intents = Intents::default();
        context.stream = made_up::http();
        (context.received, context.answered) = Default::default();
        made_up::fill(context);
        self.trampoline.instance.take_outgoing();
    }

    /// Puts a text into the guest's memory. Returns its address and length, as arguments.
    fn text(&mut self, text: &[u8]) -> [u64; 2] {
        let at = self.free;
        self.free += text.len();
        assert!(self.free <= RESULT, "there is room for the texts");
        self.trampoline.memory()[at..self.free].copy_from_slice(text);
        [at as u64, text.len() as u64]
    }

    fn map(&mut self, pairs: &[(&str, &str)]) -> [u64; 2] {
        let mut bytes = Vec::new();
        encode_pairs(|| pairs.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())), &mut bytes);
        self.text(&bytes)
    }

    /// Makes a call once, and returns the number that it leaves.
    fn first(&mut self, name: &str, args: &[u64]) -> u32 {
        let status = self.make(&[Call::new(name, args)]);
        assert_eq!(status, [0], "{name} with {args:?}");
        int(self.trampoline.memory(), RESULT)
    }

    fn make(&mut self, calls: &[Call]) -> Vec<u32> {
        self.trampoline
            .make(self.id, Allocator::Gives(ALLOCATED), calls)
            .expect("no call of these is a fault")
    }

    /// The arguments of a call that succeeds.
    fn arguments(&mut self, name: &str) -> Vec<u64> {
        const R: u64 = RESULT as u64;
        const OUT: [u64; 2] = [R, R + 8];
        let request = [(":method", "GET"), (":path", "/"), (":authority", "up")];
        match name {
            "proxy_log" => [&[2], &self.text(b"a line that somebody may want to read")[..]].concat(),
            "proxy_get_log_level" | "proxy_get_current_time_nanoseconds" => vec![R],
            "proxy_set_tick_period_milliseconds" => vec![1000],
            "proxy_get_buffer_bytes" => [&[0, 0, 15], &OUT[..]].concat(),
            "proxy_set_buffer_bytes" => {
                [&[0, 0, u64::from(u32::MAX)], &self.text(b"another body")[..]].concat()
            }
            "proxy_get_buffer_status" => [&[0], &OUT[..]].concat(),
            "proxy_get_header_map_size" => vec![0, R],
            "proxy_get_header_map_pairs" => [&[0], &OUT[..]].concat(),
            "proxy_set_header_map_pairs" => [&[0], &self.map(&request)[..]].concat(),
            "proxy_get_header_map_value" => [&[0], &self.text(b"user-agent")[..], &OUT].concat(),
            "proxy_add_header_map_value" | "proxy_replace_header_map_value" => {
                [&[0], &self.text(b"x-checked-tenant")[..], &self.text(b"payments")].concat()
            }
            "proxy_remove_header_map_value" => [&[0], &self.text(b"referer")[..]].concat(),
            "proxy_continue_stream" | "proxy_close_stream" => vec![0],
            "proxy_continue_request" | "proxy_continue_response" | "proxy_clear_route_cache" => vec![],
            "proxy_send_local_response" => {
                let (details, body) = (self.text(b"denied"), self.text(b"blocked\n"));
                [&[403], &details[..], &body, &[0, 0], &[u64::from(u32::MAX)]].concat()
            }
            "proxy_set_effective_context" => vec![self.id.into()],
            "proxy_done" => vec![],
            "proxy_get_status" => vec![R, R + 8, R + 16],
            "proxy_http_call" => {
                let (cluster, headers) = (self.text(b"up"), self.map(&request));
                [&cluster[..], &headers, &[0, 0, 0, 0, 1000, R]].concat()
            }
            "proxy_grpc_call" | "proxy_grpc_stream" => {
                let mut args =
                    [b"up".as_slice(), b"a.Service", b"Method"].map(|text| self.text(text)).concat();
                args.extend([0, 0]);
                if name == "proxy_grpc_call" {
                    args.extend(self.text(b"message"));
                    args.push(1000);
                }
                args.push(R);
                args
            }
            "proxy_grpc_send" | "proxy_grpc_close" | "proxy_grpc_cancel" => {
                let args = self.arguments("proxy_grpc_stream");
                let call = self.first("proxy_grpc_stream", &args);
                let mut args = vec![call.into()];
                if name == "proxy_grpc_send" {
                    args.extend(self.text(b"message"));
                    args.push(0);
                }
                args
            }
            "proxy_get_shared_data" => {
                let args = self.arguments("proxy_set_shared_data");
                self.first("proxy_set_shared_data", &args);
                [&args[..2], &[R, R + 8, R + 16]].concat()
            }
            "proxy_set_shared_data" => [&self.text(b"key")[..], &self.text(b"value"), &[0]].concat(),
            "proxy_register_shared_queue" => [&self.text(b"queue")[..], &[R]].concat(),
            "proxy_resolve_shared_queue" => {
                let args = self.arguments("proxy_register_shared_queue");
                self.first("proxy_register_shared_queue", &args);
                [&self.text(b"vm")[..], &args].concat()
            }
            "proxy_enqueue_shared_queue" | "proxy_dequeue_shared_queue" => {
                let args = self.arguments("proxy_register_shared_queue");
                let queue = self.first("proxy_register_shared_queue", &args).into();
                if name == "proxy_enqueue_shared_queue" {
                    return [&[queue], &self.text(b"value")[..]].concat();
                }
                [&[queue], &OUT[..]].concat()
            }
            "proxy_define_metric" => [&[0], &self.text(b"a_metric")[..], &[R]].concat(),
            "proxy_record_metric" | "proxy_increment_metric" | "proxy_get_metric" => {
                let args = self.arguments("proxy_define_metric");
                let metric = self.first("proxy_define_metric", &args).into();
                vec![metric, if name == "proxy_get_metric" { R } else { 1 }]
            }
            "proxy_get_property" => [&self.text(b"source\0address")[..], &OUT].concat(),
            "proxy_set_property" => [self.text(b"mine"), self.text(b"value")].concat(),
            "proxy_get_configuration" => OUT.to_vec(),
            "proxy_call_foreign_function" => {
                let create = [&self.text(b"expr_create")[..], &self.text(b"request.method == 'POST'"), &OUT];
                let written = self.first("proxy_call_foreign_function", &create.concat()) as usize;
                let token = self.trampoline.memory()[written..written + 4].to_vec();
                [&self.text(b"expr_evaluate")[..], &self.text(&token), &OUT].concat()
            }
            "environ_sizes_get" | "args_sizes_get" => OUT.to_vec(),
            "clock_time_get" => vec![1, 0, R],
            "random_get" => vec![R, 16],
            "fd_write" => {
                let [at, len] = self.text(b"a line\n");
                let vector = [at as u32, len as u32].map(u32::to_le_bytes).concat();
                [&[1, self.text(&vector)[0], 1], &[R][..]].concat()
            }
            _ => panic!("{name} has no row here: say how it is called"),
        }
    }
}

/// Host call by host call.
pub fn each(c: &mut Criterion) {
    let mut group = c.benchmark_group("host call");
    group.throughput(Throughput::Elements(1));
    let of_wasi = ["environ_sizes_get", "clock_time_get", "random_get", "fd_write"];
    let of_host = FUNCTIONS.iter().filter(|function| function.is_host()).map(|function| function.name);
    for name in [""].into_iter().chain(of_host).chain(of_wasi) {
        group.bench_function(if name.is_empty() { "none: an empty callback" } else { name }, |b| {
            b.iter_custom(|iterations| time(name, iterations));
        });
    }
    group.finish();
}

/// The time of so many callbacks, for one call of those that each makes.
fn time(name: &str, iterations: u64) -> Duration {
    let mut guest = Guest::start();
    let count = if FEW.contains(&name) { 1 } else { MOST_CALLS };
    let calls =
        if name.is_empty() { Vec::new() } else { vec![Call::new(name, &guest.arguments(name)); count] };
    let undo = opposite(name).map(|undo| vec![Call::new(undo, &guest.arguments(undo)); count]);
    let mut spent = Duration::ZERO;
    for _ in 0..iterations {
        if FEW.contains(&name) {
            guest = Guest::start();
            guest.arguments(name);
        } else {
            guest.refresh();
        }
        if let Some(undo) = &undo {
            // What it answers is of no interest: at first there is nothing to take.
            guest.make(undo);
        }
        guest.trampoline.stage(Allocator::Gives(ALLOCATED), &calls);
        let id = guest.id;
        let start = Instant::now();
        let called = guest.trampoline.instance.call(id, CPU, |callbacks| &callbacks.proxy_on_tick, (id,));
        spent += start.elapsed();
        called.expect("no call of these is a fault");
        let answers = guest.trampoline.answers(calls.len());
        assert!(answers.iter().all(|status| *status == answer(name)), "{name} answers {answers:?}");
    }
    spent / u32::try_from(count).expect("a few")
}

/// The call that undoes what another has done, and is to be made before that is made again.
fn opposite(name: &str) -> Option<&'static str> {
    match name {
        "proxy_enqueue_shared_queue" => Some("proxy_dequeue_shared_queue"),
        "proxy_dequeue_shared_queue" => Some("proxy_enqueue_shared_queue"),
        _ => None,
    }
}

/// What a call answers here.
fn answer(name: &str) -> u32 {
    match name {
        // Nothing is held back that could end.
        "proxy_done" => 1,
        _ => 0,
    }
}
