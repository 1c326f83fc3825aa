//! Request and response headers as span attributes, for those who ask for them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use super::header_value::{is_token_character, latin1};
use super::pattern::Pattern;
use crate::attribute::Value;

/// What stands for the value of a sanitised header (OpenTelemetry Python).
pub const REDACTED: &str = "[REDACTED]";

/// Parts of the names of headers that carry credentials. They are sanitised unless the user gives a list: capturing `.*`
/// must not send the passwords of everybody to whoever may read traces.
pub const CREDENTIAL_HEADERS: [&str; 14] = [
    "authorization",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "session",
    "api-key",
    "apikey",
    "access-key",
    "auth-key",
    "jwt",
    "client-cert",
    "x-amzn-oidc-",
];

/// Names that are remembered. Clients choose header names: what is remembered of them is bounded.
const MAX_REMEMBERED: usize = 256;
/// The longest name that is remembered.
const MAX_NAME_LEN: usize = 128;

/// Which headers: it shows in the key of the attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// `http.request.header.<name>`
    Request,
    /// `http.response.header.<name>`
    Response,
}

/// A header that becomes an attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CapturedHeader {
    /// `http.request.header.<name>` or `http.response.header.<name>`; the name in lower case, its dashes and underscores
    /// kept (semantic conventions, "`http.request.header.<key>`").
    pub key: Arc<str>,
    /// Whether its values are replaced by [`REDACTED`].
    pub is_sanitised: bool,
}

/// Which headers of a request or a response become attributes.
///
/// A header is captured if a pattern matches its whole name, in any case. A captured header is sanitised if a pattern matches
/// any part of its name, in any case: `cookie` does so with `Set-Cookie`. Both are how OpenTelemetry Python reads
/// `OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST`, `..._SERVER_RESPONSE` and `..._SANITIZE_FIELDS`. A name that
/// HTTP does not allow is never captured.
///
/// Names given as text cost a comparison with those of the same length. With regular expressions every name is decided once
/// and remembered: one look-up. A thread that finds the memory in use decides anew instead of waiting.
#[derive(Debug)]
pub struct HeaderCapture {
    direction: Direction,
    names: Vec<(Box<[u8]>, CapturedHeader)>,
    /// Bit n: there is one of n characters among `names`; the last bit: of 63 or more.
    name_lengths: u64,
    patterns: Vec<Pattern>,
    sanitised: Vec<Pattern>,
    remembered: RwLock<HashMap<Box<[u8]>, Option<CapturedHeader>>>,
}

impl HeaderCapture {
    /// Captures what `captured` matches, patterns made with [`Pattern::whole`], and sanitises of that what `sanitised`
    /// matches, patterns made with [`Pattern::anywhere_in_any_case`]. See [`credential_patterns`].
    pub fn new(direction: Direction, captured: &[Pattern], sanitised: &[Pattern]) -> Self {
        let mut capture = Self {
            sanitised: sanitised.to_vec(),
            ..Self::none(direction)
        };
        for pattern in captured {
            let Some(name) = pattern.literal() else {
                capture.patterns.push(pattern.clone());
                continue;
            };
            if let Some(header) = capture.describe(name.as_bytes()) {
                capture.name_lengths |= length_bit(name.len());
                capture.names.push((name.as_bytes().into(), header));
            }
        }
        capture
    }

    /// Captures nothing.
    pub fn none(direction: Direction) -> Self {
        Self {
            direction,
            names: Vec::new(),
            name_lengths: 0,
            patterns: Vec::new(),
            sanitised: Vec::new(),
            remembered: RwLock::default(),
        }
    }

    /// Whether no header is captured, so that none needs to be looked at.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.patterns.is_empty()
    }

    /// What becomes of the header `name`, in any case; `None`: nothing.
    pub fn look_up(&self, name: &[u8]) -> Option<CapturedHeader> {
        if self.name_lengths & length_bit(name.len()) != 0 {
            let listed = self
                .names
                .iter()
                .find(|(listed, _)| listed.eq_ignore_ascii_case(name));
            if let Some((_, header)) = listed {
                return Some(header.clone());
            }
        }
        if self.patterns.is_empty() {
            return None;
        }
        if name.len() > MAX_NAME_LEN {
            return self.decide(name);
        }
        if let Ok(remembered) = self.remembered.try_read()
            && let Some(header) = remembered.get(name)
        {
            return header.clone();
        }
        let header = self.decide(name);
        if let Ok(mut remembered) = self.remembered.try_write() {
            // Starting over, unlike remembering no more, lets honest names come back after a flood of made-up ones.
            if remembered.len() >= MAX_REMEMBERED {
                remembered.clear();
            }
            remembered.insert(name.into(), header.clone());
        }
        header
    }

    fn decide(&self, name: &[u8]) -> Option<CapturedHeader> {
        let text = std::str::from_utf8(name).ok()?;
        let is_captured = self.patterns.iter().any(|pattern| pattern.matches(text));
        is_captured.then(|| self.describe(name))?
    }

    /// The attribute of a name that is captured; `None` if HTTP does not allow it (RFC 9110, section 5.1).
    fn describe(&self, name: &[u8]) -> Option<CapturedHeader> {
        let is_token = !name.is_empty() && name.iter().all(|byte| is_token_character(*byte));
        let name = std::str::from_utf8(name).ok().filter(|_| is_token)?;
        let direction = match self.direction {
            Direction::Request => "request",
            Direction::Response => "response",
        };
        Some(CapturedHeader {
            key: format!("http.{direction}.header.{}", name.to_ascii_lowercase()).into(),
            is_sanitised: self.sanitised.iter().any(|pattern| pattern.matches(name)),
        })
    }

    /// The captured ones of some headers.
    pub fn collect<'a>(
        &self,
        headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> CapturedHeaders<'a> {
        let mut captured = CapturedHeaders::default();
        if !self.is_empty() {
            for (name, value) in headers {
                if let Some(header) = self.look_up(name) {
                    captured.push(header, value);
                }
            }
        }
        captured
    }
}

/// [`CREDENTIAL_HEADERS`] as patterns.
pub fn credential_patterns() -> Vec<Pattern> {
    CREDENTIAL_HEADERS
        .iter()
        .filter_map(|name| Pattern::anywhere_in_any_case(name).ok())
        .collect()
}

const fn length_bit(len: usize) -> u64 {
    1 << if len < 63 { len } else { 63 }
}

/// Captured headers in the order in which their names first came.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CapturedHeaders<'a>(Vec<(Arc<str>, Vec<Cow<'a, str>>)>);

impl<'a> CapturedHeaders<'a> {
    /// Adds one value. A name that repeats keeps the order of its values.
    pub fn push(&mut self, header: CapturedHeader, value: &'a [u8]) {
        let value = if header.is_sanitised {
            Cow::Borrowed(REDACTED)
        } else {
            latin1(value)
        };
        match self.0.iter_mut().find(|(key, _)| *key == header.key) {
            Some((_, values)) => values.push(value),
            None => self.0.push((header.key, vec![value])),
        }
    }

    /// Calls `each` with every key and its string array.
    pub fn for_each(&self, mut each: impl FnMut(&str, &Value<'_>)) {
        for (key, values) in &self.0 {
            let values = values.iter().map(|value| Value::Str(value)).collect();
            each(key, &Value::Array(values));
        }
    }
}

#[cfg(test)]
mod tests;
