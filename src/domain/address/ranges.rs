//! Which addresses are not public ones: the special-purpose registries of IANA (RFC 6890 and its updates) and the
//! places where clouds keep their metadata.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const METADATA: &str = "a cloud metadata address";
const UNSPECIFIED: &str = "an unspecified address";
const LOOPBACK: &str = "a loopback address";
const PRIVATE: &str = "a private address";
const LINK_LOCAL: &str = "a link-local address";
const SHARED: &str = "a carrier-grade NAT address";
const DOCUMENTATION: &str = "a documentation address";
const BENCHMARKING: &str = "a benchmarking address";
const MULTICAST: &str = "a multicast address";
const RESERVED: &str = "a reserved address";

/// The first that holds an address names it.
const IPV4: [(Ipv4Net, &str); 18] = [
    (v4([169, 254, 169, 254], 32), METADATA),
    // Azure's is a public address that only its virtual machines reach.
    (v4([168, 63, 129, 16], 32), METADATA),
    (v4([0, 0, 0, 0], 8), UNSPECIFIED),
    (v4([10, 0, 0, 0], 8), PRIVATE),
    (v4([100, 64, 0, 0], 10), SHARED),
    (v4([127, 0, 0, 0], 8), LOOPBACK),
    (v4([169, 254, 0, 0], 16), LINK_LOCAL),
    (v4([172, 16, 0, 0], 12), PRIVATE),
    (v4([192, 0, 0, 0], 24), RESERVED),
    (v4([192, 0, 2, 0], 24), DOCUMENTATION),
    (v4([192, 88, 99, 0], 24), RESERVED),
    (v4([192, 168, 0, 0], 16), PRIVATE),
    (v4([198, 18, 0, 0], 15), BENCHMARKING),
    (v4([198, 51, 100, 0], 24), DOCUMENTATION),
    (v4([203, 0, 113, 0], 24), DOCUMENTATION),
    (v4([224, 0, 0, 0], 4), MULTICAST),
    (v4([255, 255, 255, 255], 32), "a broadcast address"),
    (v4([240, 0, 0, 0], 4), RESERVED),
];

const IPV6: [(Ipv6Net, &str); 13] = [
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), UNSPECIFIED),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), LOOPBACK),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128), METADATA),
    (v6([0xfc00, 0, 0], 7), "a unique local address"),
    (v6([0xfe80, 0, 0], 10), LINK_LOCAL),
    (v6([0xfec0, 0, 0], 10), "a site-local address"),
    (v6([0xff00, 0, 0], 8), MULTICAST),
    (v6([0x64, 0xff9b, 1], 48), "a local NAT64 address"),
    (v6([0x2001, 0x2, 0], 48), BENCHMARKING),
    (v6([0x2001, 0xdb8, 0], 32), DOCUMENTATION),
    (v6([0x3fff, 0, 0], 20), DOCUMENTATION),
    // Protocol assignments, Teredo among them, which is read by the address that it carries.
    (v6([0x2001, 0, 0], 23), RESERVED),
    (v6([0x5f00, 0, 0], 16), RESERVED),
];

/// What is given out for use on the Internet (RFC 4291 §2.4).
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0], 3);

const COMPATIBLE: Ipv6Net = v6([0, 0, 0], 96);
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0], 96);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0], 16);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0], 32);

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c]: [u16; 3], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// What kind of address it is, if not a public one. One that carries another is not looked into.
pub(super) fn special(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => IPV4.iter().find(|(network, _)| network.contains(&ip)).map(|(_, kind)| *kind),
        IpAddr::V6(ip) => IPV6
            .iter()
            .find(|(network, _)| network.contains(&ip))
            .map(|(_, kind)| *kind)
            .or((!GLOBAL_UNICAST.contains(&ip)).then_some(RESERVED)),
    }
}

/// The IPv4 address that a gateway, or the system itself, makes of an IPv6 address: mapped and compatible (RFC 4291
/// §2.5.5), NAT64 (RFC 6052), 6to4 (RFC 3056) and Teredo (RFC 4380), whose client's is inverted.
pub(super) fn carried_ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let bits = ip.to_bits();
    if ip.is_unspecified() || ip.is_loopback() {
        None
    } else if SIX_TO_FOUR.contains(&ip) {
        Some(Ipv4Addr::from_bits((bits >> 80) as u32))
    } else if TEREDO.contains(&ip) {
        Some(Ipv4Addr::from_bits(!(bits as u32)))
    } else if COMPATIBLE.contains(&ip) || NAT64.contains(&ip) {
        Some(Ipv4Addr::from_bits(bits as u32))
    } else {
        ip.to_ipv4_mapped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_public_or_of_a_special_kind() {
        let check = |kind: Option<&str>, addresses: &[&str]| {
            for ip in addresses {
                assert_eq!(special(ip.parse().unwrap()), kind, "{ip}");
            }
        };
        check(
            None,
            &["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"],
        );
        check(None, &["169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.0.0"]);
        check(None, &["192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.15"]);
        check(None, &["2606:4700::1111", "2a00::1", "2001:200::1", "2001:4860:4860::8888", "2400::1"]);
        check(Some(UNSPECIFIED), &["0.0.0.0", "0.255.255.255", "::"]);
        check(Some(PRIVATE), &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0"]);
        check(Some(SHARED), &["100.64.0.0", "100.100.100.200", "100.127.255.255"]);
        check(Some(LOOPBACK), &["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1"]);
        check(Some(LINK_LOCAL), &["169.254.0.0", "169.254.255.255", "fe80::1", "febf::1"]);
        check(Some(METADATA), &["169.254.169.254", "168.63.129.16", "fd00:ec2::254"]);
        check(Some(DOCUMENTATION), &["192.0.2.1", "198.51.100.255", "203.0.113.0", "2001:db8::1", "3fff:fff::1"]);
        check(Some(BENCHMARKING), &["198.18.0.0", "198.19.255.255", "2001:2::1"]);
        check(Some(MULTICAST), &["224.0.0.1", "239.255.255.255", "ff02::1"]);
        check(Some(RESERVED), &["192.0.0.0", "192.0.0.192", "192.88.99.1", "240.0.0.0", "255.255.255.254"]);
        check(Some(RESERVED), &["100::1", "2001:1ff::1", "4000::1", "5f00::1", "::ffff:0:808:808", "1::1"]);
        check(Some("a broadcast address"), &["255.255.255.255"]);
        check(Some("a unique local address"), &["fc00::", "fd12:3456::1", "fdff::1"]);
        check(Some("a site-local address"), &["fec0::1"]);
        check(Some("a local NAT64 address"), &["64:ff9b:1::a00:1"]);
    }

    #[test]
    fn an_ipv4_address_inside_is_found() {
        let check = |ip: &str, expected: Option<[u8; 4]>| {
            assert_eq!(carried_ipv4(ip.parse().unwrap()), expected.map(Ipv4Addr::from), "{ip}");
        };
        check("::ffff:10.1.2.3", Some([10, 1, 2, 3]));
        check("::10.1.2.3", Some([10, 1, 2, 3]));
        check("64:ff9b::10.1.2.3", Some([10, 1, 2, 3]));
        check("2002:a01:203:1::9", Some([10, 1, 2, 3]));
        check("2001:0:808:808:0:1:f5fe:fdfc", Some([10, 1, 2, 3]));
        for none in ["10.1.2.3", "::", "::1", "2606:4700::1111", "64:ff9b:1::a00:1", "2001:1::1"] {
            check(none, None);
        }
    }
}
