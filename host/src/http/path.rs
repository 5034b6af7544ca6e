//! The canonical path of a request: one spelling for what is the same (RFC 3986 section 6.2.2). It is made on receipt,
//! before anything looks at the request, so that routes, filters, logs and the upstream see one path.

use crate::config::limits::EscapedSlashes;
use crate::http::h1::HeadError;

/// What is done to paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathRules {
    /// Whether dot segments are resolved, and escapes written in one way.
    pub normalize: bool,
    /// Whether several slashes become one.
    pub merge_slashes: bool,
    /// What becomes of slashes that are escaped.
    pub escaped_slashes: EscapedSlashes,
}

impl PathRules {
    /// Paths stay as they come.
    pub const NONE: Self =
        Self { normalize: false, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };
}

/// No byte of a target. A fragment never travels, and a reader that cut it off would see another path.
const BAD: u8 = 1;
/// What is always looked at more closely.
const ODD: u8 = 2;
const SLASH: u8 = 4;
const DOT: u8 = 8;
const QUERY: u8 = 16;

#[expect(clippy::indexing_slicing, reason = "it is looked at when it is compiled")]
const CLASS: [u8; 256] = {
    let mut class = [BAD; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        class[byte] = match byte as u8 {
            b'#' => BAD,
            b'%' | b'\\' => ODD,
            b'/' => SLASH,
            b'.' => DOT,
            b'?' => QUERY,
            _ => 0,
        };
        byte += 1;
    }
    class
};

fn class(byte: u8) -> u8 {
    CLASS.get(usize::from(byte)).copied().unwrap_or(BAD)
}

/// Reads a path with its query, which begins with a slash. `None`: it is canonical already, as almost all are.
///
/// # Errors
/// When it holds what no path may.
pub fn canonical(target: &[u8], rules: PathRules) -> Result<Option<Vec<u8>>, HeadError> {
    let (mut odd, mut before, mut path) = (false, 0, target.len());
    let mut bytes = target.iter().enumerate();
    for (at, &byte) in bytes.by_ref() {
        let class = class(byte);
        if class & (BAD | QUERY) != 0 {
            if class == BAD {
                return Err(HeadError::Target);
            }
            path = at;
            break;
        }
        odd |= class & ODD != 0 || (before == SLASH && class & (SLASH | DOT) != 0);
        before = class;
    }
    if bytes.any(|(_, &byte)| class(byte) == BAD) {
        return Err(HeadError::Target);
    }
    if !odd || rules == PathRules::NONE {
        return Ok(None);
    }
    let (path, query) = target.split_at_checked(path).unwrap_or((target, &[]));
    let mut out = unescaped(path, rules)?;
    if rules.normalize {
        out = without_dots(&out);
    }
    if rules.merge_slashes {
        out.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
    }
    out.extend_from_slice(query);
    Ok((out != target).then_some(out))
}

/// Whether a client that asked for this target is to ask again by the canonical path, since slashes in it were escaped.
pub fn is_redirected(target: &[u8], rules: PathRules) -> bool {
    let escaped = |at: usize| {
        let digits = at.checked_add(1).and_then(|first| target.get(first..)?.get(..2));
        matches!(digits, Some(b"2f" | b"2F" | b"5c" | b"5C"))
    };
    let path = || memchr::memchr(b'?', target).unwrap_or(target.len());
    // Almost no path holds an escape at all.
    rules.escaped_slashes == EscapedSlashes::UnescapeAndRedirect
        && memchr::memchr_iter(b'%', target).any(|at| escaped(at) && at < path())
}

/// What is escaped without need as it is, other escapes in upper case, and escaped slashes as the rules have it.
fn unescaped(path: &[u8], rules: PathRules) -> Result<Vec<u8>, HeadError> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match byte {
            // Some readers take it for a slash.
            b'\\' if rules.normalize => return Err(HeadError::Target),
            b'%' => {}
            byte => {
                out.push(*byte);
                continue;
            }
        }
        let digits = behind.split_at_checked(2).and_then(|(digits, behind)| Some((hex(digits)?, behind)));
        match digits {
            Some((b'/' | b'\\', behind)) if rules.escaped_slashes != EscapedSlashes::Keep => {
                if rules.escaped_slashes == EscapedSlashes::Reject {
                    return Err(HeadError::EscapedSlash);
                }
                out.push(b'/');
                rest = behind;
            }
            Some((_, _)) | None if !rules.normalize => out.push(b'%'),
            // The end of the path for a reader in C.
            Some((0, _)) | None => return Err(HeadError::Target),
            Some((byte, behind)) => {
                rest = behind;
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    out.push(byte);
                } else {
                    out.extend_from_slice(format!("%{byte:02X}").as_bytes());
                }
            }
        }
    }
    Ok(out)
}

/// The byte that two hexadecimal digits stand for.
fn hex(digits: &[u8]) -> Option<u8> {
    let all = digits.iter().all(u8::is_ascii_hexdigit);
    u8::from_str_radix(str::from_utf8(digits).ok().filter(|_| all)?, 16).ok()
}

/// A path without dot segments (RFC 3986 section 5.2.4). Nothing is above the root.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    out.truncate(out.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                }
                if last {
                    out.push(b'/');
                }
            }
            segment => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: PathRules = PathRules {
        normalize: true,
        merge_slashes: true,
        escaped_slashes: EscapedSlashes::UnescapeAndForward,
    };

    fn path(path: &str, rules: PathRules) -> Result<String, HeadError> {
        let made = canonical(path.as_bytes(), rules)?;
        Ok(made.map_or(path.to_owned(), |made| String::from_utf8(made).expect("ASCII")))
    }

    #[test]
    fn what_is_the_same_is_spelled_in_one_way() {
        for (from, to) in [
            ("/", "/"),
            ("/a/b.c?d=/../e//f%2f%zz", "/a/b.c?d=/../e//f%2f%zz"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/.", "/"),
            ("/...", "/..."),
            ("/.a/..b/c..", "/.a/..b/c.."),
            ("//a///b//", "/a/b/"),
            ("//", "/"),
            ("/a//../b", "/a/b"),
            ("/%61%2D%2e%5F%7e", "/a-._~"),
            ("/%2e%2E/a", "/a"),
            ("/%c3%a9%20", "/%C3%A9%20"),
            ("/%252e%252E", "/%252e%252E"),
            ("/a%2fb%5Cc", "/a/b/c"),
            ("/a%2f..%2Fb", "/b"),
            ("/a/..?b", "/?b"),
        ] {
            assert_eq!(path(from, ALL).as_deref(), Ok(to), "{from}");
            // What is canonical stays as it is.
            assert_eq!(canonical(to.as_bytes(), ALL), Ok(None), "{to}");
        }
    }

    #[test]
    fn what_no_path_may_hold_is_refused() {
        for bad in
            ["/%", "/%4", "/%zz", "/%+1", "/a%00b", "/a\\b", "/a#b", "/a b", "/\u{e9}", "/a?b#c", "/a?\t"]
        {
            assert_eq!(path(bad, ALL), Err(HeadError::Target), "{bad}");
        }
        let reject = PathRules { escaped_slashes: EscapedSlashes::Reject, ..ALL };
        for bad in ["/a%2fb", "/a%5Cb"] {
            assert_eq!(path(bad, reject), Err(HeadError::EscapedSlash), "{bad}");
        }
        assert_eq!(path("/a?b=%2f", reject).as_deref(), Ok("/a?b=%2f"), "a query has no slashes");
    }

    #[test]
    fn who_asks_by_escaped_slashes_is_to_ask_again_by_a_path_that_stays_as_it_is() {
        let redirect = PathRules { escaped_slashes: EscapedSlashes::UnescapeAndRedirect, ..ALL };
        for (from, to) in [
            ("/a%2fb", "/a/b"),
            ("/a%2F..%5c..%5C", "/"),
            ("/%2f%2fa", "/a"),
            ("/x%2fy/../z?%2f", "/x/z?%2f"),
        ] {
            assert!(is_redirected(from.as_bytes(), redirect), "{from}");
            assert!(!is_redirected(from.as_bytes(), ALL), "{from}");
            assert_eq!(path(from, redirect).as_deref(), Ok(to));
            assert!(!is_redirected(to.as_bytes(), redirect), "{to}");
        }
        for from in ["/a/b", "/a?b=%2f", "/%252f", "/%2", "/%"] {
            assert!(!is_redirected(from.as_bytes(), redirect), "{from}");
        }
    }

    #[test]
    fn each_rule_stands_alone() {
        let keep = PathRules { escaped_slashes: EscapedSlashes::Keep, ..ALL };
        assert_eq!(path("/a%2fb%5c", keep).as_deref(), Ok("/a%2Fb%5C"));
        let merge = PathRules { merge_slashes: true, ..PathRules::NONE };
        assert_eq!(path("//a/../%2f%zz\\", merge).as_deref(), Ok("/a/../%2f%zz\\"));
        let unescape = PathRules { escaped_slashes: EscapedSlashes::UnescapeAndForward, ..PathRules::NONE };
        assert_eq!(path("//a/../%2f%41%zz", unescape).as_deref(), Ok("//a/..//%41%zz"));
        let dots = PathRules { normalize: true, ..PathRules::NONE };
        assert_eq!(path("//a/./b", dots).as_deref(), Ok("//a/b"));
        assert_eq!(path("//a/./%2f%zz", PathRules::NONE).as_deref(), Ok("//a/./%2f%zz"));
    }
}
