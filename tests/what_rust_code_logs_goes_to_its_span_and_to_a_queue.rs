//! `tracing` events and `log` records: on their span, and in the bounded queue from which `logging` gets them.
//!
//! The subscriber, the logger and the queue are those of the process, so the tests of this file take turns.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod exporters;
mod recorded;

use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exporters::{Answer, Destination, in_time, names};
use recorded::{Recorded, attributes};
use rvh_trace::attribute::Value;
use rvh_trace::bridge::queue::{self, FieldValue, KeptRecord, MAX_BYTES};
use rvh_trace::bridge::{self, Record};
use rvh_trace::config::BridgeConfig;
use rvh_trace::context::SpanContext;
use rvh_trace::pipeline::exporter::Outcome;
use rvh_trace::tracer::Tracer;
use tracing::{Level, debug, error, info, info_span, trace, warn};

static TURN: Mutex<()> = Mutex::new(());
static CURRENT: AtomicPtr<Tracer> = AtomicPtr::new(std::ptr::null_mut());

#[expect(unsafe_code, reason = "tracers are leaked")]
fn current() -> Option<&'static Tracer> {
    // SAFETY: null, or from a `&'static Tracer` in `turn`.
    unsafe { CURRENT.load(Ordering::Acquire).as_ref() }
}

/// Sends what is recorded to `tracer` from now on; the queue takes `info` and what is more severe.
fn turn(tracer: &'static Tracer) -> MutexGuard<'static, ()> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if CURRENT
        .swap(std::ptr::from_ref(tracer).cast_mut(), Ordering::AcqRel)
        .is_null()
    {
        let config = BridgeConfig {
            filter: "debug,quiet=error,silent=off,shop=trace".parse().unwrap(),
            events: Some(Level::INFO),
        };
        bridge::install(bridge::Tracer::following(current), &config).unwrap();
    }
    turn
}

/// What waits in the queue, in which there must be something.
fn waiting() -> Vec<KeptRecord> {
    in_time("a record", || queue::take().unwrap())
}

fn said(records: &[KeptRecord]) -> Vec<(Level, &str, &str)> {
    records
        .iter()
        .map(|record| (record.level, &*record.target, &*record.message))
        .collect()
}

#[test]
fn an_event_is_on_its_span_with_level_target_and_fields() {
    let recorded = Recorded::new();
    let _turn = turn(recorded.tracer);
    info_span!("op").in_scope(|| {
        debug!(target: "shop::stock", count = 3, low = true, share = 0.5, item = "tea", many = ?[1, 2], "few {}", "left");
    });
    let spans = recorded.take();
    let span = spans.one("op");
    let event = &span.events[0];
    assert_eq!(event.name, "few left");
    assert!(event.time_unix_nano >= span.start_time_unix_nano);
    let said = attributes(&event.attributes);
    let expected = [
        ("level", "\"DEBUG\""),
        ("target", "\"shop::stock\""),
        ("count", "3"),
        ("low", "true"),
        ("share", "0.5"),
        ("item", "\"tea\""),
        ("many", "\"[1, 2]\""),
    ];
    for (key, value) in expected {
        assert_eq!(said[key], value, "{key}");
    }
    assert_eq!(said.len(), expected.len(), "{said:?}");
}

#[test]
fn an_event_goes_to_the_innermost_span_that_is_recorded() {
    let recorded = Recorded::new();
    let _turn = turn(recorded.tracer);
    info_span!("outer").in_scope(|| {
        info_span!(target: "silent", "silent").in_scope(|| info!("heard"));
        info_span!("inner").in_scope(|| info!("deep"));
    });
    waiting();
    let spans = recorded.take();
    assert_eq!(spans.names(), ["inner", "outer"]);
    assert_eq!(spans.one("inner").events[0].name, "deep");
    assert_eq!(spans.one("outer").events[0].name, "heard");
}

#[test]
fn the_filter_goes_by_target_and_level() {
    let recorded = Recorded::new();
    let _turn = turn(recorded.tracer);
    info_span!("op").in_scope(|| {
        trace!("too little");
        debug!("enough");
        warn!(target: "quiet", "too little");
        error!(target: "quiet::inside", "enough");
        error!(target: "silent", "never");
        trace!(target: "shop", "enough");
        log::trace!("too little");
        log::debug!("enough");
        log::warn!(target: "quiet", "too little");
        log::trace!(target: "shop", "enough");
    });
    waiting();
    let spans = recorded.take();
    let events = spans.one("op").events.iter().map(|event| &event.name);
    assert_eq!(events.collect::<Vec<_>>(), ["enough"; 5]);
    assert_eq!(log::max_level(), log::LevelFilter::Trace);
}

#[test]
fn what_is_severe_enough_waits_for_logging() {
    let recorded = Recorded::new();
    let _turn = turn(recorded.tracer);
    debug!("not severe enough");
    info!(target: "shop::orders", order = 7_u64, huge = u64::MAX, total = 12.5, paid = true, by = "card", "taken");
    log::error!(target: "shop::ledger", "a record of {}", "log");
    log::debug!("not severe enough");
    let records = waiting();
    let expected = [
        (Level::INFO, "shop::orders", "taken"),
        (Level::ERROR, "shop::ledger", "a record of log"),
    ];
    assert_eq!(said(&records), expected);
    let fields = [
        ("order", FieldValue::Int(7)),
        ("huge", FieldValue::Text("18446744073709551615".into())),
        ("total", FieldValue::Float(12.5)),
        ("paid", FieldValue::Bool(true)),
        ("by", FieldValue::Text("card".into())),
    ];
    let expected = fields.map(|(key, value)| (key.into(), value));
    assert_eq!(records[0].fields, expected);
    for record in &records {
        assert!(!record.span.is_valid());
        assert_eq!((&*record.file, record.line > 0), (file!(), true));
        assert!(record.thread_id != 0);
    }
    assert!(records[0].unix_ns <= records[1].unix_ns);
    assert_eq!(recorded.take().names(), [""; 0]);
}

#[test]
fn a_record_knows_its_span() {
    let recorded = Recorded::new();
    let _turn = turn(recorded.tracer);
    info_span!("op").in_scope(|| {
        warn!("an event");
        log::warn!("a record");
    });
    let records = waiting();
    let spans = recorded.take();
    let span = spans.one("op");
    assert_eq!(records.len(), 2);
    for record in &records {
        assert_eq!(record.span.trace_id.to_bytes(), *span.trace_id);
        assert_eq!(record.span.span_id.to_bytes(), *span.span_id);
    }
    let names: Vec<_> = span.events.iter().map(|event| &event.name).collect();
    assert_eq!(names, ["an event", "a record"]);
    let of_record = attributes(&span.events[1].attributes);
    assert_eq!(of_record["level"], "\"WARN\"");
    assert_eq!(of_record["target"], format!("{:?}", module_path!()));
}

#[test]
fn a_severe_record_of_log_makes_its_span_an_error() {
    let recorded = Recorded::new();
    let _turn = turn(recorded.tracer);
    info_span!("op").in_scope(|| log::error!("broken"));
    waiting();
    assert_eq!(recorded.take().one("op").status.as_ref().unwrap().code, 2);
}

#[test]
fn what_does_not_fit_is_counted_and_later_records_are_taken_again() {
    let recorded = Recorded::new();
    let _turn = turn(recorded.tracer);
    let before = queue::dropped();
    let message = "x".repeat(1000);
    let record = Record {
        level: Level::ERROR,
        target: "shop",
        message: &message,
        fields: &[("count", Value::Int(3))],
        span: SpanContext::INVALID,
        file: None,
        line: 0,
    };
    let sent = 2 * MAX_BYTES / message.len();
    for _ in 0..sent {
        bridge::log(&record);
    }
    let kept = waiting();
    let texts: usize = kept.iter().map(|record| record.message.len()).sum();
    assert!(texts <= MAX_BYTES && texts > MAX_BYTES / 2, "{texts}");
    assert_eq!(queue::dropped() - before, (sent - kept.len()) as u64);
    bridge::log(&record);
    assert_eq!(waiting().len(), 1);
}

#[test]
fn whoever_waits_is_woken_by_the_first_record() {
    let recorded = Recorded::new();
    let _turn = turn(recorded.tracer);
    let waits = std::thread::spawn(queue::take);
    info!("said");
    let records = in_time("the record", move || waits.join().unwrap().unwrap());
    assert_eq!(records[0].message, "said".into());
}

#[test]
fn many_threads_log_at_once_and_nothing_is_lost() {
    let recorded = Recorded::new();
    let _turn = turn(recorded.tracer);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for number in 0..200 {
                    info!(thread, number, "said");
                }
            });
        }
    });
    assert_eq!(waiting().len(), 1600);
}

#[test]
fn a_name_of_a_thread_is_known() {
    let recorded = Recorded::new();
    let _turn = turn(recorded.tracer);
    let thread = std::thread::Builder::new().name("speaker".into());
    let thread = thread.spawn(|| info!("said")).unwrap();
    thread.join().unwrap();
    assert_eq!(waiting()[0].thread_name.as_deref(), Some("speaker"));
}

#[test]
fn a_suppressed_thread_says_nothing() {
    let recorded = Recorded::new();
    let _turn = turn(recorded.tracer);
    let thread = std::thread::spawn(|| {
        bridge::suppress_thread();
        error!("an event");
        log::error!("a record");
        bridge::log(&Record {
            level: Level::ERROR,
            target: "shop",
            message: "by hand",
            fields: &[],
            span: SpanContext::INVALID,
            file: None,
            line: 0,
        });
    });
    thread.join().unwrap();
    error!("heard");
    let heard = (Level::ERROR, module_path!(), "heard");
    assert_eq!(said(&waiting()), [heard]);
}

#[test]
fn what_is_done_to_export_is_not_traced() {
    let destination = Destination::that(|attempt| {
        info_span!("export").in_scope(|| error!("exporting {}", attempt.number));
        log::error!("exporting");
        // Names are looked up on such a thread.
        tokio::task::spawn_blocking(|| {
            info_span!("look up").in_scope(|| error!("looking up"));
            log::error!("looking up");
        });
        Answer::Now(Outcome::DELIVERED)
    });
    let tracer = exporters::tracer(&[&destination], |_| {});
    let _turn = turn(tracer);
    for name in names("op", 3) {
        info_span!("op", otel.name = name).in_scope(|| ());
        tracer.force_flush(Duration::from_secs(120)).unwrap();
    }
    // Waits for what runs on threads of the runtime.
    tracer.shutdown(Duration::from_secs(120)).unwrap();
    assert_eq!(destination.delivered(), names("op", 3));
    assert_eq!(tracer.stats().started, 3);
    error!("heard");
    assert_eq!(said(&waiting()).len(), 1);
}

#[test]
fn a_second_subscriber_is_refused() {
    let recorded = Recorded::new();
    let _turn = turn(recorded.tracer);
    let config = BridgeConfig {
        filter: "info".parse().unwrap(),
        events: None,
    };
    let error = bridge::install(recorded.api(), &config).unwrap_err();
    assert!(error.to_string().starts_with("rust_log: "), "{error}");
}
