//! The route that a request was dispatched to, from what the framework left in the scope.
//!
//! The rules are in `rvh_trace._routes`, in Python, where frameworks can be read. What they say of a route that is not mounted
//! is remembered with the objects that they said it of: the next request for it costs a few look-ups.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::borrowed::{item, with_str};
use super::cell::AttachedCell;
use super::imports;
use super::server_span::ServerSpan;

/// How many templates are remembered: an application that makes routes as it goes gains nothing, and loses nothing.
const MOST_REMEMBERED: usize = 1024;

/// How many entries a server makes (ASGI specification, "HTTP Connection Scope", with `state` and `extensions`).
const MOST_OF_SERVER: usize = 14;

/// Templates by the address of the route, and of the context that FastAPI puts around one of an included router. What is
/// remembered keeps the objects, so no others come to have their addresses.
pub(super) struct Templates(AttachedCell<HashMap<(usize, usize), Known, RandomState>>);

struct Known {
    route: Py<PyAny>,
    included: Option<Py<PyAny>>,
    endpoint: Py<PyAny>,
    root_path: String,
    template: Arc<str>,
}

/// What Starlette and FastAPI dispatched to, where no mount is involved.
struct Dispatched<'a, 'py> {
    route: Borrowed<'a, 'py, PyAny>,
    included: Option<Bound<'py, PyAny>>,
    endpoint: Borrowed<'a, 'py, PyAny>,
    root_path: String,
}

/// The template, if there is one.
#[inline]
pub(super) fn of(slf: &Bound<'_, ServerSpan>) -> PyResult<Option<Arc<str>>> {
    let (told, scope_len) =
        ServerSpan::with(slf, |exchange| (exchange.route.take(), exchange.scope_len));
    if let Some(route) = told {
        return Ok(Some(route));
    }
    match ServerSpan::scope(slf) {
        // No framework has seen it, outside or inside: each adds entries of its own.
        Some(scope) if scope_len <= MOST_OF_SERVER && scope.len() == scope_len => Ok(None),
        Some(scope) => in_scope(slf, &scope),
        None => Ok(None),
    }
}

#[inline]
fn in_scope(slf: &Bound<'_, ServerSpan>, scope: &Bound<'_, PyDict>) -> PyResult<Option<Arc<str>>> {
    let py = scope.py();
    // Starlette and FastAPI, FastAPI's frontends, Litestar, everybody else.
    let left = [
        pyo3::intern!(py, "endpoint"),
        pyo3::intern!(py, "fastapi"),
        pyo3::intern!(py, "path_template"),
        pyo3::intern!(py, "rvh_trace.http.route"),
    ];
    if left.iter().all(|key| item(scope, key).is_none()) {
        return Ok(None);
    }
    let Some(middleware) = ServerSpan::instrumentation(slf) else {
        return look_up(scope);
    };
    let templates = middleware.get().templates();
    let Some(dispatched) = Dispatched::in_scope(scope) else {
        return look_up(scope);
    };
    if let Some(known) = templates.known(py, &dispatched) {
        return Ok(Some(known));
    }
    let template = look_up(scope)?;
    if let Some(template) = &template {
        templates.remember(py, &dispatched, template)?;
    }
    Ok(template)
}

fn look_up(scope: &Bound<'_, PyDict>) -> PyResult<Option<Arc<str>>> {
    let template = imports::route_template(scope.py())?.call1((scope,))?;
    // A prefix is what a proxy or the server said: it may hold what is no UTF-8.
    Ok(with_str(Some(template.as_borrowed()), |template| {
        Arc::from(template)
    }))
}

impl<'a, 'py> Dispatched<'a, 'py> {
    /// `None` for whatever else may have a say in the template: a mount, Litestar, a frontend.
    #[inline]
    fn in_scope(scope: &'a Bound<'py, PyDict>) -> Option<Self> {
        let py = scope.py();
        let entry = |key: &Bound<'py, PyString>| item(scope, key);
        let (route, endpoint) = (
            entry(pyo3::intern!(py, "route"))?,
            entry(pyo3::intern!(py, "endpoint"))?,
        );
        let others = [
            pyo3::intern!(py, "path_template"),
            pyo3::intern!(py, "rvh_trace.http.route"),
        ];
        if others.into_iter().any(|key| entry(key).is_some()) {
            return None;
        }
        let root_path = match entry(pyo3::intern!(py, "root_path")) {
            Some(root_path) => with_str(Some(root_path), str::to_owned)?,
            None => String::new(),
        };
        if let Some(outermost) = entry(pyo3::intern!(py, "app_root_path"))
            && with_str(Some(outermost), |outermost| outermost == root_path) != Some(true)
        {
            return None;
        }
        let mut included = None;
        if let Some(fastapi) = entry(pyo3::intern!(py, "fastapi")) {
            let fastapi = fastapi.to_owned().cast_into::<PyDict>().ok()?;
            if item(&fastapi, pyo3::intern!(py, "frontend_path")).is_some() {
                return None;
            }
            included = item(&fastapi, pyo3::intern!(py, "effective_route_context"))
                .map(Borrowed::to_owned);
        }
        Some(Self {
            route,
            included,
            endpoint,
            root_path,
        })
    }

    fn place(&self) -> (usize, usize) {
        let included = self.included.as_ref();
        (
            self.route.as_ptr() as usize,
            included.map_or(0, |included| included.as_ptr() as usize),
        )
    }
}

impl Templates {
    pub(super) fn new() -> Self {
        Self(AttachedCell::new(HashMap::default()))
    }

    #[inline]
    fn known(&self, py: Python<'_>, dispatched: &Dispatched<'_, '_>) -> Option<Arc<str>> {
        self.0
            .with(py, |templates| {
                let known = templates.get(&dispatched.place())?;
                let same = known.endpoint.as_ptr() == dispatched.endpoint.as_ptr()
                    && known.root_path == dispatched.root_path;
                same.then(|| known.template.clone())
            })
            .flatten()
    }

    #[cold]
    fn remember(
        &self,
        py: Python<'_>,
        dispatched: &Dispatched<'_, '_>,
        template: &Arc<str>,
    ) -> PyResult<()> {
        // FastAPI leaves the route that it entered a mount by: then it is not what was dispatched to.
        let leads_to = dispatched
            .route
            .getattr_opt(pyo3::intern!(py, "endpoint"))?
            .is_some_and(|endpoint| endpoint.is(&*dispatched.endpoint));
        if !leads_to {
            return Ok(());
        }
        let known = Known {
            route: dispatched.route.to_owned().unbind(),
            included: dispatched
                .included
                .as_ref()
                .map(|included| included.clone().unbind()),
            endpoint: dispatched.endpoint.to_owned().unbind(),
            root_path: dispatched.root_path.clone(),
            template: template.clone(),
        };
        let place = dispatched.place();
        let before = self.0.with(py, |templates| {
            if templates.len() >= MOST_REMEMBERED {
                return Some(known);
            }
            templates.insert(place, known)
        });
        drop(before);
        Ok(())
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0
            .with_collecting(|templates| {
                templates.values().try_for_each(|known| {
                    visit.call(&known.route)?;
                    visit.call(known.included.as_ref())?;
                    visit.call(&known.endpoint)
                })
            })
            .unwrap_or(Ok(()))
    }

    pub(super) fn clear(&self) {
        let templates = self.0.with_collecting(std::mem::take);
        drop(templates);
    }
}
