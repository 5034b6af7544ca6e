//! Guests that take what there is of memory, tables, stack and processor, or end themselves.

use crate::hostile::callbacks::tick;
use crate::hostile::text::{forever, work_for};
use crate::hostile::{Hostile, Outcome, Text, Way};

/// All of them.
pub fn all() -> Vec<Hostile> {
    let on_request = |name: &str, outcome, beside: &str, body: String| {
        let mut text = Text { beside: beside.to_owned(), ..Text::default() };
        text.on("proxy_on_request_headers", body);
        Hostile::new(name, Way::Requests, outcome, &text)
    };
    // A page more, touched, as long as there is one.
    let grow = "(block $full (loop $more
        (global.set $i (memory.grow (i32.const 1)))
        (br_if $full (i32.eq (global.get $i) (i32.const -1)))
        (i32.store (i32.mul (global.get $i) (i32.const 65536)) (i32.const 1))
        (i32.store offset=32768 (i32.mul (global.get $i) (i32.const 65536)) (i32.const 1))
        (br $more)))";
    // 1 MiB more with each request, all of it touched: it stays below its budget of time.
    let hoard = "(global.set $i (memory.grow (i32.const 16)))
        (if (i32.ne (global.get $i) (i32.const -1)) (then
            (memory.fill (i32.mul (global.get $i) (i32.const 65536)) (i32.const 1) (i32.const 1048576))))";
    let table = "(table $t 1 funcref)";
    let grow_table = "(block $full (loop $more
        (br_if $full (i32.eq (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))
        (br $more)))";
    let deep = "(func $deep (param i32) (result i32)
        (i32.add (i32.const 1) (call $deep (i32.add (local.get 0) (i32.const 1)))))";
    // As long as memory may be, again and again: the epoch is looked at only before each.
    let bulk = forever("(memory.fill (i32.const 0x20000) (i32.const 1) (i32.const 0x100000))");
    let import = "(import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))";
    let mut exits = Text { imports: import.to_owned(), ..Text::default() };
    exits.on("proxy_on_request_headers", "(call $exit (i32.const 1))");
    let mut timers = Text::default();
    timers.on("proxy_on_request_headers", tick(1)).on("proxy_on_tick", tick(1));
    let mut busy = Text::default();
    busy.on("proxy_on_request_headers", tick(1)).on("proxy_on_tick", work_for(1_000));
    vec![
        on_request("memory-bomb", Outcome::Borne, "", grow.to_owned()),
        on_request("memory-bomb-then-trap", Outcome::Faults, "", format!("{grow} unreachable")),
        on_request("memory-hoard", Outcome::Borne, "", hoard.to_owned()),
        on_request("bulk-memory", Outcome::Faults, "", bulk),
        on_request("table-bomb", Outcome::Borne, table, grow_table.to_owned()),
        on_request("deep-recursion", Outcome::Faults, deep, "(drop (call $deep (i32.const 0)))".to_owned()),
        on_request("just-under-its-budget", Outcome::Borne, "", work_for(1_500)),
        on_request("computes-by-slices", Outcome::Borne, "", work_for(50_000)).preemptible(),
        on_request("loop-by-slices", Outcome::Faults, "", forever("")).preemptible(),
        Hostile::new("exits", Way::Requests, Outcome::Faults, &exits),
        Hostile::new("timer-storm", Way::Requests, Outcome::Borne, &timers),
        Hostile::new("timers-just-under-their-budget", Way::Requests, Outcome::Borne, &busy),
    ]
}
