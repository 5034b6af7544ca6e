//! Every host function, with arguments that are giant, negative, or wrap.

use std::fmt::Write;

use crate::hostile::{Hostile, Outcome, Text, Way};
use crate::trampoline::{FUNCTIONS, Kind, Signature};

/// Functions of 0.1, which a module of 0.2.1 has in Weir, and not in Envoy.
const OLD: [&str; 4] = [
    "proxy_continue_request",
    "proxy_continue_response",
    "proxy_clear_route_cache",
    "proxy_get_configuration",
];

/// WASI functions that Envoy has, too.
const WASI: [&str; 8] = [
    "args_sizes_get",
    "environ_sizes_get",
    "environ_get",
    "clock_time_get",
    "random_get",
    "fd_write",
    "fd_read",
    "fd_prestat_dir_name",
];

/// What is given for numbers, and for addresses and lengths.
const GRID: [i64; 9] = [0, 1, -1, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0x11_ffff, 0x12_0000, 0x100];

/// All of them.
pub fn all() -> Vec<Hostile> {
    let host = |function: &&Signature| function.is_host() && !OLD.contains(&function.name);
    let wasi = |function: &&Signature| WASI.contains(&function.name);
    [
        ("giant-arguments", FUNCTIONS.iter().filter(host).collect::<Vec<_>>()),
        ("giant-arguments-of-wasi", FUNCTIONS.iter().filter(wasi).collect()),
    ]
    .map(|(name, functions)| Hostile::new(name, Way::Requests, Outcome::Borne, &text(&functions)))
    .to_vec()
}

/// Each request calls one function of them, the next one, with all of the grid.
fn text(functions: &[&Signature]) -> Text {
    let (mut beside, mut names) = (String::new(), String::new());
    for (at, function) in functions.iter().enumerate() {
        let mut calls = String::new();
        for first in GRID {
            for second in [first, !first] {
                let mut odd = false;
                let mut args = String::new();
                for kind in function.params {
                    let long = matches!(kind, Kind::Long | Kind::Delta);
                    let value = if odd { second } else { first };
                    odd = !odd;
                    let ty = if long { "i64" } else { "i32" };
                    let value = if long { value } else { i64::from(value as u32) };
                    write!(args, "({ty}.const {value})").expect("a string");
                }
                writeln!(calls, "(drop (call ${} {args}))", function.name).expect("a string");
            }
        }
        writeln!(beside, "(func $call{at} {calls})").expect("a string");
        write!(names, "$call{at} ").expect("a string");
    }
    let mut text = Text { beside: format!("(table funcref (elem {names})) {beside}"), ..Text::default() };
    for callback in ["request_headers", "request_body", "response_headers", "response_body", "log"] {
        let next = format!(
            "(global.set $count (i32.rem_u (i32.add (global.get $count) (i32.const 1)) (i32.const {})))
             (call_indirect (global.get $count))",
            functions.len()
        );
        text.on(&format!("proxy_on_{callback}"), next);
    }
    text
}
