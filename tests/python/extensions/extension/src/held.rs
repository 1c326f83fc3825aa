//! A span that Python holds by a handle of Rust's.

use pyo3::prelude::*;
use rvh_trace_client::{Attribute, Context, Span, SpanKind, Status};

#[pyclass(frozen)]
pub(crate) struct Held {
    context: std::sync::Mutex<Option<Context>>,
}

impl Held {
    pub(crate) fn of(context: Context) -> Self {
        Self {
            context: std::sync::Mutex::new(Some(context)),
        }
    }

    fn with<R>(&self, then: impl FnOnce(&Span) -> R) -> Option<R> {
        let context = self.context.lock().unwrap().clone()?;
        context.span().map(then)
    }
}

#[pymethods]
impl Held {
    /// A client span with attributes of every type.
    #[new]
    #[pyo3(signature = (name, parent=None, start_unix_ns=0))]
    fn new(name: &str, parent: Option<&Held>, start_unix_ns: u64) -> Self {
        let parent = parent.and_then(|parent| parent.context.lock().unwrap().clone());
        let mut builder = Span::builder(name)
            .kind(SpanKind::Client)
            .attribute("text", "t")
            .attribute("int", 7)
            .attribute("double", 1.5)
            .attribute("bool", true)
            .attribute("int", 8)
            .start_unix_ns(start_unix_ns);
        if let Some(parent) = &parent {
            builder = builder.parent(parent);
        }
        Self::of(builder.start())
    }

    #[getter]
    fn is_recorded(&self) -> bool {
        self.with(|_| ()).is_some()
    }

    #[getter]
    fn trace_flags(&self) -> Option<u8> {
        Some(self.context.lock().unwrap().as_ref()?.trace_flags())
    }

    #[getter]
    fn span_id(&self) -> Option<String> {
        let id = self.context.lock().unwrap().as_ref()?.span_id();
        Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// All that can be set on a span.
    fn annotate(&self) {
        self.with(|span| {
            span.set_name("renamed");
            span.set_attribute("int", 9);
            span.set_attributes(&[Attribute::new("more", "m"), Attribute::new("empty", "")]);
            span.add_event("now", &[Attribute::new("n", 1)]);
            span.add_event_at("then", 1_700_000_000_000_000_000, &[]);
            span.set_status(Status::Error("why"));
        });
    }

    fn set_attribute(&self, key: &str, value: i64) {
        self.with(|span| span.set_attribute(key, value));
    }

    fn link(&self, other: &Held) {
        let other = other.context.lock().unwrap().clone();
        if let Some(other) = other {
            self.with(|span| span.add_link(&other, &[Attribute::new("why", "because")]));
        }
    }

    fn set_ok(&self) {
        self.with(|span| {
            span.set_status(Status::Ok);
            span.set_status(Status::Error("too late"));
        });
    }

    #[pyo3(signature = (end_unix_ns=0))]
    fn end(&self, end_unix_ns: u64) {
        self.with(|span| span.end_at(end_unix_ns));
    }

    /// Gives up the hold.
    fn release(&self) {
        let context = self.context.lock().unwrap().take();
        drop(context);
    }

    /// Makes it current on this thread of Rust's while `callback` runs; without telling Python, unless `enter`.
    #[pyo3(signature = (callback, enter=false))]
    fn attach(&self, callback: &Bound<'_, PyAny>, enter: bool) -> PyResult<Py<PyAny>> {
        let context = self.context.lock().unwrap().clone().unwrap_or_default();
        let _attached = context.clone().attach();
        let _python = enter.then(|| context.enter_python());
        callback.call0().map(Bound::unbind)
    }

    /// Makes it current in Python for good.
    fn set_in_python(&self) -> bool {
        let context = self.context.lock().unwrap().clone().unwrap_or_default();
        context.set_in_python()
    }
}

pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Held>()
}
