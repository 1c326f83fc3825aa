//! Headers of OTLP requests. Their values are secrets more often than not, so no message shows one.

use http::{HeaderName, HeaderValue};

use super::Arguments;
use super::source::{Variables, percent_decoded};
use crate::error::Error;

/// The headers of the argument, else of the first of `names` that holds any.
pub(super) fn load(
    arguments: &Arguments,
    names: &[&'static str],
    variables: &mut Variables<'_>,
) -> Result<Vec<(String, String)>, Error> {
    if let Some(headers) = &arguments.headers {
        let checked = headers.iter().map(|(name, value)| {
            check(name, value)
                .map_err(|problem| Error::configuration("headers", format!("{name:?} {problem}")))
        });
        return checked.collect();
    }
    for name in names {
        let Some(list) = variables.value(name) else {
            continue;
        };
        let (headers, refused) = parse(&list);
        if !refused.is_empty() {
            let members: Vec<_> = refused.iter().map(usize::to_string).collect();
            let problem = format!(
                "member {} is not a header as name=value, percent-encoded",
                members.join(", ")
            );
            let instead = if headers.is_empty() {
                "none of it"
            } else {
                "the rest"
            };
            variables.warn(name, problem, instead);
        }
        if !headers.is_empty() {
            return Ok(headers);
        }
    }
    Ok(Vec::new())
}

/// Reads `name=value,name=value`: the headers, and which members, counted from 1, are none.
fn parse(list: &str) -> (Vec<(String, String)>, Vec<usize>) {
    let (mut headers, mut refused) = (Vec::new(), Vec::new());
    for (member, place) in list.split(',').zip(1..) {
        match parse_member(member) {
            Some(header) => headers.push(header),
            None if member.trim().is_empty() => {}
            None => refused.push(place),
        }
    }
    (headers, refused)
}

/// Values may hold what the specification wants encoded, such as the space in `Authorization=Basic dTpw`: vendors print
/// them so.
fn parse_member(member: &str) -> Option<(String, String)> {
    let (name, value) = member.split_once('=')?;
    check(name.trim(), &percent_decoded(value.trim())?).ok()
}

fn check(name: &str, value: &str) -> Result<(String, String), &'static str> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "is not an HTTP header name")?;
    HeaderValue::from_str(value)
        .map_err(|_| "has a value with characters that HTTP does not allow")?;
    Ok((name.as_str().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn encoded_headers_are_read_back(headers in vec(("[a-z][a-z0-9-]{0,9}", "[ -~]{0,20}"), 0..5)) {
            let list: Vec<_> = headers
                .iter()
                .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
                .collect();
            prop_assert_eq!(parse(&list.join(" , ")), (headers, vec![]));
        }

        #[test]
        fn any_list_gives_legal_headers_only(list in "[a-c=,% 2\u{e9}\n]{0,30}") {
            let (headers, refused) = parse(&list);
            prop_assert!(headers.len() + refused.len() <= list.split(',').count());
            for (name, value) in headers {
                prop_assert!(check(&name, &value).is_ok());
            }
        }
    }
}
