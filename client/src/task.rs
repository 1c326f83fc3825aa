//! Takes a [`Context`] along where Rust work goes on elsewhere: into a future, a Tokio task, a blocking thread.
//!
//! `join!` and `select!` poll inside of the task that they stand in and need nothing. `tokio::spawn` and
//! `tokio::task::spawn_blocking` start anew: use [`spawn`] and [`spawn_blocking`] in their place, or
//! [`in_current_context`](FutureExt::in_current_context) on what is spawned.

use std::pin::Pin;
use std::task::{self, Poll};

use pin_project_lite::pin_project;

use crate::context::{Attached, Context};

#[cfg(feature = "pyo3")]
pub use crate::python::{spawn, spawn_blocking};

/// Carries a [`Context`] in a future or a stream.
pub trait FutureExt: Sized {
    /// Makes `context` current on the thread at every poll, and while it is dropped.
    ///
    /// ```
    /// use rvh_trace_client::Context;
    /// use rvh_trace_client::task::FutureExt;
    ///
    /// # async fn load() {}
    /// let context = Context::current();
    /// let future = async { load().await }.in_context(context);
    /// ```
    fn in_context(self, context: Context) -> InContext<Self> {
        InContext {
            carried: Carried::new(context),
            inner: Some(self),
        }
    }

    /// [`in_context`](Self::in_context) of what is current here and now.
    fn in_current_context(self) -> InContext<Self> {
        self.in_context(Context::current())
    }
}

impl<F> FutureExt for F {}

pin_project! {
    /// What [`FutureExt::in_context`] returns.
    #[derive(Debug)]
    #[must_use = "futures and streams do nothing unless they are polled"]
    pub struct InContext<F> {
        carried: Carried,
        // Taken out of it to be dropped in its context.
        #[pin]
        inner: Option<F>,
    }

    impl<F> PinnedDrop for InContext<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _attached = this.carried.attach();
            this.inner.set(None);
        }
    }
}

impl<F: Future> Future for InContext<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let _attached = this.carried.attach();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let polled = inner.poll(cx);
        if polled.is_ready() {
            this.inner.set(None);
        }
        polled
    }
}

#[cfg(feature = "pyo3")]
impl<S: futures::Stream> futures::Stream for InContext<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        let _attached = this.carried.attach();
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(None);
        };
        inner.poll_next(cx)
    }
}

/// A context, in the form of every crate that wants to know.
#[derive(Clone, Debug)]
struct Carried {
    context: Context,
    #[cfg(feature = "opentelemetry")]
    opentelemetry: opentelemetry::Context,
}

impl Carried {
    fn new(context: Context) -> Self {
        Self {
            #[cfg(feature = "opentelemetry")]
            opentelemetry: if context.is_valid() {
                context.to_opentelemetry()
            } else {
                opentelemetry::Context::current()
            },
            context,
        }
    }

    #[inline]
    fn attach(&self) -> AttachedEverywhere {
        AttachedEverywhere {
            #[cfg(feature = "opentelemetry")]
            _opentelemetry: self.opentelemetry.clone().attach(),
            _own: self.context.clone().attach(),
        }
    }
}

struct AttachedEverywhere {
    #[cfg(feature = "opentelemetry")]
    _opentelemetry: opentelemetry::ContextGuard,
    _own: Attached,
}
