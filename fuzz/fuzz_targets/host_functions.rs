//! Host functions, called by a guest in a real VM: any sequence of them, with any arguments and any memory, out of
//! every context, with an allocator that behaves or does not.
//!
//! Whatever the guest does, the host does not panic, answers with a number of the contract, and writes nowhere but
//! where it was told to, or where the guest's allocator gave it room.
#![no_main]

#[path = "../../tests/src/made_up.rs"]
mod made_up;
#[path = "../../tests/src/trampoline.rs"]
#[expect(dead_code, reason = "calls by name are for others")]
mod trampoline;

use std::ops::Range;
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use weir::plugin::instance::Instance;
use weir::plugin::vm::{Access, CallAnswer};
use weir_abi::{BufferKind, FilterState, MapKind, Status, Version, WasiErrno, encode_pairs};

use trampoline::{
    ARENA, Allocator, Call, ENVIRONMENT, FUNCTIONS, Kind, MAILBOX, MEMORY, ROOTS, Signature, Trampoline,
    World,
};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    old: bool,
    /// What the guest has in its memory.
    data: &'a [u8],
    callbacks: Vec<Callback>,
}

#[derive(Arbitrary, Debug)]
struct Callback {
    context: Context,
    allocator: AnyAllocator,
    calls: Vec<AnyCall>,
}

/// In whose name the guest is called.
#[derive(Arbitrary, Debug, Clone, Copy)]
enum Context {
    /// In nobody's, as at the start.
    Start,
    Unknown(u32),
    Root(bool),
    /// A root context that is being told of an answer.
    Answer(bool),
    /// A stream in one of its phases: what may be looked at is one bit each.
    Http {
        maps: u8,
        buffers: u8,
    },
    HttpLog,
    Tcp {
        buffers: u8,
    },
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum AnyAllocator {
    Sound,
    Gives(Address),
    Traps,
    Calls,
    Grows,
}

#[derive(Arbitrary, Debug)]
struct AnyCall {
    function: u8,
    args: [Arg; 13],
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Address {
    Null,
    Raw(u32),
    /// So far before the end of memory.
    End(u8),
    /// A place for results.
    Out(u8),
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Arg {
    Small(u8),
    Long(u64),
    At(Address),
    /// One of [`WORDS`], by address and length.
    Word(u8),
    /// A part of the data, by address and length.
    Data(u16, u8),
}

const LIMIT: Duration = Duration::from_secs(5);
const WORDS_AT: usize = ARENA;
const DATA_AT: usize = 0x8000;
const MOST_DATA: usize = 0x4000;
const OUT_AT: usize = 0xc000;

const TEXTS: &[&str] = &[
    "",
    ":path",
    ":method",
    ":authority",
    ":status",
    ":scheme",
    "host",
    "x-many",
    "x-new",
    "content-length",
    "/other",
    "GET",
    "200",
    "https",
    "b.example",
    "up",
    "key",
    "queue",
    "vm",
    "metric",
    "set_envoy_filter_state",
    "plugin_name",
    "request\0headers",
    "request\0path\0",
    "response\0trailers",
    "upstream\0local_address",
    "connection\0mtls",
    "own",
    "filter_state\0wasm.own",
    "a line\r\n",
    "service",
    "service.Name",
    "Method",
];

/// What is useful to have in memory, and where it is.
static WORDS: LazyLock<(Vec<u8>, Vec<Range<usize>>)> = LazyLock::new(|| {
    let map = |pairs: &[(&str, &str)]| {
        let mut bytes = Vec::new();
        encode_pairs(|| pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())), &mut bytes);
        bytes
    };
    let mut words: Vec<Vec<u8>> = TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect();
    words.push(map(&[(":method", "GET"), (":path", "/"), (":authority", "up"), ("x-new", "1")]));
    words.push(map(&[("x-new", "1"), ("x-new", "2")]));
    words.push(map(&[(":status", "204")]));
    words.push(FilterState { path: "own", value: b"1", ..FilterState::default() }.encode());
    // The pieces of a write: twice the same few bytes, and a piece that ends beyond the memory.
    words.push([WORDS_AT as u32, 16, WORDS_AT as u32, 16, 0x1fff0, 64].map(u32::to_le_bytes).concat());
    let (mut bytes, mut places) = (Vec::new(), Vec::new());
    for word in words {
        places.push(bytes.len()..bytes.len() + word.len());
        bytes.extend(word);
    }
    (bytes, places)
});

static WORLD: LazyLock<World> = LazyLock::new(World::new);

fuzz_target!(|input: Input<'_>| {
    let mut guest = WORLD.start();
    if input.old {
        guest.instance.vm().version = Version::V0_1_0;
    }
    let (words, _) = &*WORDS;
    guest.memory()[WORDS_AT..WORDS_AT + words.len()].copy_from_slice(words);
    let data = &input.data[..input.data.len().min(MOST_DATA)];
    guest.memory()[DATA_AT..DATA_AT + data.len()].copy_from_slice(data);
    let mut stream = |made_up| {
        let id = guest.instance.create_stream(ROOTS[0], 0, made_up, LIMIT).expect("a context");
        guest.instance.stream(id).into_iter().for_each(made_up::fill);
        id
    };
    let streams = (stream(made_up::http()), stream(made_up::tcp()));
    for callback in input.callbacks.iter().take(16) {
        if !run(&mut guest, streams, callback) {
            return;
        }
    }
});

/// Runs a callback. Whether the instance goes on.
fn run(guest: &mut Trampoline, streams: (u32, u32), callback: &Callback) -> bool {
    let context = enter(&mut guest.instance, streams, callback.context);
    let allocator = match callback.allocator {
        AnyAllocator::Sound => Allocator::Sound,
        AnyAllocator::Gives(at) => Allocator::Gives(at.number()),
        AnyAllocator::Traps => Allocator::Traps,
        AnyAllocator::Calls => Allocator::Calls,
        AnyAllocator::Grows => Allocator::Grows,
    };
    let calls: Vec<Call> = callback.calls.iter().take(trampoline::MOST_CALLS).map(call).collect();
    let mut allowed: Vec<Range<u64>> = calls.iter().flat_map(results).collect();
    let mailbox = MAILBOX.start as u64..MAILBOX.end as u64;
    let hits_mailbox = |range: &Range<u64>| range.start < mailbox.end && mailbox.start < range.end;
    // What a guest does that writes over its own instructions is anybody's guess: then only the host is looked at.
    let wild = allowed.iter().any(hits_mailbox)
        || matches!(allocator, Allocator::Gives(at) if (1..mailbox.end).contains(&u64::from(at)));

    let before = guest.memory().to_vec();
    let answers = match guest.make(context, allocator, &calls) {
        Ok(answers) => answers,
        Err(fault) => {
            assert!(wild || allocator == Allocator::Traps, "{}", fault.message);
            return false;
        }
    };
    leave(&mut guest.instance, calls.len());
    if wild {
        return true;
    }
    for (call, answer) in calls.iter().zip(answers) {
        let Signature { name, .. } = FUNCTIONS[call.function];
        let known = if FUNCTIONS[call.function].is_host() {
            Status::try_from(answer).is_ok()
        } else {
            WasiErrno::ALL.iter().any(|errno| *errno as u32 == answer)
        };
        assert!(known, "{name} answered {answer}");
    }
    let Some(allocated) = guest.allocated() else { return true };
    allowed.extend(allocated.iter().map(|(at, len)| u64::from(*at)..u64::from(*at) + u64::from(*len)));
    allowed.push(mailbox);
    assert_untouched(&before, guest.memory(), allowed, &calls);
    true
}

/// Puts the instance into a phase.
fn enter(instance: &mut Instance, (http, tcp): (u32, u32), context: Context) -> u32 {
    let access = |maps: u8, buffers: u8| {
        let mut access = Access::default();
        MapKind::ALL
            .iter()
            .take(4)
            .filter(|kind| maps & (1 << **kind as u8) != 0)
            .for_each(|kind| access.grant_map(*kind));
        BufferKind::ALL
            .iter()
            .take(4)
            .filter(|kind| buffers & (1 << **kind as u8) != 0)
            .for_each(|kind| access.grant_buffer(*kind));
        access
    };
    let (id, access) = match context {
        Context::Start => return 0,
        Context::Unknown(id) => return id,
        Context::Root(second) => return ROOTS[usize::from(second)],
        Context::Answer(second) => {
            let root = ROOTS[usize::from(second)];
            let header = (HeaderName::from_static("x-many"), HeaderValue::from_static("1"));
            let answer = CallAnswer {
                status: Some(StatusCode::OK),
                headers: HeaderMap::from_iter([header]),
                body: Bytes::from_static(b"an answer"),
                trailers: HeaderMap::new(),
            };
            instance.set_answer(root, Some((1, answer)));
            return root;
        }
        Context::Http { maps, buffers } => (http, access(maps, buffers & 0b0011)),
        Context::HttpLog => (http, Access::LOG),
        Context::Tcp { buffers } => (tcp, access(0, buffers & 0b1100)),
    };
    instance.stream(id).expect("a context").access = access;
    id
}

/// What the host does after a callback.
fn leave(instance: &mut Instance, calls: usize) {
    ROOTS.iter().for_each(|root| instance.set_answer(*root, None));
    assert!(instance.take_outgoing().len() <= calls, "one thing to do for each call at most");
}

impl Address {
    fn number(self) -> u32 {
        match self {
            Self::Null => 0,
            Self::Raw(number) => number,
            Self::End(before) => (MEMORY - usize::from(before)) as u32,
            Self::Out(place) => (OUT_AT + usize::from(place) * 16) as u32,
        }
    }
}

impl Arg {
    fn number(self) -> u64 {
        match self {
            Self::Small(number) => number.into(),
            Self::Long(number) => number,
            Self::At(address) => address.number().into(),
            Self::Word(_) | Self::Data(..) => self.bytes().start as u64,
        }
    }

    /// The bytes that it stands for; for numbers, some that are there.
    fn bytes(self) -> Range<usize> {
        match self {
            Self::Data(at, len) => {
                let at = DATA_AT + usize::from(at) % MOST_DATA;
                at..at + usize::from(len)
            }
            Self::Word(word) | Self::Small(word) => {
                let (_, places) = &*WORDS;
                let place = &places[usize::from(word) % places.len()];
                WORDS_AT + place.start..WORDS_AT + place.end
            }
            Self::Long(number) => number as u32 as usize..number as u32 as usize + (number >> 32) as usize,
            Self::At(address) => address.number() as usize..address.number() as usize + 16,
        }
    }
}

/// A call whose arguments fit their parameters more often than chance would have it.
fn call(call: &AnyCall) -> Call {
    let function = usize::from(call.function) % FUNCTIONS.len();
    let mut len = 0;
    let arg = |(kind, arg): (&Kind, &Arg)| match kind {
        Kind::Ptr => {
            let bytes = arg.bytes();
            len = bytes.len() as u64;
            bytes.start as u64
        }
        Kind::Len => match arg {
            Arg::Long(number) => *number,
            Arg::At(address) => address.number().into(),
            Arg::Small(_) | Arg::Word(_) | Arg::Data(..) => len,
        },
        Kind::OutInt | Kind::OutLong | Kind::OutPtr | Kind::OutLen => match arg {
            Arg::Small(place) | Arg::Word(place) => Address::Out(*place).number().into(),
            Arg::Long(_) | Arg::At(_) | Arg::Data(..) => arg.number(),
        },
        Kind::Int | Kind::Long | Kind::Delta => arg.number(),
    };
    Call { function, args: FUNCTIONS[function].params.iter().zip(&call.args).map(arg).collect() }
}

/// Where a function may write, the memory that the allocator gives aside.
fn results(call: &Call) -> Vec<Range<u64>> {
    let signature = FUNCTIONS[call.function];
    // Addresses are 32 bits; what is above them is cut off on the way.
    let arg = |at: usize| u64::from(call.args[at] as u32);
    let range = |at: usize, len: u64| arg(at)..arg(at) + len;
    match signature.name {
        "environ_get" => {
            let bytes: usize = ENVIRONMENT.iter().map(|entry| entry.len()).sum();
            return vec![range(0, 4 * ENVIRONMENT.len() as u64), range(1, bytes as u64)];
        }
        "random_get" => return vec![range(0, arg(1))],
        "fd_fdstat_get" => return vec![range(1, 24)],
        "fd_filestat_get" => return vec![range(1, 64)],
        // 32 bytes for each event, of which no memory holds more than it has pages for.
        "poll_oneoff" => return vec![range(1, 32 * arg(2)), range(3, 4)],
        _ => {}
    }
    let len = |kind: &Kind| match kind {
        Kind::OutInt => 4,
        Kind::OutLong => 8,
        // What other functions of WASI would write in larger places, they have not got.
        Kind::OutPtr | Kind::OutLen if signature.is_host() => 4,
        Kind::OutPtr | Kind::OutLen => 0,
        Kind::Int | Kind::Long | Kind::Delta | Kind::Ptr | Kind::Len => 0,
    };
    signature
        .params
        .iter()
        .enumerate()
        .map(|(at, kind)| range(at, len(kind)))
        .filter(|range| !range.is_empty())
        .collect()
}

fn assert_untouched(before: &[u8], after: &[u8], mut allowed: Vec<Range<u64>>, calls: &[Call]) {
    allowed.sort_by_key(|range| range.start);
    // What is new was zero.
    let same = |from: usize, to: usize| {
        let (from, to) = (from.min(after.len()), to.min(after.len()));
        let old = from.min(before.len())..to.min(before.len());
        before[old.clone()] == after[old]
            && after[from.max(before.len()).min(to)..to].iter().all(|byte| *byte == 0)
    };
    let mut at = 0;
    for range in allowed {
        let start = range.start as usize;
        assert!(start <= at || same(at, start), "written between {at:#x} and {start:#x} by one of {calls:?}");
        at = at.max(range.end as usize);
    }
    assert!(same(at, after.len()), "written behind {at:#x} by one of {calls:?}");
}
