//! The end of a server span: how the request went, and what is written of it, on the span and in the metrics.

use std::borrow::Cow;

use pyo3::exceptions::{PyBaseException, PyOSError};
use pyo3::prelude::*;

use super::borrowed::with_str;
use super::errors::guard;
use super::exception::{Ending, OUTCOME, type_name};
use super::exchange::Exchange;
use super::hook::wrong_result;
use super::measurement::measure;
use super::route;
use super::server_span::ServerSpan;
use crate::attribute::Value;
use crate::exception;
use crate::http_server::{ErrorOutcomes, HttpServerSettings, Outcome};
use crate::metrics::Exemplar;
use crate::span::{Span as Recording, Status};
use crate::wire::attribute::key;

/// How a request ended.
enum Ended<'a> {
    /// With a whole response.
    Response,
    /// Without one, and nothing says why.
    Unanswered,
    /// Without one, for a reason that is nobody's mistake.
    Outcome(Outcome),
    /// Without one, with an exception.
    Exception {
        type_name: &'a str,
        message: &'a str,
    },
}

/// What is raised where the client has gone while a message is on its way: by Starlette for HTTP and for websockets, and by
/// uvicorn.
const CLIENT_GONE: [&str; 3] = [
    "starlette.requests.ClientDisconnect",
    "starlette.websockets.WebSocketDisconnect",
    "uvicorn.protocols.utils.ClientDisconnected",
];

/// Whether the exception says no more than that the client has gone. Once that is known, so does an `OSError`, which is what
/// servers raise then (ASGI specification, "Disconnected Client - send exception").
fn says_disconnected(error: Option<&Bound<'_, PyBaseException>>, is_disconnected: bool) -> bool {
    error.is_some_and(|error| {
        (is_disconnected && error.is_instance_of::<PyOSError>())
            || CLIENT_GONE.contains(&type_name(error).as_str())
    })
}

/// The last message is with the server: the request is over. A 5xx waits for the exception that may have made it.
pub(super) fn end(slf: &Bound<'_, ServerSpan>) -> PyResult<()> {
    let py = slf.py();
    let ended = ServerSpan::with(slf, |exchange| {
        let now = exchange.start.later_unix_ns();
        let ended_before = exchange.ended_unix_ns.replace(now);
        if ended_before.is_some() {
            exchange.ended_unix_ns = ended_before;
            return None;
        }
        let waits = exchange.status.is_some_and(|status| status >= 500);
        // Whether an error that nobody heard of is one is for the exception to say.
        exchange.is_written = !(waits && exchange.is_unheard);
        Some((now, waits, exchange.is_disconnected, exchange.is_written))
    });
    let Some((now, waits, is_disconnected, is_written)) = ended else {
        return Ok(());
    };
    let span = slf.as_super().get();
    span.pass();
    let written = if !is_written {
        Ok(())
    } else if is_disconnected {
        write(slf, now, &Ended::Outcome(Outcome::Disconnected))
    } else {
        write(slf, now, &Ended::Response)
    };
    if !waits {
        span.with_recording(py, |span| span.end_at(now));
        span.end_now(py);
    }
    written
}

/// The application has returned, or raised: writes what is still open.
#[inline]
pub(super) fn finish(
    slf: &Bound<'_, ServerSpan>,
    error: Option<&Bound<'_, PyBaseException>>,
) -> PyResult<()> {
    let (ended_unix_ns, measures, is_written) = ServerSpan::with(slf, |exchange| {
        let measures = exchange.metrics.is_some();
        (exchange.ended_unix_ns, measures, exchange.is_written)
    });
    let is_live = slf.as_super().get().is_live();
    match ended_unix_ns {
        Some(ended_unix_ns) if is_live || (measures && !is_written) => {
            finish_error_response(slf, ended_unix_ns, is_written, error)
        }
        None if is_live || measures => finish_unanswered(slf, error),
        _ => Ok(()),
    }
}

/// Ends the span of a 5xx, with the exception that made it, if one did. The error is the status that was sent; the exception
/// is how it came about (semantic conventions, `error.type`).
#[cold]
fn finish_error_response(
    slf: &Bound<'_, ServerSpan>,
    ended_unix_ns: u64,
    is_written: bool,
    error: Option<&Bound<'_, PyBaseException>>,
) -> PyResult<()> {
    let py = slf.py();
    let is_unheard = !is_written && says_disconnected(error, true);
    let written = match (is_written, is_unheard) {
        (true, _) => Ok(()),
        (false, true) => write(slf, ended_unix_ns, &Ended::Outcome(Outcome::Disconnected)),
        (false, false) => write(slf, ended_unix_ns, &Ended::Response),
    };
    let span = slf.as_super().get();
    let ending = if span.is_live() && !is_unheard {
        Ending::of(error)
    } else {
        Ok(Ending::Returned)
    };
    span.with_recording(py, |span| {
        if let Ok(Ending::Failed(exceptions)) = &ending {
            exception::record(span, exceptions, span.start_time().later_unix_ns());
            if span.status() == Status::Error
                && let Some(raised) = exceptions.first()
            {
                span.set_status(Status::Error, &raised.message);
            }
        }
        span.end_at(ended_unix_ns);
    });
    span.end_now(py);
    written.and(ending.map(drop))
}

/// Ends a request whose response was not complete.
#[cold]
fn finish_unanswered(
    slf: &Bound<'_, ServerSpan>,
    error: Option<&Bound<'_, PyBaseException>>,
) -> PyResult<()> {
    let py = slf.py();
    let (now, is_disconnected) = ServerSpan::with(slf, |exchange| {
        let now = exchange.start.later_unix_ns();
        exchange.ended_unix_ns = Some(now);
        (now, exchange.is_disconnected)
    });
    let span = slf.as_super().get();
    span.pass();
    // The stack of an exception that nobody records is not read.
    let ending = if span.is_live() {
        Ending::of(error)
    } else {
        Ok(Ending::without_details(error))
    };
    let type_name = error.map(type_name).unwrap_or_default();
    let says_disconnected = says_disconnected(error, is_disconnected);
    let failed = match &ending {
        Ok(Ending::Failed(exceptions)) if !says_disconnected => Some(exceptions),
        _ => None,
    };
    let ended = match &ending {
        Ok(Ending::Failed(_)) | Err(_) if says_disconnected => {
            Ended::Outcome(Outcome::Disconnected)
        }
        Ok(Ending::Failed(exceptions)) => Ended::Exception {
            type_name: &type_name,
            message: exceptions
                .first()
                .map_or("", |raised| raised.message.as_str()),
        },
        Err(_) => Ended::Exception {
            type_name: &type_name,
            message: "",
        },
        Ok(_) if is_disconnected => Ended::Outcome(Outcome::Disconnected),
        Ok(Ending::Cancelled) => Ended::Outcome(Outcome::Cancelled),
        // The application was closed where it stood, or told the process to exit.
        Ok(Ending::Returned) if error.is_some() => Ended::Outcome(Outcome::Cancelled),
        Ok(Ending::Returned) => Ended::Unanswered,
    };
    let written = write(slf, now, &ended);
    span.with_recording(py, |span| {
        if let Some(exceptions) = failed {
            exception::record(span, exceptions, now);
        }
        span.end_at(now);
    });
    span.end_now(py);
    written.and(ending.map(drop))
}

/// Status, route, name and everything else that is known when the request is over, on the span and in the metrics.
fn write(slf: &Bound<'_, ServerSpan>, now: u64, ended: &Ended<'_>) -> PyResult<()> {
    let py = slf.py();
    let route = guard(py, "reading the route of a request", || route::of(slf));
    let name = chosen_name(slf);
    let (template, chosen) = (
        route.as_ref().ok().and_then(Option::as_ref),
        name.as_ref().ok().and_then(Option::as_deref),
    );
    let template = template.and_then(Option::as_deref);
    ServerSpan::with(slf, |exchange| {
        let defaults;
        let settings = if let Some(middleware) = &exchange.instrumentation {
            middleware.get().settings()
        } else {
            defaults = HttpServerSettings::default();
            &defaults
        };
        let error = error_of(exchange, ended, settings);
        slf.as_super().get().with_recording(py, |span| {
            // Nobody has added an attribute meanwhile, so nobody can have set one of these: no search for them.
            let is_untouched = span.attribute_count() == exchange.request_attributes;
            write_response(span, exchange, is_untouched, ended, settings);
            if let Some(error) = &error {
                span.set_attribute("error.type", &Value::Str(error));
                let message = match ended {
                    Ended::Exception { message, .. } => message,
                    _ => "",
                };
                span.set_status(Status::Error, message);
            }
            if let Some(template) = template {
                let key = key!("http.route");
                if is_untouched {
                    span.push_known_str(&key, template);
                } else {
                    span.set_attribute(key.name(), &Value::Str(template));
                }
            }
            if let Some(name) = chosen {
                span.update_name(name);
            } else if let Some(template) = template {
                exchange.method.with_name(py, |method| {
                    span.update_name_with([method, " ", template]);
                });
            }
        });
        if let Some(metrics) = exchange.metrics {
            let context = slf.as_super().get().clone_context(py);
            let exemplar = Exemplar {
                trace_id: context.trace_id,
                span_id: context.span_id,
                is_sampled: context.is_sampled(),
                unix_ns: now,
            };
            measure(
                metrics,
                exchange,
                py,
                settings,
                error.as_deref(),
                template,
                exemplar,
            );
        }
    });
    route.and(name).map(drop)
}

/// The name that the middleware's `span_name` gives, if it gives one.
#[inline]
fn chosen_name(slf: &Bound<'_, ServerSpan>) -> PyResult<Option<String>> {
    let is_chosen = ServerSpan::with(slf, |exchange| {
        let middleware = exchange.instrumentation.as_ref();
        middleware.is_some_and(|middleware| middleware.get().hooks().span_name.is_set())
    });
    if !is_chosen || !slf.as_super().get().is_live() {
        return Ok(None);
    }
    let py = slf.py();
    let Some(middleware) = ServerSpan::instrumentation(slf) else {
        return Ok(None);
    };
    let hook = &middleware.get().hooks().span_name;
    let Some(scope) = ServerSpan::scope(slf) else {
        return Ok(None);
    };
    let Some(name) = hook.call(py, (scope,))?.filter(|name| !name.is_none()) else {
        return Ok(None);
    };
    let text = with_str(Some(name.as_borrowed()), str::to_owned);
    if text.is_none() {
        hook.fail(&wrong_result(&name, "a string or None").to_string());
    }
    Ok(text)
}

/// `error.type`, if the request ended with an error.
fn error_of<'a>(
    exchange: &Exchange,
    ended: &Ended<'a>,
    settings: &HttpServerSettings,
) -> Option<Cow<'a, str>> {
    let errors = settings.error_outcomes;
    let is_unheard = exchange.is_unheard && matches!(ended, Ended::Outcome(_));
    let status = exchange
        .status
        .filter(|status| errors.has_status(*status) && !is_unheard);
    match ended {
        _ if status.is_some() => status.map(|status| Cow::Owned(status.to_string())),
        Ended::Response | Ended::Unanswered => None,
        Ended::Outcome(outcome) => errors
            .has_outcome(*outcome)
            .then_some(Cow::Borrowed(outcome.as_str())),
        Ended::Exception { type_name, .. } => errors
            .has(ErrorOutcomes::EXCEPTION)
            .then_some(Cow::Borrowed(*type_name)),
    }
}

#[inline]
fn write_response(
    span: &mut Recording,
    exchange: &Exchange,
    is_untouched: bool,
    ended: &Ended<'_>,
    settings: &HttpServerSettings,
) {
    if let Some(status) = exchange.status {
        let key = key!("http.response.status_code");
        if is_untouched {
            span.push_known_int(&key, status);
        } else {
            span.set_attribute(key.name(), &Value::Int(status));
        }
    }
    if let Ended::Outcome(outcome) = ended {
        span.set_attribute(OUTCOME, &Value::Str(outcome.as_str()));
    }
    if let Some(traffic) = &exchange.traffic {
        traffic.write(span, settings, exchange.start.unix_ns());
    }
    if let Some(websocket) = &exchange.websocket {
        websocket.write(span);
    }
}
