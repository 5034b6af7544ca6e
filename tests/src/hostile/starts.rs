//! Guests that go wrong before they serve: each is copied over a version that serves.

use crate::hostile::text::forever;
use crate::hostile::{Hostile, Outcome, Text, Way};

/// All of them.
pub fn all() -> Vec<Hostile> {
    let mut all = Vec::new();
    let mut add = |name: String, text: &Text| {
        all.push(Hostile::new(name, Way::Copies, Outcome::Refused, text));
    };
    for (harm, body) in [("loop", forever("")), ("trap", "unreachable".to_owned())] {
        for callback in ["_initialize", "_start", "proxy_on_vm_start", "proxy_on_configure"] {
            let mut text = Text::default();
            text.on(callback, &body);
            let name = callback.trim_start_matches("proxy_on").trim_start_matches('_').replace('_', "-");
            add(format!("{harm}-{name}"), &text);
        }
        let beside = format!("(func $begin {body}) (start $begin)");
        let text = Text { beside, ..Text::default() };
        add(format!("{harm}-start-function"), &text);
    }
    let mut text = Text::default();
    text.on("proxy_on_configure", "(return (i32.const 0))");
    add("refuses-configuration".to_owned(), &text);
    let text = Text { pages: 65_536, ..Text::default() };
    add("begins-with-4-gib".to_owned(), &text);
    let text = Text { beside: "(table 10000000 funcref)".to_owned(), ..Text::default() };
    add("begins-with-a-huge-table".to_owned(), &text);
    all
}
