//! Which headers are captured, sanitised and remembered.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn capture(captured: &[&str], sanitised: &[&str]) -> HeaderCapture {
    let captured: Vec<_> = captured
        .iter()
        .filter_map(|pattern| Pattern::whole(pattern).ok())
        .collect();
    let sanitised: Vec<_> = sanitised
        .iter()
        .filter_map(|pattern| Pattern::anywhere_in_any_case(pattern).ok())
        .collect();
    HeaderCapture::new(Direction::Request, &captured, &sanitised)
}

#[test]
fn names_are_captured_whole_in_any_case_and_keep_their_dashes() {
    for (patterns, name, key) in [
        (
            &["X-Request-Id"][..],
            &b"x-request-id"[..],
            Some("x-request-id"),
        ),
        (&["x-request-id"], b"X-Request-ID", Some("x-request-id")),
        (&["request"], b"x-request-id", None),
        (&["x_request_id"], b"x_request_id", Some("x_request_id")),
        (&["x_request_id"], b"x-request-id", None),
        (&["x-.*"], b"X-A", Some("x-a")),
        (&["x-.*"], b"max-age", None),
        (&["accept", "x-.*"], b"accept", Some("accept")),
        (&[".*"], b"anything", Some("anything")),
        (&[".*"], b"caf\xc3\xa9", None),
        (&[".*"], b"\xff", None),
        (&[".*"], b"two words", None),
        (&[".*"], b"", None),
        (&[], b"accept", None),
    ] {
        let capture = capture(patterns, &[]);
        let expected = key.map(|key| format!("http.request.header.{key}"));
        for _ in 0..2 {
            let found = capture.look_up(name);
            assert_eq!(
                found.as_ref().map(|header| &*header.key),
                expected.as_deref(),
                "{patterns:?}"
            );
            assert!(found.is_none_or(|header| !header.is_sanitised));
        }
        assert_eq!(capture.is_empty(), patterns.is_empty());
    }
}

#[test]
fn long_names_are_told_apart_by_more_than_their_length() {
    let long = "x".repeat(200);
    let as_text = capture(&[&long], &[]);
    assert!(as_text.look_up(long.as_bytes()).is_some());
    assert!(as_text.look_up("y".repeat(200).as_bytes()).is_none());
    assert!(capture(&["x+"], &[]).look_up(long.as_bytes()).is_some());
}

#[test]
fn responses_have_keys_of_their_own() {
    let every = [Pattern::whole(".*"), Pattern::whole("etag")];
    let every: Vec<_> = every.into_iter().flatten().collect();
    let capture = HeaderCapture::new(Direction::Response, &every, &[]);
    for (name, key) in [
        (&b"ETag"[..], "http.response.header.etag"),
        (b"age", "http.response.header.age"),
    ] {
        assert!(
            capture
                .look_up(name)
                .is_some_and(|header| &*header.key == key)
        );
    }
}

#[test]
fn a_pattern_found_in_a_name_sanitises_it() {
    for (name, expected) in [
        (&b"Set-Cookie"[..], true),
        (b"x-secret-1", true),
        (b"X-SECRET-2", true),
        (b"x-secret", false),
        (b"accept", false),
    ] {
        let capture = capture(&["accept", ".*"], &["cookie", "secret-\\d"]);
        let found = capture.look_up(name).map(|header| header.is_sanitised);
        assert_eq!(found, Some(expected));
    }
}

#[test]
fn credentials_are_sanitised_unless_the_user_says_otherwise() {
    let every: Vec<_> = Pattern::whole(".*").into_iter().collect();
    let capture = HeaderCapture::new(Direction::Request, &every, &credential_patterns());
    for (name, expected) in [
        ("Authorization", true),
        ("proxy-authorization", true),
        ("Cookie", true),
        ("set-cookie", true),
        ("x-api-key", true),
        ("apikey", true),
        ("X-Auth-Token", true),
        ("x-auth-key", true),
        ("x-csrf-token", true),
        ("x-amz-security-token", true),
        ("x-amzn-oidc-data", true),
        ("cf-access-jwt-assertion", true),
        ("x-goog-iap-jwt-assertion", true),
        ("x-forwarded-client-cert", true),
        ("x-session-id", true),
        ("accept", false),
        ("user-agent", false),
        ("content-type", false),
        ("x-request-id", false),
        ("www-authenticate", false),
    ] {
        let found = capture.look_up(name.as_bytes());
        assert_eq!(
            found.map(|header| header.is_sanitised),
            Some(expected),
            "{name}"
        );
    }
}

#[test]
fn repeated_headers_keep_their_order() {
    let capture = capture(&["x-a", "x-b", "set-.*"], &["cookie"]);
    let headers: [(&[u8], &[u8]); 7] = [
        (b"x-b", b"1"),
        (b"x-a", b"2"),
        (b"host", b"shop"),
        (b"X-B", b"\xe9"),
        (b"set-cookie", b"id=1"),
        (b"x-b", b""),
        (b"set-cookie", b"id=2"),
    ];
    let mut seen = Vec::new();
    capture.collect(headers).for_each(|key, value| {
        seen.push(format!("{key} {value:?}"));
    });
    assert_eq!(
        seen,
        [
            r#"http.request.header.x-b Array([Str("1"), Str("é"), Str("")])"#,
            r#"http.request.header.x-a Array([Str("2")])"#,
            r#"http.request.header.set-cookie Array([Str("[REDACTED]"), Str("[REDACTED]")])"#,
        ]
    );
    assert_eq!(
        HeaderCapture::none(Direction::Request).collect(headers),
        CapturedHeaders::default()
    );
}

fn remembered(capture: &HeaderCapture) -> usize {
    capture
        .remembered
        .read()
        .map_or(usize::MAX, |remembered| remembered.len())
}

#[test]
fn what_clients_make_up_is_not_remembered_without_bound() {
    let capture = capture(&["x-.*"], &[]);
    for number in 0..10 * MAX_REMEMBERED {
        assert!(capture.look_up(format!("x-{number}").as_bytes()).is_some());
        assert!(remembered(&capture) <= MAX_REMEMBERED);
    }
    let before = remembered(&capture);
    assert!(capture.look_up(&[b'x'; MAX_NAME_LEN + 1]).is_none());
    assert_eq!(remembered(&capture), before);
}

#[test]
fn a_name_is_decided_once() {
    let capture = capture(&["x-.*"], &[]);
    let first = capture.look_up(b"x-a").map(|header| header.key);
    let second = capture.look_up(b"x-a").map(|header| header.key);
    assert!(
        first
            .zip(second)
            .is_some_and(|(first, second)| Arc::ptr_eq(&first, &second))
    );
    assert!(capture.look_up(b"host").is_none());
    assert_eq!(remembered(&capture), 2);
}

#[test]
fn a_lock_that_somebody_holds_is_not_waited_for() {
    let capture = capture(&["x-.*"], &[]);
    let held = capture.remembered.write();
    assert!(capture.look_up(b"x-a").is_some());
    drop(held);
    assert_eq!(remembered(&capture), 0);
}

proptest! {
    #[test]
    fn any_headers_give_one_legal_attribute_a_name(headers in vec((vec(any::<u8>(), 0..6), vec(any::<u8>(), 0..6)), 0..20)) {
        let capture = capture(&[".*", "a"], &["b"]);
        let pairs = headers.iter().map(|(name, value)| (&name[..], &value[..]));
        let mut keys = Vec::new();
        capture.collect(pairs).for_each(|key, _| keys.push(key.to_owned()));
        for (place, key) in keys.iter().enumerate() {
            prop_assert!(!keys[..place].contains(key));
            prop_assert!(key.is_ascii() && key.len() > "http.request.header.".len());
        }
    }

    #[test]
    fn a_decision_is_the_same_when_remembered(names in vec("[a-cA-C-]{1,3}", 0..40)) {
        let capture = capture(&["a.*", "b-"], &["c"]);
        for name in &names {
            let fresh = capture.decide(name.as_bytes());
            let found = capture.look_up(name.as_bytes());
            if name.eq_ignore_ascii_case("b-") {
                prop_assert!(found.is_some());
            } else {
                prop_assert_eq!(found, fresh);
            }
        }
    }
}
