//! Rust futures and streams that Python awaits, Python awaitables and iterators that Rust awaits: one trace through
//! both.
//!
//! | from | to | by |
//! |---|---|---|
//! | a Rust future | a Python awaitable, in a span | [`future_into_py`] |
//! | a Rust stream | a Python async iterator, in a span | [`stream_into_py`] |
//! | a Python awaitable | a Rust future | [`into_future`] |
//! | a Python async iterator | a Rust stream | [`stream_from_py`] |
//!
//! Work goes on in the same place of the trace on other Tokio tasks and threads by [`task::spawn`](crate::task::spawn)
//! and [`task::spawn_blocking`](crate::task::spawn_blocking).
//!
//! Everything runs on the Tokio runtime of [pyo3-async-runtimes](pyo3_async_runtimes::tokio), which is started by the
//! first future and may be configured before, and may be mixed with what that crate offers. Without rvh_trace in the
//! interpreter it all works, and nothing is traced.

mod awaitable;
mod ending;
mod future;
mod glue;
mod inbox;
mod inlet;
mod mailbox;
mod runtime;
mod spawn;
mod stream;

pub use awaitable::{PythonTask, into_future};
pub use future::{future_into_py, future_into_py_without_span};
pub use inlet::{PythonStream, stream_from_py};
pub use spawn::{spawn, spawn_blocking};
pub use stream::stream_into_py;
