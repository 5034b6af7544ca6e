//! Which addresses are nobody's business outside: what a DNS name may not lead a plugin's call to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What makes an address private, when something does: it belongs to this host, to a network that is not the public
/// one, or to a cloud's metadata service, itself or within an IPv6 form of it (IANA's special-purpose registries).
pub fn kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => of_v4(address),
        IpAddr::V6(address) => of_v6(address),
    }
}

fn of_v4(address: Ipv4Addr) -> Option<&'static str> {
    // AWS, Azure and Google; Alibaba; Oracle; Azure's wire server.
    const METADATA: [[u8; 4]; 4] =
        [[169, 254, 169, 254], [100, 100, 100, 200], [192, 0, 0, 192], [168, 63, 129, 16]];
    let octets = address.octets();
    if METADATA.contains(&octets) {
        return Some("a metadata service");
    }
    match octets {
        [0, ..] => Some("unspecified"),
        [127, ..] => Some("loopback"),
        [169, 254, ..] => Some("link-local"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("private"),
        [100, 64..=127, ..] => Some("of a carrier's own network"),
        [192, 0, 0, _] | [198, 18..=19, ..] => Some("reserved"),
        [224..=239, ..] => Some("multicast"),
        [240..=255, ..] => Some("reserved"),
        _ => None,
    }
}

fn of_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) {
        return Some("a metadata service");
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xfec0..=0xfeff, ..] => Some("site-local"),
        [0xfc00..=0xfdff, ..] => Some("private"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        // NAT64 within a network of one's own leads wherever that network says.
        [0x64, 0xff9b, 1, ..] => Some("private"),
        // IPv4-compatible, IPv4-mapped, IPv4-translated, NAT64.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => of_v4(within(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => of_v4(within(high, low)),
        // Teredo: the client's address is there inverted.
        [0x2001, 0, server_high, server_low, _, _, high, low] => {
            of_v4(within(server_high, server_low)).or_else(|| of_v4(within(!high, !low)))
        }
        // ISATAP.
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => of_v4(within(high, low)),
        _ => None,
    }
}

fn within(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_private(address: &str) -> bool {
        kind(address.parse().expect("an address")).is_some()
    }

    #[test]
    fn addresses_of_this_host_of_networks_and_of_metadata_services_are_private_in_every_form() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.8.9.10",
            "168.63.129.16",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::8.8.8.8",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001:0:808:808::f5ff:fffe",
            "2001:0:a00:1::f7f7:f7f7",
            "2a00::5efe:10.0.0.1",
            "2a00::200:5efe:192.168.0.1",
        ] {
            assert!(is_private(address), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_not_private_whatever_stands_beside_them() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:0:808:808::f7f7:f7f7",
            "2a00::5efe:8.8.8.8",
        ] {
            assert!(!is_private(address), "{address}");
        }
    }
}
