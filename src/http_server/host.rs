//! Hosts: the name or address and the port of `Host` and its like.

/// Splits `host[:port]`, with the brackets of an IPv6 address removed. A port that is no port is left out.
pub fn split_host(host: &str) -> (&str, Option<u16>) {
    if let Some(rest) = host.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((address, port)) => (address, port.strip_prefix(':').and_then(parse_port)),
            None => (host, None),
        };
    }
    // A byte at a time: hosts are short, and searches are made for long texts.
    match host.bytes().position(|byte| byte == b':') {
        // More than one colon without brackets is a bare IPv6 address, whose end is no port.
        Some(colon) if host.bytes().skip(colon + 1).all(|byte| byte != b':') => {
            (&host[..colon], parse_port(&host[colon + 1..]))
        }
        _ => (host, None),
    }
}

/// A port: digits and nothing else, where `str::parse` takes a plus sign too.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_split_into_address_and_port() {
        for (host, expected) in [
            ("shop.example", ("shop.example", None)),
            ("shop.example:8080", ("shop.example", Some(8080))),
            ("127.0.0.1:80", ("127.0.0.1", Some(80))),
            ("[::1]:8080", ("::1", Some(8080))),
            ("[::1]", ("::1", None)),
            ("::1", ("::1", None)),
            ("shop.example:http", ("shop.example", None)),
            ("shop.example:99999", ("shop.example", None)),
            ("shop.example:+80", ("shop.example", None)),
            ("[::1", ("[::1", None)),
            (":80", ("", Some(80))),
            ("", ("", None)),
        ] {
            assert_eq!(split_host(host), expected, "{host}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_split_into_parts_of_itself(host in any::<String>()) {
            let (address, _) = split_host(&host);
            prop_assert!(host.contains(address));
        }

        #[test]
        fn splitting_what_was_joined_is_the_identity(name in "[a-z0-9.-]{0,20}", address: std::net::Ipv6Addr, port: u16) {
            let (host, address) = (format!("{name}:{port}"), address.to_string());
            prop_assert_eq!(split_host(&host), (&*name, Some(port)));
            let host = format!("[{address}]:{port}");
            prop_assert_eq!(split_host(&host), (&*address, Some(port)));
        }
    }
}
