//! The series of HTTP requests by attribute set: found without allocating, bounded in number.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use opentelemetry::KeyValue;

use super::exemplar::Distribution;

/// What series beyond the limit are counted under (metrics SDK specification, "Overflow attribute").
pub(super) const OVERFLOW: &str = "otel.metric.overflow";

/// What tells one series of requests from another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Request<'a> {
    /// `http.response.status_code`, if one was sent.
    pub status_code: Option<u16>,
    /// `http.route`, if the application has told.
    pub route: Option<&'a str>,
    /// `http.request.method`: a known method or `_OTHER`.
    pub method: &'a str,
    /// `url.scheme`
    pub scheme: &'a str,
    /// `error.type`, if the request failed.
    pub error_type: Option<&'a str>,
    /// `network.protocol.version`
    pub protocol_version: Option<&'a str>,
    /// `server.address` and `server.port`. Opt-in: clients choose what they send as `Host`.
    pub server: Option<(&'a str, Option<u16>)>,
}

/// An owned [`Request`].
struct Key {
    status_code: Option<u16>,
    route: Option<Box<str>>,
    method: Box<str>,
    scheme: Box<str>,
    error_type: Option<Box<str>>,
    protocol_version: Option<Box<str>>,
    server: Option<(Box<str>, Option<u16>)>,
}

impl Key {
    fn of(request: &Request<'_>) -> Self {
        Self {
            status_code: request.status_code,
            route: request.route.map(Into::into),
            method: request.method.into(),
            scheme: request.scheme.into(),
            error_type: request.error_type.map(Into::into),
            protocol_version: request.protocol_version.map(Into::into),
            server: request.server.map(|(address, port)| (address.into(), port)),
        }
    }

    #[inline]
    fn is_of(&self, request: &Request<'_>) -> bool {
        *request
            == Request {
                status_code: self.status_code,
                route: self.route.as_deref(),
                method: &self.method,
                scheme: &self.scheme,
                error_type: self.error_type.as_deref(),
                protocol_version: self.protocol_version.as_deref(),
                server: self
                    .server
                    .as_ref()
                    .map(|(address, port)| (&**address, *port)),
            }
    }
}

/// The attributes of a request, ordered by key: the SDK keeps a second copy of those that are not.
fn attributes(request: &Request<'_>) -> Arc<[KeyValue]> {
    let text = |key: &'static str, value: Option<&str>| {
        value.map(|value| KeyValue::new(key, value.to_owned()))
    };
    let int = |key: &'static str, value: Option<u16>| {
        value.map(|value| KeyValue::new(key, i64::from(value)))
    };
    [
        text("error.type", request.error_type),
        text("http.request.method", Some(request.method)),
        int("http.response.status_code", request.status_code),
        text("http.route", request.route),
        text("network.protocol.version", request.protocol_version),
        text("server.address", request.server.map(|(address, _)| address)),
        int("server.port", request.server.and_then(|(_, port)| port)),
        text("url.scheme", Some(request.scheme)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One attribute set and what is measured of it.
pub(super) struct Series {
    /// `None`: what is beyond the limit.
    key: Option<Key>,
    hash: u64,
    pub(super) attributes: Arc<[KeyValue]>,
    pub(super) duration: Distribution<f64>,
    /// Bound at the first measurement, so that what nobody measures is not exported.
    pub(super) request_body: Option<Distribution<u64>>,
    pub(super) response_body: Option<Distribution<u64>>,
    /// Whether it was used since the last collection.
    pub(super) is_used: bool,
}

/// All series, at most `limit` and the one for what is beyond.
pub(super) struct Table {
    series: Vec<Series>,
    /// Places in `series`, by the hash of the key. Seeded at random: what clients may choose cannot be made to collide.
    places: HashTable<usize>,
    hashing: RandomState,
    /// The place of the series used last, which is most likely used next.
    last: usize,
    overflow: Option<usize>,
    limit: usize,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            series: Vec::new(),
            places: HashTable::new(),
            hashing: RandomState::default(),
            last: 0,
            overflow: None,
            limit,
        }
    }

    /// The series of this request. A new one is made with the duration that `bind` gives for its attributes.
    #[inline]
    pub(super) fn of(
        &mut self,
        request: &Request<'_>,
        bind: impl FnOnce(&[KeyValue]) -> Distribution<f64>,
    ) -> &mut Series {
        let is_of = |series: &Series| series.key.as_ref().is_some_and(|key| key.is_of(request));
        if !self.series.get(self.last).is_some_and(is_of) {
            let hash = self.hashing.hash_one(request);
            let series = &self.series;
            self.last = match self.places.find(hash, |place| is_of(&series[*place])) {
                Some(place) => *place,
                None => self.add(request, hash, bind),
            };
        }
        &mut self.series[self.last]
    }

    /// Whether something was counted under the overflow attribute.
    pub(super) fn has_overflowed(&self) -> bool {
        self.overflow.is_some()
    }

    #[cold]
    fn add(
        &mut self,
        request: &Request<'_>,
        hash: u64,
        bind: impl FnOnce(&[KeyValue]) -> Distribution<f64>,
    ) -> usize {
        let is_full = self.places.len() >= self.limit;
        if let Some(overflow) = self.overflow.filter(|_| is_full) {
            return overflow;
        }
        let attributes = if is_full {
            [KeyValue::new(OVERFLOW, true)].into()
        } else {
            attributes(request)
        };
        let place = self.series.len();
        self.series.push(Series {
            key: (!is_full).then(|| Key::of(request)),
            hash,
            duration: bind(&attributes),
            attributes,
            request_body: None,
            response_body: None,
            is_used: false,
        });
        if is_full {
            self.overflow = Some(place);
        } else {
            self.index(place);
        }
        place
    }

    fn index(&mut self, place: usize) {
        let series = &self.series;
        self.places
            .insert_unique(series[place].hash, place, |place| series[*place].hash);
    }

    /// Every series, in no order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Series> {
        self.series.iter_mut()
    }

    /// Drops the series that were not used since the last call. The SDK then forgets them too.
    pub(super) fn forget_unused(&mut self) {
        let before = self.series.len();
        self.series
            .retain_mut(|series| std::mem::take(&mut series.is_used));
        if self.series.len() == before {
            return;
        }
        self.places.clear();
        self.overflow = None;
        for place in 0..self.series.len() {
            if self.series[place].key.is_some() {
                self.index(place);
            } else {
                self.overflow = Some(place);
            }
        }
    }
}
