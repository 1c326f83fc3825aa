//! The proxies whose word on the client is taken.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// One member of the list: `*`, `unix`, an address, or a network in CIDR notation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrustedProxy {
    /// `*`: whoever connects. Right only where nothing but the proxy can reach the server.
    Everyone,
    /// `unix`: peers without an address, as on a unix socket.
    Unix,
    /// `192.0.2.1`, `10.0.0.0/8`, `2001:db8::/32`: peers in a network.
    Network(Network),
}

/// A block of addresses of one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    first: IpAddr,
    prefix_len: u8,
}

impl Network {
    /// The block of `prefix_len` that holds `address`; an IPv4 address in IPv6 clothes counts as IPv4.
    fn around(address: IpAddr, prefix_len: u8) -> Option<Self> {
        let canonical = address.to_canonical();
        // ::ffff:0:0/96 is where IPv4 lives (RFC 4291, section 2.5.5.2).
        let (address, prefix_len) = match (address, canonical, prefix_len.checked_sub(96)) {
            (IpAddr::V6(_), IpAddr::V4(_), Some(rest)) => (canonical, rest),
            _ => (address, prefix_len),
        };
        let first = match address {
            IpAddr::V4(address) => {
                let free = 32_u32.checked_sub(prefix_len.into())?;
                let mask = u32::MAX.checked_shl(free).unwrap_or(0);
                IpAddr::V4((address.to_bits() & mask).into())
            }
            IpAddr::V6(address) => {
                let free = 128_u32.checked_sub(prefix_len.into())?;
                let mask = u128::MAX.checked_shl(free).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        Some(Self { first, prefix_len })
    }

    /// Whether `address`, in canonical form, is in the block.
    fn contains(&self, address: IpAddr) -> bool {
        let (differences, len) = match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => (
                u128::from(first.to_bits() ^ address.to_bits()) << 96,
                u32::from(self.prefix_len),
            ),
            (IpAddr::V6(first), IpAddr::V6(address)) => (
                first.to_bits() ^ address.to_bits(),
                u32::from(self.prefix_len),
            ),
            _ => return false,
        };
        differences.leading_zeros() >= len
    }
}

impl FromStr for TrustedProxy {
    type Err = String;

    /// The error is what the text is instead, to be written behind it.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "*" => return Ok(Self::Everyone),
            _ if text.eq_ignore_ascii_case("unix") => return Ok(Self::Unix),
            _ => {}
        }
        let refused = || "not an IP address, a network such as 10.0.0.0/8, unix or *".to_owned();
        let (address, prefix_len) = text
            .split_once('/')
            .map_or((text, None), |(address, len)| (address, Some(len)));
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = match prefix_len {
            None => most,
            Some(len) if len.bytes().all(|byte| byte.is_ascii_digit()) => {
                len.parse().map_err(|_| refused())?
            }
            Some(_) => return Err(refused()),
        };
        let network = Network::around(address, prefix_len).ok_or_else(refused)?;
        // Bits behind the prefix are a slip, and the network is wider than it looks.
        if !is_first(address, network) {
            return Err(format!(
                "not a network: did you mean {}/{}, which begins there, or the address alone?",
                network.first, network.prefix_len
            ));
        }
        Ok(Self::Network(network))
    }
}

fn is_first(address: IpAddr, network: Network) -> bool {
    address == network.first || address.to_canonical() == network.first
}

/// The proxies whose `Forwarded` and `X-Forwarded-*` headers are read. Nobody unless configured: any client can send them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrustedProxies {
    everyone: bool,
    unix: bool,
    networks: Vec<Network>,
}

impl FromIterator<TrustedProxy> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = TrustedProxy>>(proxies: I) -> Self {
        let mut trusted = Self::default();
        for proxy in proxies {
            match proxy {
                TrustedProxy::Everyone => trusted.everyone = true,
                TrustedProxy::Unix => trusted.unix = true,
                TrustedProxy::Network(network) => trusted.networks.push(network),
            }
        }
        trusted
    }
}

impl TrustedProxies {
    /// Whether nobody is trusted, so that no header needs to be read.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.everyone && !self.unix && self.networks.is_empty()
    }

    /// Whether everybody is trusted.
    #[inline]
    pub fn trusts_everyone(&self) -> bool {
        self.everyone
    }

    /// Whether `peer`, the address in the scope's `client`, is trusted; `None`, an empty text and a path are a unix socket.
    ///
    /// ```
    /// use rvh_trace::http_server::TrustedProxies;
    ///
    /// let proxies: TrustedProxies = ["10.0.0.0/8".parse()?].into_iter().collect();
    /// assert!(proxies.trusts(Some("10.1.2.3")) && !proxies.trusts(Some("192.0.2.1")));
    /// # Ok::<(), String>(())
    /// ```
    pub fn trusts(&self, peer: Option<&str>) -> bool {
        if self.everyone || self.is_empty() {
            return self.everyone;
        }
        let peer = peer.unwrap_or_default();
        if peer.is_empty() || peer.starts_with(['/', '@', '\0']) || peer == "unix:" {
            return self.unix;
        }
        // A link-local address may come with its zone, as in fe80::1%eth0.
        let address = peer.split_once('%').map_or(peer, |(address, _)| address);
        address
            .parse()
            .is_ok_and(|address| self.trusts_address(address))
    }

    /// Whether a peer of this address is trusted.
    pub fn trusts_address(&self, address: IpAddr) -> bool {
        // Servers that listen on IPv6 for both families show ::ffff:10.0.0.1.
        let address = address.to_canonical();
        self.everyone
            || self
                .networks
                .iter()
                .any(|network| network.contains(address))
    }

    /// Whether a peer on a unix socket is trusted.
    pub fn trusts_unix(&self) -> bool {
        self.everyone || self.unix
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proxies(list: &[&str]) -> TrustedProxies {
        list.iter().filter_map(|proxy| proxy.parse().ok()).collect()
    }

    #[test]
    fn peers_are_trusted_by_address_network_or_kind() {
        for (list, peer, expected) in [
            (&[][..], Some("127.0.0.1"), false),
            (&[], None, false),
            (&["127.0.0.1"], Some("127.0.0.1"), true),
            (&["127.0.0.1"], Some("::ffff:127.0.0.1"), true),
            (&["127.0.0.1"], Some("127.0.0.2"), false),
            (&["127.0.0.1"], None, false),
            (
                &["10.0.0.0/8", "192.168.0.0/16"],
                Some("192.168.255.1"),
                true,
            ),
            (&["10.0.0.0/8", "192.168.0.0/16"], Some("11.0.0.0"), false),
            (&["192.0.2.0/31"], Some("192.0.2.1"), true),
            (&["192.0.2.0/31"], Some("192.0.2.2"), false),
            (&["0.0.0.0/0"], Some("203.0.113.9"), true),
            (&["0.0.0.0/0"], Some("2001:db8::1"), false),
            (&["::/0"], Some("2001:db8::1"), true),
            (&["::/0"], Some("203.0.113.9"), false),
            (&["::ffff:10.0.0.0/104"], Some("10.9.8.7"), true),
            (&["::ffff:10.0.0.1"], Some("10.0.0.1"), true),
            (&["2001:db8::/33"], Some("2001:db8:7fff::1"), true),
            (&["2001:db8::/33"], Some("2001:db8:8000::1"), false),
            (&["fe80::/10"], Some("fe80::1%eth0"), true),
            (&["::1"], Some("0:0:0:0:0:0:0:1"), true),
            (&["unix"], None, true),
            (&["UNIX"], Some(""), true),
            (&["unix"], Some("/run/shop.sock"), true),
            (&["unix"], Some("unix:"), true),
            (&["unix"], Some("testclient"), false),
            (&["unix"], Some("127.0.0.1"), false),
            (&["127.0.0.1"], Some("testclient"), false),
            (&["127.0.0.1"], Some("/run/shop.sock"), false),
            (&["*"], Some("testclient"), true),
            (&["*"], Some("127.0.0.1"), true),
            (&["*"], None, true),
        ] {
            let proxies = proxies(list);
            assert_eq!(proxies.trusts(peer), expected, "{list:?} {peer:?}");
            assert_eq!(proxies.is_empty(), list.is_empty());
            assert_eq!(proxies.trusts_everyone(), list == ["*"]);
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_with_what_would_be_right() {
        const SHAPES: &str = "not an IP address, a network such as 10.0.0.0/8, unix or *";
        for (text, expected) in [
            ("shop.example", SHAPES),
            ("", SHAPES),
            ("10.0.0.0/33", SHAPES),
            ("::/129", SHAPES),
            ("::/999", SHAPES),
            ("10.0.0.0/", SHAPES),
            ("10.0.0.0/+8", SHAPES),
            ("10.0.0.0/255.0.0.0", SHAPES),
            ("[::1]", SHAPES),
            ("127.0.0.1:80", SHAPES),
            (
                "10.0.0.1/8",
                "not a network: did you mean 10.0.0.0/8, which begins there, or the address alone?",
            ),
            (
                "2001:db8::1/32",
                "not a network: did you mean 2001:db8::/32, which begins there, or the address alone?",
            ),
        ] {
            assert_eq!(
                text.parse::<TrustedProxy>(),
                Err(expected.to_owned()),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_proxy_or_refused_and_trusted_or_not(text in "[0-9a-f.:/%*]{0,20}", peer: Option<String>) {
            let parsed = text.parse::<TrustedProxy>();
            let proxies: TrustedProxies = parsed.into_iter().collect();
            proxies.trusts(Some(&text));
            proxies.trusts(peer.as_deref());
        }

        #[test]
        fn a_network_holds_what_shares_its_prefix(first: u128, other: u128, len in 0_u8..=128) {
            // Not a mapped address, which is another family.
            let (first, other) = (first | 1 << 127, other | 1 << 127);
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            let network = format!("{}/{len}", Ipv6Addr::from_bits(first & mask));
            let peer = Ipv6Addr::from_bits(other).to_string();
            let near = Ipv6Addr::from_bits(first & mask | other & !mask);
            prop_assert_eq!(proxies(&[&network]).trusts(Some(&peer)), first & mask == other & mask);
            prop_assert!(len == 0 || proxies(&[&network]).trusts(Some(&near.to_string())));
        }
    }
}
