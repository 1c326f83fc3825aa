//! W3C Baggage: names and values that travel with a request, in the `baggage` header.
//!
//! Values are held decoded. A member that breaks the header's grammar is skipped; the others are kept. At most
//! [`MAX_MEMBERS`] members and [`MAX_LEN`] bytes are taken in and sent on: what the specification guarantees to every
//! user, and a bound on what a client can make us carry. A member that does not fit is left out whole.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

use super::tracecontext::trim_ows;

/// The header.
pub const BAGGAGE: &str = "baggage";
/// Members that are carried (W3C Baggage, "Limits").
pub const MAX_MEMBERS: usize = 64;
/// Bytes of header that are carried (the same section).
pub const MAX_LEN: usize = 8192;

/// What must be encoded in a value: all but `baggage-octet`, and the percent sign itself.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b',')
    .add(b';')
    .add(b'\\');

/// A set of named values. Clones share it; changes make a copy.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Baggage(Option<Arc<[Stored]>>);

#[derive(Clone, PartialEq, Eq)]
struct Stored {
    key: Box<str>,
    value: Box<str>,
    properties: Box<str>,
}

/// One member of a [`Baggage`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The name.
    pub key: &'a str,
    /// The value, decoded.
    pub value: &'a str,
    /// What followed the value, as it came but without optional white space: `ttl=3;secret`. Usually empty.
    pub properties: &'a str,
}

impl Baggage {
    /// Whether there is no member.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.stored().len()
    }

    /// The members, in the order they came or were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.stored().iter().map(|stored| Entry {
            key: &stored.key,
            value: &stored.value,
            properties: &stored.properties,
        })
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter()
            .find(|entry| entry.key == key)
            .map(|entry| entry.value)
    }

    /// The same baggage with `key` set to `value`, without properties.
    ///
    /// Any text is a value. A key that is not an HTTP token (letters, digits and ``!#$%&'*+-.^_`|~``) stays in this
    /// process: the header cannot express it.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        let mut members = self.stored().to_vec();
        set(
            &mut members,
            Stored {
                key: key.into(),
                value: value.into(),
                properties: Box::default(),
            },
        );
        Self::from(members)
    }

    /// The same baggage without `key`.
    #[must_use]
    pub fn without(&self, key: &str) -> Self {
        Self::from(
            self.stored()
                .iter()
                .filter(|member| *member.key != *key)
                .cloned()
                .collect::<Vec<_>>(),
        )
    }

    /// The same baggage with the members of `other`, whose values win.
    #[must_use]
    pub fn with_all(self, other: Self) -> Self {
        if self.is_empty() || other.is_empty() {
            return if self.is_empty() { other } else { self };
        }
        let mut members = self.stored().to_vec();
        for member in other.stored() {
            set(&mut members, member.clone());
        }
        Self::from(members)
    }

    fn stored(&self) -> &[Stored] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl From<Vec<Stored>> for Baggage {
    fn from(members: Vec<Stored>) -> Self {
        Self((!members.is_empty()).then(|| members.into()))
    }
}

/// Members without properties, of which the last one of a name counts.
impl FromIterator<(String, String)> for Baggage {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        let mut members = Vec::new();
        for (key, value) in pairs {
            let member = Stored {
                key: key.into_boxed_str(),
                value: value.into_boxed_str(),
                properties: Box::default(),
            };
            set(&mut members, member);
        }
        Self::from(members)
    }
}

impl fmt::Debug for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Reads the `baggage` headers of a request, in order. Of equal keys the last value counts, at the first one's place:
/// OpenTelemetry knows one value a name (Baggage API, "Overview").
pub fn parse_baggage<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Baggage {
    let mut members = Vec::new();
    let mut len = 0;
    for text in headers.flat_map(|header| header.split(|byte| *byte == b',')) {
        let text = trim_ows(text);
        let with_comma = text.len() + 1;
        if len + with_comma > MAX_LEN + 1 {
            continue;
        }
        if let Some(member) = parse_member(text) {
            len += with_comma;
            set(&mut members, member);
            if members.len() == MAX_MEMBERS {
                break;
            }
        }
    }
    Baggage::from(members)
}

/// The `baggage` header value, or `None` when there is nothing to send.
pub fn format_baggage(baggage: &Baggage) -> Option<String> {
    let mut header = String::new();
    let mut members = 0;
    for entry in baggage
        .iter()
        .filter(|entry| is_token(entry.key.as_bytes()))
    {
        let before = header.len();
        if before > 0 {
            header.push(',');
        }
        header.extend([entry.key, "="]);
        header.extend(utf8_percent_encode(entry.value, ENCODED));
        if !entry.properties.is_empty() {
            header.extend([";", entry.properties]);
        }
        if header.len() > MAX_LEN {
            header.truncate(before);
            continue;
        }
        members += 1;
        if members == MAX_MEMBERS {
            break;
        }
    }
    (members > 0).then_some(header)
}

/// Sets a member in place, or adds it. At most [`MAX_MEMBERS`] short names are compared.
fn set(members: &mut Vec<Stored>, member: Stored) {
    match members.iter_mut().find(|known| known.key == member.key) {
        Some(known) => *known = member,
        None => members.push(member),
    }
}

/// `key OWS "=" OWS value *( OWS ";" OWS property )`
fn parse_member(text: &[u8]) -> Option<Stored> {
    let mut parts = text.split(|byte| *byte == b';').map(trim_ows);
    let (key, value) = parse_pair(parts.next()?)?;
    let mut properties = String::new();
    for property in parts {
        if !properties.is_empty() {
            properties.push(';');
        }
        match parse_pair(property) {
            Some((key, value)) => properties.extend([key, "=", value]),
            None => properties.push_str(token(property)?),
        }
    }
    Some(Stored {
        key: key.into(),
        // Octets that are not UTF-8 become U+FFFD (W3C Baggage, "value").
        value: match percent_decode(value.as_bytes()).decode_utf8_lossy() {
            Cow::Borrowed(value) => value.into(),
            Cow::Owned(value) => value.into_boxed_str(),
        },
        properties: properties.into_boxed_str(),
    })
}

/// `key OWS "=" OWS value`, the value still encoded. It may contain further equals signs.
fn parse_pair(text: &[u8]) -> Option<(&str, &str)> {
    let equals = text.iter().position(|byte| *byte == b'=')?;
    let value = trim_ows(&text[equals + 1..]);
    let is_value = value
        .iter()
        .all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b',' | b';' | b'\\'));
    let value = std::str::from_utf8(value).ok().filter(|_| is_value)?;
    Some((token(trim_ows(&text[..equals]))?, value))
}

pub(super) fn token(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok().filter(|_| is_token(text))
}

/// Whether `text` is a `token` (RFC 9110, section 5.6.2).
fn is_token(text: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_tchar)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn parse(headers: &[&str]) -> Baggage {
        parse_baggage(headers.iter().map(|header| header.as_bytes()))
    }

    fn resent(header: &str) -> String {
        format_baggage(&parse(&[header])).unwrap_or_default()
    }

    #[test]
    fn header_rules() {
        let cases = [
            ("k=v", "k=v"),
            ("a=1,b=2", "a=1,b=2"),
            (" a \t=\t 1 , b=2\t", "a=1,b=2"),
            (",a=1,, ,b=2,", "a=1,b=2"),
            ("k=", "k="),
            ("k=a=b==", "k=a=b=="),
            ("k=a+b", "k=a+b"),
            ("k=v;p;q=1", "k=v;p;q=1"),
            ("k=v ; p ; q = 1 ", "k=v;p;q=1"),
            // Characters that need no encoding lose it; those that need it keep it.
            ("k=%61%20%2c%3B%22%5c%25", "k=a%20%2C%3B%22%5C%25"),
            ("k=%C3%A9", "k=%C3%A9"),
            ("k=100%", "k=100%25"),
            ("k=%zz", "k=%25zz"),
            // Of equal keys the last value counts.
            ("k=1;p,x=2,k=3", "k=3,x=2"),
            // Malformed members are skipped, the others are kept.
            ("no-value,k=v", "k=v"),
            ("=v,k=v", "k=v"),
            ("a b=1,k=v", "k=v"),
            ("a(=1,k=v", "k=v"),
            ("a=1 2,k=v", "k=v"),
            ("a=\"1\",k=v", "k=v"),
            ("a=\\,k=v", "k=v"),
            ("a=\u{e9},k=v", "k=v"),
            ("a=1;,k=v", "k=v"),
            ("a=1;p q,k=v", "k=v"),
            ("a=1;=q,k=v", "k=v"),
            ("", ""),
            ("garbage", ""),
        ];
        for (header, expected) in cases {
            assert_eq!(resent(header), expected, "{header:?}");
        }
    }

    #[test]
    fn values_are_decoded_and_properties_are_not() {
        let baggage = parse(&["k=a%20b%2C;p=%20", "x=%F0%9F%90%8D"]);
        let [k, x] = baggage.iter().collect::<Vec<_>>()[..] else {
            unreachable!()
        };
        assert_eq!((k.key, k.value, k.properties), ("k", "a b,", "p=%20"));
        assert_eq!((x.key, x.value, x.properties), ("x", "🐍", ""));
    }

    #[test]
    fn octets_that_are_not_utf8_become_the_replacement_character() {
        assert_eq!(parse(&["k=a%FFb%C3"]).get("k"), Some("a\u{fffd}b\u{fffd}"));
    }

    #[test]
    fn sixty_four_members_are_carried() {
        let list = |members: usize| {
            (0..members)
                .map(|n| format!("k{n}=v"))
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(resent(&list(64)), list(64));
        assert_eq!(resent(&list(65)), list(64));
        assert_eq!(parse(&[&list(64), "one=more"]).len(), 64);

        let built = (0..70).fold(Baggage::default(), |baggage, n| {
            baggage.with(&format!("k{n}"), "v")
        });
        assert_eq!(format_baggage(&built), Some(list(64)));
    }

    #[test]
    fn eight_kibibytes_are_carried_and_what_does_not_fit_is_left_out_whole() {
        let of_len = |key: &str, len: usize| format!("{key}={}", "v".repeat(len - key.len() - 1));
        let exact = format!("{},{}", of_len("a", 4000), of_len("b", MAX_LEN - 4001));
        assert_eq!(exact.len(), MAX_LEN);
        assert_eq!(resent(&exact), exact);
        assert_eq!(resent(&format!("{exact}v")), of_len("a", 4000));
        let too_long = format!("{},a=1", of_len("b", MAX_LEN + 1));
        assert_eq!(parse(&[&too_long]), Baggage::default().with("a", "1"));
        // Encoding can make a value longer than it came in: U+FFFD takes nine bytes.
        let grown = Baggage::default()
            .with("big", &"é".repeat(MAX_LEN / 6))
            .with("small", "1");
        assert_eq!(format_baggage(&grown).as_deref(), Some("small=1"));
    }

    #[test]
    fn changes_leave_the_original_alone() {
        let original = parse(&["a=1;p,b=2"]);
        let changed = original.with("a", "3").with("c", "ü").without("b");
        assert_eq!(format_baggage(&original).as_deref(), Some("a=1;p,b=2"));
        assert_eq!(format_baggage(&changed).as_deref(), Some("a=3,c=%C3%BC"));
        assert_eq!((changed.len(), changed.get("b")), (2, None));
        assert!(changed.without("a").without("c").is_empty());
        assert_eq!(changed.without("a").without("c"), Baggage::default());
    }

    #[test]
    fn of_two_the_second_wins_and_the_first_keeps_its_places() {
        let (first, second) = (parse(&["a=1;p,b=2"]), parse(&["c=3,a=4"]));
        let both = first.clone().with_all(second.clone());
        assert_eq!(format_baggage(&both).as_deref(), Some("a=4,b=2,c=3"));
        assert_eq!(first.clone().with_all(Baggage::default()), first);
        assert_eq!(Baggage::default().with_all(second.clone()), second);
    }

    #[test]
    fn a_key_that_the_header_cannot_express_stays_at_home() {
        let baggage = Baggage::default().with("naïve key", "1").with("", "2");
        assert_eq!(baggage.get("naïve key"), Some("1"));
        assert_eq!(format_baggage(&baggage), None);
        assert_eq!(format_baggage(&Baggage::default()), None);
    }

    proptest! {
        #[test]
        fn parsing_a_formatted_baggage_is_the_identity(
            members in vec(("[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,12}", any::<String>()), 0..20)
        ) {
            let baggage = members.iter().fold(Baggage::default(), |baggage, (key, value)| baggage.with(key, value));
            let header = format_baggage(&baggage).unwrap_or_default();
            prop_assume!(header.len() < MAX_LEN / 2);
            prop_assert_eq!(parse(&[&header]), baggage);
        }

        #[test]
        fn whatever_comes_in_goes_out_legal_and_within_the_limits(headers in vec(vec(any::<u8>(), 0..60), 0..4)) {
            let header = format_baggage(&parse_baggage(headers.iter().map(Vec::as_slice))).unwrap_or_default();
            prop_assert!(header.len() <= MAX_LEN);
            prop_assert!(header.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(resent(&header), header);
        }

        #[test]
        fn headers_made_of_separators_go_out_legal_too(header in "[a%=;, \t\"2\u{e9}]{0,60}") {
            let once = resent(&header);
            prop_assert_eq!(resent(&once), once);
        }
    }
}
