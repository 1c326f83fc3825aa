//! Spans of extensions.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rvh_trace_client::abi::{Attribute, Context, SpanStart, Text};

use super::super::{current, lifecycle};
use super::attribute::{Attributes, Read, list, read_text};
use super::context::Place;
use super::{attached, guarded};
use crate::clock::Start;
use crate::id::process_generation;
use crate::span::{Span as Recording, SpanKind, Status};
use crate::tracer::Started;

/// A span that threads of an extension and, while it is current in Python, an object of Python's annotate. The handle
/// of the interface is its address.
pub(in crate::python) struct SharedSpan {
    /// The holds of extensions, which have one count of the `Arc` between them.
    holders: AtomicUsize,
    /// The process it was started in: in a forked child the lock may be held by a thread that is not there.
    generation: u32,
    recording: Mutex<Recording>,
}

impl SharedSpan {
    fn new(recording: Recording) -> Arc<Self> {
        Arc::new(Self {
            holders: AtomicUsize::new(1),
            generation: process_generation(),
            recording: Mutex::new(recording),
        })
    }

    /// The span, for a moment; `None` in a forked child.
    #[inline]
    pub(in crate::python) fn lock(&self) -> Option<MutexGuard<'_, Recording>> {
        (self.generation == process_generation()).then(|| {
            self.recording
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        })
    }

    /// What is behind a handle; `None` for null.
    ///
    /// # Safety
    ///
    /// Null, or a handle that is held for as long as `'a`.
    #[expect(unsafe_code, reason = "a handle is a pointer")]
    unsafe fn of<'a>(handle: *mut c_void) -> Option<&'a Self> {
        // SAFETY: the caller's.
        unsafe { handle.cast::<Self>().cast_const().as_ref() }
    }

    /// A hold of Python's, which does not keep the span from ending; `None` for null.
    ///
    /// # Safety
    ///
    /// Null, or a handle that is held.
    #[expect(unsafe_code, reason = "a handle is a pointer")]
    pub(super) unsafe fn clone_of(handle: *mut c_void) -> Option<Arc<Self>> {
        let shared = handle.cast::<Self>().cast_const();
        (!shared.is_null()).then(|| {
            // SAFETY: from `Arc::into_raw`, and alive.
            unsafe {
                Arc::increment_strong_count(shared);
                Arc::from_raw(shared)
            }
        })
    }
}

impl Drop for SharedSpan {
    fn drop(&mut self) {
        let recording = self.recording.get_mut();
        recording.unwrap_or_else(PoisonError::into_inner).end();
    }
}

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn start(start: *const SpanStart, out: *mut Context) -> *mut c_void {
    let (context, handle) = guarded("starting a span", (None, std::ptr::null_mut()), || {
        // SAFETY: the caller's, alive through the call.
        unsafe { start.as_ref() }.map_or((None, std::ptr::null_mut()), |start| {
            // SAFETY: null, or a context whose `extra` is held.
            let parent = unsafe { Place::read(start.parent) };
            let parent = parent.or_else(Place::current_if_attached);
            // SAFETY: the caller's, alive through the call.
            let (context, handle) = unsafe { start_below(start, parent.unwrap_or_default()) };
            (Some(context), handle)
        })
    });
    // SAFETY: a place to write to.
    unsafe { out.write(context.unwrap_or_else(|| Place::default().into_abi())) };
    handle
}

/// # Safety
///
/// What `start` leads to is alive.
#[expect(unsafe_code, reason = "the interface passes pointers")]
unsafe fn start_below(start: &SpanStart, parent: Place) -> (Context, *mut c_void) {
    let Some(tracer) = lifecycle::tracer() else {
        return (parent.into_abi(), std::ptr::null_mut());
    };
    // SAFETY: alive, see above.
    let name = unsafe { read_text(start.name) };
    let kind = match start.kind {
        2 => SpanKind::Server,
        3 => SpanKind::Client,
        4 => SpanKind::Producer,
        5 => SpanKind::Consumer,
        _ => SpanKind::Internal,
    };
    let mut place = parent;
    let mut recording = match tracer.create(Some(&place.context.span), kind, &name) {
        Started::Recording(recording) => recording,
        Started::NonRecording(context) => {
            tracer.count_not_sampled();
            place.context.span = context;
            place.is_past = false;
            return (place.into_abi(), std::ptr::null_mut());
        }
        Started::Parent => {
            tracer.count_not_sampled();
            return (place.into_abi(), std::ptr::null_mut());
        }
    };
    if place.is_past {
        recording.detach(&place.context.span);
        place.is_past = false;
    }
    recording.begin(match start.start_unix_ns {
        0 => Start::now(),
        unix_ns => Start::at(unix_ns),
    });
    // SAFETY: alive, see above.
    let attributes = unsafe { list(start.attributes, start.attribute_count) };
    for (index, attribute) in attributes.iter().enumerate() {
        // SAFETY: alive, see above.
        unsafe {
            let (key, Some(value)) = (read_text(attribute.key), Read::value_of(attribute)) else {
                continue;
            };
            let mut before = attributes[..index].iter();
            if before.any(|before| before.key.len == key.len() && read_text(before.key) == key) {
                recording.set_attribute(&key, &value.borrow());
            } else {
                recording.push_attribute(&key, &value.borrow());
            }
        }
    }
    place.context.span.clone_from(recording.context());
    let handle = Arc::into_raw(SharedSpan::new(recording));
    (place.into_abi(), handle.cast_mut().cast())
}

#[expect(unsafe_code, reason = "a handle is a pointer")]
pub(super) unsafe extern "C" fn retain(span: *mut c_void) {
    // SAFETY: null, or a handle that the caller holds.
    if let Some(span) = unsafe { SharedSpan::of(span) } {
        // Relaxed, as in `Arc`: who has a hold can make another.
        span.holders.fetch_add(1, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "a handle is a pointer")]
pub(super) unsafe extern "C" fn release(span: *mut c_void, ends: bool) {
    guarded("ending a span", (), || {
        let handle = span.cast::<SharedSpan>().cast_const();
        // SAFETY: null, or a handle that the caller holds.
        let Some(span) = (unsafe { SharedSpan::of(span) }) else {
            return;
        };
        if span.holders.load(Ordering::Relaxed) == 1 {
            // Only who has a hold can make another, so this one is the last. What others did comes before its end.
            std::sync::atomic::fence(Ordering::Acquire);
        } else {
            if ends && let Some(mut recording) = span.lock() {
                recording.end();
            }
            if span.holders.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
        }
        // SAFETY: from `Arc::into_raw` in `start_below`; this was the last hold on that one count.
        let span = unsafe { Arc::from_raw(handle) };
        // An object of Python's that still stands for it does not keep it open.
        if Arc::strong_count(&span) > 1
            && let Some(mut recording) = span.lock()
        {
            recording.end();
        }
    });
}

/// Calls `then` with the span of a handle, or, for null, with the one that is current in Python.
///
/// # Safety
///
/// Null, or a handle that the caller holds.
#[expect(unsafe_code, reason = "a handle is a pointer")]
unsafe fn with_span(
    handle: *mut c_void,
    cause: &'static str,
    then: &mut dyn FnMut(&mut Recording),
) {
    guarded(cause, (), || {
        // SAFETY: the caller's.
        if let Some(shared) = unsafe { SharedSpan::of(handle) } {
            if let Some(mut recording) = shared.lock() {
                then(&mut recording);
            }
        } else if let Some(py) = attached()
            && let Ok(Some(span)) = current::span(py)
        {
            span.get().with_recording(py, then);
        }
    });
}

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn set_attributes(
    span: *mut c_void,
    attributes: *const Attribute,
    count: usize,
) {
    // SAFETY: all are the caller's, alive through the call.
    unsafe {
        with_span(span, "setting attributes", &mut |recording| {
            for attribute in list(attributes, count) {
                if let Some(value) = Read::value_of(attribute) {
                    recording.set_attribute(&read_text(attribute.key), &value.borrow());
                }
            }
        });
    }
}

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn set_name(span: *mut c_void, name: Text) {
    // SAFETY: all are the caller's, alive through the call.
    unsafe {
        with_span(span, "renaming a span", &mut |recording| {
            recording.update_name(&read_text(name));
        });
    }
}

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn set_status(span: *mut c_void, status: u32, description: Text) {
    let status = match status {
        1 => Status::Ok,
        2 => Status::Error,
        _ => Status::Unset,
    };
    // SAFETY: all are the caller's, alive through the call.
    unsafe {
        with_span(span, "setting a status", &mut |recording| {
            recording.set_status(status, &read_text(description));
        });
    }
}

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn add_event(
    span: *mut c_void,
    name: Text,
    unix_ns: u64,
    attributes: *const Attribute,
    count: usize,
) {
    // SAFETY: all are the caller's, alive through the call.
    unsafe {
        with_span(span, "adding an event", &mut |recording| {
            let unix_ns = match unix_ns {
                0 => recording.start_time().later_unix_ns(),
                unix_ns => unix_ns,
            };
            let attributes = Attributes::read(attributes, count);
            recording.add_event(&read_text(name), unix_ns, &attributes.borrow());
        });
    }
}

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn add_link(
    span: *mut c_void,
    to: *const Context,
    attributes: *const Attribute,
    count: usize,
) {
    // SAFETY: all are the caller's, alive through the call.
    unsafe {
        with_span(span, "adding a link", &mut |recording| {
            let to = Place::read(to).unwrap_or_default();
            let attributes = Attributes::read(attributes, count);
            recording.add_link(&to.context.span, &attributes.borrow());
        });
    }
}

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn end(span: *mut c_void, end_unix_ns: u64) {
    if span.is_null() {
        return;
    }
    // SAFETY: a handle that the caller holds.
    unsafe {
        with_span(span, "ending a span", &mut |recording| match end_unix_ns {
            0 => recording.end(),
            unix_ns => recording.end_at(unix_ns),
        });
    }
}
