//! `http.server.active_requests`: few series, found by looking through them.

use std::sync::{Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundUpDownCounter, UpDownCounter};

use super::series::OVERFLOW;

/// Known methods times schemes, and then some. What is beyond is counted under the overflow attribute.
const MAX_SERIES: usize = 64;

pub(super) struct ActiveRequests {
    counter: UpDownCounter<i64>,
    max_series: usize,
    series: Mutex<Vec<Series>>,
}

struct Series {
    /// Method and scheme; `None`: what is beyond the limit.
    key: Option<(Box<str>, Box<str>)>,
    counter: BoundUpDownCounter<i64>,
}

impl ActiveRequests {
    pub(super) fn new(counter: UpDownCounter<i64>, limit: usize) -> Self {
        Self {
            counter,
            max_series: limit.min(MAX_SERIES),
            series: Mutex::default(),
        }
    }

    #[inline]
    pub(super) fn add(&self, method: &str, scheme: &str, requests: i64) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |series: &Series| match &series.key {
            Some((known_method, known_scheme)) => {
                **known_method == *method && **known_scheme == *scheme
            }
            None => true,
        };
        match series.iter().find(|series| is_it(series)) {
            Some(series) => series.counter.add(requests),
            None => self.new_series(&mut series, method, scheme).add(requests),
        }
    }

    /// The one for what is beyond the limit is the last, and matches everything.
    #[cold]
    fn new_series<'a>(
        &self,
        series: &'a mut Vec<Series>,
        method: &str,
        scheme: &str,
    ) -> &'a BoundUpDownCounter<i64> {
        let is_full = series.len() >= self.max_series;
        let counter = if is_full {
            self.counter.bind(&[KeyValue::new(OVERFLOW, true)])
        } else {
            self.counter.bind(&[
                KeyValue::new("http.request.method", method.to_owned()),
                KeyValue::new("url.scheme", scheme.to_owned()),
            ])
        };
        let key = (!is_full).then(|| (method.into(), scheme.into()));
        let place = series.len();
        series.push(Series { key, counter });
        &series[place].counter
    }
}
