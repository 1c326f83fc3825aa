//! Headers that an extension sends or has received.

use std::ffi::c_void;

use rvh_trace_client::abi::{self, Header, PutHeader, Text};

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
    fn set(&mut self, name: &'static str, value: &str) {
        self.set_named(name, value);
    }

    #[expect(unsafe_code, reason = "calls a function of the caller's")]
    fn set_named(&mut self, name: &str, value: &str) {
        // SAFETY: the function takes this data, and both texts live through the call.
        unsafe { (self.put)(self.data, text(name), text(value)) };
    }
}

/// The headers of the other side.
struct Received<'a>(&'a [Header]);

impl Received<'_> {
    fn each(&self, mut each: impl FnMut(&[u8], &[u8])) {
        for header in self.0 {
            each(bytes(&header.name), bytes(&header.value));
        }
    }
}

/// The bytes of a text.
#[expect(unsafe_code, reason = "the interface passes pointers")]
fn bytes(text: &Text) -> &[u8] {
    if text.start.is_null() || text.len == 0 {
        return &[];
    }
    // SAFETY: so many bytes, which live until the call that they were given to returns, as `text` does.
    unsafe { std::slice::from_raw_parts(text.start, text.len) }
}

impl Carrier for Received<'_> {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.each(|header, value| {
            if header.eq_ignore_ascii_case(name.as_bytes()) {
                each(value);
            }
        });
    }

    fn values_below(&self, prefix: &str, each: &mut dyn FnMut(&[u8], &[u8])) {
        self.each(|header, value| {
            if let Some((start, rest)) = header.split_at_checked(prefix.len())
                && start.eq_ignore_ascii_case(prefix.as_bytes())
            {
                each(rest, value);
            }
        });
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
    headers: *const Header,
    count: usize,
    out: *mut abi::Context,
) -> bool {
    guarded("extracting context", false, || {
        let headers = if headers.is_null() || count == 0 {
            &[]
        } else {
            // SAFETY: so many headers, which live through the call.
            unsafe { std::slice::from_raw_parts(headers, count) }
        };
        let context = with_propagators(|propagators| propagators.extract(&Received(headers)));
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
