//! Configurations: bytes, or lines of known words.
//!
//! Whatever is wrong is told with a place in the text; and what is right can be written as JSON and read again as the
//! same.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use weir::config::section::Read;
use weir::config::{Config, schema};

/// What the bytes from 0x80 on stand for: the names and words of the schema, and what YAML is made of.
static WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut words: Vec<String> = [
        ": ", "\n", "\n  ", "\n    ", "\n- ", "\n  - ", "{ ", " }", "[", "]", ", ", "\"", "'", "|", "&a ", "*a", "<<: ", "#",
        "127.0.0.1:0", "a.example:80", "10.0.0.0/8", "::1", "5s", "0s", "1h", "64KiB", "1GiB", "20%", "0", "1", "-1", "1e9",
        "18446744073709551616", "true", "null", "~", "a", "a.wasm", "spiffe://a/b", "^/a", "/", "text/plain",
    ]
    .map(str::to_owned)
    .to_vec();
    named(&schema(), &mut words);
    words.sort();
    words.dedup();
    words
});

/// The names of fields, and the values of those that have a few.
fn named(schema: &Value, words: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for (name, inner) in fields {
                match (name.as_str(), inner) {
                    ("properties", Value::Object(fields)) => words.extend(fields.keys().map(|name| format!("{name}: "))),
                    ("enum", Value::Array(values)) => {
                        words.extend(values.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    _ => {}
                }
                named(inner, words);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| named(item, words)),
        _ => {}
    }
}

/// One byte below 0x80 is itself, two from there on are a word.
fn text(input: &[u8]) -> String {
    let (mut text, mut bytes) = (String::new(), input.iter());
    while let Some(&byte) = bytes.next() {
        if byte < 0x80 {
            text.push(char::from(byte));
        } else {
            let number = usize::from(byte - 0x80) << 8 | usize::from(bytes.next().copied().unwrap_or_default());
            text.push_str(&WORDS[number % WORDS.len()]);
        }
    }
    text
}

fuzz_target!(|input: &[u8]| {
    let file = Path::new("/weir.yaml");
    let text = match input.split_first() {
        Some((b'%', rest)) => String::from_utf8_lossy(rest).into_owned(),
        _ => text(input),
    };
    let config = match Config::parse(file, &text) {
        Ok(config) => config,
        Err(problems) => {
            assert!(!problems.0.is_empty());
            // YAML has either of them end a line.
            let lines = text.split(['\n', '\r']).count() + 1;
            for problem in &problems.0 {
                assert!((1..=lines).contains(&problem.at.line), "{problem}");
                assert!(!problem.message.is_empty());
            }
            return;
        }
    };
    let written = config.sections.to_json().to_string();
    match Config::parse(file, &written) {
        Ok(again) => assert_eq!(again.sections.to_json().to_string(), written),
        Err(problems) => panic!("{problems}\n{written}"),
    }
});
