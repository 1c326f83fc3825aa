//! What layers see: a record of every span that begins, changes and ends, on its way to whoever listens.
//!
//! A record is an OTLP `Span` message with only what it tells, behind a byte that says what that is. Records wait in one
//! queue, bounded in bytes, for the one thread that delivers them ([`next`]); so they come in the order in which they were
//! made. For layers that are called immediately they wait on the thread that made them, until its owner has left everything
//! that a layer must not be called under ([`take_pending`]).
//!
//! Nobody listens: one relaxed load a span ([`is_listening`]). Any thread may publish; none waits for another but for the
//! queue's lock, under which nothing but a copy is done.

mod queue;

use std::cell::{Cell, RefCell};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use opentelemetry_proto::tonic::trace::v1 as otlp;
use prost::Message;

use crate::wire::read_varint;
use crate::wire::span::{Finished, put_span};
use queue::queue;

pub use queue::Records;

/// What a record tells of a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// It has begun: all that is known of it.
    NewSpan,
    /// An event was added.
    Event,
    /// An attribute was set.
    Record,
    /// It has ended: its name, its times and its status.
    Close,
}

impl Kind {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// For layers that are called by the delivering thread.
pub const BATCHED: u8 = 1;
/// For layers that are called by the thread that made the record, where it can.
pub const IMMEDIATE: u8 = 2;

/// Which kinds of records somebody wants: [`BATCHED`] in the low half, [`IMMEDIATE`] in the high one.
static INTEREST: AtomicU8 = AtomicU8::new(0);

/// What the bindings do for this module.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Whether a layer can be called on this thread.
    pub is_attached: fn() -> bool,
    /// Starts the thread that calls [`next`] again and again. Must not wait.
    pub start_thread: fn(),
}

static HOST: OnceLock<Host> = OnceLock::new();

/// How the records of one span get to immediate layers.
///
/// Never back from [`Route::Queue`]: what waits there is not to be overtaken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Route {
    /// By the delivering thread.
    #[default]
    Queue,
    /// By this one, as long as it can.
    Here,
}

/// What an immediate layer is behind with on one thread at the most, in bytes.
const MAX_PENDING_BYTES: usize = 1024 * 1024;

thread_local! {
    static PENDING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Whether a layer is being called here: what it does is not shown to layers.
    static DELIVERING: Cell<bool> = const { Cell::new(false) };
}

/// Whether any layer wants to know of spans.
#[inline]
pub fn is_listening() -> bool {
    INTEREST.load(Ordering::Relaxed) != 0
}

/// Whether there is a layer that is called immediately.
#[inline]
pub fn is_listening_immediately() -> bool {
    INTEREST.load(Ordering::Relaxed) & 0xf0 != 0
}

/// Whose layers listen from now on, and to what: bits of `1 << Kind`.
///
/// Everybody who listens at all is told of [`Kind::NewSpan`] and [`Kind::Close`].
pub fn listen(host: Host, batched: u8, immediate: u8) {
    let _ = HOST.set(host);
    let complete = |kinds: u8| {
        let both = Kind::NewSpan.bit() | Kind::Close.bit();
        if kinds == 0 { 0 } else { (kinds & 0xf) | both }
    };
    INTEREST.store(
        complete(batched) | complete(immediate) << 4,
        Ordering::Relaxed,
    );
}

/// Passes a record on; whether anybody will see it.
#[cold]
pub(crate) fn publish(kind: Kind, route: &mut Route, span: &Finished<'_>) -> bool {
    // A span that a layer ends was shown to it, and has one end.
    if kind != Kind::Close && is_delivering() {
        return false;
    }
    let interest = INTEREST.load(Ordering::Relaxed);
    let (mut targets, mut told) = (0, false);
    if interest & kind.bit() != 0 {
        targets |= BATCHED;
    }
    if interest >> 4 & kind.bit() != 0 {
        told = *route == Route::Here && leave_here(kind, span);
        if !told {
            *route = Route::Queue;
            targets |= IMMEDIATE;
        }
    }
    if targets != 0 {
        told |= queue().push(kind, targets, span);
    }
    told
}

/// Leaves a record on this thread, for [`take_pending`].
fn leave_here(kind: Kind, span: &Finished<'_>) -> bool {
    if !HOST.get().is_some_and(|host| (host.is_attached)()) {
        return false;
    }
    let left = PENDING.try_with(|pending| {
        let Ok(mut pending) = pending.try_borrow_mut() else {
            return false;
        };
        let room = pending.len() < MAX_PENDING_BYTES;
        if room {
            put_record(&mut pending, kind, IMMEDIATE, span);
        }
        room
    });
    left.unwrap_or(false)
}

fn put_record(out: &mut Vec<u8>, kind: Kind, targets: u8, span: &Finished<'_>) {
    out.push(kind as u8 | targets << 2);
    put_span(out, span);
}

/// What was left on this thread for immediate layers, if anything; see [`decode`].
pub fn take_pending() -> Option<Vec<u8>> {
    let taken = PENDING.try_with(|pending| {
        pending
            .try_borrow_mut()
            .ok()
            .map(|mut it| std::mem::take(&mut *it))
    });
    taken.ok().flatten().filter(|bytes| !bytes.is_empty())
}

/// A layer is being called on this thread, until it is dropped.
#[derive(Debug)]
pub struct Delivery(());

impl Delivery {
    /// `None` when one is being called here already.
    pub fn begin() -> Option<Self> {
        let before = DELIVERING.try_with(|delivering| delivering.replace(true));
        // Lazily: one that is made and dropped would end the delivery that is under way.
        (before == Ok(false)).then(|| Self(()))
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let _ = DELIVERING.try_with(|delivering| delivering.set(false));
    }
}

fn is_delivering() -> bool {
    DELIVERING.try_with(Cell::get).unwrap_or(true)
}

/// Waits for records and takes some of them; those of the last call are delivered. Blocks. From now on this thread delivers.
pub fn next() -> Records {
    let _ = DELIVERING.try_with(|delivering| delivering.set(true));
    queue().next()
}

/// How many records were queued so far: the number of the next one.
pub fn position() -> u64 {
    queue().position()
}

/// How many records found no room so far.
pub fn dropped() -> u64 {
    queue().dropped()
}

/// The records that were queued before a flush.
#[derive(Debug)]
pub struct Flush(Option<u64>);

impl Flush {
    /// Has what waits delivered at once. It goes on meanwhile.
    ///
    /// A layer that flushes does not wait for itself.
    pub fn begin() -> Self {
        Self((is_listening() && !is_delivering()).then(|| queue().hurry()))
    }

    /// Waits until everything is delivered or the time is over; how much is then left.
    pub fn wait(&self, deadline: Instant) -> u64 {
        self.0
            .map_or(0, |position| queue().wait(position, deadline))
    }
}

/// What waits belongs to the parent. Call it in the child before any other thread exists.
pub fn enter_forked_child() {
    drop(take_pending());
    queue::renew();
}

/// A record, decoded.
#[derive(Debug)]
pub struct Record {
    /// What it tells.
    pub kind: Kind,
    /// [`BATCHED`], [`IMMEDIATE`] or both.
    pub targets: u8,
    /// Of whom, and what.
    pub span: otlp::Span,
}

/// The records in `bytes`, which this module has written.
pub fn decode(bytes: &[u8]) -> impl Iterator<Item = Record> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (record, len) = split_first(rest)?;
        let span = otlp::Span::decode(record).unwrap_or_default();
        let header = rest[0];
        rest = &rest[len..];
        Some(Record {
            kind: match header & 3 {
                0 => Kind::NewSpan,
                1 => Kind::Event,
                2 => Kind::Record,
                _ => Kind::Close,
            },
            targets: header >> 2,
            span,
        })
    })
}

/// The message of the first record, and the length of the whole.
fn split_first(bytes: &[u8]) -> Option<(&[u8], usize)> {
    // What it is, and the key of the message.
    let (len, len_len) = read_varint(bytes.get(2..)?)?;
    let start = 2 + len_len;
    let end = start + usize::try_from(len).ok()?;
    Some((bytes.get(start..end)?, end))
}
