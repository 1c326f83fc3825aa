//! Context in the headers that go to another process, and in those that come from one.

use std::ffi::c_void;

use crate::abi::{self, Text};
use crate::attribute::{str_of, text};
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

    /// Reads what another process sent, in headers whose names are in any case. `None` if there is no context in them.
    #[expect(unsafe_code, reason = "calls through the table")]
    pub fn extract_from<'h>(
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> Option<Self> {
        let host = host()?;
        let headers: Vec<_> = headers
            .into_iter()
            .map(|(name, value)| abi::Header {
                name: text(name),
                value: Text {
                    start: value.as_ptr(),
                    len: value.len(),
                },
            })
            .collect();
        let mut context = Self::NO_PLACE;
        // SAFETY: so many headers, whose texts live through the call, and a place to write to.
        let found = unsafe { (host.extract)(headers.as_ptr(), headers.len(), &raw mut context) };
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
        let headers = headers.iter();
        Self::extract_from(headers.map(|(name, value)| (name.as_str(), value.as_bytes())))
    }
}
