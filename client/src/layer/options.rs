//! What the layer makes of spans and events.

use tracing_core::{LevelFilter, Metadata, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::registry::LookupSpan;

use super::fields::Fields;
use super::{Layer, Recorded};

/// How [`layer`](crate::layer()) is to be.
///
/// # Example
///
/// ```
/// use rvh_trace_client::LayerOptions;
/// use tracing_subscriber::filter::LevelFilter;
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let layer = LayerOptions::new().max_level(LevelFilter::DEBUG).log(LevelFilter::WARN).layer();
/// let subscriber = tracing_subscriber::registry().with(layer);
/// # drop(subscriber);
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a layer is made of them"]
pub struct LayerOptions {
    pub(super) max_level: LevelFilter,
    pub(super) events: LevelFilter,
    pub(super) log: LevelFilter,
    pub(super) error_status: bool,
    code: bool,
    thread: bool,
}

impl Default for LayerOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl LayerOptions {
    /// Every span, every event as an event of its span, ERROR events set its status; nothing is logged.
    pub const fn new() -> Self {
        Self {
            max_level: LevelFilter::TRACE,
            events: LevelFilter::TRACE,
            log: LevelFilter::OFF,
            error_status: true,
            code: false,
            thread: false,
        }
    }

    /// The most verbose level that takes part, of spans and of events.
    pub const fn max_level(mut self, level: LevelFilter) -> Self {
        self.max_level = level;
        self
    }

    /// The most verbose level of events that become events of their span.
    pub const fn events(mut self, level: LevelFilter) -> Self {
        self.events = level;
        self
    }

    /// The most verbose level of events that go to Python's `logging`, to the logger that is called like their target,
    /// with `::` as `.`.
    pub const fn log(mut self, level: LevelFilter) -> Self {
        self.log = level;
        self
    }

    /// Whether an ERROR event makes an error of its span.
    pub const fn error_status(mut self, sets: bool) -> Self {
        self.error_status = sets;
        self
    }

    /// Whether spans say where they are in the source: `code.file.path` and `code.line.number`.
    pub const fn code(mut self, says: bool) -> Self {
        self.code = says;
        self
    }

    /// Whether spans say on which thread they were started: `thread.name`.
    pub const fn thread(mut self, says: bool) -> Self {
        self.thread = says;
        self
    }

    /// The layer.
    pub fn layer<S>(self) -> impl tracing_subscriber::Layer<S> + Send + Sync
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let options = self.clone();
        Layer { options }.with_filter(Recorded { options: self })
    }

    /// Adds what every span says of where it comes from.
    #[inline]
    pub(super) fn push_origin(&self, metadata: &Metadata<'_>, fields: &mut Fields) {
        if self.code {
            if let Some(file) = metadata.file() {
                fields.push_text("code.file.path", file);
            }
            if let Some(line) = metadata.line() {
                fields.push_int("code.line.number", line.into());
            }
        }
        if self.thread
            && let Some(name) = std::thread::current().name()
        {
            fields.push_text("thread.name", name);
        }
    }
}
