//! Records of spans come in order, each for those who asked for it, and what is not wanted or finds no room is not kept.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod exporters;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use exporters::{Destination, WATCHDOG, decoded, tracer};
use rvh_trace::attribute::Value;
use rvh_trace::clock::Start;
use rvh_trace::config::{Arguments, Config};
use rvh_trace::layer::{self, BATCHED, Delivery, Flush, Host, IMMEDIATE, Kind, Record};
use rvh_trace::span::{Span, SpanKind, Status};
use rvh_trace::tracer::{Started, Tracer};

const NEW: u8 = 1 << Kind::NewSpan as u8;
const EVENT: u8 = 1 << Kind::Event as u8;
const RECORD: u8 = 1 << Kind::Record as u8;
const ALL: u8 = 0xf;

thread_local! {
    static ATTACHED: Cell<bool> = const { Cell::new(true) };
}
static THREADS_STARTED: AtomicUsize = AtomicUsize::new(0);
/// Who listens is a property of the process.
static ALONE: Mutex<()> = Mutex::new(());

fn host() -> Host {
    Host {
        is_attached: || ATTACHED.get(),
        start_thread: || {
            THREADS_STARTED.fetch_add(1, Ordering::Relaxed);
        },
    }
}

/// Listens until it is dropped.
struct Listening(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Listening {
    fn to(batched: u8, immediate: u8) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        layer::enter_forked_child(); // nothing of the test before
        ATTACHED.set(true);
        layer::listen(host(), batched, immediate);
        Self(alone)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        layer::listen(host(), 0, 0);
    }
}

fn recording() -> &'static Tracer {
    tracer(&[&Destination::open()], |_| {})
}

fn new_span(tracer: &'static Tracer, name: &str) -> Span {
    match tracer.create(None, SpanKind::Client, name) {
        Started::Recording(span) => span,
        other => unreachable!("{other:?}"),
    }
}

/// What `count` queued records tell, taken on a thread of its own: whoever takes is not shown anything.
fn queued(count: usize) -> Vec<Record> {
    let taken = std::thread::spawn(move || {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.extend(layer::decode(&layer::next().bytes));
        }
        taken
    });
    taken.join().unwrap()
}

fn told(records: &[Record]) -> Vec<(Kind, u8, &str)> {
    let name_of = |record: &Record| match record.kind {
        Kind::Event => record.span.events[0].name.clone(),
        Kind::Record => record.span.attributes[0].key.clone(),
        _ => record.span.name.clone(),
    };
    let told = records
        .iter()
        .map(|record| (record.kind, record.targets, name_of(record).leak() as &str));
    told.collect()
}

fn do_everything(span: &mut Span) {
    span.set_attribute("before", &Value::Int(1));
    span.begin(Start::at(100));
    span.set_attribute("after", &Value::Int(2));
    span.set_attribute("after", &Value::Int(3));
    span.add_event("event", 150, &[("why", Value::Str("because"))]);
    span.update_name("renamed");
    span.set_status(Status::Error, "broken");
    span.end_at(200);
    span.end_at(300);
    span.set_attribute("late", &Value::Int(4));
}

#[test]
fn a_span_is_told_from_its_begin_to_its_end() {
    let _listening = Listening::to(ALL, 0);
    let mut span = new_span(recording(), "op");
    let context = span.context().clone();
    do_everything(&mut span);
    let records = queued(5);
    assert_eq!(
        told(&records),
        [
            (Kind::NewSpan, BATCHED, "op"),
            (Kind::Record, BATCHED, "after"),
            (Kind::Record, BATCHED, "after"),
            (Kind::Event, BATCHED, "event"),
            (Kind::Close, BATCHED, "renamed"),
        ]
    );
    for record in &records {
        assert_eq!(record.span.span_id, context.span_id.to_bytes());
        assert_eq!(record.span.trace_id, context.trace_id.to_bytes());
        assert_eq!(record.span.start_time_unix_nano, 100);
    }
    let (first, close) = (&records[0].span, &records[4].span);
    assert_eq!(first.attributes.len(), 1);
    assert_eq!(first.attributes[0].key, "before");
    assert_eq!(first.kind, SpanKind::Client as i32);
    assert_eq!(records[3].span.events[0].time_unix_nano, 150);
    assert_eq!(records[3].span.events[0].attributes.len(), 1);
    assert_eq!(close.end_time_unix_nano, 200);
    let status = close.status.clone().unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "broken"));
    assert!(close.attributes.is_empty());
}

#[test]
fn what_is_exported_does_not_depend_on_who_listens() {
    let exported = || {
        let destination = Destination::open();
        let tracer = tracer(&[&destination], |_| {});
        do_everything(&mut new_span(tracer, "op"));
        tracer.force_flush(WATCHDOG).unwrap();
        let mut span = decoded(&destination.attempts()[0].request).remove(0);
        (span.trace_id, span.span_id) = (Vec::new(), Vec::new());
        span
    };
    let listening = Listening::to(ALL, ALL);
    let observed = exported();
    drop(listening);
    let _alone = Listening::to(0, 0);
    assert_eq!(exported(), observed);
    assert_eq!(observed.attributes.len(), 2);
}

#[test]
fn only_what_somebody_wants_is_kept_and_begin_and_end_always_are() {
    let _listening = Listening::to(EVENT, RECORD);
    do_everything(&mut new_span(recording(), "op"));
    let everybody = BATCHED | IMMEDIATE;
    assert_eq!(
        told(&queued(5)),
        [
            (Kind::NewSpan, everybody, "op"),
            (Kind::Record, IMMEDIATE, "after"),
            (Kind::Record, IMMEDIATE, "after"),
            (Kind::Event, BATCHED, "event"),
            (Kind::Close, everybody, "renamed"),
        ]
    );
    assert!(layer::take_pending().is_none(), "nobody attends to it here");
}

#[test]
fn a_span_that_had_begun_before_is_not_told() {
    let _listening = Listening::to(0, 0);
    let mut old = new_span(recording(), "old");
    old.begin(Start::now());
    layer::listen(host(), ALL, ALL);
    old.add_event("event", 1, &[]);
    old.end();
    assert_eq!(layer::position(), 0);
}

#[test]
fn an_attended_span_is_told_here_as_long_as_that_can_be() {
    let _listening = Listening::to(0, ALL);
    let mut span = new_span(recording(), "op");
    span.begin_attended(Start::now());
    span.add_event("here", 1, &[]);
    let pending = layer::take_pending().unwrap();
    let here: Vec<_> = layer::decode(&pending).collect();
    assert_eq!(
        told(&here),
        [
            (Kind::NewSpan, IMMEDIATE, "op"),
            (Kind::Event, IMMEDIATE, "here")
        ]
    );
    ATTACHED.set(false);
    span.add_event("there", 2, &[]);
    ATTACHED.set(true);
    // Not overtaken by what comes later.
    span.end();
    assert!(layer::take_pending().is_none());
    assert_eq!(
        told(&queued(2)),
        [
            (Kind::Event, IMMEDIATE, "there"),
            (Kind::Close, IMMEDIATE, "op")
        ]
    );
}

#[test]
fn what_a_layer_does_is_not_told_but_an_end_is() {
    let _listening = Listening::to(ALL, ALL);
    let tracer = recording();
    let mut shown = new_span(tracer, "shown");
    shown.begin(Start::now());
    {
        let _delivery = Delivery::begin().unwrap();
        assert!(Delivery::begin().is_none(), "never one in the other");
        do_everything(&mut new_span(tracer, "of a layer"));
        shown.add_event("by a layer", 1, &[]);
        shown.end();
        assert_eq!(Flush::begin().wait(Instant::now()), 0, "it waits for none");
    }
    let everybody = BATCHED | IMMEDIATE;
    assert_eq!(
        told(&queued(2)),
        [
            (Kind::NewSpan, everybody, "shown"),
            (Kind::Close, everybody, "shown")
        ]
    );
}

#[test]
fn a_full_queue_drops_what_is_new_and_keeps_the_ends() {
    let _listening = Listening::to(ALL, 0);
    let tracer = recording();
    let long = "x".repeat(256 * 1024);
    let mut spans: Vec<_> = (0..20).map(|_| new_span(tracer, "op")).collect();
    for span in &mut spans {
        span.begin(Start::now());
        span.add_event(&long, 1, &[]);
    }
    let let_in = 32;
    // Sixteen events are 4 MiB: the next span finds no room, nor does anything of its own later.
    assert_eq!((layer::position(), layer::dropped()), (let_in, 4));
    for span in &mut spans {
        span.add_event("no room", 1, &[]);
        span.end();
    }
    assert_eq!(layer::dropped(), 4 + 16);
    let records = queued(usize::try_from(let_in).unwrap() + 16);
    let count = |kind| records.iter().filter(|record| record.kind == kind).count();
    assert_eq!(
        (count(Kind::NewSpan), count(Kind::Event), count(Kind::Close)),
        (16, 16, 16)
    );
}

#[test]
fn a_flush_waits_for_what_was_queued_and_not_past_its_deadline() {
    let _listening = Listening::to(NEW, 0);
    let started = THREADS_STARTED.load(Ordering::Relaxed);
    let tracer = recording();
    for _ in 0..600 {
        do_everything(&mut new_span(tracer, "op"));
    }
    let threads = THREADS_STARTED.load(Ordering::Relaxed) - started;
    assert_eq!(threads, 1, "with the first record, and once");
    let flush = Flush::begin();
    assert_eq!(flush.wait(Instant::now() + Duration::from_millis(1)), 1200);
    let thread = std::thread::spawn(|| {
        let mut numbers = Vec::new();
        // The last call says that what the one before gave is delivered; there is something for it to take.
        while numbers.len() < 1201 {
            let records = layer::next();
            let count = layer::decode(&records.bytes).count();
            numbers.extend((0..count as u64).map(|index| records.first + index));
            assert!(count <= 256, "{count}");
        }
        numbers
    });
    assert_eq!(flush.wait(Instant::now() + WATCHDOG), 0);
    new_span(tracer, "last").begin(Start::now());
    assert_eq!(thread.join().unwrap(), (0..1201).collect::<Vec<_>>());
}

#[test]
fn a_forked_child_begins_with_nothing() {
    let _listening = Listening::to(ALL, ALL);
    let mut span = new_span(recording(), "parent");
    span.begin_attended(Start::now());
    assert_eq!(layer::position(), 1);
    layer::enter_forked_child();
    assert_eq!((layer::position(), layer::dropped()), (0, 0));
    assert!(layer::take_pending().is_none());
}

#[test]
fn with_a_layer_spans_are_recorded_even_if_nothing_is_exported() {
    let config = || {
        let arguments = Arguments {
            exporter: Some(vec!["none".into()]),
            ..Arguments::default()
        };
        Config::load(&arguments, &|_| None).unwrap().0
    };
    let tracer = Tracer::new(config()).unwrap();
    let create = || tracer.create(None, SpanKind::Internal, "op");
    let alone = Listening::to(0, 0);
    assert!(matches!(create(), Started::NonRecording(_)));
    drop(alone);
    let _listening = Listening::to(ALL, 0);
    do_everything(&mut new_span(tracer, "op"));
    assert_eq!(queued(5).len(), 5);
    {
        let _delivery = Delivery::begin();
        let mut unseen = new_span(tracer, "of a layer");
        unseen.begin(Start::now());
        assert!(!unseen.is_recording(), "nobody would ever see it");
    }
    assert_eq!(tracer.stats().started, 0);
}
