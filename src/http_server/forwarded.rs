//! What proxies say of the request that they got: `Forwarded` (RFC 7239) and the older `X-Forwarded-*`.
//!
//! Every proxy adds to the right; a client can send a list of its own, which then stands on the left. So the list is read
//! from the right for as long as the address that it names is a [trusted proxy](super::TrustedProxies): the first that is
//! not is the client, and what stands to the left of it is what the client says. If all are trusted, as with `*`, the
//! left-most is the client, which is what the semantic conventions take. Host and scheme are those that the outermost
//! trusted proxy saw, or the next one that says.
//!
//! - `Forwarded` wins, attribute by attribute (semantic conventions, "Setting `server.address`"). A trusted proxy must
//!   therefore set, or remove, both kinds: what it passes on unseen is taken for its own word.
//! - `X-Forwarded-Host`, `-Proto` and `-Port` have no address beside each value. No proxy adds more than one, so a value is
//!   taken from as far to the right as `X-Forwarded-For` was trusted.
//! - `unknown`, a name that is no address, a member that breaks the syntax: the client is not known, and nothing to the left
//!   of it is believed.

mod element;

use std::borrow::Cow;
use std::net::IpAddr;

use super::header_value::trim_ows;
use super::host::{parse_port, split_host};
use super::trusted_proxies::TrustedProxies;
use element::{Element, Elements};

/// The longest host that DNS allows, with brackets and a port.
const MAX_HOST_LEN: usize = 263;

/// The schemes that a server is asked by.
const SCHEMES: [&str; 4] = ["https", "http", "wss", "ws"];

/// One of the headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Forwarded,
    For,
    Host,
    Proto,
    Port,
}

impl Field {
    /// Whose header this is. Its length tells in most cases that it is none of ours.
    fn of(name: &[u8]) -> Option<Self> {
        let (expected, field) = match name.len() {
            9 => ("forwarded", Self::Forwarded),
            15 => ("x-forwarded-for", Self::For),
            17 => ("x-forwarded-proto", Self::Proto),
            16 if name[12] | 0x20 == b'h' => ("x-forwarded-host", Self::Host),
            16 => ("x-forwarded-port", Self::Port),
            _ => return None,
        };
        name.eq_ignore_ascii_case(expected.as_bytes())
            .then_some(field)
    }
}

/// The headers of a request that proxies write, in the order in which they came. Nothing is allocated for a request without.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ForwardedHeaders<'a>(Vec<(Field, &'a [u8])>);

impl<'a> ForwardedHeaders<'a> {
    /// Whether a header of this name, in any case, is one of them.
    #[inline]
    pub fn is_one(name: &[u8]) -> bool {
        Field::of(name).is_some()
    }

    /// Keeps the value if the name, in any case, is one of theirs.
    #[inline]
    pub fn keep(&mut self, name: &[u8], value: &'a [u8]) {
        if let Some(field) = Field::of(name) {
            self.0.push((field, value));
        }
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn values(&self, field: Field) -> impl Iterator<Item = &'a [u8]> {
        let of_field = self.0.iter().filter(move |(other, _)| *other == field);
        of_field.map(|(_, value)| *value)
    }

    /// The members of a header that is a plain list, empty ones left out.
    fn members(&self, field: Field) -> impl Iterator<Item = &'a [u8]> {
        self.values(field)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(trim_ows)
            .filter(|member| !member.is_empty())
    }
}

impl<'a> FromIterator<(&'a [u8], &'a [u8])> for ForwardedHeaders<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], &'a [u8])>>(headers: I) -> Self {
        let mut kept = Self::default();
        for (name, value) in headers {
            kept.keep(name, value);
        }
        kept
    }
}

/// What is known of the original request; `None` where nobody trusted says anything that makes sense.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Forwarded<'a> {
    /// `client.address`: an IP address as it was written, or an obfuscated identifier such as `_hidden` (RFC 7239, section
    /// 6.3).
    pub client: Option<Cow<'a, str>>,
    /// `client.port`.
    pub client_port: Option<u16>,
    /// `server.address`, without brackets.
    pub host: Option<Cow<'a, str>>,
    /// `server.port`, of the host or of `X-Forwarded-Port`, which may come without a host.
    pub host_port: Option<u16>,
    /// `url.scheme`: `http`, `https`, `ws` or `wss`.
    pub proto: Option<&'static str>,
}

impl<'a> Forwarded<'a> {
    /// Reads the headers of a request that came from `peer`, the address in the scope's `client`. Empty if `peer` is not
    /// trusted.
    ///
    /// ```
    /// use rvh_trace::http_server::{Forwarded, ForwardedHeaders, TrustedProxies};
    ///
    /// let proxies: TrustedProxies = ["10.0.0.0/8".parse()?].into_iter().collect();
    /// let mut headers = ForwardedHeaders::default();
    /// headers.keep(b"forwarded", b"for=6.6.6.6, for=192.0.2.60;proto=https, for=10.0.0.7");
    /// let forwarded = Forwarded::read(&headers, &proxies, Some("10.0.0.8"));
    /// assert_eq!(forwarded.client.as_deref(), Some("192.0.2.60"));
    /// assert_eq!(forwarded.proto, Some("https"));
    /// # Ok::<(), String>(())
    /// ```
    pub fn read(
        headers: &ForwardedHeaders<'a>,
        proxies: &TrustedProxies,
        peer: Option<&str>,
    ) -> Self {
        if headers.is_empty() || !proxies.trusts(peer) {
            return Self::default();
        }
        let (mut forwarded, names_a_client) = Self::from_elements(headers, proxies);
        forwarded.fill_from_lists(headers, proxies, !names_a_client);
        forwarded
    }

    /// Reads `Forwarded`, and whether it says anything about clients.
    ///
    /// From left to right, so that nothing needs to be kept: an address that is not trusted makes all before it worthless.
    fn from_elements(headers: &ForwardedHeaders<'a>, proxies: &TrustedProxies) -> (Self, bool) {
        let mut found: Option<Self> = None;
        let mut names_a_client = false;
        for element in headers.values(Field::Forwarded).flat_map(Elements::of) {
            let Element { node, host, proto } = element;
            names_a_client |= node.is_some();
            let hop = node.map_or(Hop::Unknown, Hop::parse);
            let forwarded = match &mut found {
                Some(forwarded) if hop.is_trusted(proxies) => forwarded,
                _ => found.insert(Self::of_client(hop)),
            };
            if forwarded.host.is_none()
                && let Some((host, port)) = host.and_then(parse_host)
            {
                (forwarded.host, forwarded.host_port) = (Some(host), port);
            }
            forwarded.proto = forwarded.proto.or_else(|| parse_proto(proto?.as_bytes()));
        }
        (found.unwrap_or_default(), names_a_client)
    }

    /// Takes what is still missing from `X-Forwarded-*`.
    fn fill_from_lists(
        &mut self,
        headers: &ForwardedHeaders<'a>,
        proxies: &TrustedProxies,
        with_client: bool,
    ) {
        let mut client = Hop::Unknown;
        let mut trusted_hops = 0;
        for member in headers.members(Field::For) {
            let hop = std::str::from_utf8(member)
                .map_or(Hop::Unknown, |node| Hop::parse(Cow::Borrowed(node)));
            if trusted_hops == 0 || !hop.is_trusted(proxies) {
                client = hop;
                trusted_hops = 0;
            }
            trusted_hops += 1;
        }
        if with_client {
            let client = Self::of_client(client);
            (self.client, self.client_port) = (client.client, client.client_port);
        }
        let outermost = |field| {
            let from_the_right = if proxies.trusts_everyone() {
                usize::MAX
            } else {
                trusted_hops.max(1)
            };
            let count = headers.members(field).count();
            headers
                .members(field)
                .nth(count.saturating_sub(from_the_right))
        };
        if self.host.is_none()
            && let Some((host, port)) = outermost(Field::Host)
                .and_then(|host| parse_host(Cow::Borrowed(std::str::from_utf8(host).ok()?)))
        {
            (self.host, self.host_port) = (Some(host), port);
        }
        self.host_port = self
            .host_port
            .or_else(|| parse_port(std::str::from_utf8(outermost(Field::Port)?).ok()?));
        self.proto = self.proto.or_else(|| parse_proto(outermost(Field::Proto)?));
    }

    fn of_client(hop: Hop<'a>) -> Self {
        let (client, client_port) = match hop {
            Hop::Address(_, client, port) => (Some(client), port),
            Hop::Obfuscated(client) => (Some(client), None),
            Hop::Unix | Hop::Unknown => (None, None),
        };
        Self {
            client,
            client_port,
            ..Self::default()
        }
    }
}

/// Who sent the request to a proxy (RFC 7239, section 6).
enum Hop<'a> {
    Address(IpAddr, Cow<'a, str>, Option<u16>),
    /// `_name`.
    Obfuscated(Cow<'a, str>),
    /// What nginx writes for a peer on a unix socket.
    Unix,
    /// `unknown`, and whatever else is no node.
    Unknown,
}

impl<'a> Hop<'a> {
    fn parse(node: Cow<'a, str>) -> Self {
        if node == "unix:" {
            return Self::Unix;
        }
        let (name, port) = split_node(node);
        if let Ok(address) = name.parse() {
            Self::Address(address, name, port)
        } else if is_obfuscated(&name) {
            Self::Obfuscated(name)
        } else {
            Self::Unknown
        }
    }

    fn is_trusted(&self, proxies: &TrustedProxies) -> bool {
        match self {
            Self::Address(address, ..) => proxies.trusts_address(*address),
            Self::Unix => proxies.trusts_unix(),
            Self::Obfuscated(_) | Self::Unknown => proxies.trusts_everyone(),
        }
    }
}

/// [`split_host`] that keeps the lifetime of what it splits.
fn split_node(node: Cow<'_, str>) -> (Cow<'_, str>, Option<u16>) {
    match node {
        Cow::Borrowed(node) => {
            let (name, port) = split_host(node);
            (Cow::Borrowed(name), port)
        }
        Cow::Owned(node) => {
            let (name, port) = split_host(&node);
            (Cow::Owned(name.to_owned()), port)
        }
    }
}

fn is_obfuscated(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.len() > 1
        && name.len() <= MAX_HOST_LEN
        && name.starts_with('_')
        && name.bytes().all(is_allowed)
}

/// A host with or without a port, if it can be one (RFC 3986, section 3.2.2, without the delimiters that DNS has no use for).
fn parse_host(host: Cow<'_, str>) -> Option<(Cow<'_, str>, Option<u16>)> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%:[]".contains(&byte);
    if host.len() > MAX_HOST_LEN || !host.bytes().all(is_allowed) {
        return None;
    }
    let (name, port) = split_node(host);
    (!name.is_empty() && !name.contains(['[', ']'])).then_some((name, port))
}

fn parse_proto(proto: &[u8]) -> Option<&'static str> {
    SCHEMES
        .into_iter()
        .find(|scheme| scheme.as_bytes().eq_ignore_ascii_case(proto))
}

#[cfg(test)]
mod tests;
