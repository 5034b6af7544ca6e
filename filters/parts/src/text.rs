//! Small questions about texts of HTTP.

/// Whether a text can be the name of a header or a method (RFC 9110 section 5.6.2).
#[must_use]
pub fn is_token(text: &str) -> bool {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(token)
}

/// Whether a text can stand in a header as it is: printable ASCII and spaces, none of them at an end.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) && text.trim() == text
}

/// The host of an authority in lower case, without port, and without the dot of the root.
#[must_use]
pub fn host_of(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        // The colons of an address in brackets are its own.
        Some((host, port)) if !port.ends_with(']') => host,
        Some(_) | None => authority,
    };
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Path and query of a target, apart. What follows a `#` is neither.
#[must_use]
pub fn path_and_query(target: &str) -> (&str, Option<&str>) {
    let target = target.split_once('#').map_or(target, |(target, _)| target);
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// Whether a name is a pattern's: exact, or with `*.` before it every name below it. Both are in lower case.
#[must_use]
pub fn name_fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => pattern == name,
    }
}

/// A pattern of names as [`name_fits`] takes it.
///
/// # Errors
/// When it would fit names that only end alike.
pub fn name_pattern(pattern: &str) -> Result<String, String> {
    let rest = pattern.strip_prefix("*.").unwrap_or(pattern);
    if rest.is_empty() || rest.contains('*') {
        let cure = format!("*.{}", pattern.replace('*', "").trim_start_matches('.'));
        return Err(format!(
            "`{pattern}` is no pattern of names: an asterisk stands before a dot, as in `{cure}`"
        ));
    }
    Ok(pattern.strip_suffix('.').unwrap_or(pattern).to_ascii_lowercase())
}

/// Whether two texts are the same, in a time that tells nothing of where they differ.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_port_dot_and_case() {
        assert_eq!(host_of("API.example.com.:8443"), "api.example.com");
        assert_eq!(host_of("[2001:DB8::1]:80"), "[2001:db8::1]");
        assert_eq!(host_of("[::1]"), "[::1]");
    }

    #[test]
    fn a_pattern_is_for_names_below_it_and_not_for_those_that_end_alike() {
        let pattern = name_pattern("*.Example.com").expect("a pattern");
        assert!(name_fits(&pattern, "a.b.example.com"));
        for other in ["example.com", "notexample.com", ".example.com"] {
            assert!(!name_fits(&pattern, other), "{other}");
        }
        assert!(name_fits(&name_pattern("a.example.").expect("a name"), "a.example"));
        for (wrong, cure) in [
            ("*example.com", "`*.example.com`"),
            ("a.*.com", "asterisk"),
            ("*.", "asterisk"),
            ("*", "asterisk"),
        ] {
            assert!(name_pattern(wrong).expect_err(wrong).contains(cure), "{wrong}");
        }
    }

    #[test]
    fn same_is_equality() {
        assert!(same(b"abc", b"abc") && same(b"", b""));
        for (a, b) in [("abc", "abd"), ("abc", "ab"), ("", "a"), ("xbc", "abc")] {
            assert!(!same(a.as_bytes(), b.as_bytes()), "{a} {b}");
        }
    }
}
