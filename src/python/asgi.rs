//! `ServerInstrumentation`: what `RvhTraceMiddleware` stands on: its settings, its hooks, and how CPython calls it.
//!
//! `RvhTraceMiddleware.__call__` is a Python `async def` (uvicorn takes anything else for an ASGI 2 application); the rest
//! is in [`super::start`], [`super::exchange`] and [`super::response`].

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use pyo3::PyTraverseError;
use pyo3::exceptions::PyTypeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyString, PyTuple, PyType};

use super::arguments::{argument, names};
use super::channel::Callee;
use super::errors::{guard, to_python};
use super::hook::Hook;
use super::route::Templates;
use super::{start, task_spans, vectorcall};
use crate::config::http_server::{HttpServerArguments, load};
use crate::diagnostic::{self, Level};
use crate::http_server::HttpServerSettings;

/// The settings and hooks of one middleware; makes server spans.
#[pyclass(frozen, subclass, module = "rvh_trace")]
pub(super) struct ServerInstrumentation {
    /// Where CPython finds what to call, see [`call_directly`].
    call: Callee,
    /// The class's own `__call__`.
    function: PyOnceLock<Py<PyAny>>,
    configured: OnceLock<Configured>,
    templates: Templates,
}

/// What `configure` was told.
pub(super) struct Configured {
    settings: HttpServerSettings,
    hooks: Hooks,
}

/// Functions of the application's.
pub(super) struct Hooks {
    pub(super) request: Hook,
    pub(super) response: Hook,
    pub(super) span_name: Hook,
    pub(super) public_endpoint: Hook,
}

impl Hooks {
    fn all(&self) -> [&Hook; 4] {
        [
            &self.request,
            &self.response,
            &self.span_name,
            &self.public_endpoint,
        ]
    }
}

impl ServerInstrumentation {
    #[inline]
    fn configured(&self) -> &Configured {
        // A subclass that did not call `__init__` has what it would have without arguments.
        self.configured.get_or_init(|| Configured {
            settings: HttpServerSettings::default(),
            hooks: Hooks {
                request: Hook::unset(),
                response: Hook::unset(),
                span_name: Hook::unset(),
                public_endpoint: Hook::unset(),
            },
        })
    }

    #[inline]
    pub(super) fn settings(&self) -> &HttpServerSettings {
        &self.configured().settings
    }

    #[inline]
    pub(super) fn hooks(&self) -> &Hooks {
        &self.configured().hooks
    }

    /// The routes that requests were dispatched to.
    #[inline]
    pub(super) fn templates(&self) -> &Templates {
        &self.templates
    }

    /// The function that a call of this object is a call of.
    pub(super) fn function<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if let Some(function) = slf.get().function.get(py) {
            return Ok(function.bind(py).clone());
        }
        let function = slf.get_type().getattr(pyo3::intern!(py, "__call__"))?;
        let _ = slf.get().function.set(py, function.clone().unbind());
        Ok(function)
    }

    /// The span of this request, the `receive` and the `send` for the application; `None` when there is nothing to do.
    #[inline]
    pub(super) fn start<'py>(
        slf: &Bound<'py, Self>,
        scope: &Bound<'py, PyAny>,
        receive: &Bound<'py, PyAny>,
        send: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        if slf.get().settings().task_spans {
            task_spans::ensure(slf.py())?;
        }
        guard(slf.py(), "starting a server span", || {
            start::start(slf, scope, receive, send)
        })
        .map(Option::flatten)
    }

    /// Tells where objects of this class keep what to call. Once, at import.
    pub(super) fn initialise(py: Python<'_>) -> PyResult<()> {
        let probe = Bound::new(py, Self::new(&PyTuple::empty(py), None))?;
        vectorcall::set_offset(&py.get_type::<Self>(), &probe, |probe| &probe.call);
        Ok(())
    }
}

// `_start` is in `super::vectorcall`.
#[pymethods]
impl ServerInstrumentation {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            call: Callee::MIDDLEWARE,
            function: PyOnceLock::new(),
            configured: OnceLock::new(),
            templates: Templates::new(),
        }
    }

    /// Reads the keyword arguments of `RvhTraceMiddleware`; `None` is as good as absent. Only the first call counts.
    #[pyo3(signature = (**kwargs))]
    fn _configure(&self, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let Some(kwargs) = kwargs else { return Ok(()) };
        let py = kwargs.py();
        let (arguments, hooks) = read_arguments(kwargs)?;
        let env = |name: &str| std::env::var(name).ok();
        let (settings, warnings) = load(&arguments, &env).map_err(|error| to_python(py, &error))?;
        for warning in warnings {
            warn_once(warning);
        }
        let _ = self.configured.set(Configured { settings, hooks });
        Ok(())
    }

    /// Whether this is the lifespan of an application whose last spans are to be sent at its end.
    fn _flushes(&self, scope: &Bound<'_, PyAny>) -> bool {
        self.settings().flush_at_shutdown && start::is_lifespan(scope)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.templates.traverse(&visit)?;
        match self.configured.get() {
            Some(configured) => configured
                .hooks
                .all()
                .iter()
                .try_for_each(|hook| hook.traverse(&visit)),
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        self.templates.clear();
    }
}

/// Says each warning once: every middleware reads the same variables.
fn warn_once(warning: String) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.contains(&warning) {
        diagnostic::log(Level::Warn, &warning);
        said.insert(warning);
    }
}

fn read_arguments(kwargs: &Bound<'_, PyDict>) -> PyResult<(HttpServerArguments, Hooks)> {
    let mut arguments = HttpServerArguments::default();
    let (mut request, mut response, mut span_name, mut public) = (None, None, None, None);
    for (key, value) in kwargs {
        if value.is_none() {
            continue;
        }
        let key = key.cast::<PyString>()?.to_string_lossy().into_owned();
        let name = key.as_str();
        let list = || names(&value, name).map(Some);
        let flag = || argument::<bool>(&value, name, "True or False").map(Some);
        match name {
            "framework" => arguments.framework = Some(argument(&value, name, "a string")?),
            "excluded_urls" => arguments.excluded_urls = list()?,
            "capture_request_headers" => arguments.capture_request_headers = list()?,
            "capture_response_headers" => arguments.capture_response_headers = list()?,
            "sanitize_headers" => arguments.sanitize_headers = list()?,
            "known_methods" => arguments.known_methods = list()?,
            "trusted_proxies" => arguments.trusted_proxies = list()?,
            "trace_response_headers" => arguments.trace_response_headers = list()?,
            "error_outcomes" => arguments.error_outcomes = list()?,
            "opt_in" => arguments.opt_in = list()?,
            "phases" => arguments.phases = flag()?,
            "websocket_messages" => arguments.websocket_messages = flag()?,
            "flush_at_shutdown" => arguments.flush_at_shutdown = flag()?,
            "task_spans" => arguments.task_spans = flag()?,
            "public_endpoint" if value.is_instance_of::<PyBool>() => {
                arguments.public_endpoint = flag()?;
            }
            "public_endpoint" => {
                // The function decides, not the variable.
                arguments.public_endpoint = Some(false);
                public = Some(value);
            }
            "request_hook" => request = Some(value),
            "response_hook" => response = Some(value),
            "span_name" => span_name = Some(value),
            _ => {
                return Err(PyTypeError::new_err(format!(
                    "RvhTraceMiddleware got an unexpected keyword argument '{name}'"
                )));
            }
        }
    }
    let hooks = Hooks {
        request: Hook::new("request_hook", request.as_ref())?,
        response: Hook::new("response_hook", response.as_ref())?,
        span_name: Hook::new("span_name", span_name.as_ref())?,
        public_endpoint: Hook::new("public_endpoint", public.as_ref())?,
    };
    Ok((arguments, hooks))
}

/// Lets CPython call objects of `class`, a Python subclass, without a tuple of arguments: a call goes straight to the
/// class's `__call__`. Subclasses with a `__call__` of their own are called as ever.
#[pyfunction]
pub(super) fn call_directly(class: &Bound<'_, PyType>) -> PyResult<()> {
    if !class.is_subclass_of::<ServerInstrumentation>()? {
        return Err(PyTypeError::new_err(
            "call_directly() is for subclasses of ServerInstrumentation",
        ));
    }
    vectorcall::set_flag(class);
    vectorcall::add_start(class)
}
