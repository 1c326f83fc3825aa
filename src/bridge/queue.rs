//! The bounded queue between Rust code that logs and the Python thread that calls `logging`.
//!
//! Any thread may [`log`]: it takes no GIL, and the lock it takes is never held by somebody who waits for the GIL. What does
//! not fit is counted and gone. There is no queue, and [`log`] is one relaxed load, until somebody has called [`open`].

use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tracing::Level;

use super::suppression::is_suppressed;
use crate::attribute::Value;
use crate::clock::Start;
use crate::context::SpanContext;

/// What the records that wait may take, with [`OVERHEAD`] for each.
pub const MAX_BYTES: usize = 1 << 20;
/// Counted for a record beside its texts.
const OVERHEAD: usize = 256;

/// An event of Rust code, borrowed from whoever logs it.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// How severe it is.
    pub level: Level,
    /// Who says it: a module path, in most cases.
    pub target: &'a str,
    /// What is said.
    pub message: &'a str,
    /// Its details.
    pub fields: &'a [(&'a str, Value<'a>)],
    /// The span it was said in; invalid for none.
    pub span: SpanContext,
    /// The source file, if known.
    pub file: Option<&'a str>,
    /// The line in it, from 1; 0 if it is not known.
    pub line: u32,
}

/// A detail of a [`KeptRecord`].
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant holds a value of its name")]
pub enum FieldValue {
    Text(Box<str>),
    Bool(bool),
    Int(i64),
    Float(f64),
}

/// A [`Record`] that waits, with when and where it was logged.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields of `Record`, and what they say")]
pub struct KeptRecord {
    pub level: Level,
    pub target: Box<str>,
    pub message: Box<str>,
    pub fields: Vec<(Box<str>, FieldValue)>,
    pub span: SpanContext,
    pub file: Box<str>,
    pub line: u32,
    pub unix_ns: u64,
    /// As `threading.get_ident()` gives it; 0 where that is not known.
    pub thread_id: u64,
    /// The name that Rust gave the thread; Python's names are not known here.
    pub thread_name: Option<Box<str>>,
}

impl KeptRecord {
    /// Keeps a record that is logged now, on this thread.
    pub fn new(record: &Record<'_>) -> Self {
        let keep = |(key, value): &(&str, Value<'_>)| {
            let value = match value {
                Value::Str(text) => FieldValue::Text((*text).into()),
                Value::Bool(bool) => FieldValue::Bool(*bool),
                Value::Int(int) => FieldValue::Int(*int),
                Value::Float(float) => FieldValue::Float(*float),
                other => FieldValue::Text(format!("{other:?}").into()),
            };
            ((*key).into(), value)
        };
        Self {
            level: record.level,
            target: record.target.into(),
            message: record.message.into(),
            fields: record.fields.iter().map(keep).collect(),
            span: record.span.clone(),
            file: record.file.unwrap_or_default().into(),
            line: record.line,
            unix_ns: Start::now().unix_ns(),
            thread_id: thread_id(),
            thread_name: std::thread::current().name().map(Into::into),
        }
    }

    fn bytes(&self) -> usize {
        let field = |(key, value): &(Box<str>, FieldValue)| {
            let text = match value {
                FieldValue::Text(text) => text.len(),
                _ => 0,
            };
            32 + key.len() + text
        };
        OVERHEAD
            + self.target.len()
            + self.message.len()
            + self.file.len()
            + self.fields.iter().map(field).sum::<usize>()
    }
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "a system call")]
fn thread_id() -> u64 {
    // SAFETY: it always succeeds.
    let id = unsafe { libc::pthread_self() };
    id as u64
}

#[cfg(not(unix))]
fn thread_id() -> u64 {
    0
}

#[derive(Default)]
struct Contents {
    records: Vec<KeptRecord>,
    bytes: usize,
    closed: bool,
}

#[derive(Default)]
struct Queue {
    contents: Mutex<Contents>,
    arrived: Condvar,
}

/// Null before [`open`]. Replaced in a forked child, where another thread may have held the lock; never freed.
static QUEUE: AtomicPtr<Queue> = AtomicPtr::new(std::ptr::null_mut());
/// The least severe level that is taken, 1 for `ERROR` to 5 for `TRACE`; 0: none.
static LEAST: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);

impl Queue {
    #[expect(unsafe_code, reason = "the pointer is null or leaked, see `QUEUE`")]
    fn get() -> Option<&'static Self> {
        // SAFETY: null, or from `Box::leak` in `renew`; what it points to is never freed. Acquire pairs with its Release.
        unsafe { QUEUE.load(Ordering::Acquire).as_ref() }
    }

    fn renew() {
        QUEUE.store(Box::leak(Box::default()), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rank(level: Level) -> usize {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// Takes records of this level and more severe ones from now on. Somebody must [`take`] them out.
pub fn open(least_severe: Level) {
    if Queue::get().is_none() {
        Queue::renew();
    }
    LEAST.store(rank(least_severe), Ordering::Relaxed);
}

/// Whether records of some level are taken.
pub fn is_open() -> bool {
    LEAST.load(Ordering::Relaxed) != 0
}

/// Whether a record of this level would be taken. One relaxed load, and another if so.
#[inline]
pub fn is_enabled(level: Level) -> bool {
    rank(level) <= LEAST.load(Ordering::Relaxed) && !is_suppressed()
}

/// Hands a record over, or counts it as lost. Waits for nobody, and does not take the GIL.
///
/// ```
/// use rvh_trace::attribute::Value;
/// use rvh_trace::bridge::{self, Record};
///
/// bridge::log(&Record {
///     level: tracing::Level::WARN,
///     target: "shop::stock",
///     message: "few left",
///     fields: &[("count", Value::Int(3))],
///     span: bridge::context::current(),
///     file: None,
///     line: 0,
/// });
/// ```
pub fn log(record: &Record<'_>) {
    if !is_enabled(record.level) {
        return;
    }
    let Some(queue) = Queue::get() else { return };
    let kept = KeptRecord::new(record);
    let bytes = kept.bytes();
    let mut contents = queue.lock();
    if contents.closed || contents.bytes + bytes > MAX_BYTES {
        drop(contents);
        DROPPED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    contents.bytes += bytes;
    contents.records.push(kept);
    let is_first = contents.records.len() == 1;
    drop(contents);
    if is_first {
        queue.arrived.notify_one();
    }
}

/// Waits for records and takes them out, oldest first; `None` when the queue is closed and empty, or was never open.
///
/// Blocks: bindings release the GIL around it.
pub fn take() -> Option<Vec<KeptRecord>> {
    let queue = Queue::get()?;
    let mut contents = queue
        .arrived
        .wait_while(queue.lock(), |contents| {
            contents.records.is_empty() && !contents.closed
        })
        .unwrap_or_else(PoisonError::into_inner);
    contents.bytes = 0;
    let records = std::mem::take(&mut contents.records);
    (!records.is_empty()).then_some(records)
}

/// Takes no more records. What waits can still be taken out.
pub fn close() {
    LEAST.store(0, Ordering::Relaxed);
    if let Some(queue) = Queue::get() {
        queue.lock().closed = true;
        queue.arrived.notify_all();
    }
}

/// How many records were lost since the process started.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Gives a forked child a queue of its own, empty: what the parent's held, the parent hands on.
pub fn after_fork_in_child() {
    if Queue::get().is_some() {
        Queue::renew();
    }
    DROPPED.store(0, Ordering::Relaxed);
}
