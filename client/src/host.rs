//! The rvh_trace of this process: looked for once, then one relaxed load away.

mod interpreter;

use std::sync::atomic::{AtomicPtr, Ordering};

use crate::abi::{Api, MAJOR};

/// The table, or null before [`connect`] has found it.
static HOST: AtomicPtr<Api> = AtomicPtr::new(std::ptr::null_mut());

/// Why there is no connection, and what to change.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// No interpreter runs here, or the calling thread does not hold the GIL.
    NotAttached,
    /// There is no rvh_trace in this interpreter.
    NotInstalled,
    /// The rvh_trace that is installed cannot be used.
    Unusable {
        /// What Python says.
        reason: String,
    },
    /// The rvh_trace that is installed speaks another version of the interface.
    OtherVersion {
        /// The version that it speaks; this crate speaks [`MAJOR`].
        host: u32,
    },
    /// The table has fewer functions than this crate needs.
    Truncated {
        /// Its size in bytes.
        size: u32,
    },
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAttached => f.write_str(
                "rvh_trace can only be looked for by a thread that holds the GIL: call connect() in the function that \
                 initialises the module",
            ),
            Self::NotInstalled => f.write_str(
                "rvh_trace is not installed in this interpreter (pip install rvh_trace): spans of Rust go nowhere",
            ),
            Self::Unusable { reason } => write!(
                f,
                "the rvh_trace that is installed cannot be used by this extension: {reason}",
            ),
            Self::OtherVersion { host } => {
                let older = if *host < MAJOR {
                    "rvh_trace"
                } else {
                    "the crate rvh_trace_client of this extension"
                };
                write!(
                    f,
                    "the rvh_trace that is installed speaks version {host} of the interface for extensions, and this \
                     extension version {MAJOR}: update {older}",
                )
            }
            Self::Truncated { size } => write!(
                f,
                "the rvh_trace that is installed offers {size} bytes of the interface for extensions, and this extension \
                 needs {}: update rvh_trace",
                size_of::<Api>(),
            ),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Looks for rvh_trace, imports it if it is installed, and remembers it. A later call finds what the first has found.
///
/// Call it where the extension module is initialised. `tracing` callsites that were met before take part from now on.
///
/// # Errors
///
/// [`ConnectError`] says what to change. Without a connection every call of this crate is a no-op.
///
/// # Example
///
/// ```
/// // In a process without an interpreter:
/// let refused = rvh_trace_client::connect();
/// assert_eq!(refused, Err(rvh_trace_client::ConnectError::NotAttached));
/// ```
pub fn connect() -> Result<(), ConnectError> {
    if is_connected() {
        return Ok(());
    }
    let table = interpreter::find_table()?;
    HOST.store(table.cast_mut(), Ordering::Release);
    #[cfg(feature = "tracing")]
    tracing_core::callsite::rebuild_interest_cache();
    Ok(())
}

/// The table at this address, if it is one that this crate can use.
///
/// # Safety
///
/// It holds a table that begins with `major` and `size`, as it does in every version, and lives as long as the process.
#[expect(unsafe_code, reason = "the table is reached by a pointer")]
unsafe fn checked(table: *const Api) -> Result<*const Api, ConnectError> {
    // SAFETY: the caller's.
    let (host, size) = unsafe { ((*table).major, (*table).size) };
    if host != MAJOR {
        return Err(ConnectError::OtherVersion { host });
    }
    if (size as usize) < size_of::<Api>() {
        return Err(ConnectError::Truncated { size });
    }
    Ok(table)
}

/// Whether [`connect`] has found rvh_trace.
#[inline]
pub fn is_connected() -> bool {
    !HOST.load(Ordering::Relaxed).is_null()
}

/// The table, if there is a connection.
#[inline]
#[expect(unsafe_code, reason = "the table is reached by a pointer")]
pub(crate) fn host() -> Option<&'static Api> {
    // SAFETY: null, or a table that lives as long as the process. Acquire pairs with the Release in `connect`, and on x86
    // costs nothing over a relaxed load.
    unsafe { HOST.load(Ordering::Acquire).as_ref() }
}

/// The table, if there is a connection and a span that is started may be recorded.
#[inline]
#[expect(unsafe_code, reason = "the switch is reached by a pointer")]
pub(crate) fn recording_host() -> Option<&'static Api> {
    let host = host()?;
    // SAFETY: lives as long as the table.
    let enabled = unsafe { &*host.enabled };
    (enabled.load(Ordering::Relaxed) != 0).then_some(host)
}
