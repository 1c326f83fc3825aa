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
    let is_secret = |parameter: &str| {
        parameter
            .split_once('=')
            .is_some_and(|(key, _)| SECRET_PARAMETERS.contains(&key))
    };
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(query);
    }
    let redacted: Vec<_> = query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((key, _)) if SECRET_PARAMETERS.contains(&key) => {
                Cow::Owned(format!("{key}=REDACTED"))
            }
            _ => Cow::Borrowed(parameter),
        })
        .collect();
    Cow::Owned(redacted.join("&"))
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
