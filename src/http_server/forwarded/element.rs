//! The syntax of `Forwarded` (RFC 7239, section 4).

use std::borrow::Cow;

use crate::http_server::header_value::is_token_character;

/// What one proxy says. Parameters that are not used are dropped; of one that repeats, the first counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Element<'a> {
    /// `for`
    pub(super) node: Option<Cow<'a, str>>,
    pub(super) host: Option<Cow<'a, str>>,
    pub(super) proto: Option<Cow<'a, str>>,
}

/// The elements of one header value, from left to right.
///
/// An element that breaks the syntax says nothing, and ends at the next comma, quoted or not: a client that opens a quote
/// must not make what proxies add to the right part of its own text. For the same reason each value is read on its own
/// before they are joined.
pub(super) struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    pub(super) fn of(value: &'a [u8]) -> Self {
        Self { rest: value }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        while let [b' ' | b'\t' | b',', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        if let Some((element, rest)) = parse_element(self.rest) {
            self.rest = rest;
            return Some(element);
        }
        let end = self.rest.iter().position(|byte| *byte == b',');
        self.rest = end.map_or(&[], |end| &self.rest[end..]);
        Some(Element::default())
    }
}

/// Reads an element up to the comma behind it, or the end. White space around semicolons, which the grammar does not have,
/// and colons and brackets outside quotes are common enough to be taken.
fn parse_element(mut text: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let mut element = Element::default();
    loop {
        while let [b' ' | b'\t' | b';', rest @ ..] = text {
            text = rest;
        }
        if matches!(text, [] | [b',', ..]) {
            return Some((element, text));
        }
        let (name, value, rest) = parse_pair(text)?;
        // Text that is not UTF-8 is none of the values that are looked for.
        let value = value.unwrap_or_default();
        let known = if name.eq_ignore_ascii_case(b"for") {
            Some(&mut element.node)
        } else if name.eq_ignore_ascii_case(b"host") {
            Some(&mut element.host)
        } else if name.eq_ignore_ascii_case(b"proto") {
            Some(&mut element.proto)
        } else {
            None
        };
        if let Some(known) = known {
            known.get_or_insert(value);
        }
        text = rest;
        while let [b' ' | b'\t', rest @ ..] = text {
            text = rest;
        }
        if !matches!(text, [] | [b';' | b',', ..]) {
            return None;
        }
    }
}

/// A name, its value unless that is not UTF-8, and what follows.
type Pair<'a> = (&'a [u8], Option<Cow<'a, str>>, &'a [u8]);

/// `token "=" ( token / quoted-string )`
fn parse_pair(text: &[u8]) -> Option<Pair<'_>> {
    let equals = text
        .iter()
        .position(|byte| !is_token_character(*byte))
        .filter(|place| *place > 0 && text[*place] == b'=')?;
    let (name, value) = (&text[..equals], &text[equals + 1..]);
    if let [b'"', quoted @ ..] = value {
        let (value, rest) = parse_quoted(quoted)?;
        return Some((name, value, rest));
    }
    let end = value
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t' | b';' | b',' | b'"'))
        .unwrap_or(value.len());
    let (value, rest) = value.split_at(end);
    let value = std::str::from_utf8(value).ok().map(Cow::Borrowed);
    Some((name, value, rest))
}

/// The content of a quoted string behind its first quote, and what follows the second (RFC 9110, section 5.6.4).
fn parse_quoted(text: &[u8]) -> Option<(Option<Cow<'_, str>>, &[u8])> {
    let mut unescaped: Option<Vec<u8>> = None;
    let mut place = 0;
    loop {
        match *text.get(place)? {
            b'"' => break,
            b'\\' => {
                let unescaped = unescaped.get_or_insert_with(|| text[..place].to_vec());
                place += 1;
                unescaped.push(*text.get(place)?);
            }
            byte => {
                if let Some(unescaped) = &mut unescaped {
                    unescaped.push(byte);
                }
            }
        }
        place += 1;
    }
    let value = match unescaped {
        Some(unescaped) => String::from_utf8(unescaped).ok().map(Cow::Owned),
        None => std::str::from_utf8(&text[..place]).ok().map(Cow::Borrowed),
    };
    Some((value, &text[place + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn shown(value: &[u8]) -> Vec<String> {
        let show = |element: Element<'_>| {
            let parts = [
                ("for", element.node),
                ("host", element.host),
                ("proto", element.proto),
            ];
            let parts: Vec<_> = parts
                .into_iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
                .collect();
            parts.join(" ")
        };
        Elements::of(value).map(show).collect()
    }

    #[test]
    fn elements_are_read_as_proxies_write_them() {
        for (value, expected) in [
            ("for=192.0.2.43", &["for=192.0.2.43"][..]),
            (
                r#"For="[2001:db8:cafe::17]:4711""#,
                &["for=[2001:db8:cafe::17]:4711"],
            ),
            (
                "for=192.0.2.60;proto=http;by=203.0.113.43;host=shop",
                &["for=192.0.2.60 host=shop proto=http"],
            ),
            ("for=a, for=b ,\tfor=c", &["for=a", "for=b", "for=c"]),
            ("for=a,,, ,for=b,", &["for=a", "for=b"]),
            ("FOR=a ; PROTO=https ;", &["for=a proto=https"]),
            ("for=[::1]:80", &["for=[::1]:80"]),
            (r#"for="a,b;c=\"d\\"; host=x"#, &[r#"for=a,b;c="d\ host=x"#]),
            ("for=a;for=b", &["for=a"]),
            ("for=", &["for="]),
            (r#"for="""#, &["for="]),
            ("ext=1", &[""]),
            ("", &[]),
        ] {
            assert_eq!(shown(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn a_broken_element_says_nothing_and_ends_at_the_next_comma() {
        for (value, expected) in [
            (&br#"for="a, for=b"#[..], &["", "for=b"][..]),
            (
                br#"for="x, for="[2001:db8::1]""#,
                &["", "for=[2001:db8::1]"],
            ),
            (br#"for="a\"#, &[""]),
            (br#"for=a"b, for=c"#, &["", "for=c"]),
            (br#"for="a"b, for=c"#, &["", "for=c"]),
            (b"for, for=b", &["", "for=b"]),
            (b"=a, for=b", &["", "for=b"]),
            (b"for =a, for=b", &["", "for=b"]),
            (b"for=a b, for=c", &["", "for=c"]),
            (b"\xff\xfe=a, for=b", &["", "for=b"]),
            (b"for=\xff;proto=http", &["for= proto=http"]),
        ] {
            assert_eq!(shown(value), expected, "{}", String::from_utf8_lossy(value));
        }
    }

    proptest! {
        #[test]
        fn reading_what_was_written_is_the_identity(nodes in vec("[ -~é]{0,12}", 1..6)) {
            let quoted: Vec<_> = nodes
                .iter()
                .map(|node| format!("for=\"{}\"", node.replace('\\', "\\\\").replace('"', "\\\"")))
                .collect();
            let joined = quoted.join(", ");
            let read: Vec<_> = Elements::of(joined.as_bytes()).filter_map(|element| element.node).collect();
            prop_assert_eq!(read, nodes);
        }

        #[test]
        fn any_bytes_are_read(value: Vec<u8>) {
            prop_assert!(Elements::of(&value).count() <= value.len());
        }

        #[test]
        fn what_a_proxy_adds_is_always_the_last_element(client in "[a-z=\",;\\\\ ]{0,20}", added in 0_usize..3) {
            let added = ["for=192.0.2.1", "for=\"[2001:db8::1]:80\"", "for=192.0.2.1;proto=https"][added];
            let value = format!("{client}, {added}");
            let alone = Elements::of(added.as_bytes()).last();
            prop_assert_eq!(Elements::of(value.as_bytes()).last(), alone);
        }
    }
}
