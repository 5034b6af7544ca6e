//! Addresses and networks. An IPv4 address that is written as an IPv6 one (`::ffff:10.0.0.1`) is the IPv4 address,
//! everywhere.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use weir_sdk::schema::Schema;

/// A network: an address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Schema)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not an address or a network; write `10.0.0.0/8` or `2001:db8::/32`");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.as_str(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = width(address);
        let digits = |bits: &&str| !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = match bits {
            None => most,
            Some(bits) => Some(bits).filter(digits).and_then(|bits| bits.parse().ok()).ok_or_else(wrong)?,
        };
        if bits > most {
            return Err(format!("`{text}`: its addresses have {most} bits, not {bits}"));
        }
        let network = Self { address: masked(address, bits), bits };
        if network.address != address {
            return Err(format!("`{text}` has bits beyond its {bits}; write `{}/{bits}`", network.address));
        }
        Ok(network.canonical())
    }
}

impl Network {
    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.address.is_ipv4() == address.is_ipv4() && masked(address, self.bits) == self.address
    }

    /// A network of IPv4 addresses that are written as IPv6 ones is one of IPv4.
    fn canonical(self) -> Self {
        match (self.address, self.bits.checked_sub(96)) {
            (IpAddr::V6(v6), Some(bits)) => match v6.to_ipv4_mapped() {
                Some(v4) => Self { address: v4.into(), bits },
                None => self,
            },
            (IpAddr::V4(_) | IpAddr::V6(_), _) => self,
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with only its first bits.
#[must_use]
pub fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

/// The address in a text, with or without a port.
#[must_use]
pub fn parse(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text).parse();
    let address = text.parse::<SocketAddr>().map(|socket| socket.ip()).or_else(|_| bare());
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// Who is at the far end of proxies that are trusted: the peer, unless it is one of them; then the last of those that
/// the proxies name (`x-forwarded-for`, all its values in order) that is not one. `None` when that is no address.
///
/// Each proxy writes at the end whom it got the request from. So everything before the first stranger, from the end,
/// is only what that stranger says.
#[must_use]
pub fn client<'a>(
    peer: IpAddr,
    forwarded_for: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[Network],
) -> Option<IpAddr> {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    let mut named = forwarded_for.flat_map(|value| value.split(',')).rev();
    while is_trusted(client) {
        let Some(next) = named.next() else { break };
        client = parse(next.trim())?;
    }
    Some(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::try_from(text.to_owned()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_holds_its_addresses_in_either_notation() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
            ("::/0", "::1", "::ffff:203.0.113.9"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
        ] {
            assert!(network(text).contains(ip(inside)), "{inside} in {text}");
            assert!(!network(text).contains(ip(outside)), "{outside} not in {text}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_cure() {
        let error = |text: &str| Network::try_from(text.to_owned()).expect_err(text);
        assert!(error("10.0.0.1/8").contains("write `10.0.0.0/8`"));
        assert!(error("10.0.0.0/33").contains("have 32 bits"));
        for text in [
            "",
            "10.0.0",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "example.com",
            "010.0.0.1",
            "0x7f.1",
            "1",
        ] {
            assert!(error(text).contains("is not an address"), "{text}");
        }
    }

    #[test]
    fn addresses_are_read_with_and_without_port() {
        for (text, address) in [
            ("192.0.2.1:80", "192.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ] {
            assert_eq!(parse(text), Some(ip(address)), "{text}");
        }
        for text in ["", "unknown", "_hidden", "192.0.2.1:", "192.0.2.1:x", "[192.0.2", "192.0.2.1 "] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_what_trusted_proxies_say_is_believed() {
        let trusted = [network("10.0.0.0/8"), network("2001:db8::/32")];
        let who = |peer: &str, values: &[&str]| client(ip(peer), values.iter().copied(), &trusted);
        assert_eq!(who("203.0.113.1", &["192.0.2.1"]), Some(ip("203.0.113.1")), "a stranger says so");
        assert_eq!(who("10.0.0.1", &["192.0.2.1"]), Some(ip("192.0.2.1")));
        assert_eq!(who("10.0.0.1", &["6.6.6.6, 192.0.2.1, 10.0.0.2"]), Some(ip("192.0.2.1")));
        assert_eq!(
            who("10.0.0.1", &["6.6.6.6", "192.0.2.1,10.0.0.2", "[2001:db8::7]:99"]),
            Some(ip("192.0.2.1"))
        );
        assert_eq!(who("::ffff:10.0.0.1", &["::ffff:192.0.2.1"]), Some(ip("192.0.2.1")));
        assert_eq!(who("10.0.0.1", &[]), Some(ip("10.0.0.1")), "nobody is named");
        assert_eq!(who("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), Some(ip("10.0.0.3")), "all are trusted");
        for odd in ["unknown", "", "192.0.2.1,", "10.0.0.9, x"] {
            assert_eq!(who("10.0.0.1", &[odd]), None, "{odd:?}");
        }
    }
}
