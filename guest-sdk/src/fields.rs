//! Values that have an inside: cookies, query strings.

use std::borrow::Cow;

/// The cookies of `Cookie` headers, in order (RFC 6265 section 5.4). One that has no `=` is passed over.
pub(crate) fn cookies(header: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = header.split(';').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim(), unquoted(value.trim())))
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// The parameters of a path's query, decoded, in order.
pub(crate) fn query(path: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

/// Without percent-encoding, and with spaces for plus signs. What is no encoding stays as it is.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let (mut bytes, mut out) = (text.as_bytes(), Vec::with_capacity(text.len()));
    while let Some((&byte, rest)) = bytes.split_first() {
        let digit = |at: usize| rest.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                bytes = rest.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
        bytes = rest;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_pairs_in_their_order() {
        let all: Vec<_> = cookies("a=1; b=\"two\";  c = x=y ; none; a=3").collect();
        assert_eq!(all, [("a", "1"), ("b", "two"), ("c", "x=y"), ("a", "3")]);
    }

    #[test]
    fn parameters_are_decoded_and_nonsense_stays() {
        let all: Vec<_> = query("/p?a=1&b=x%20y+z&c&a=%C3%A4&d=%zz%4&&e=%ff").collect();
        let expected = [("a", "1"), ("b", "x y z"), ("c", ""), ("a", "ä"), ("d", "%zz%4"), ("e", "\u{fffd}")];
        assert_eq!(all, expected.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(query("/p").count(), 0);
    }
}
