//! Queries, without the credentials in them.

use std::borrow::Cow;

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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn any_query_keeps_its_keys_and_their_order(query in "([a-cs]|sig|Signature|=|&|é){0,20}") {
            let redacted = redact_query(&query);
            let keys = |query: &str| -> Vec<String> {
                query.split('&').map(|parameter| parameter.split('=').next().unwrap_or_default().to_owned()).collect()
            };
            prop_assert_eq!(keys(&redacted), keys(&query));
            prop_assert_eq!(redact_query(&redacted), &*redacted);
        }
    }
}
