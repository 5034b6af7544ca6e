//! Paths, made canonical.
//!
//! What is canonical stays so and can be read in one way only; and it stands for the same segments as the path that it
//! was made of, read in another way: decoded first, and then taken apart.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::config::limits::EscapedSlashes;
use weir::http::path::{PathRules, canonical, is_redirected};

fuzz_target!(|input: &[u8]| {
    let path = [b"/", input].concat();
    use EscapedSlashes::{Keep, Reject, UnescapeAndForward, UnescapeAndRedirect};
    for escaped_slashes in [Keep, Reject, UnescapeAndRedirect, UnescapeAndForward] {
        let rules = PathRules { normalize: true, merge_slashes: true, escaped_slashes };
        let Ok(made) = canonical(&path, rules) else { continue };
        let made = made.unwrap_or_else(|| path.clone());
        assert_eq!(canonical(&made, rules), Ok(None), "{}", made.escape_ascii());
        assert!(!is_redirected(&made, rules), "{}", made.escape_ascii());
        let (path, made) = (before_query(&path), before_query(&made));
        let segments: Vec<&[u8]> = made.split(|byte| *byte == b'/').collect();
        let (first, rest) = segments.split_first().expect("one at least");
        assert!(first.is_empty() && !rest.is_empty(), "it begins with a slash");
        let last = rest.len() - 1;
        for (at, segment) in rest.iter().enumerate() {
            assert!(!matches!(*segment, b"." | b".."), "{}", made.escape_ascii());
            assert!(!segment.is_empty() || at == last, "{}", made.escape_ascii());
        }
        let lower = made.to_ascii_lowercase();
        let has = |escape: &[u8]| lower.windows(3).any(|window| window == escape);
        if escaped_slashes != Keep {
            assert!(!has(b"%2f") && !has(b"%5c"), "{}", made.escape_ascii());
            assert_eq!(decoded(made), resolved(&decoded(path)), "{}", path.escape_ascii());
        }
    }
});

fn before_query(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

/// A path with its escapes taken for what they stand for, a backslash for a slash.
fn decoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let byte = if path[at] == b'%' {
            at += 2;
            u8::from_str_radix(str::from_utf8(&path[at - 1..=at]).expect("digits"), 16).expect("digits")
        } else {
            path[at]
        };
        out.push(if byte == b'\\' { b'/' } else { byte });
        at += 1;
    }
    out
}

/// The path without dot segments, then without empty ones.
fn resolved(path: &[u8]) -> Vec<u8> {
    let mut stack: Vec<&[u8]> = Vec::new();
    let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        let last = at + 1 == segments.len();
        match *segment {
            b"." => {}
            b".." => drop(stack.pop()),
            segment => {
                stack.push(segment);
                continue;
            }
        }
        if last {
            stack.push(b"");
        }
    }
    let ends = stack.last().is_none_or(|segment| segment.is_empty());
    let whole: Vec<u8> =
        stack.iter().filter(|segment| !segment.is_empty()).flat_map(|s| [b"/", *s].concat()).collect();
    if ends { [&whole[..], b"/"].concat() } else { whole }
}
