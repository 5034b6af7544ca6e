//! The script: a rule a line, what to do in a callback.
//!
//! ```text
//! request_headers: proxy_get_header_map_value 0 ":path"; return 1
//! request_body 2: proxy_continue_stream 0
//! request_body end: log "the last piece"
//! tick: proxy_set_effective_context $stream; proxy_continue_stream 0
//! ```
//!
//! A rule is for a callback, for its `n`th call in a context, or for the last (`end`) or an earlier (`more`) piece of a
//! message, or once there has been a stream (`streaming`), or once a message has come to its end (`ended`). Of several that fit, the last is followed. Statements are separated by `;`: the name of a host function
//! with its arguments, `log TEXT`, `return NUMBER`, `let NAME` (the last number that a call returned), `trap`,
//! `loop`, `env NAME`. A text stands in quotes, with the escapes of Rust; `[a=1|b=2]` is a serialised map. `$this`, `$root` and
//! `$stream` (the stream that began last) are context ids, `$1` and so on the arguments of the callback. Places for results
//! need not be given; `@address:address` gives them, and also in the place of a text.

use std::collections::HashMap;

/// What a script can name.
#[derive(Default)]
pub struct Variables(pub HashMap<String, i64>);

impl Variables {
    /// A number, or the value of a `$name`.
    pub fn number(&self, word: &str) -> i64 {
        if let Some(name) = word.strip_prefix('$') {
            return self.0.get(name).copied().unwrap_or(0);
        }
        match word.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16).unwrap_or(0),
            None => word.parse().unwrap_or(0),
        }
    }
}

/// A part of a statement.
#[derive(Clone)]
pub enum Token {
    Word(String),
    Text(Vec<u8>),
}

/// What to do.
pub type Statement = Vec<Token>;

/// When to do it, and what.
pub struct Rule {
    callback: String,
    nth: Option<u32>,
    end: Option<bool>,
    streaming: bool,
    ended: bool,
    pub statements: Vec<Statement>,
}

/// What has been so far.
#[derive(Clone, Copy)]
pub struct SoFar {
    /// Whether there has been a stream.
    pub streaming: bool,
    /// Whether a message has come to its end.
    pub ended: bool,
}

/// The rules of a plugin.
#[derive(Default)]
pub struct Script(Vec<Rule>);

impl Script {
    /// Reads a script.
    ///
    /// # Panics
    /// When it is none: a test that says nothing sensible is to fail.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(rule).collect())
    }

    /// The rule for the `nth` call of a callback.
    pub fn find(&self, callback: &str, nth: u32, end: Option<u32>, so_far: SoFar) -> Option<&Rule> {
        let end = end.map(|end| end != 0);
        let fits = |rule: &&Rule| {
            rule.callback == callback
                && rule.nth.is_none_or(|wanted| wanted == nth)
                && (rule.end.is_none() || rule.end == end)
                && (so_far.streaming || !rule.streaming)
                && (so_far.ended || !rule.ended)
        };
        self.0.iter().rev().find(fits)
    }
}

fn rule(line: &str) -> Rule {
    let (head, rest) = line.split_once(':').unwrap_or_else(|| panic!("no rule: {line}"));
    let mut words = head.split_whitespace();
    let callback = words.next().unwrap_or_default().to_owned();
    let (mut nth, mut end, mut streaming, mut ended) = (None, None, false, false);
    for word in words {
        match word {
            "end" => end = Some(true),
            "more" => end = Some(false),
            "streaming" => streaming = true,
            "ended" => ended = true,
            number => nth = Some(number.parse().unwrap_or_else(|_| panic!("no number: {line}"))),
        }
    }
    Rule { callback, nth, end, streaming, ended, statements: statements(rest) }
}

fn statements(text: &str) -> Vec<Statement> {
    let mut statements = vec![Vec::new()];
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let token;
        match first {
            ';' => {
                statements.push(Vec::new());
                rest = rest[1..].trim_start();
                continue;
            }
            '"' => (token, rest) = quoted(&rest[1..]),
            '[' => {
                let (inside, behind) = rest[1..].split_once(']').unwrap_or_else(|| panic!("no end: {rest}"));
                (token, rest) = (Token::Text(pairs(inside)), behind);
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || c == ';').unwrap_or(rest.len());
                (token, rest) = (Token::Word(rest[..end].to_owned()), &rest[end..]);
            }
        }
        if let Some(statement) = statements.last_mut() {
            statement.push(token);
        }
        rest = rest.trim_start();
    }
    statements.retain(|statement| !statement.is_empty());
    statements
}

fn quoted(text: &str) -> (Token, &str) {
    let mut bytes = Vec::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (Token::Text(bytes), &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, '0')) => bytes.push(0),
                Some((_, 'n')) => bytes.push(b'\n'),
                Some((_, 'r')) => bytes.push(b'\r'),
                Some((at, 'x')) => {
                    chars.next();
                    chars.next();
                    let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
                    bytes.push(hex.unwrap_or_else(|| panic!("no byte: {text}")));
                }
                Some((_, c)) => bytes.extend(c.to_string().bytes()),
                None => break,
            },
            c => bytes.extend(c.to_string().bytes()),
        }
    }
    panic!("no end: {text}");
}

/// `name=value|name=value` as a serialised map.
fn pairs(text: &str) -> Vec<u8> {
    let pair = |pair: &str| {
        let at = pair.get(1..).and_then(|rest| rest.find('=')).map_or(pair.len(), |at| at + 1);
        (pair[..at].to_owned(), pair.get(at + 1..).unwrap_or_default().to_owned())
    };
    let pairs: Vec<_> = text.split('|').filter(|text| !text.is_empty()).map(pair).collect();
    let mut bytes = Vec::new();
    weir_abi::encode_pairs(|| pairs.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())), &mut bytes);
    bytes
}
