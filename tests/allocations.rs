//! What host functions allocate. In a binary of its own, since it counts every allocation of its thread.

use std::sync::LazyLock;

use weir::plugin::vm::{Access, CallAnswer, Intents};
use weir_abi::{BufferKind, MapKind};
use weir_tests::made_up;
use weir_tests::trampoline::{ARENA, Allocator, Call, FUNCTIONS, Kind, ROOTS, Trampoline, World};

static WORLD: LazyLock<World> = LazyLock::new(World::new);

/// What a call may cost the host whatever numbers it is given, in bytes.
const MOST: u64 = 8 * 1024;

/// What a call may cost it besides that by which it takes what the guest has: a log line that is no text, at three
/// bytes for each of its 64 KiB, in a string that doubles as it grows.
const BESIDES: u64 = 400 * 1024;

/// Numbers that no guest can mean.
const NUMBERS: [u64; 5] = [1 << 30, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, u64::MAX];

/// Where there are eight numbers like these: the lengths of a map, or the pieces of a write.
const TEXT: usize = ARENA;
/// Where results go.
const RESULTS: usize = ARENA + 0x1000;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// In whose name a call is made.
#[derive(Debug, Clone, Copy)]
enum Context {
    Nobody,
    Root,
    Http,
    Tcp,
}

const CONTEXTS: [Context; 4] = [Context::Nobody, Context::Root, Context::Http, Context::Tcp];

struct Guest {
    trampoline: Trampoline,
    http: u32,
    tcp: u32,
}

impl Guest {
    /// A guest that may look at everything.
    fn start() -> Self {
        let mut trampoline = WORLD.start();
        let mut access = Access::default();
        MapKind::ALL.iter().for_each(|kind| access.grant_map(*kind));
        BufferKind::ALL.iter().for_each(|kind| access.grant_buffer(*kind));
        let mut stream = |made_up| {
            let id = trampoline.instance.create_stream(ROOTS[0], 0, made_up, LIMIT).expect("a context");
            let context = trampoline.instance.stream(id).expect("a context");
            context.access = access;
            made_up::fill(context);
            id
        };
        let (http, tcp) = (stream(made_up::http()), stream(made_up::tcp()));
        Self { trampoline, http, tcp }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.trampoline.memory()[TEXT..TEXT + bytes.len()].copy_from_slice(bytes);
    }

    /// Puts the streams back to what they were.
    fn refresh(&mut self) {
        for (id, fresh) in [(self.http, made_up::http()), (self.tcp, made_up::tcp())] {
            let context = self.trampoline.instance.stream(id).expect("a context");
            context.intents = Intents::default();
            context.stream = fresh;
            (context.received, context.answered) = Default::default();
            made_up::fill(context);
        }
    }

    /// The most bytes that the host had allocated at a time for a call, beside those that it had before.
    fn peak(&mut self, context: Context, call: &Call) -> u64 {
        let id = match context {
            Context::Nobody => 0,
            Context::Root => {
                self.trampoline.instance.set_answer(ROOTS[0], Some((1, CallAnswer::default())));
                ROOTS[0]
            }
            Context::Http => self.http,
            Context::Tcp => self.tcp,
        };
        let calls = std::slice::from_ref(call);
        let made = allocation_counter::measure(|| {
            self.trampoline.make(id, Allocator::Sound, calls).expect("no call of these is a fault");
        });
        made.bytes_max
    }
}

/// A call with text where text belongs, places for results, and these numbers for the rest.
fn call(function: usize, number: impl Fn(usize) -> u64) -> Call {
    let arg = |(at, kind): (usize, &Kind)| match kind {
        Kind::Ptr => TEXT as u64,
        Kind::OutInt | Kind::OutLong | Kind::OutPtr | Kind::OutLen => (RESULTS + at * 8) as u64,
        Kind::Int | Kind::Long | Kind::Delta | Kind::Len => number(at),
    };
    Call { function, args: FUNCTIONS[function].params.iter().enumerate().map(arg).collect() }
}

#[test]
fn no_host_function_allocates_by_a_number_that_the_guest_made_up() {
    let mut guest = Guest::start();
    let mut worst = Vec::new();
    let all = FUNCTIONS.iter().enumerate().flat_map(|(at, f)| CONTEXTS.map(|context| (at, f, context)));
    for (function, signature, context) in all {
        for number in NUMBERS {
            // What text stands for lengths is as bad.
            guest.write(&number.to_le_bytes().repeat(8));
            // All numbers at once, and each by itself among small ones, which are one enum's values or another's.
            let alone = (0..signature.params.len()).map(Some);
            for which in alone.chain([None]) {
                for small in [0, 1, 2, 4, 6, 8] {
                    let is_huge = |at: usize| which.is_none_or(|which| which == at);
                    let call = call(function, |at| if is_huge(at) { number } else { small });
                    let peak = guest.peak(context, &call);
                    if peak > MOST {
                        worst.push(format!("{} {context:?} {:x?}: {peak} bytes", signature.name, call.args));
                    }
                }
            }
        }
    }
    assert!(worst.is_empty(), "{}", worst.join("\n"));
}

#[test]
fn what_a_guest_has_in_its_memory_costs_the_host_three_times_as_much_at_most() {
    let mut guest = Guest::start();
    let name = Call::new("proxy_get_property", &[TEXT as u64, 11, RESULTS as u64, RESULTS as u64 + 8]);
    for _ in 0..12 {
        guest.write(b"plugin_name");
        guest.trampoline.make(ROOTS[0], Allocator::Grows, std::slice::from_ref(&name)).expect("it grows");
    }
    let len = guest.trampoline.memory().len() - TEXT;
    assert!(len > 512 * 1024, "{len}");
    let mut worst = Vec::new();
    // Segments, no text, text, and a map of many pairs with nothing in them.
    for pattern in [[0, 0, 0, 0], [0xff; 4], *b"aaaa", [0, 4, 0, 0]] {
        let text = pattern.repeat(len / 4);
        for (function, signature) in FUNCTIONS.iter().enumerate() {
            let lengths: Vec<usize> =
                (0..signature.params.len()).filter(|at| signature.params[*at] == Kind::Len).collect();
            for context in CONTEXTS {
                // Each text by itself as long as all memory, and all of them.
                for long in lengths.iter().map(|at| vec![*at]).chain([lengths.clone()]) {
                    guest.refresh();
                    guest.write(&text);
                    let call = call(function, |at| match signature.params[at] {
                        Kind::Len if long.contains(&at) => len as u64,
                        Kind::Len => 4,
                        _ => 0,
                    });
                    let peak = guest.peak(context, &call);
                    if peak > 3 * len as u64 + BESIDES {
                        worst.push(format!(
                            "{} {context:?} {pattern:?} {long:?}: {peak} bytes",
                            signature.name
                        ));
                    }
                }
            }
        }
    }
    assert!(worst.is_empty(), "of {len} bytes\n{}", worst.join("\n"));
}

#[test]
fn what_filters_note_of_one_stream_is_bounded_in_number_and_in_bytes() {
    const FAILED: u32 = 10;
    for (context, value_len) in [(Context::Http, 1024), (Context::Tcp, 60_000), (Context::Http, 0)] {
        let mut guest = Guest::start();
        let before = guest.peak(context, &Call::new("proxy_log", &[99, 0, 0]));
        let id = if matches!(context, Context::Tcp) { guest.tcp } else { guest.http };
        let mut refused = 0;
        let noted = allocation_counter::measure(|| {
            for key in 0..2048_u32 {
                guest.write(&key.to_le_bytes());
                let args = [TEXT as u64, 4, TEXT as u64, value_len];
                let call = Call::new("proxy_set_property", &args);
                let status = guest.trampoline.make(id, Allocator::Sound, &[call]).expect("no fault")[0];
                assert!(status == 0 || status == FAILED, "{status}");
                refused += u32::from(status == FAILED);
            }
        });
        assert!((1000..2048).contains(&refused), "{refused}");
        // Values in pages of their own, and the list of them.
        assert!(noted.bytes_max < (2 << 20) + before, "{noted:?}");
        // What is there can be changed, though nothing can be added.
        guest.write(&0_u32.to_le_bytes());
        let again = Call::new("proxy_set_property", &[TEXT as u64, 4, TEXT as u64, 0]);
        assert_eq!(guest.trampoline.make(id, Allocator::Sound, &[again]).expect("no fault"), [0]);
    }
}

#[test]
fn a_timer_that_is_set_many_times_in_one_callback_is_one_timer() {
    let mut guest = Guest::start();
    let set = Call::new("proxy_set_tick_period_milliseconds", &[10]);
    guest.trampoline.make(ROOTS[0], Allocator::Sound, &vec![set.clone(); 20]).expect("no fault");
    assert_eq!(guest.trampoline.instance.take_outgoing().len(), 1);
    guest.trampoline.make(guest.http, Allocator::Sound, &[set]).expect("no fault");
    assert_eq!(guest.trampoline.instance.take_outgoing().len(), 1, "in the next callback it is told again");
}
