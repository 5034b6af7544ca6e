//! What proxies in front of Weir say of the client: `x-forwarded-for` and what goes with it, believed of those that
//! are trusted, and continued for the upstream.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use crate::config::value::IpNet;
use crate::http::marks::Marks;
use crate::http::message::Scheme;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Headers that only a proxy that is trusted may have set.
const CLAIMS: [HeaderName; 5] = [
    FORWARDED_FOR,
    FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    header::FORWARDED,
];

/// Removes what nobody who is trusted has said, and adds what Weir itself sees: whose connection it is, and over what.
/// Returns the client's address.
/// `own`: the address of that connection's peer, as it is written. `marks`: those of the headers.
pub fn forwarded(
    headers: &mut HeaderMap,
    marks: Marks,
    (peer, own): (IpAddr, &HeaderValue),
    scheme: Scheme,
    trusted: &[IpNet],
) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(address));
    let claims = marks.has(Marks::FORWARDED);
    if !claims || !is_trusted(peer) {
        if claims {
            CLAIMS.iter().for_each(|name| drop(headers.remove(name)));
        }
        headers.insert(FORWARDED_FOR, own.clone());
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
        return peer;
    }
    // Some proxies add a line of their own: all lines are one list, and the last of it is what the nearest said.
    let lines: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    let client = client_of(&lines, peer, is_trusted);
    let list = lines.into_iter().chain([own.as_bytes()]).collect::<Vec<_>>().join(b", ".as_slice());
    if let Ok(list) = HeaderValue::try_from(list) {
        headers.insert(FORWARDED_FOR, list);
    }
    let mut told = headers.get_all(FORWARDED_PROTO).iter();
    let known = |scheme: &&HeaderValue| ["http", "https"].iter().any(|known| *scheme == known);
    // What is no scheme, or several, leaves it open which is meant.
    if told.next().filter(known).is_none() || told.next().is_some() {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
    }
    client
}

/// The client, as proxies that are trusted have told it: the last address of the list that is not of such a proxy, or,
/// when all are, the first. What stands before it was said by somebody who is not trusted, and what is no address ends
/// what can be known: then the nearest proxy that is known counts.
fn client_of(lines: &[&[u8]], peer: IpAddr, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        let hop = str::from_utf8(hop).ok().map(|hop| hop.trim_matches([' ', '\t']));
        let Some(address) = hop.and_then(address_of) else { break };
        client = address.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// An address, with or without a port.
fn address_of(hop: &str) -> Option<IpAddr> {
    let within = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    within.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    /// What becomes of some headers that a peer in 10.0.0.0/8 sends: all of them, and the client.
    fn of(lines: &[(&'static str, &'static str)], trusted: &[IpNet]) -> (HeaderMap, String) {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
        };
        let mut headers: HeaderMap = lines.iter().map(header).collect();
        let (marks, own) = (Marks::of(&headers), HeaderValue::from_static("10.0.0.7"));
        let client = forwarded(&mut headers, marks, (PEER, &own), Scheme::Https, trusted);
        (headers, client.to_string())
    }

    fn trusted() -> [IpNet; 2] {
        [IpNet::from(([10, 0, 0, 0], 8)), IpNet::from(([192, 0, 2, 1], 32))]
    }

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
        for (list, client) in [
            ("203.0.113.9", "203.0.113.9"),
            ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
            ("6.6.6.6,203.0.113.9,10.1.2.3", "203.0.113.9"),
            ("203.0.113.9, 192.0.2.1 ,\t10.1.2.3", "203.0.113.9"),
            ("6.6.6.6, 203.0.113.9, 192.0.2.2, 10.1.2.3", "192.0.2.2"),
            // All are trusted: the one that is farthest away.
            ("10.9.9.9, 192.0.2.1, 10.1.2.3", "10.9.9.9"),
            ("2001:db8::5, 10.1.2.3", "2001:db8::5"),
            ("[2001:db8::5]:4711, 10.1.2.3", "2001:db8::5"),
            ("[2001:db8::5]", "2001:db8::5"),
            ("203.0.113.9:4711", "203.0.113.9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            // What is no address ends what can be known.
            ("203.0.113.9, unknown", "10.0.0.7"),
            ("\u{e9}, 203.0.113.9", "203.0.113.9"),
            ("203.0.113.9, unknown, 10.1.2.3", "10.1.2.3"),
            ("203.0.113.9,", "10.0.0.7"),
            ("203.0.113.9, 10.1.2.300", "10.0.0.7"),
            ("", "10.0.0.7"),
        ] {
            let (headers, found) = of(&[("x-forwarded-for", list)], &trusted());
            assert_eq!(found, client, "{list}");
            assert_eq!(headers["x-forwarded-for"], format!("{list}, 10.0.0.7"), "{list}");
            let (headers, found) = of(&[("x-forwarded-for", list)], &[]);
            assert_eq!(
                (found.as_str(), &headers["x-forwarded-for"]),
                ("10.0.0.7", &HeaderValue::from_static("10.0.0.7"))
            );
        }
        assert_eq!(of(&[], &trusted()).1, "10.0.0.7");
        let two = [("x-forwarded-for", "6.6.6.6, 203.0.113.9"), ("x-forwarded-for", "10.1.2.3")];
        assert_eq!(of(&two, &trusted()).1, "203.0.113.9", "all lines are one list");
    }

    #[test]
    fn claims_of_strangers_are_replaced_and_those_of_trusted_proxies_continued() {
        let claims =
            [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "http"), ("x-forwarded-host", "evil")];
        let (headers, _) = of(&claims, &[]);
        assert_eq!(headers["x-forwarded-for"], "10.0.0.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert!(!headers.contains_key("x-forwarded-host"));
        let (headers, _) = of(&claims, &trusted());
        assert_eq!(headers["x-forwarded-for"], "1.2.3.4, 10.0.0.7");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "evil");
    }

    #[test]
    fn all_lines_of_x_forwarded_for_are_one_list() {
        let claims = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "9.9.9.9")];
        let (headers, _) = of(&claims, &trusted());
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 9.9.9.9, 10.0.0.7");
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
    }

    #[test]
    fn what_is_no_scheme_or_several_is_replaced_by_what_weir_sees() {
        const PROTO: &str = "x-forwarded-proto";
        for claims in [
            &[(PROTO, "ftp")][..],
            &[(PROTO, "http,https")],
            &[(PROTO, "")],
            &[(PROTO, "http"), (PROTO, "http")],
        ] {
            let (headers, _) = of(claims, &trusted());
            assert_eq!(headers.get_all(PROTO).iter().collect::<Vec<_>>(), ["https"], "{claims:?}");
        }
        assert_eq!(of(&[(PROTO, "http")], &trusted()).0[PROTO], "http");
    }
}
