//! Which of the things that proxies and clients say is believed.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const PEER: Option<&str> = Some("10.0.0.9");

fn proxies(list: &str) -> TrustedProxies {
    list.split(',')
        .filter_map(|proxy| proxy.parse().ok())
        .collect()
}

fn headers<'a>(lines: &[&'a str]) -> ForwardedHeaders<'a> {
    lines
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect()
}

/// `client|client_port|host|host_port|proto`, with nothing for what is not known.
fn shown(forwarded: &Forwarded<'_>) -> String {
    let port = |port: Option<u16>| port.map(|port| port.to_string()).unwrap_or_default();
    format!(
        "{}|{}|{}|{}|{}",
        forwarded.client.as_deref().unwrap_or_default(),
        port(forwarded.client_port),
        forwarded.host.as_deref().unwrap_or_default(),
        port(forwarded.host_port),
        forwarded.proto.unwrap_or_default()
    )
}

fn read(trusted: &str, lines: &[&str]) -> String {
    shown(&Forwarded::read(&headers(lines), &proxies(trusted), PEER))
}

#[test]
fn forwarded_is_read_as_rfc_7239_writes_it() {
    for (value, expected) in [
        ("for=192.0.2.43", "192.0.2.43||||"),
        (r#"FOR="192.0.2.43:47011""#, "192.0.2.43|47011|||"),
        (r#"For="[2001:db8::1]:4711""#, "2001:db8::1|4711|||"),
        (r#"for="[2001:DB8::1]""#, "2001:DB8::1||||"),
        (r#"for="\[2001:db8::1\]:80""#, "2001:db8::1|80|||"),
        ("for=_hidden", "_hidden||||"),
        (r#"for="_SEVKISEK:_port""#, "_SEVKISEK||||"),
        ("for=unknown;proto=https", "||||https"),
        (
            "for=1.2.3.4;proto=HTTPS;host=Shop.example:8443",
            "1.2.3.4||Shop.example|8443|https",
        ),
        (r#"host="[::1]:80";proto=ws"#, "||::1|80|ws"),
        ("proto=wss", "||||wss"),
        ("proto=gopher", "||||"),
        ("host=shop/path", "||||"),
        (r#"host="a b""#, "||||"),
        (r#"host="[::1""#, "||||"),
        ("host=:80", "||||"),
        ("for=shop.example", "||||"),
        ("for=1.2.3.4:http", "1.2.3.4||||"),
        ("for=_", "||||"),
        (r#"for="_<script>""#, "||||"),
        (r#"for="1.2.3.4"#, "||||"),
        (";;,;", "||||"),
    ] {
        assert_eq!(
            read("10.0.0.0/8", &[&format!("Forwarded: {value}")]),
            expected,
            "{value}"
        );
    }
}

#[test]
fn the_client_is_the_right_most_that_is_not_trusted() {
    for (trusted, value, expected) in [
        ("10.0.0.9", "for=6.6.6.6, for=192.0.2.1", "192.0.2.1||||"),
        (
            "10.0.0.0/8",
            "for=6.6.6.6, for=192.0.2.1, for=10.0.0.1, for=10.0.0.2",
            "192.0.2.1||||",
        ),
        ("10.0.0.0/8", "for=10.0.0.3, for=10.0.0.1", "10.0.0.3||||"),
        (
            "10.0.0.0/8",
            "for=6.6.6.6, for=unknown, for=10.0.0.1",
            "||||",
        ),
        (
            "10.0.0.0/8",
            "for=6.6.6.6, for=_hidden, for=10.0.0.1",
            "_hidden||||",
        ),
        (
            "10.0.0.0/8",
            "for=6.6.6.6, proto=https, for=10.0.0.1",
            "||||https",
        ),
        (
            "10.0.0.0/8",
            "for=6.6.6.6, for=\"broken, for=10.0.0.1",
            "||||",
        ),
        (
            "10.0.0.0/8,2001:db8::/32",
            "for=6.6.6.6, for=1.1.1.1, for=\"[2001:db8::2]:9\"",
            "1.1.1.1||||",
        ),
        (
            "10.0.0.9,unix",
            "for=6.6.6.6, for=1.1.1.1, for=\"unix:\"",
            "1.1.1.1||||",
        ),
        (
            "10.0.0.9",
            "for=6.6.6.6, for=1.1.1.1, for=\"unix:\"",
            "||||",
        ),
        (
            "*",
            "for=6.6.6.6, for=192.0.2.1, for=10.0.0.1",
            "6.6.6.6||||",
        ),
        ("*", "for=unknown, for=192.0.2.1", "||||"),
        ("*", "for=6.6.6.6, for=unknown, for=_x", "6.6.6.6||||"),
    ] {
        let line = format!("Forwarded: {value}");
        assert_eq!(read(trusted, &[&line]), expected, "{trusted} {value}");
        let apart: Vec<_> = value
            .split(", ")
            .map(|one| format!("forwarded: {one}"))
            .collect();
        let apart: Vec<_> = apart.iter().map(String::as_str).collect();
        assert_eq!(read(trusted, &apart), expected, "{trusted} {apart:?}");
        if !value.contains("proto") {
            let list = value.replace("for=", "").replace('"', "");
            let line = format!("X-Forwarded-For: {list}");
            assert_eq!(read(trusted, &[&line]), expected, "{trusted} {list}");
        }
    }
}

#[test]
fn host_and_scheme_are_what_the_outermost_trusted_proxy_saw() {
    for (value, expected) in [
        (
            "for=6.6.6.6;host=evil;proto=ws, for=1.1.1.1;host=shop;proto=https, for=10.0.0.1;host=inner;proto=http",
            "1.1.1.1||shop||https",
        ),
        (
            "for=6.6.6.6;host=evil;proto=ws, for=1.1.1.1, for=10.0.0.1;host=inner, for=10.0.0.2;host=core;proto=http",
            "1.1.1.1||inner||http",
        ),
        (
            "for=1.1.1.1;host=\"<>\", for=10.0.0.1;host=inner:81",
            "1.1.1.1||inner|81|",
        ),
    ] {
        assert_eq!(
            read("10.0.0.0/8", &[&format!("Forwarded: {value}")]),
            expected,
            "{value}"
        );
    }
}

#[test]
fn nobody_is_believed_who_is_not_trusted() {
    let lines = [
        "Forwarded: for=1.1.1.1",
        "X-Forwarded-For: 1.1.1.1",
        "X-Forwarded-Host: shop",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 1",
    ];
    for (trusted, peer) in [
        ("", PEER),
        ("192.0.2.0/24", PEER),
        ("10.0.0.0/8", None),
        ("10.0.0.0/8", Some("testclient")),
        ("unix", PEER),
    ] {
        let forwarded = Forwarded::read(&headers(&lines), &proxies(trusted), peer);
        assert_eq!(forwarded, Forwarded::default(), "{trusted} {peer:?}");
    }
    let on_socket = Forwarded::read(&headers(&lines), &proxies("unix"), None);
    assert_eq!(shown(&on_socket), "1.1.1.1||shop|1|https");
}

#[test]
fn the_older_headers_are_read_as_far_as_their_addresses_are_trusted() {
    for (lines, expected) in [
        (&["X-Forwarded-For: 6.6.6.6, 1.1.1.1"][..], "1.1.1.1||||"),
        (
            &["X-Forwarded-For: 1.1.1.1:5000, 10.0.0.1"],
            "1.1.1.1|5000|||",
        ),
        (
            &["X-Forwarded-For: [2001:db8::1]:5000"],
            "2001:db8::1|5000|||",
        ),
        (&["X-Forwarded-For: 2001:db8::1"], "2001:db8::1||||"),
        (&["X-Forwarded-For: <script>, 10.0.0.1"], "||||"),
        (&["X-Forwarded-For: , ,1.1.1.1,,"], "1.1.1.1||||"),
        (&["X-Forwarded-Proto: https"], "||||https"),
        (&["X-Forwarded-Proto: javascript"], "||||"),
        (&["X-Forwarded-Host: shop:8443"], "||shop|8443|"),
        (&["X-Forwarded-Port: 8443"], "|||8443|"),
        (&["X-Forwarded-Port: +1"], "||||"),
        (&["X-Forwarded-Port: 65536"], "||||"),
        (
            &["X-Forwarded-Host: shop:81", "X-Forwarded-Port: 82"],
            "||shop|81|",
        ),
        (
            &["X-Forwarded-Host: shop", "X-Forwarded-Port: 82"],
            "||shop|82|",
        ),
        // One trusted proxy, so only what stands on the right is its own.
        (
            &[
                "X-Forwarded-Host: evil, shop",
                "X-Forwarded-Proto: ws,https",
            ],
            "||shop||https",
        ),
        (
            &[
                "X-Forwarded-For: 6.6.6.6, 1.1.1.1",
                "X-Forwarded-Host: evil, shop",
            ],
            "1.1.1.1||shop||",
        ),
        // Two trusted proxies, each of which adds.
        (
            &[
                "X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.1",
                "X-Forwarded-Host: evil, shop, inner",
                "X-Forwarded-Proto: ws",
                "X-Forwarded-Proto: https, http",
            ],
            "1.1.1.1||shop||https",
        ),
        // Two trusted proxies, of which the inner one only passes on.
        (
            &[
                "X-Forwarded-For: 1.1.1.1, 10.0.0.1",
                "X-Forwarded-Host: shop",
                "X-Forwarded-Proto: https",
            ],
            "1.1.1.1||shop||https",
        ),
    ] {
        assert_eq!(read("10.0.0.0/8", lines), expected, "{lines:?}");
    }
    let lines = [
        "X-Forwarded-For: 6.6.6.6, 10.0.0.1",
        "X-Forwarded-Host: shop, inner, core",
    ];
    assert_eq!(read("*", &lines), "6.6.6.6||shop||");
}

#[test]
fn forwarded_wins_attribute_by_attribute() {
    const OLDER: [&str; 3] = [
        "X-Forwarded-For: 2.2.2.2",
        "X-Forwarded-Host: old",
        "X-Forwarded-Proto: http",
    ];
    for (value, expected) in [
        ("for=1.1.1.1;host=new;proto=https", "1.1.1.1||new||https"),
        ("for=1.1.1.1", "1.1.1.1||old||http"),
        ("proto=https", "2.2.2.2||old||https"),
        ("for=unknown;proto=https", "||old||https"),
        ("\"", "2.2.2.2||old||http"),
        ("", "2.2.2.2||old||http"),
    ] {
        let line = format!("Forwarded: {value}");
        let mut lines = OLDER.to_vec();
        lines.push(&line);
        assert_eq!(read("10.0.0.0/8", &lines), expected, "{value}");
    }
}

#[test]
fn headers_are_known_by_name_in_any_case() {
    for (name, expected) in [
        ("forwarded", true),
        ("X-Forwarded-For", true),
        ("x-forwarded-HOST", true),
        ("x-forwarded-port", true),
        ("x-forwarded-proto", true),
        ("x-forwarded-hort", false),
        ("x-forwarded_for", false),
        ("user-agent", false),
        ("accept-encoding", false),
        ("if-modified-since", false),
        ("", false),
    ] {
        assert_eq!(
            ForwardedHeaders::is_one(name.as_bytes()),
            expected,
            "{name}"
        );
        let mut kept = ForwardedHeaders::default();
        kept.keep(name.as_bytes(), b"");
        assert_eq!(kept.is_empty(), !expected, "{name}");
    }
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        &[
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-port",
        ][..],
    )
}

proptest! {
    #[test]
    fn any_bytes_give_only_what_can_be(lines in vec((name(), vec(any::<u8>(), 0..30)), 0..6), everyone: bool) {
        let kept: ForwardedHeaders<'_> = lines.iter().map(|(name, value)| (name.as_bytes(), &value[..])).collect();
        let trusted = proxies(if everyone { "*" } else { "10.0.0.9" });
        let forwarded = Forwarded::read(&kept, &trusted, PEER);
        for text in [&forwarded.client, &forwarded.host].into_iter().flatten() {
            prop_assert!(text.is_ascii() && !text.is_empty());
        }
        prop_assert!(forwarded.proto.is_none_or(|proto| SCHEMES.contains(&proto)));
    }

    #[test]
    fn nearly_legal_headers_never_panic(lines in vec((name(), "(for=|host=|proto=|10\\.0\\.0\\.1|1\\.1\\.1\\.1|::1|http|unix:|[\\[\\]\",;:_\\\\ ]){0,12}"), 0..4)) {
        let kept: ForwardedHeaders<'_> = lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        Forwarded::read(&kept, &proxies("10.0.0.0/8,unix"), PEER);
        Forwarded::read(&kept, &proxies("*"), PEER);
    }

    #[test]
    fn a_client_cannot_choose_who_it_is(said in "[ -~]{0,40}", older: bool) {
        let (line, address) = if older {
            (format!("X-Forwarded-For: {said}, 192.0.2.1, 10.0.0.2"), "192.0.2.1")
        } else {
            (format!("Forwarded: {said}, for=\"[2001:db8::1]:4711\";proto=https, for=10.0.0.2"), "2001:db8::1")
        };
        let lines = [&*line];
        let kept = headers(&lines);
        let forwarded = Forwarded::read(&kept, &proxies("10.0.0.0/8"), PEER);
        prop_assert_eq!(forwarded.client.as_deref(), Some(address));
    }
}
