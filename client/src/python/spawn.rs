//! Tokio tasks and blocking threads that know where they belong.

use futures::FutureExt as _;
use tokio::task::JoinHandle;

use super::runtime::{Alive, UntilEnd, carried_locals, with_locals};
use crate::Context;
use crate::task::FutureExt as _;

/// `tokio::spawn` for a future that belongs to what is current here.
///
/// It carries the [context](Context), and the event loop and context variables of the Rust future that Python awaits:
/// the task may [await Python](crate::python::into_future). When the process ends it is dropped, so the handle may
/// never be ready.
///
/// # Panics
///
/// Outside of a Tokio runtime, as `tokio::spawn` does.
///
/// ```no_run
/// use rvh_trace_client::task;
///
/// # async fn load(part: u32) -> u32 { part }
/// # async fn example() {
/// let (first, second) = futures::future::join(task::spawn(load(1)), task::spawn(load(2))).await;
/// # }
/// ```
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let alive = Alive::new();
    let future = future.in_current_context();
    let future = async move {
        let _alive = alive;
        future.await
    };
    match carried_locals() {
        Some(locals) => tokio::spawn(UntilEnd::new(with_locals(locals, future))),
        None => tokio::spawn(UntilEnd::new(future)),
    }
}

/// `tokio::task::spawn_blocking` for work that belongs to what is current here; see [`spawn`].
///
/// # Panics
///
/// Outside of a Tokio runtime, as `tokio::task::spawn_blocking` does.
#[track_caller]
pub fn spawn_blocking<F, R>(work: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let context = Context::current();
    let locals = carried_locals();
    let alive = Alive::new();
    tokio::task::spawn_blocking(move || {
        let _alive = alive;
        let work = move || {
            let _attached = context.attach();
            work()
        };
        match locals {
            // Carried by a future alone: one that is ready at once.
            Some(locals) => with_locals(locals, async { work() })
                .now_or_never()
                .unwrap_or_else(|| unreachable!("it awaits nothing")),
            None => work(),
        }
    })
}
