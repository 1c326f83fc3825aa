//! The [`Directory`] for the worker, whose thread must not block: every operation runs on a thread of Tokio's pool.
//!
//! A disk can hang, on a network above all. An operation that takes longer than [`PATIENCE`] is left to itself, and until it
//! comes back every other one is refused at once: the worker goes on as if there were no spool.

use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;

use super::directory::Directory;

/// How long an operation is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Store {
    state: Mutex<State>,
}

enum State {
    Idle(Box<Directory>),
    /// `is_late`: somebody has given up waiting for it.
    Busy {
        operation: JoinHandle<Box<Directory>>,
        is_late: bool,
    },
    /// An operation panicked.
    Gone,
}

impl Store {
    pub(super) fn new(directory: Directory) -> Self {
        Self {
            state: Mutex::new(State::Idle(Box::new(directory))),
        }
    }

    /// The result of `operation`; `None` if the disk hangs.
    ///
    /// May be dropped at any await: the operation is then carried through all the same.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Directory) -> R + Send + 'static,
    ) -> Option<R> {
        if let Ok(result) = tokio::time::timeout(PATIENCE, self.begin_and_wait(operation)).await {
            return result;
        }
        if let State::Busy { is_late, .. } = &mut *self.state.lock().await {
            *is_late = true;
        }
        None
    }

    async fn begin_and_wait<R: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Directory) -> R + Send + 'static,
    ) -> Option<R> {
        let (done, result) = oneshot::channel();
        let mut state = self.state.lock().await;
        if let State::Busy { operation, is_late } = &mut *state {
            if *is_late && !operation.is_finished() {
                return None;
            }
            *state = operation.await.map_or(State::Gone, State::Idle);
        }
        let State::Idle(mut directory) = std::mem::replace(&mut *state, State::Gone) else {
            return None;
        };
        let operation = tokio::task::spawn_blocking(move || {
            // Nobody may be waiting any more.
            let _ = done.send(operation(&mut directory));
            directory
        });
        *state = State::Busy {
            operation,
            is_late: false,
        };
        drop(state);
        result.await.ok()
    }
}
