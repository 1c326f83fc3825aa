//! Log records: what happened at one moment, with or without a span around it (OpenTelemetry specification, "Logs Data
//! Model").
//!
//! Attributes are encoded as they come, into a pooled buffer; [`Tracer::log`](crate::tracer::Tracer::log) puts the rest
//! around them and appends the result to a batch. Any thread may; nothing blocks and nothing fails.
//!
//! ```
//! # use rvh_trace::{config::{Arguments, Config}, log::{LogRecord, Severity}, tracer::Tracer};
//! # let (config, _) = Config::load(&Arguments::default(), &|_| None)?;
//! # let tracer = Tracer::new(config)?;
//! if tracer.exports_logs() {
//!     let mut attributes = tracer.log_attributes();
//!     attributes.push("cart.id", &7.into());
//!     tracer.log(
//!         &LogRecord { scope: "shop::cart", severity: Severity::INFO, body: "checked out", ..LogRecord::default() },
//!         attributes,
//!     );
//! }
//! # Ok::<(), rvh_trace::error::Error>(())
//! ```

use crate::attribute::Value;
use crate::context::SpanContext;
use crate::limits::LogRecordLimits;
use crate::span::{give_buffer, take_buffer};
use crate::wire::attribute::{find_key, put_key_value};
use crate::wire::log::ATTRIBUTE;

/// How severe a log record is: 1 to 24, four to each of six ranges; 0 is unspecified (Logs Data Model, "Field:
/// `SeverityNumber`").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Severity(u8);

impl Severity {
    /// Nothing is known.
    pub const UNSPECIFIED: Self = Self(0);
    /// Finer than debugging.
    pub const TRACE: Self = Self(1);
    /// For debugging.
    pub const DEBUG: Self = Self(5);
    /// What is to be expected.
    pub const INFO: Self = Self(9);
    /// Not an error, and worth more attention.
    pub const WARN: Self = Self(13);
    /// Something went wrong.
    pub const ERROR: Self = Self(17);
    /// The program cannot go on.
    pub const FATAL: Self = Self(21);

    /// The severity of this number; what is over 24 is 24.
    pub const fn from_number(number: u8) -> Self {
        Self(if number > 24 { 24 } else { number })
    }

    /// The number, 0 to 24.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// A log record but for its attributes. Its texts are borrowed from wherever they live.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogRecord<'a> {
    /// What made it: the logger's name, or the target of a Rust event. OTLP's scope name.
    pub scope: &'a str,
    /// How severe it is.
    pub severity: Severity,
    /// The level as its source writes it: `WARNING`. Empty: none.
    pub severity_text: &'a str,
    /// When it happened, in nanoseconds since the Unix epoch; `None`: now.
    pub unix_ns: Option<u64>,
    /// The message.
    pub body: &'a str,
    /// What kind of event it is, for records that are events. Empty: none.
    pub event_name: &'a str,
    /// The span in which it happened; one that is not valid is as good as `None`.
    pub context: Option<&'a SpanContext>,
}

/// The attributes of a log record, encoded. Keys must differ, see [`Self::contains`].
#[derive(Debug)]
pub struct LogAttributes {
    pub(crate) fields: Vec<u8>,
    pub(crate) dropped: u32,
    count: u32,
    limits: LogRecordLimits,
}

impl LogAttributes {
    /// None yet, and room for as many as `limits` says.
    pub fn new(limits: LogRecordLimits) -> Self {
        Self {
            fields: take_buffer(),
            dropped: 0,
            count: 0,
            limits,
        }
    }

    /// Adds an attribute whose key is not there. One that is over the limit is counted instead; one with an empty key is
    /// ignored.
    // Out of line: its callers are many and the module's size has a limit.
    #[inline(never)]
    pub fn push(&mut self, key: &str, value: &Value<'_>) {
        if key.is_empty() {
            return;
        }
        if self.count >= self.limits.attributes {
            self.dropped += 1;
            return;
        }
        self.count += 1;
        put_key_value(
            &mut self.fields,
            ATTRIBUTE,
            key,
            value,
            self.limits.value_length,
        );
    }

    /// Whether there is one of this key. Costs a look at every attribute.
    pub fn contains(&self, key: &str) -> bool {
        find_key(&self.fields, key).is_some()
    }
}

impl Drop for LogAttributes {
    fn drop(&mut self) {
        give_buffer(std::mem::take(&mut self.fields));
    }
}
