//! Context in the headers that go to another process, and in those that come from one.

use std::ffi::c_void;

use crate::abi::{self, Text};
use crate::attribute::str_of;
use crate::context::Context;
use crate::host::host;

impl Context {
    /// Calls `put` with the name, in lower case, and the value of every header that carries this context to another process
    /// (`traceparent`, `tracestate`, `baggage`: by the propagators that rvh_trace is set to).
    #[expect(unsafe_code, reason = "calls through the table")]
    pub fn inject_with(&self, mut put: impl FnMut(&str, &str)) {
        unsafe extern "C" fn forward<F: FnMut(&str, &str)>(
            data: *mut c_void,
            name: Text,
            value: Text,
        ) {
            // SAFETY: `data` is the closure that was given with this function, and is used by nobody else meanwhile.
            let put = unsafe { &mut *data.cast::<F>() };
            // SAFETY: both texts live through this call.
            if let (Some(name), Some(value)) = unsafe { (str_of(&name), str_of(&value)) } {
                put(name, value);
            }
        }

        fn forward_to<F: FnMut(&str, &str)>(_: &F) -> abi::PutHeader {
            forward::<F>
        }

        let Some(host) = host() else { return };
        let forward = forward_to(&put);
        // SAFETY: a context, a function, and the closure it expects; all live through the call.
        unsafe { (host.inject)(self.as_raw(), forward, (&raw mut put).cast()) };
    }

    /// Reads what another process sent. `get` gives the value of header number `index` (from 0) of a name in lower
    /// case; `None` if there is none. `None` if there is no context in the headers.
    #[expect(unsafe_code, reason = "calls through the table")]
    pub fn extract_with<'h>(mut get: impl FnMut(&str, usize) -> Option<&'h [u8]>) -> Option<Self> {
        unsafe extern "C" fn forward<'h, F: FnMut(&str, usize) -> Option<&'h [u8]>>(
            data: *mut c_void,
            name: Text,
            index: usize,
            value: *mut Text,
        ) -> bool {
            // SAFETY: `data` is the closure that was given with this function, and is used by nobody else meanwhile.
            let get = unsafe { &mut *data.cast::<F>() };
            // SAFETY: the text lives through this call.
            let name = unsafe { str_of(&name) };
            let Some(found) = name.and_then(|name| get(name, index)) else {
                return false;
            };
            // SAFETY: a place to write to.
            unsafe {
                *value = Text {
                    start: found.as_ptr(),
                    len: found.len(),
                };
            }
            true
        }

        fn forward_to<'h, F: FnMut(&str, usize) -> Option<&'h [u8]>>(_: &F) -> abi::GetHeader {
            forward::<'h, F>
        }

        let host = host()?;
        let forward = forward_to(&get);
        let mut context = Self::NO_PLACE;
        // SAFETY: a function, the closure it expects, and a place to write to; all live through the call, as do the values.
        let found = unsafe { (host.extract)(forward, (&raw mut get).cast(), &raw mut context) };
        found.then(|| Self::from_raw(context, None))
    }

    /// Writes this context into the headers of a request to send, in place of what they carried.
    #[cfg(feature = "http")]
    pub fn inject(&self, headers: &mut http::HeaderMap) {
        self.inject_with(|name, value| {
            if let (Ok(name), Ok(value)) = (
                http::HeaderName::try_from(name),
                http::HeaderValue::try_from(value),
            ) {
                headers.insert(name, value);
            }
        });
    }

    /// Reads the context in the headers of a request that came in; `None` if there is none.
    #[cfg(feature = "http")]
    pub fn extract(headers: &http::HeaderMap) -> Option<Self> {
        Self::extract_with(|name, index| {
            let mut values = headers.get_all(name).iter();
            values.nth(index).map(http::HeaderValue::as_bytes)
        })
    }
}
