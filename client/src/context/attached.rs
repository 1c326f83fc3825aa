//! What is attached to a thread, innermost last.
//!
//! Nothing of the host is called while the list is borrowed for writing, so whoever is called may come here again.

use std::cell::RefCell;
use std::marker::PhantomData;

use super::Context;

/// By what an entry is found again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    /// The so-manieth guard of this thread.
    Guard(u64),
    /// The id of a `tracing` span.
    #[cfg(feature = "tracing")]
    Span(u64),
}

struct Entry {
    key: Key,
    /// `None` where Python code was called: what is current in Python is further in than what is below.
    context: Option<Context>,
}

struct Attachments {
    entries: Vec<Entry>,
    guards: u64,
}

thread_local! {
    static ATTACHED: RefCell<Attachments> = const {
        RefCell::new(Attachments { entries: Vec::new(), guards: 0 })
    };
}

/// Calls `then` with what is innermost on this thread; with `None` if Python has to be asked. `then` must not attach
/// anything.
#[inline]
pub(crate) fn with_innermost<R>(then: impl FnOnce(Option<&Context>) -> R) -> R {
    let mut then = Some(then);
    let done = ATTACHED.try_with(|attached| {
        let attached = attached.try_borrow().ok()?;
        let innermost = attached
            .entries
            .last()
            .and_then(|entry| entry.context.as_ref());
        then.take().map(|then| then(innermost))
    });
    match (done.ok().flatten(), then) {
        (Some(done), _) => done,
        // The thread ends: its list is gone.
        (None, Some(then)) => then(None),
        (None, None) => unreachable!("`then` is taken only to be called"),
    }
}

/// What is innermost on this thread; `None` if Python has to be asked.
pub(crate) fn innermost() -> Option<Context> {
    with_innermost(|innermost| Some(innermost?.clone()))
}

fn push(key: Key, context: Option<Context>) -> bool {
    let mut entry = Some(Entry { key, context });
    let _ = ATTACHED.try_with(|attached| {
        if let (Ok(mut attached), Some(entry)) = (attached.try_borrow_mut(), entry.take()) {
            attached.entries.push(entry);
        }
    });
    // What could not be attached is given up here, with nothing borrowed.
    entry.is_none()
}

/// Takes the last entry of this key away, wherever it is.
#[inline]
fn remove(key: Key) {
    let entry = ATTACHED.try_with(|attached| {
        let mut attached = attached.try_borrow_mut().ok()?;
        let entries = &mut attached.entries;
        let index = entries.iter().rposition(|entry| entry.key == key)?;
        // Nearly always the last.
        Some(entries.remove(index))
    });
    drop(entry);
}

/// Attaches the context of a `tracing` span that is entered.
#[cfg(feature = "tracing")]
#[inline]
pub(crate) fn attach_span(id: u64, context: Context) {
    push(Key::Span(id), Some(context));
}

/// Undoes [`attach_span`].
#[cfg(feature = "tracing")]
#[inline]
pub(crate) fn detach_span(id: u64) {
    remove(Key::Span(id));
}

/// Keeps a [`Context`] current on this thread.
#[must_use = "the context is current only as long as this lives"]
#[derive(Debug)]
pub struct Attached {
    /// `None` if nothing could be attached, because the thread ends.
    key: Option<Key>,
    not_send: PhantomData<*const ()>,
}

impl Attached {
    pub(super) fn new(context: Option<Context>) -> Self {
        let number = ATTACHED.try_with(|attached| {
            let mut attached = attached.try_borrow_mut().ok()?;
            attached.guards += 1;
            Some(attached.guards)
        });
        let key = number.ok().flatten().map(Key::Guard);
        Self {
            key: key.filter(|key| push(*key, context)),
            not_send: PhantomData,
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            remove(key);
        }
    }
}

impl Context {
    /// Makes it current on this thread until the guard is dropped.
    ///
    /// Guards may be dropped in any order: each takes its own context away, and what is current is the last that is left.
    /// In asynchronous code a guard must not live across an `.await`: what is polled next on the thread would find it.
    ///
    /// # Example
    ///
    /// ```
    /// use rvh_trace_client::{Context, Span};
    ///
    /// let context = Context::current();
    /// let thread = std::thread::spawn(move || {
    ///     let _current = context.attach();
    ///     Span::builder("on another thread").start();
    /// });
    /// # thread.join().ok();
    /// ```
    pub fn attach(self) -> Attached {
        Attached::new(Some(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(span_id: u8) -> Context {
        let raw = crate::abi::Context {
            trace_id: [1; 16],
            span_id: [span_id; 8],
            ..Context::NO_PLACE
        };
        Context::from_raw(raw, None)
    }

    fn current() -> u8 {
        Context::current().span_id()[0]
    }

    #[test]
    fn guards_may_be_dropped_in_any_order() {
        let first = place(1).attach();
        let second = place(2).attach();
        let third = place(3).attach();
        assert_eq!(current(), 3);
        drop(second);
        assert_eq!(current(), 3);
        drop(third);
        assert_eq!(current(), 1);
        let fourth = place(4).attach();
        drop(first);
        assert_eq!(current(), 4);
        drop(fourth);
        assert_eq!(current(), 0);
    }

    #[test]
    fn what_is_attached_stays_on_its_thread() {
        let _here = place(1).attach();
        assert_eq!(std::thread::spawn(current).join().ok(), Some(0));
        assert_eq!(current(), 1);
    }

    #[test]
    fn below_a_call_into_python_python_is_asked() {
        let _here = place(1).attach();
        let call = Attached::new(None);
        assert_eq!(current(), 0);
        let inner = place(2).attach();
        assert_eq!(current(), 2);
        drop(inner);
        drop(call);
        assert_eq!(current(), 1);
    }
}
