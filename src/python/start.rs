//! Starting a server span: reads the scope once and hands the application its `receive` and `send`.
//!
//! The span's identity comes from the headers alone: what a server left in the context of a connection
//! (Kludex/uvicorn#2167) is ignored.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::asgi::ServerInstrumentation;
use super::borrowed::{entry, item};
use super::channel::{Channel, Direction};
use super::convert::ascii;
use super::current::{self, Scope};
use super::method::Method;
use super::request::{Request, RequestUrl, with_scheme};
use super::server_span::ServerSpan;
use super::span::{Body, Span};
use super::span_context::Context;
use super::traffic::Traffic;
use super::websocket::Websocket;
use super::{layers, lifecycle, outer};
use crate::clock::Start;
use crate::context::{self, SpanContext};
use crate::http_server::{ErrorOutcomes, HttpServerSettings, OptIn};
use crate::metrics::HttpServerMetrics;
use crate::propagation::{Baggage, Propagators};
use crate::span::{Span as Recording, SpanKind};
use crate::tracer::{Decision, Tracer};

/// The span of a request and what goes with it.
struct Begun {
    body: Body,
    baggage: Baggage,
    method: Method,
    url: Option<Box<RequestUrl>>,
    start: Start,
    request_attributes: u32,
    metrics: Option<&'static HttpServerMetrics>,
}

/// The span of this request, the `receive` and the `send` for the application. `None` when there is nothing to do: it is
/// neither HTTP nor a websocket, the URL is excluded, tracing is off and no context came in, or an outer middleware has a
/// span for the same request.
#[inline]
pub(super) fn start<'py>(
    middleware: &Bound<'py, ServerInstrumentation>,
    scope: &Bound<'py, PyAny>,
    receive: &Bound<'py, PyAny>,
    send: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let py = scope.py();
    // Every server gives a dict; a mapping that runs code when it is read is nothing to look into for a span.
    let Ok(scope) = scope.cast_exact::<PyDict>() else {
        return Ok(None);
    };
    let is_websocket = match kind(scope) {
        "http" => false,
        "websocket" => true,
        _ => return Ok(None),
    };
    // What the last request of the connection left behind, if the server starts this one in its context.
    let is_left = current::is_set(py)?;
    if serves_already(scope, receive, send, is_left)? {
        return Ok(None);
    }
    let (settings, hooks) = (middleware.get().settings(), middleware.get().hooks());
    // Whatever may run code of the application's comes first: what is read after it is borrowed.
    let is_public = settings.public_endpoint
        || match hooks.public_endpoint.call(py, (scope,))? {
            Some(public) => public.is_truthy()?,
            // The application does not trust everybody; if it cannot say whom, then nobody.
            None => hooks.public_endpoint.has_failed(),
        };
    let tracer = lifecycle::tracer();
    let unused = ServerSpan::unused(py);
    let outer = outer::server_span(py)?;
    // What is current around another library's server span for this very request is its business.
    let left_baggage = is_left && outer.is_none() && current::baggage(py)?.is_some();
    let begun = match outer {
        Some(outer) => Some(Begun::under(outer)),
        None => begin(
            settings,
            tracer,
            scope,
            is_websocket,
            is_public,
            unused.as_ref(),
        ),
    };
    let (begun, is_ours) = match begun {
        Some(begun) => (begun, true),
        // Nothing is current then, whatever was before. A middleware inside may want the request.
        None if is_left => (Begun::under(SpanContext::INVALID), false),
        None => return Ok(None),
    };
    let is_recorded = matches!(begun.body, Body::Recording(_));
    let has_identity = match &begun.body {
        Body::NonRecording(context) => context.is_valid(),
        _ => true,
    };
    let server = ServerSpan::make(py, unused, begun.body)?;
    let adds_headers = !settings.trace_response_headers.is_empty() && has_identity;
    let counts = Traffic::is_wanted(settings);
    let watches = is_recorded || begun.metrics.is_some();
    let (mut receive, mut send) = (receive.clone(), send.clone());
    let (mut send_channel, mut receive_channel) = (None, None);
    if watches || adds_headers {
        let channel = Channel::open(Direction::Send, &server, &send)?;
        send_channel = Some(channel.clone().unbind());
        send = channel.into_any();
    }
    let tells_disconnects = settings.error_outcomes.has(ErrorOutcomes::DISCONNECTED);
    if is_recorded || (watches && (counts || is_websocket || tells_disconnects)) {
        let channel = Channel::open(Direction::Receive, &server, &receive)?;
        receive_channel = Some(channel.clone().unbind());
        receive = channel.into_any();
    }
    let way_back = Scope::enter(server.as_super())?;
    server.as_super().get().enter_fresh(py, way_back);
    let mut outside_baggage = None;
    if left_baggage || !begun.baggage.is_empty() {
        outside_baggage = Some(enter_baggage(py, begun.baggage)?);
    }
    // In place: it is empty, and a quarter of a kilobyte would be copied twice.
    ServerSpan::with(&server, |exchange| {
        exchange.scope = is_ours.then(|| scope.clone().unbind());
        exchange.scope_len = scope.len();
        exchange.instrumentation = Some(middleware.clone().unbind());
        exchange.start = begun.start;
        exchange.send = send_channel;
        exchange.receive = receive_channel;
        exchange.baggage = outside_baggage;
        if watches {
            exchange.method = begun.method;
            exchange.url = begun.url;
            exchange.metrics = begun.metrics;
            exchange.request_attributes = begun.request_attributes;
            exchange.times_send =
                is_recorded && (settings.phases || (is_websocket && settings.websocket_messages));
            exchange.traffic = counts.then(Box::default);
        }
        if watches || adds_headers {
            exchange.decorates =
                adds_headers || hooks.response.is_set() || !settings.response_headers.is_empty();
            exchange.websocket = is_websocket.then(Box::<Websocket>::default);
        }
    });
    layers::deliver(py);
    if is_ours && hooks.request.is_set() {
        hooks.request.call(py, (&server, scope))?;
    }
    PyTuple::new(py, [server.into_any(), receive, send]).map(Some)
}

/// The type of the scope; empty if it has none.
#[inline]
fn kind<'a>(scope: &'a Bound<'_, PyDict>) -> &'a str {
    match entry!(scope, "type").as_deref().and_then(ascii) {
        Some("http") => "http",
        Some("websocket") => "websocket",
        _ => "",
    }
}

/// Whether the scope is that of a lifespan (ASGI specification, "Lifespan Protocol").
pub(super) fn is_lifespan(scope: &Bound<'_, PyAny>) -> bool {
    scope.cast_exact::<PyDict>().is_ok_and(|scope| {
        item(scope, pyo3::intern!(scope.py(), "type"))
            .as_deref()
            .and_then(ascii)
            == Some("lifespan")
    })
}

/// Makes baggage current for the application; what that takes to undo.
#[cold]
fn enter_baggage(py: Python<'_>, baggage: Baggage) -> PyResult<(Py<PyAny>, Option<Py<PyAny>>)> {
    let context = Context {
        inner: context::Context {
            span: SpanContext::INVALID,
            baggage,
        },
    };
    let context = Bound::new(py, context)?.into_any();
    let previous = current::enter_baggage(&context)?.map(Bound::unbind);
    Ok((context.unbind(), previous))
}

impl Begun {
    /// Nothing of our own below another library's server span: only its identity, for what the application does.
    fn under(outer: SpanContext) -> Self {
        Self {
            body: Body::NonRecording(outer),
            baggage: Baggage::default(),
            method: Method::default(),
            url: None,
            start: Start::default(),
            request_attributes: 0,
            metrics: None,
        }
    }
}

/// Reads the request and starts its span. Runs no Python code: what it reads is borrowed.
#[inline]
fn begin(
    settings: &HttpServerSettings,
    tracer: Option<&'static Tracer>,
    scope: &Bound<'_, PyDict>,
    is_websocket: bool,
    is_public: bool,
    unused: Option<&Bound<'_, ServerSpan>>,
) -> Option<Begun> {
    let py = scope.py();
    let request = Request::read(scope);
    let headers = request.headers(settings);
    if !settings.excluded_urls.is_empty() && settings.excluded_urls.excludes(&request.url(&headers))
    {
        return None;
    }
    let default_propagators;
    let propagators = if let Some(tracer) = tracer {
        tracer.propagators()
    } else {
        default_propagators = Propagators::default();
        &default_propagators
    };
    let context::Context {
        span: mut parent,
        mut baggage,
    } = request.extract(&headers, propagators);
    let mut caller = None;
    if is_public {
        caller = Some(std::mem::take(&mut parent)).filter(SpanContext::is_valid);
        baggage = Baggage::default();
    }
    let decision = tracer.map_or(Decision::Inherit, |tracer| tracer.decide(Some(&parent)));
    let metrics = tracer
        .and_then(Tracer::http_server_metrics)
        .filter(|_| !is_websocket);
    let known_methods = settings
        .known_methods
        .as_deref()
        .or_else(|| tracer?.http().known_methods.as_deref());
    let mut begun = Begun {
        body: Body::Deferred,
        baggage,
        method: Method::default(),
        url: None,
        start: Start::default(),
        request_attributes: 0,
        metrics,
    };
    let is_recorded = matches!(decision, Decision::Record(_));
    if is_recorded || metrics.is_some() {
        begun.start = Start::now();
        begun.method = Method::read(scope, is_websocket, known_methods);
        begun.url = request.forwarded_url(&headers, settings);
    }
    begun.body = match (decision, tracer) {
        (Decision::Record(context), Some(tracer)) => {
            let parent = Some(&parent).filter(|parent| parent.is_valid());
            let mut span = begun.method.with_name(py, |name| {
                let buffer = ServerSpan::take_buffer(py, unused);
                Recording::new_in(buffer, tracer, context, parent, SpanKind::Server, name)
            });
            request.set_attributes(&mut span, &headers, &begun.method, settings);
            if let Some(caller) = caller {
                span.add_link(&caller, &[]);
            }
            begun.request_attributes = span.attribute_count();
            // Layers are shown a span with its attributes.
            span.begin_attended(begun.start);
            Body::Recording(span)
        }
        (decision, tracer) => {
            if let Some(tracer) = tracer {
                tracer.count_not_sampled();
            }
            match decision {
                Decision::Drop(context) => Body::NonRecording(context),
                _ if parent.is_valid() || !begun.baggage.is_empty() || metrics.is_some() => {
                    Body::NonRecording(parent)
                }
                _ => return None,
            }
        }
    };
    if let Some(metrics) = metrics
        && settings.opt_in.has(OptIn::ACTIVE_REQUESTS_METRIC)
    {
        with_scheme(scope, begun.url.as_deref(), |scheme| {
            begun
                .method
                .with_reported(py, |method| metrics.active_requests(method, scheme, 1));
        });
    }
    Some(begun)
}

/// Whether an outer middleware has a live span for this very request. It is found by what it gave to its application, or by
/// what is current; spans of the application's may stand between.
#[inline]
fn serves_already(
    scope: &Bound<'_, PyDict>,
    receive: &Bound<'_, PyAny>,
    send: &Bound<'_, PyAny>,
    is_left: bool,
) -> PyResult<bool> {
    let py = scope.py();
    for channel in [receive, send] {
        if let Ok(channel) = channel.cast_exact::<Channel>()
            && let (Some(server), _) = channel.get().ends(py)
            && serves(&server, scope)
        {
            return Ok(true);
        }
    }
    if !is_left {
        return Ok(false);
    }
    let Some(current) = current::span(py)? else {
        return Ok(false);
    };
    match current.cast::<ServerSpan>() {
        Ok(server) => Ok(serves(server, scope)),
        Err(_) => serves_around(current, scope),
    }
}

/// How many spans of the application's are looked through for the server span around them.
const MAX_SPANS_BETWEEN: usize = 64;

#[cold]
fn serves_around(inner: Bound<'_, Span>, scope: &Bound<'_, PyDict>) -> PyResult<bool> {
    let mut current = inner;
    for _ in 0..MAX_SPANS_BETWEEN {
        let Some(surrounding) = Span::surrounding(&current)? else {
            break;
        };
        if let Ok(server) = surrounding.cast::<ServerSpan>() {
            return Ok(serves(server, scope));
        }
        current = surrounding;
    }
    Ok(false)
}

/// Whether the span is of the request with this scope, or a copy of it, which shares the list of headers that the server made
/// for the request.
#[inline]
fn serves(server: &Bound<'_, ServerSpan>, scope: &Bound<'_, PyDict>) -> bool {
    let Some(serving) = ServerSpan::scope(server) else {
        return false;
    };
    if serving.is(scope) {
        return true;
    }
    let headers = pyo3::intern!(scope.py(), "headers");
    item(&serving, headers)
        .zip(item(scope, headers))
        .is_some_and(|(ours, theirs)| ours.is(theirs))
}
