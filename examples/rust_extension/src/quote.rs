//! A price: what the rate of exchange, a simulation and the shop's own discount make of it.

use pyo3::prelude::*;
use rvh_trace_client::{Span, python, task};
use tracing::instrument;

use crate::rates;

const ROUNDS: u32 = 200_000;

/// What an item costs, in cents of `currency`.
///
/// `discount(sku, cents)` is awaited for the percentage to take off.
#[pyfunction]
pub(crate) fn quote<'py>(
    py: Python<'py>,
    sku: String,
    currency: String,
    rates_url: String,
    discount: Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let span = Span::builder("pricing.quote").attribute("shop.sku", sku.as_str());
    let work = work_out(sku.clone(), currency, rates_url, discount);
    python::future_into_py(py, span, work)
}

#[instrument(skip_all, fields(shop.currency = currency))]
async fn work_out(
    sku: String,
    currency: String,
    rates_url: String,
    discount: Py<PyAny>,
) -> PyResult<u64> {
    let item = sku.clone();
    let (rate, cents) = tokio::join!(
        rates::fetch(&rates_url, &currency),
        task::spawn_blocking(move || simulate_demand(&item)),
    );
    let cents = cents.map_err(python_error)?;
    let percent = ask_for_discount(&discount, &sku, cents).await?;
    tracing::info!(percent, "discount granted");
    let euros = cents * u64::from(100 - percent.min(100)) / 100;
    Ok((euros as f64 * rate?).round() as u64)
}

/// Keeps a processor busy: on a thread where that holds nobody up.
#[instrument(fields(rounds = ROUNDS))]
fn simulate_demand(sku: &str) -> u64 {
    let seed = sku
        .bytes()
        .fold(7, |seed: u64, byte| seed * 31 + u64::from(byte));
    let last = (0..ROUNDS).fold(seed, |state, _| {
        state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407)
    });
    500 + last % 1_000
}

/// Python code below this span: what it traces stands under it.
#[instrument(skip_all)]
async fn ask_for_discount(discount: &Py<PyAny>, sku: &str, cents: u64) -> PyResult<u32> {
    let asked = Python::attach(|py| python::into_future(discount.bind(py).call1((sku, cents))?))?;
    let percent = asked.await?;
    Python::attach(|py| percent.extract(py))
}

pub(crate) fn python_error(error: impl std::fmt::Display) -> PyErr {
    pyo3::exceptions::PyRuntimeError::new_err(error.to_string())
}
