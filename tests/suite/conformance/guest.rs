//! Writes a guest, in WebAssembly's own text, that makes given calls in given callbacks.
//!
//! Every call becomes a line of the log: its number, its status, and what was written where results belong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use weir_tests::guests::wat;
use weir_tests::trampoline::{FUNCTIONS, Kind, Signature, function};

/// When a call is made: the first time that the guest is called there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// `_initialize`, before there is any context.
    Start,
    VmStart,
    Configure,
    Tick,
    /// The answer to an HTTP call of the guest's own.
    Answer,
    /// What a gRPC stream of the guest's own brings.
    GrpcInitial,
    GrpcMessage,
    GrpcTrailing,
    GrpcClose,
    /// Something is in a queue of the guest's own.
    QueueReady,
    /// The context of a stream is created.
    Create,
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
    NewConnection,
    DownstreamData,
    UpstreamData,
    DownstreamClose,
    UpstreamClose,
    Done,
    Log,
    Delete,
    /// The plugin itself is done, when the gateway stops.
    RootDone,
}

impl Phase {
    /// The export, its type, and what it returns.
    fn export(self) -> (&'static str, &'static str, &'static str) {
        let (name, params, result) = match self {
            Self::Start => ("_initialize", "", ""),
            Self::VmStart => ("proxy_on_vm_start", "i32 i32", "1"),
            Self::Configure => ("proxy_on_configure", "i32 i32", "1"),
            Self::Tick => ("proxy_on_tick", "i32", ""),
            Self::Answer => ("proxy_on_http_call_response", "i32 i32 i32 i32 i32", ""),
            Self::GrpcInitial => ("proxy_on_grpc_receive_initial_metadata", "i32 i32 i32", ""),
            Self::GrpcMessage => ("proxy_on_grpc_receive", "i32 i32 i32", ""),
            Self::GrpcTrailing => ("proxy_on_grpc_receive_trailing_metadata", "i32 i32 i32", ""),
            Self::GrpcClose => ("proxy_on_grpc_close", "i32 i32 i32", ""),
            Self::QueueReady => ("proxy_on_queue_ready", "i32 i32", ""),
            Self::Create => ("proxy_on_context_create", "i32 i32", ""),
            Self::RequestHeaders => ("proxy_on_request_headers", "i32 i32 i32", "0"),
            Self::RequestBody => ("proxy_on_request_body", "i32 i32 i32", "0"),
            Self::RequestTrailers => ("proxy_on_request_trailers", "i32 i32", "0"),
            Self::ResponseHeaders => ("proxy_on_response_headers", "i32 i32 i32", "0"),
            Self::ResponseBody => ("proxy_on_response_body", "i32 i32 i32", "0"),
            Self::ResponseTrailers => ("proxy_on_response_trailers", "i32 i32", "0"),
            Self::NewConnection => ("proxy_on_new_connection", "i32", "0"),
            Self::DownstreamData => ("proxy_on_downstream_data", "i32 i32 i32", "0"),
            Self::UpstreamData => ("proxy_on_upstream_data", "i32 i32 i32", "0"),
            Self::DownstreamClose => ("proxy_on_downstream_connection_close", "i32 i32", ""),
            Self::UpstreamClose => ("proxy_on_upstream_connection_close", "i32 i32", ""),
            Self::Done => ("proxy_on_done", "i32", "1"),
            Self::Log => ("proxy_on_log", "i32", ""),
            Self::Delete => ("proxy_on_delete", "i32", ""),
            // It is told by the same callback as a stream, with the id of the plugin, which is 1.
            Self::RootDone => ("root done", "i32", ""),
        };
        (name, params, result)
    }
}

/// An argument.
#[derive(Debug, Clone, Copy)]
pub enum Arg {
    /// A number.
    N(i64),
    /// The address of some bytes, and how many they are.
    S(&'static [u8]),
    /// A place for a result.
    Out,
}

/// What was written where a result belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// Whatever it is.
    Any,
    /// A number.
    Int(u32),
    /// A number of 64 bits.
    Long(u64),
    /// Bytes that were given to the guest.
    Bytes(&'static [u8]),
    /// Nothing: what was there before.
    Nothing,
}

/// A call and what is to come of it.
#[derive(Debug, Clone)]
pub struct Case {
    pub phase: Phase,
    pub function: &'static str,
    /// One for each parameter.
    pub args: Vec<Value>,
    pub status: u32,
    /// In the order of the results; empty: whatever they are.
    pub out: Vec<Out>,
}

/// The value of a parameter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Number(i64),
    /// The address of some bytes.
    Address(&'static [u8]),
    /// The address of eight bytes of the call's own.
    Place,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number:#x}"),
            Self::Address(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Place => f.write_str("_"),
        }
    }
}

/// The values of arguments: a text has an address and a length.
pub fn values(args: &[Arg]) -> Vec<Value> {
    let value = |arg: &Arg| match arg {
        Arg::N(number) => vec![Value::Number(*number)],
        Arg::S(bytes) => vec![Value::Address(bytes), Value::Number(bytes.len() as i64)],
        Arg::Out => vec![Value::Place],
    };
    args.iter().flat_map(value).collect()
}

pub fn case(phase: Phase, function: &'static str, args: &[Arg], status: u32, out: &[Out]) -> Case {
    Case { phase, function, args: values(args), status, out: out.to_vec() }
}

/// Bytes of memory that the guest has at first.
pub const MEMORY: i64 = 8 << 16;

const LINE: usize = 0x200;
const TEXTS: usize = 0x1000;
const PLACES: usize = 0x10000;
const FIRST_FREE: usize = 0x40000;
/// What is in a place before the host writes there.
pub const FILL: u8 = 0xaa;

/// A sound allocator.
pub const SOUND: &str = "(local.set $at (global.get $heap))
    (global.set $heap (i32.add (local.get $at) (local.get $len))) (local.get $at)";

/// The guest that makes these calls. `allocator` is the body of its `malloc`, which has `$len` and a local `$at`.
pub fn guest(cases: &[Case], allocator: &str) -> Vec<u8> {
    let mut memory = Memory::default();
    let mut bodies: BTreeMap<Phase, String> = BTreeMap::new();
    for (number, case) in cases.iter().enumerate() {
        let code = call(number, case, &mut memory);
        bodies.entry(case.phase).or_default().push_str(&code);
    }
    let used: BTreeSet<&str> = cases.iter().map(|case| case.function).collect();
    let mut imports = String::new();
    // Those that the guest calls on its own account, too.
    for Signature { module, name, params } in FUNCTIONS.iter() {
        if used.contains(name) || OWN_CALLS.contains(name) {
            let types: Vec<&str> = params.iter().map(ty).collect();
            let types = types.join(" ");
            writeln!(imports, "(import \"{module}\" \"{name}\" (func ${name} (param {types}) (result i32)))")
                .expect("a string");
        }
    }
    provoke(&mut bodies, &mut memory);
    let rooted = bodies.contains_key(&Phase::RootDone);
    let exports: String = bodies.iter().map(|(phase, body)| export(*phase, body, rooted)).collect();
    wat(&format!(
        r#"(module {imports}
        (memory (export "memory") 8)
        (global $heap (mut i32) (i32.const {FIRST_FREE}))
        (global $end (mut i32) (i32.const {LINE}))
        (data (i32.const {LINE}) "case ")
        (data (i32.const 0x180) "0123456789abcdef")
        (data (i32.const {TEXTS}) "{}")
        (data (i32.const {PLACES}) "{}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param $len i32) (result i32) (local $at i32) {allocator})
        (func $put (param $byte i32)
            (i32.store8 (global.get $end) (local.get $byte))
            (global.set $end (i32.add (global.get $end) (i32.const 1))))
        (func $hex (param $byte i32)
            (call $put (i32.load8_u offset=0x180 (i32.and (i32.shr_u (local.get $byte) (i32.const 4)) (i32.const 15))))
            (call $put (i32.load8_u offset=0x180 (i32.and (local.get $byte) (i32.const 15)))))
        (func $begin (param $number i32)
            (global.set $end (i32.const {})) 
            (call $hex (i32.shr_u (local.get $number) (i32.const 8)))
            (call $hex (local.get $number))
            (call $put (i32.const 32)))
        (func $show (param $at i32) (param $len i32)
            (call $put (i32.const 32))
            (if (i32.gt_u (local.get $len) (i32.const 256)) (then (local.set $len (i32.const 256))))
            (if (i32.eqz (local.get $len)) (then (call $put (i32.const 45))))
            (block $done (loop $next
                (br_if $done (i32.eqz (local.get $len)))
                (call $hex (i32.load8_u (local.get $at)))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (local.set $len (i32.sub (local.get $len) (i32.const 1)))
                (br $next))))
        (func $say
            (drop (call $proxy_log (i32.const 2) (i32.const {LINE}) (i32.sub (global.get $end) (i32.const {LINE})))))
        {exports})"#,
        escaped(&memory.texts),
        escaped(&vec![FILL; memory.places * 8]),
        LINE + "case ".len(),
    ))
}

/// What the guest calls on its own account, too.
const OWN_CALLS: [&str; 7] = [
    "proxy_log",
    "proxy_http_call",
    "proxy_set_tick_period_milliseconds",
    "proxy_grpc_stream",
    "proxy_grpc_send",
    "proxy_register_shared_queue",
    "proxy_enqueue_shared_queue",
];

/// Makes the phases come that are asked for. A queue of the guest's own is the first; its calls are the last.
fn provoke(bodies: &mut BTreeMap<Phase, String>, memory: &mut Memory) {
    let asked: BTreeSet<Phase> = bodies.keys().copied().collect();
    let mut text = |bytes: &[u8]| format!("(i32.const {}) (i32.const {})", memory.text(bytes), bytes.len());
    let up = text(b"up");
    if asked.contains(&Phase::Tick) {
        let tick = "(drop (call $proxy_set_tick_period_milliseconds (i32.const 1)))";
        bodies.entry(Phase::Configure).or_default().push_str(tick);
    }
    if asked.contains(&Phase::QueueReady) {
        let (name, value) = (text(b"own"), text(b"ready"));
        let fill = format!(
            "(drop (call $proxy_register_shared_queue {name} (i32.const 0x100)))
             (drop (call $proxy_enqueue_shared_queue (i32.load (i32.const 0x100)) {value}))"
        );
        bodies.entry(Phase::Configure).or_default().push_str(&fill);
    }
    if asked.contains(&Phase::Answer) {
        let request = text(&map(&[(":method", "GET"), (":path", "/"), (":authority", "a")]));
        let ask = format!(
            "(drop (call $proxy_http_call {up} {request}
               (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 0x100)))"
        );
        bodies.entry(Phase::RequestHeaders).or_default().push_str(&ask);
    }
    if asked.iter().any(|phase| (Phase::GrpcInitial..=Phase::GrpcClose).contains(phase)) {
        let (name, ping) = (text(b"own"), text(b"ping"));
        let ask = format!(
            "(drop (call $proxy_grpc_stream {up} {name} {name} (i32.const 0) (i32.const 0) (i32.const 0x100)))
             (drop (call $proxy_grpc_send (i32.load (i32.const 0x100)) {ping} (i32.const 1)))"
        );
        bodies.entry(Phase::RequestHeaders).or_default().push_str(&ask);
    }
    if asked.contains(&Phase::RootDone) {
        bodies.entry(Phase::Done).or_default();
    }
}

fn ty(kind: &Kind) -> &'static str {
    if matches!(kind, Kind::Long | Kind::Delta) { "i64" } else { "i32" }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// A serialised map.
pub fn map(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    weir_abi::encode_pairs(|| pairs.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())), &mut bytes);
    bytes
}

#[derive(Default)]
struct Memory {
    texts: Vec<u8>,
    places: usize,
}

impl Memory {
    fn text(&mut self, bytes: &[u8]) -> i64 {
        let at = TEXTS + self.texts.len();
        self.texts.extend_from_slice(bytes);
        assert!(TEXTS + self.texts.len() <= PLACES, "there is room for texts");
        at as i64
    }

    fn place(&mut self) -> i64 {
        self.places += 1;
        let at = PLACES + (self.places - 1) * 8;
        assert!(at < FIRST_FREE, "there is room for results");
        at as i64
    }
}

/// The code of a call and of its line.
fn call(number: usize, case: &Case, memory: &mut Memory) -> String {
    let Signature { name, params, .. } = FUNCTIONS[function(case.function)];
    assert_eq!(case.args.len(), params.len(), "the arguments of {name}");
    let value = |value: &Value| match value {
        Value::Number(number) => *number,
        Value::Address(bytes) => memory.text(bytes),
        Value::Place => memory.place(),
    };
    let values: Vec<i64> = case.args.iter().map(value).collect();
    let given: Vec<String> =
        params.iter().zip(&values).map(|(kind, value)| format!("({}.const {value})", ty(kind))).collect();
    let mut code =
        format!("(call $begin (i32.const {number})) (call $hex (call ${name} {}))", given.join(" "));
    if !case.out.is_empty() {
        for (kind, at) in params.iter().zip(&values) {
            match kind {
                Kind::OutInt => write!(code, "(call $show (i32.const {at}) (i32.const 4))"),
                Kind::OutLong => write!(code, "(call $show (i32.const {at}) (i32.const 8))"),
                // The address and the length stand side by side in the tables, and their places in memory.
                Kind::OutPtr if case.out.contains(&Out::Nothing) => {
                    write!(code, "(call $show (i32.const {at}) (i32.const 4))")
                }
                Kind::OutPtr => write!(
                    code,
                    "(call $show (i32.load (i32.const {at})) (i32.load offset=8 (i32.const {at})))"
                ),
                Kind::Int | Kind::Long | Kind::Delta | Kind::Ptr | Kind::Len | Kind::OutLen => Ok(()),
            }
            .expect("a string");
        }
    }
    code + "(call $say)\n"
}

/// The export for a phase. Its calls are made once.
fn export(phase: Phase, body: &str, rooted: bool) -> String {
    let (name, params, result) = phase.export();
    let returns = if result.is_empty() { String::new() } else { format!("(i32.const {result})") };
    let ty = if result.is_empty() { "" } else { "(result i32)" };
    // The context of the plugin itself is created, too.
    let stream = if phase == Phase::Create { "(if (i32.eqz (local.get 1)) (then (return)))" } else { "" };
    // And it is done, as streams are: with its id, which is the first.
    let root = if phase == Phase::Done && rooted {
        "(if (i32.eq (local.get 0) (i32.const 1)) (then (call $onRootDone (local.get 0)) (return (i32.const 1))))"
    } else {
        ""
    };
    format!(
        "(global $once{phase:?} (mut i32) (i32.const 0))
         (func $on{phase:?} (export \"{name}\") (param {params}) {ty} {stream} {root}
           (if (i32.eqz (global.get $once{phase:?})) (then (global.set $once{phase:?} (i32.const 1)) {body}))
           {returns})\n"
    )
}
