//! Puppets in tests: what they are told to call, and what came of it.

use serde_json::json;

use crate::Gateway;

/// The foreign functions that not every filter has.
pub const FOREIGN_FUNCTIONS: [&str; 4] =
    ["set_envoy_filter_state", "expr_create", "expr_evaluate", "expr_delete"];

/// A filter with this script, which may call every foreign function, and log what it likes. It is called `one`.
pub fn filter(script: &str) -> serde_json::Value {
    json!({
        "plugin": "puppet", "name": "one", "root_id": "one", "config": script,
        "grants": { "foreign_functions": FOREIGN_FUNCTIONS },
        // What it logs is what it is for.
        "log_lines": 1_000_000, "log_bytes": "1GiB",
    })
}

/// Reads properties by their dotted names, in a callback.
pub fn read(callback: &str, names: &[&str]) -> String {
    let read = |name: &&str| format!("proxy_get_property \"{}\"", name.replace('.', "\\0"));
    format!("{callback}: {}", names.iter().map(read).collect::<Vec<_>>().join("; "))
}

/// What the calls of a callback returned, in order, of the stream that began as the `stream`th: `0 "a result"`, or a
/// status alone. Waits for the end of that stream.
///
/// # Panics
/// When it does not end.
pub fn results(gateway: &Gateway, stream: usize, callback: &str) -> Vec<String> {
    gateway.wait_for_log(&format!("stream{stream} delete []"));
    of_callback(&gateway.log(), &format!("stream{stream} {callback}"))
}

/// What the calls returned while the plugin was configured.
///
/// # Panics
/// When it is not.
pub fn results_at_start(gateway: &Gateway) -> Vec<String> {
    let log = gateway.log();
    let last = log.rfind("root configure [").unwrap_or(0);
    of_callback(log.get(last..).unwrap_or_default(), "root configure [")
}

fn of_callback(log: &str, begin: &str) -> Vec<String> {
    let who = begin.split(' ').next().unwrap_or_default();
    let result = |line: &str| {
        let (_, said) = line.split_once(&format!("{who} "))?;
        let (_, result) = said.split_once(" = ")?;
        Some(result.split(" plugin=").next().unwrap_or(result).to_owned())
    };
    let lines = log.lines().skip_while(|line| !line.contains(begin)).skip(1);
    // Other streams, and the host itself, say things in between.
    lines
        .filter(|line| line.contains(&format!("{who} ")) && line.contains("filter=\"one\""))
        .map_while(result)
        .collect()
}

/// The bytes of a result that is OK.
///
/// # Panics
/// When it is not.
pub fn bytes(result: &str) -> Vec<u8> {
    let text = result.strip_prefix("0 \"").and_then(|text| text.strip_suffix('"'));
    let text = text.unwrap_or_else(|| panic!("not OK: {result}"));
    let (mut bytes, mut rest) = (Vec::new(), text.chars());
    while let Some(c) = rest.next() {
        match (c, if c == '\\' { rest.next() } else { None }) {
            (_, Some('x')) => {
                let hex: String = rest.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&hex, 16).expect("two digits"));
            }
            (_, Some('n')) => bytes.push(b'\n'),
            (_, Some('r')) => bytes.push(b'\r'),
            (_, Some('t')) => bytes.push(b'\t'),
            (_, Some(c)) | (c, None) => bytes.extend(c.to_string().bytes()),
        }
    }
    bytes
}

/// The number of a result that is OK.
///
/// # Panics
/// When it is not, or has not the eight bytes of a number.
pub fn number(result: &str) -> u64 {
    u64::from_le_bytes(bytes(result).try_into().unwrap_or_else(|bytes| panic!("no number: {bytes:?}")))
}
