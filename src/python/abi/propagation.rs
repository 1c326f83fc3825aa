//! Headers that an extension sends or has received.

use std::ffi::c_void;

use rvh_trace_client::abi::{self, GetHeader, PutHeader, Text};

use super::super::propagate::with_propagators;
use super::context::Place;
use super::guarded;
use crate::propagation::{Carrier, CarrierMut};

fn text(text: &str) -> Text {
    Text {
        start: text.as_ptr(),
        len: text.len(),
    }
}

/// What takes headers on the other side.
struct Sent {
    put: PutHeader,
    data: *mut c_void,
}

impl CarrierMut for Sent {
    #[expect(unsafe_code, reason = "calls a function of the caller's")]
    fn set(&mut self, name: &'static str, value: &str) {
        // SAFETY: the function takes this data, and both texts live through the call.
        unsafe { (self.put)(self.data, text(name), text(value)) };
    }
}

/// What has headers on the other side.
struct Received {
    get: GetHeader,
    data: *mut c_void,
}

impl Carrier for Received {
    #[expect(unsafe_code, reason = "calls a function of the caller's")]
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for index in 0.. {
            let mut value = text("");
            // SAFETY: the function takes this data; the name lives through the call, and `value` is a place to write to.
            if !unsafe { (self.get)(self.data, text(name), index, &raw mut value) } {
                break;
            }
            each(if value.start.is_null() || value.len == 0 {
                &[]
            } else {
                // SAFETY: so many bytes, which live until `extract` returns.
                unsafe { std::slice::from_raw_parts(value.start, value.len) }
            });
        }
    }
}

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn inject(
    context: *const abi::Context,
    put: PutHeader,
    data: *mut c_void,
) {
    guarded("injecting context", (), || {
        // SAFETY: null, or a context whose `extra` is held.
        let place = unsafe { Place::read(context) }.or_else(Place::current_if_attached);
        let context = place.unwrap_or_default().context;
        with_propagators(|propagators| propagators.inject(&context, &mut Sent { put, data }));
    });
}

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn extract(
    get: GetHeader,
    data: *mut c_void,
    out: *mut abi::Context,
) -> bool {
    guarded("extracting context", false, || {
        let context = with_propagators(|propagators| propagators.extract(&Received { get, data }));
        if !context.span.is_valid() && context.baggage.is_empty() {
            return false;
        }
        let place = Place {
            context,
            is_past: false,
        };
        // SAFETY: a place to write to.
        unsafe { out.write(place.into_abi()) };
        true
    })
}
