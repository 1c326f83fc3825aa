//! The rules of an HTTP server span that need no server: methods, hosts, queries (HTTP semantic conventions 1.44).

use std::borrow::Cow;

/// The methods that keep their name (semantic conventions, `http.request.method`); case-sensitive.
const KNOWN_METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
];

/// Query parameters whose values are credentials (semantic conventions, `url.query`); case-sensitive.
const SECRET_PARAMETERS: [&str; 7] = [
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Goog-Signature",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
];

/// Whether a method is reported as it is. `configured` replaces the standard list.
pub fn is_known_method(method: &str, configured: Option<&[String]>) -> bool {
    match configured {
        Some(methods) => methods.iter().any(|known| known == method),
        None => KNOWN_METHODS.contains(&method),
    }
}

/// Splits `host[:port]`, with the brackets of an IPv6 address removed. A port that is no port is left out.
pub fn split_host(host: &str) -> (&str, Option<u16>) {
    if let Some(rest) = host.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((address, port)) => (
                address,
                port.strip_prefix(':').and_then(|port| port.parse().ok()),
            ),
            None => (host, None),
        };
    }
    // A byte at a time, from the end: hosts are short, and `str` searches are made for long texts.
    let bytes = host.as_bytes();
    match bytes.iter().rposition(|byte| *byte == b':') {
        // More than one colon without brackets: a bare IPv6 address.
        Some(colon) if !bytes[..colon].contains(&b':') => {
            (&host[..colon], host[colon + 1..].parse().ok())
        }
        _ => (host, None),
    }
}

/// The query with the values of well-known credentials replaced by `REDACTED`; keys and order stay.
pub fn redact_query(query: &str) -> Cow<'_, str> {
    if !holds_secret(query.as_bytes()) {
        return Cow::Borrowed(query);
    }
    let redacted: Vec<_> = query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((key, _)) if is_secret(key.as_bytes()) => Cow::Owned(format!("{key}=REDACTED")),
            _ => Cow::Borrowed(parameter),
        })
        .collect();
    Cow::Owned(redacted.join("&"))
}

/// Whether any parameter is a credential. One pass over the bytes: queries are short, and `str` searches are made for long
/// texts.
fn holds_secret(query: &[u8]) -> bool {
    let mut start = 0;
    for (index, byte) in query.iter().enumerate() {
        match byte {
            b'=' if is_secret(&query[start..index]) => return true,
            b'&' => start = index + 1,
            _ => {}
        }
    }
    false
}

fn is_secret(key: &[u8]) -> bool {
    // The first letter rules most keys out.
    matches!(key.first(), Some(b'A' | b'S' | b's' | b'X'))
        && SECRET_PARAMETERS
            .iter()
            .any(|secret| secret.as_bytes() == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_exact_case() {
        assert!(is_known_method("QUERY", None));
        assert!(!is_known_method("get", None));
        let configured = ["PURGE".to_owned()];
        assert!(is_known_method("PURGE", Some(&configured)));
        assert!(!is_known_method("GET", Some(&configured)));
    }

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
            ("[::1", ("[::1", None)),
            (":80", ("", Some(80))),
            ("", ("", None)),
        ] {
            assert_eq!(split_host(host), expected, "{host}");
        }
    }

    #[test]
    fn credentials_in_queries_are_redacted_and_nothing_else() {
        for (query, expected) in [
            ("q=1&sig=secret&x", "q=1&sig=REDACTED&x"),
            (
                "X-Amz-Signature=a%20b&Signature=",
                "X-Amz-Signature=REDACTED&Signature=REDACTED",
            ),
            ("SIG=kept&signature=kept", "SIG=kept&signature=kept"),
            ("sig", "sig"),
            ("a=b&&c", "a=b&&c"),
            ("", ""),
        ] {
            assert_eq!(redact_query(query), expected);
        }
    }
}
