//! What Tokio's threads have to say to Python without waiting for an answer.
//!
//! A thread of Tokio's that waits for the GIL holds up every other future on it, for 5 ms and more if Python is busy.
//! So what can wait is done by one blocking thread, which takes the GIL once for all that has come together.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

use super::runtime::Alive;

type Message = Box<dyn FnOnce(Python<'_>) + Send>;

struct Mailbox {
    messages: Vec<Message>,
    /// Whether a thread is at it.
    attended: bool,
}

static MAILBOX: Mutex<Mailbox> = Mutex::new(Mailbox {
    messages: Vec::new(),
    attended: false,
});

/// Has `message` called with the GIL, soon, in the order of the calls.
pub(super) fn post(message: impl FnOnce(Python<'_>) + Send + 'static) {
    let alive = Alive::new();
    let attended = {
        let mut mailbox = mailbox();
        mailbox.messages.push(Box::new(message));
        // When the process ends nobody is called any more: what is left is for `empty`.
        std::mem::replace(&mut mailbox.attended, alive.is_some()) || alive.is_none()
    };
    if !attended {
        pyo3_async_runtimes::tokio::get_runtime().spawn_blocking(move || {
            while let Some(messages) = take() {
                Python::try_attach(|py| deliver(py, messages));
            }
            drop(alive);
        });
    }
}

/// Delivers what has come, here and now.
pub(super) fn empty(py: Python<'_>) {
    while let Some(messages) = take() {
        deliver(py, messages);
    }
}

fn mailbox() -> MutexGuard<'static, Mailbox> {
    MAILBOX.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take() -> Option<Vec<Message>> {
    let mut mailbox = mailbox();
    mailbox.attended = !mailbox.messages.is_empty();
    mailbox
        .attended
        .then(|| std::mem::take(&mut mailbox.messages))
}

fn deliver(py: Python<'_>, messages: Vec<Message>) {
    for message in messages {
        message(py);
    }
}
