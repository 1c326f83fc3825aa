//! The layer for `tracing_subscriber`: spans and events of `tracing` in, spans of rvh_trace out.
//!
//! A span costs one call through the table when it starts, with its fields, one when it closes, and two each time that
//! it is entered and left. While no rvh_trace is connected, callsites are off, as if the layer were not there; while
//! tracing is not set up, a span costs what the registry takes for it. Other layers of the subscriber are not affected
//! by either.

mod fields;
mod options;

use tracing_core::span::{Attributes, Id, Record};
use tracing_core::subscriber::Interest;
use tracing_core::{Event, Level, LevelFilter, Metadata, Subscriber};
use tracing_subscriber::layer::{Context as LayerContext, Filter};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use crate::abi;
use crate::attribute::text;
use crate::context::{Context, attach_span, detach_span, with_innermost};
use crate::host::{host, is_connected, recording_host};
use crate::log::{Severity, log_raw};
use crate::span::{Span, SpanKind, start};
use fields::Fields;
pub use options::LayerOptions;

/// The layer with its [default options](LayerOptions::new).
///
/// Filter it as any other layer: `layer().with_filter(...)` with `Targets`, `EnvFilter` or a level.
///
/// # Example
///
/// ```
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let subscriber = tracing_subscriber::registry().with(rvh_trace_client::layer());
/// # drop(subscriber);
/// ```
pub fn layer<S>() -> impl tracing_subscriber::Layer<S> + Send + Sync
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    LayerOptions::new().layer()
}

/// What [`layer`] makes, behind its filter.
#[derive(Debug)]
struct Layer {
    options: LayerOptions,
}

/// The context of a `tracing` span, among its extensions. The registry drops them when the span closes: that ends it,
/// without a look-up for `on_close`.
struct Placed(Context);

impl Drop for Placed {
    fn drop(&mut self) {
        // Somebody else may still have a hold on it.
        if let Some(span) = self.0.take_span() {
            span.close();
        }
    }
}

/// Which callsites take part.
#[derive(Debug)]
struct Recorded {
    options: LayerOptions,
}

impl Recorded {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let (level, options) = (metadata.level(), &self.options);
        let wanted = level <= &options.max_level
            && (metadata.is_span() || level <= &options.events || level <= &options.log);
        wanted && is_connected()
    }
}

impl<S> Filter<S> for Recorded {
    #[inline]
    fn enabled(&self, metadata: &Metadata<'_>, _: &LayerContext<'_, S>) -> bool {
        recording_host().is_some() && self.wants(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) {
            Interest::sometimes()
        } else {
            // Until `connect` has callsites asked again.
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.options.max_level)
    }
}

impl<S> tracing_subscriber::Layer<S> for Layer
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, tracing: LayerContext<'_, S>) {
        let Some(span) = tracing.span(id) else { return };
        let context = Fields::with(|fields| {
            let metadata = attributes.metadata();
            attributes.record(fields);
            self.options.push_origin(metadata, fields);
            fields.finish();
            let name = fields.name().unwrap_or(metadata.name());
            let kind = fields.kind().unwrap_or(SpanKind::Internal);
            let parent = explicit_parent(attributes, &tracing);
            let context = start(name, kind, parent.as_ref(), 0, fields.raw())?;
            if fields.has_more()
                && let Some(span) = context.span()
            {
                fields.write_status(span);
                fields.write_exceptions(span);
            }
            Some(context)
        });
        if let Some(context) = context {
            span.extensions_mut().replace(Placed(context));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, tracing: LayerContext<'_, S>) {
        let Some(context) = context_of(tracing.span(id).as_ref()) else {
            return;
        };
        let Some(span) = context.span() else { return };
        Fields::with(|fields| {
            values.record(fields);
            fields.finish();
            if let Some(name) = fields.name() {
                span.set_name(name);
            }
            span.set_raw_attributes(fields.raw());
            fields.write_status(span);
            fields.write_exceptions(span);
        });
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, tracing: LayerContext<'_, S>) {
        let context = context_of(tracing.span(id).as_ref());
        let followed = context_of(tracing.span(follows).as_ref());
        if let (Some(context), Some(followed)) = (context, followed)
            && let Some(span) = context.span()
        {
            span.add_link(&followed, &[]);
        }
    }

    fn on_event(&self, event: &Event<'_>, tracing: LayerContext<'_, S>) {
        let options = &self.options;
        let (metadata, level) = (event.metadata(), event.metadata().level());
        Fields::with(|fields| {
            fields.is_event = true;
            event.record(fields);
            fields.finish();
            if level <= &options.log {
                let message = fields.name().unwrap_or(metadata.name());
                let target = fields.log_target().unwrap_or(metadata.target());
                log_raw(severity(*level), target, message, fields.raw());
            }
            if level > &options.events {
                return;
            }
            fields.push_origin(metadata);
            let is_error = *level == Level::ERROR && options.error_status;
            let write = |span: *mut std::ffi::c_void| write_event(span, fields, metadata, is_error);
            if let Some(parent) = event.parent() {
                if let Some(context) = context_of(tracing.span(parent).as_ref())
                    && let Some(span) = context.span()
                {
                    write(span.as_ptr());
                }
            } else if event.is_contextual() {
                with_innermost(|innermost| match innermost {
                    Some(context) => {
                        if let Some(span) = context.span() {
                            write(span.as_ptr());
                        }
                    }
                    // The one that is current in Python.
                    None => write(std::ptr::null_mut()),
                });
            }
        });
    }

    fn on_enter(&self, id: &Id, tracing: LayerContext<'_, S>) {
        if let Some(context) = context_of(tracing.span(id).as_ref()) {
            attach_span(id.into_u64(), context);
        }
    }

    fn on_exit(&self, id: &Id, _: LayerContext<'_, S>) {
        detach_span(id.into_u64());
    }
}

/// The context of a `tracing` span, if it has one.
#[inline]
fn context_of<S>(span: Option<&SpanRef<'_, S>>) -> Option<Context>
where
    S: for<'span> LookupSpan<'span>,
{
    let extensions = span?.extensions();
    extensions.get::<Placed>().map(|placed| placed.0.clone())
}

/// The parent that a span was given; `None` if that is what is current.
#[inline]
fn explicit_parent<S>(attributes: &Attributes<'_>, tracing: &LayerContext<'_, S>) -> Option<Context>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    if attributes.is_contextual() {
        return None;
    }
    let Some(parent) = attributes.parent() else {
        // `parent: None` asks for the root of a trace.
        return Some(Context::default());
    };
    // One that does not take part stands for the next that does.
    let scope = tracing.span(parent)?.scope();
    scope.into_iter().find_map(|span| context_of(Some(&span)))
}

/// Adds an event to a span, or, for null, to the one that is current in Python.
#[expect(unsafe_code, reason = "calls through the table")]
fn write_event(
    span: *mut std::ffi::c_void,
    fields: &Fields,
    metadata: &Metadata<'_>,
    is_error: bool,
) {
    let Some(host) = host() else { return };
    let name = fields.event_name().unwrap_or(metadata.name());
    let (first, count): (*const abi::Attribute, usize) = fields.raw();
    // SAFETY: a handle that is held, or null; texts and attributes live through the calls.
    unsafe {
        (host.span_add_event)(span, text(name), 0, first, count);
        if is_error {
            (host.span_set_status)(span, 2, text(fields.description().unwrap_or(name)));
        }
    }
}

fn severity(level: Level) -> Severity {
    match level {
        Level::TRACE => Severity::Trace,
        Level::DEBUG => Severity::Debug,
        Level::INFO => Severity::Info,
        Level::WARN => Severity::Warn,
        Level::ERROR => Severity::Error,
    }
}

impl Span {
    #[expect(unsafe_code, reason = "calls through the table")]
    fn set_raw_attributes(&self, (first, count): (*const abi::Attribute, usize)) {
        if count > 0
            && let Some(host) = host()
        {
            // SAFETY: a handle that is held, and attributes that live through the call.
            unsafe { (host.span_set_attributes)(self.as_ptr(), first, count) };
        }
    }
}
