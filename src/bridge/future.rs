//! A future whose `tracing` spans are children of a span elsewhere.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use opentelemetry::Context;
use pin_project_lite::pin_project;

use super::context::context_of;
use crate::context::SpanContext;

pin_project! {
    /// A future that runs in an `opentelemetry` context: attached at every poll, on whatever thread, and while it is dropped.
    ///
    /// The adapter of the `opentelemetry` crate leaves the drop out: there a future that is cancelled would close its spans
    /// and log in the context of whoever drops it.
    ///
    /// ```
    /// use futures::FutureExt;
    /// use rvh_trace::bridge::WithContext;
    /// use rvh_trace::context::SpanContext;
    ///
    /// let future = WithContext::child_of(&SpanContext::INVALID, async { 42 });
    /// assert_eq!(future.now_or_never(), Some(42));
    /// ```
    pub struct WithContext<F> {
        // Always there, until the drop.
        #[pin]
        future: Option<F>,
        context: Context,
    }

    impl<F> PinnedDrop for WithContext<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _attached = this.context.clone().attach();
            this.future.set(None);
        }
    }
}

impl<F> WithContext<F> {
    /// `future`, in `context`.
    pub fn new(context: Context, future: F) -> Self {
        Self {
            future: Some(future),
            context,
        }
    }

    /// `future`, in the context that is current here: for `tokio::spawn`, which carries none over.
    pub fn current(future: F) -> Self {
        Self::new(Context::current(), future)
    }

    /// `future`, below the span that `span` identifies.
    pub fn child_of(span: &SpanContext, future: F) -> Self {
        Self::new(context_of(span), future)
    }
}

impl<F: Future> Future for WithContext<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _attached = this.context.clone().attach();
        match this.future.as_pin_mut() {
            Some(future) => future.poll(task),
            None => Poll::Pending,
        }
    }
}
