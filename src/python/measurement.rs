//! A request in the metrics of HTTP servers (semantic conventions 1.44, "HTTP metrics").

use pyo3::prelude::*;

use super::borrowed::{entry, with_str};
use super::exchange::Exchange;
use super::request::{RequestUrl, with_scheme};
use super::traffic::Traffic;
use crate::http_server::{HttpServerSettings, OptIn};
use crate::metrics::{Exemplar, HttpServerMetrics, Measured, Request};

/// Records a request that has ended.
#[inline]
pub(super) fn measure(
    metrics: &HttpServerMetrics,
    exchange: &Exchange,
    py: Python<'_>,
    settings: &HttpServerSettings,
    error_type: Option<&str>,
    route: Option<&str>,
    exemplar: Exemplar,
) {
    let Some(scope) = &exchange.scope else { return };
    let scope = scope.bind(py);
    let traffic = exchange.traffic.as_deref().unwrap_or(&Traffic::NONE);
    let wanted = |size| settings.opt_in.has(size);
    let measured = Measured {
        duration_ns: exemplar.unix_ns.saturating_sub(exchange.start.unix_ns()),
        request_body_bytes: wanted(OptIn::REQUEST_BODY_SIZE_METRIC)
            .then_some(traffic.request_bytes),
        response_body_bytes: traffic
            .response_bytes()
            .filter(|_| wanted(OptIn::RESPONSE_BODY_SIZE_METRIC)),
        exemplar: Some(exemplar),
    };
    let url = exchange.url.as_deref();
    let server = url.and_then(RequestUrl::server);
    let version = entry!(scope, "http_version");
    with_scheme(scope, url, |scheme| {
        exchange.method.with_reported(py, |method| {
            let record = |protocol_version: Option<&str>| {
                let request = Request {
                    status_code: exchange.status.and_then(|status| status.try_into().ok()),
                    route,
                    method,
                    scheme,
                    error_type,
                    protocol_version,
                    server,
                };
                metrics.record(&request, &measured);
                if settings.opt_in.has(OptIn::ACTIVE_REQUESTS_METRIC) {
                    metrics.active_requests(method, scheme, -1);
                }
            };
            if with_str(version, |version| record(Some(version))).is_none() {
                record(None);
            }
        });
    });
}
