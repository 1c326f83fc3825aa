//! Rates of exchange, from the service that knows them.

use std::sync::OnceLock;

use pyo3::prelude::*;
use reqwest::header::HeaderMap;
use reqwest::{Client, Url};
use rvh_trace_client::Context;
use tracing::{Instrument, instrument};

use crate::quote::python_error;

static CLIENT: OnceLock<Client> = OnceLock::new();

/// What a euro is in `currency`.
#[instrument(name = "fetch_rate", skip(rates_url))]
pub(crate) async fn fetch(rates_url: &str, currency: &str) -> PyResult<f64> {
    let url = Url::parse(&format!("{rates_url}/rates/{currency}")).map_err(python_error)?;
    let body = get(url).await.map_err(python_error)?;
    body.parse().map_err(python_error)
}

/// One request, as the semantic conventions for HTTP clients describe it.
async fn get(url: Url) -> Result<String, reqwest::Error> {
    let span = tracing::info_span!(
        "GET",
        otel.kind = "client",
        http.request.method = "GET",
        http.response.status_code = tracing::field::Empty,
        server.address = url.host_str(),
        server.port = url.port_or_known_default(),
        url.full = url.as_str(),
    );
    let sent = async {
        let mut headers = HeaderMap::new();
        Context::current().inject(&mut headers);
        let client = CLIENT.get_or_init(Client::new);
        let answer = client.get(url).headers(headers).send().await?;
        let status = answer.status().as_u16();
        tracing::Span::current().record("http.response.status_code", status);
        answer.error_for_status()?.text().await
    };
    sent.instrument(span).await
}
