//! Functions under `#[instrument]`: whose children their spans are, and what is recorded of them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod recorded;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join;
use opentelemetry::trace::TraceContextExt as _;
use recorded::{Recorded, attributes};
use rvh_trace::bridge::{self, WithContext};
use rvh_trace::config::Arguments;
use rvh_trace::context::{SpanContext, TraceFlags};
use rvh_trace::id::{SpanId, TraceId};
use tracing::{Instrument, error, field, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt;

#[instrument]
fn grandparent(order: u64) {
    parent("a cart");
}

#[instrument(fields(paid = true))]
fn parent(cart: &str) {
    child();
}

#[instrument(skip_all)]
fn child() {}

/// A span elsewhere: in Python, or in another process.
fn elsewhere(sampled: bool) -> SpanContext {
    SpanContext {
        trace_id: TraceId::random(),
        span_id: SpanId::random(),
        flags: TraceFlags::RANDOM.with_sampled(sampled),
        ..SpanContext::INVALID
    }
}

fn in_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

#[test]
fn three_levels_are_one_tree() {
    let spans = Recorded::new().spans(|| grandparent(7));
    assert_eq!(spans.names(), ["child", "parent", "grandparent"]);
    let expected = [
        ("grandparent", ""),
        ("parent", "grandparent"),
        ("child", "parent"),
    ];
    assert_eq!(spans.parents(), BTreeMap::from(expected));
    let (outer, inner) = (spans.one("grandparent"), spans.one("child"));
    assert_eq!(outer.trace_id, inner.trace_id);
    assert!(outer.parent_span_id.is_empty());
    assert!(outer.start_time_unix_nano <= inner.start_time_unix_nano);
    assert!(inner.start_time_unix_nano <= inner.end_time_unix_nano);
    assert!(inner.end_time_unix_nano <= outer.end_time_unix_nano);
    let target = format!("{:?}", module_path!());
    let expected = [
        ("target", target.clone()),
        ("cart", "\"a cart\"".into()),
        ("paid", "true".into()),
    ];
    assert_eq!(
        attributes(&spans.one("parent").attributes),
        BTreeMap::from(expected)
    );
    // tracing-opentelemetry writes unsigned numbers as text, signed ones as numbers.
    let expected = [("target", target), ("order", "\"7\"".into())];
    assert_eq!(attributes(&outer.attributes), BTreeMap::from(expected));
}

#[test]
fn futures_that_take_turns_have_children_of_their_own() {
    #[instrument]
    async fn first() {
        tokio::task::yield_now().await;
        tokio::task::yield_now()
            .instrument(info_span!("of first"))
            .await;
    }
    #[instrument]
    async fn second() {
        tokio::task::yield_now()
            .instrument(info_span!("of second"))
            .await;
        tokio::task::yield_now().await;
    }
    #[instrument]
    async fn both() {
        join(first(), second()).await;
    }
    let spans = Recorded::new().spans(|| in_runtime(both()));
    let expected = [
        ("both", ""),
        ("first", "both"),
        ("second", "both"),
        ("of first", "first"),
        ("of second", "second"),
    ];
    assert_eq!(spans.parents(), BTreeMap::from(expected));
}

#[test]
fn a_spawned_task_is_a_child_when_the_context_goes_with_it() {
    let recorded = Recorded::new();
    let spans = recorded.spans(|| {
        in_runtime(async {
            let spawning = info_span!("spawning").entered();
            let with = WithContext::current(async { info_span!("with").in_scope(|| ()) });
            let without = async { info_span!("without").in_scope(|| ()) };
            let (with, without) = (tokio::spawn(with), tokio::spawn(without));
            drop(spawning);
            with.await.unwrap();
            without.await.unwrap();
        });
    });
    let expected = [("spawning", ""), ("with", "spawning"), ("without", "")];
    assert_eq!(spans.parents(), BTreeMap::from(expected));
}

#[test]
fn a_blocking_thread_is_a_child_when_the_context_goes_with_it() {
    let spans = Recorded::new().spans(|| {
        in_runtime(async {
            let _spawning = info_span!("spawning").entered();
            let context = bridge::context::current();
            let dispatch = tracing::dispatcher::get_default(Clone::clone);
            let blocking = tokio::task::spawn_blocking(move || {
                let _attached = bridge::attach(&context);
                tracing::dispatcher::with_default(&dispatch, child);
            });
            blocking.await.unwrap();
        });
    });
    assert_eq!(spans.parents()["child"], "spawning");
}

#[test]
fn what_is_attached_is_the_parent() {
    let parent = elsewhere(true);
    let spans = Recorded::new().spans(|| {
        let _attached = bridge::attach(&parent);
        grandparent(7);
    });
    let outer = spans.one("grandparent");
    assert_eq!(outer.trace_id, parent.trace_id.to_bytes());
    assert_eq!(outer.parent_span_id, parent.span_id.to_bytes());
    assert_eq!(
        outer.flags, 0x103,
        "sampled, random, known not to be remote"
    );
    assert_eq!(spans.parents()["child"], "parent");
}

#[test]
fn a_future_is_below_its_span_at_every_poll_and_when_it_is_dropped() {
    struct SpanOnDrop;
    impl Drop for SpanOnDrop {
        fn drop(&mut self) {
            info_span!("dropped").in_scope(|| ());
        }
    }
    let (parent, around) = (elsewhere(true), elsewhere(true));
    let spans = Recorded::new().spans(|| {
        let future = async {
            let _on_drop = SpanOnDrop;
            info_span!("first").in_scope(|| ());
            tokio::task::yield_now().await;
            info_span!("second").in_scope(|| ());
            std::future::pending::<()>().await;
        };
        let mut future = Box::pin(WithContext::child_of(&parent, future));
        let _attached = bridge::attach(&around);
        in_runtime(async {
            for _ in 0..2 {
                assert!(futures::poll!(&mut future).is_pending());
            }
        });
        drop(future);
        info_span!("around").in_scope(|| ());
    });
    assert_eq!(spans.names(), ["first", "second", "dropped", "around"]);
    for name in ["first", "second", "dropped"] {
        assert_eq!(
            spans.one(name).parent_span_id,
            parent.span_id.to_bytes(),
            "{name}"
        );
    }
    let around_id = around.span_id.to_bytes();
    assert_eq!(spans.one("around").parent_span_id, around_id);
}

#[test]
fn below_a_span_that_is_not_sampled_nothing_is_recorded() {
    let recorded = Recorded::new();
    let parent = elsewhere(false);
    let spans = recorded.spans(|| {
        let _attached = bridge::attach(&parent);
        let outer = info_span!("outer").entered();
        let seen = outer.context().span().span_context().clone();
        assert_eq!(bridge::context::from_api(&seen), parent);
        child();
    });
    assert_eq!(spans.names(), [""; 0]);
    assert_eq!(
        (recorded.stats().started, recorded.stats().not_sampled),
        (0, 2)
    );
}

#[test]
fn the_sampler_is_ours() {
    let recorded = Recorded::with(&Arguments {
        sampler: Some("always_off".into()),
        ..Arguments::default()
    });
    let spans = recorded.spans(|| {
        let _attached = bridge::attach(&elsewhere(true));
        let outer = info_span!("outer").entered();
        let seen = outer.context().span().span_context().clone();
        assert!(seen.is_valid() && !seen.is_sampled());
    });
    assert_eq!(spans.names(), [""; 0]);
    assert_eq!(recorded.stats().not_sampled, 1);
}

#[test]
fn an_error_that_is_returned_is_the_status_of_its_span() {
    #[instrument(err)]
    fn fails() -> Result<(), String> {
        Err("no such item".into())
    }
    let spans = Recorded::new().spans(|| {
        let _outer = info_span!("outer").entered();
        assert!(fails().is_err());
    });
    let span = spans.one("fails");
    let status = span.status.as_ref().unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "no such item"));
    assert_eq!(span.events[0].name, "exception");
    let exception = attributes(&span.events[0].attributes);
    assert_eq!(exception["exception.message"], "\"no such item\"");
    assert_eq!(spans.one("outer").status, None);
}

#[test]
fn an_error_event_makes_the_span_an_error() {
    let spans = Recorded::new().spans(|| {
        info_span!("op").in_scope(|| error!("cannot ship"));
    });
    assert_eq!(spans.one("op").status.as_ref().unwrap().code, 2);
}

#[test]
fn a_parent_can_be_set_later_with_its_trace_state() {
    let state = "vendor=1,other=two";
    let parent = {
        let mut context = elsewhere(true);
        context.is_remote = true;
        let api = bridge::context::to_api(&context);
        opentelemetry::trace::SpanContext::new(
            api.trace_id(),
            api.span_id(),
            api.trace_flags(),
            true,
            state.parse().unwrap(),
        )
    };
    let spans = Recorded::new().spans(|| {
        let span = info_span!("server");
        let context = opentelemetry::Context::new().with_remote_span_context(parent.clone());
        span.set_parent(context).unwrap();
        span.in_scope(child);
    });
    let server = spans.one("server");
    assert_eq!(server.trace_id, parent.trace_id().to_bytes());
    assert_eq!(server.parent_span_id, parent.span_id().to_bytes());
    assert_eq!((server.trace_state.as_str(), server.flags), (state, 0x303));
    assert_eq!(spans.one("child").trace_state, state);
    assert_eq!(spans.parents()["child"], "server");
}

#[test]
fn links_are_added_from_outside_and_by_following() {
    let linked = elsewhere(true);
    let spans = Recorded::new().spans(|| {
        let first = info_span!("first");
        let second = info_span!("second");
        second.add_link(bridge::context::to_api(&linked));
        second.follows_from(&first);
        second.in_scope(|| second.add_link(bridge::context::to_api(&linked)));
        first.in_scope(|| ());
    });
    let links: Vec<_> = spans
        .one("second")
        .links
        .iter()
        .map(|link| &link.span_id)
        .collect();
    let linked = linked.span_id.to_bytes().to_vec();
    assert_eq!(links, [&linked, &spans.one("first").span_id, &linked]);
}

#[test]
fn what_is_recorded_late_counts_and_replaces() {
    let spans = Recorded::new().spans(|| {
        let span = info_span!(
            "op",
            rows = field::Empty,
            state = "new",
            text = field::Empty
        );
        span.record("rows", 1);
        let entered = span.enter();
        span.record("rows", 2.5);
        span.record("state", "done");
        span.record("text", field::debug(Some("x")));
        span.set_attribute("late", true);
        drop(entered);
    });
    let recorded = attributes(&spans.one("op").attributes);
    let expected = [
        ("rows", "2.5"),
        ("state", "\"done\""),
        ("text", "\"Some(\\\"x\\\")\""),
        ("late", "true"),
    ];
    for (key, value) in expected {
        assert_eq!(recorded[key], value, "{key}");
    }
    assert_eq!(recorded.len(), expected.len() + 1, "{recorded:?}");
}

#[test]
fn special_fields_are_name_kind_and_status() {
    let spans = Recorded::new().spans(|| {
        let span = info_span!(
            "op",
            otel.name = "GET /items",
            otel.kind = "client",
            otel.status_code = field::Empty,
            otel.status_description = field::Empty,
        );
        let _entered = span.enter();
        span.record("otel.status_description", "too late");
    });
    let span = spans.one("GET /items");
    let status = span.status.clone().unwrap();
    assert_eq!((span.kind, status.code), (3, 2));
    assert_eq!(status.message, "too late");
    assert_eq!(attributes(&span.attributes).len(), 1);
}

#[test]
fn the_limits_are_ours() {
    let recorded = Recorded::with(&Arguments {
        attribute_count_limit: Some(2),
        attribute_value_length_limit: Some(3),
        event_count_limit: Some(1),
        ..Arguments::default()
    });
    let spans = recorded.spans(|| {
        let span = info_span!("op", text = "longer", more = 1, most = 2);
        span.in_scope(|| {
            error!("first");
            error!("second");
        });
    });
    let span = spans.one("op");
    assert_eq!(attributes(&span.attributes)["text"], "\"lon\"");
    assert_eq!(
        (span.attributes.len(), span.dropped_attributes_count),
        (2, 2)
    );
    assert_eq!((span.events.len(), span.dropped_events_count), (1, 1));
}

#[test]
fn a_span_may_end_on_another_thread() {
    let recorded = Recorded::new();
    let spans = recorded.spans(|| {
        let span = info_span!("op");
        span.in_scope(child);
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let thread = std::thread::spawn(move || {
            tracing::dispatcher::with_default(&dispatch, || span.in_scope(|| ()));
        });
        thread.join().unwrap();
    });
    assert_eq!(spans.names(), ["child", "op"]);
    assert_eq!(spans.parents()["child"], "op");
}

#[test]
fn without_a_tracer_spans_record_nothing_and_pass_their_parent_on() {
    let parent = elsewhere(true);
    let tracer = bridge::Tracer::following(|| None);
    let subscriber = tracing_subscriber::layer::SubscriberExt::with(
        tracing_subscriber::registry(),
        bridge::layer(tracer),
    );
    tracing::subscriber::with_default(subscriber, || {
        let _attached = bridge::attach(&parent);
        info_span!("op").in_scope(|| {
            assert_eq!(bridge::context::current(), parent);
        });
    });
}

#[test]
fn a_suppressed_thread_and_a_suppressed_scope_have_no_spans() {
    let recorded = Recorded::new();
    let spans = recorded.spans(|| {
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let thread = std::thread::spawn(move || {
            tracing::dispatcher::with_default(&dispatch, || {
                bridge::suppress_thread();
                grandparent(7);
            });
        });
        thread.join().unwrap();
        let suppressed = opentelemetry::Context::enter_telemetry_suppressed_scope();
        grandparent(7);
        drop(suppressed);
        child();
    });
    assert_eq!(spans.names(), ["child"]);
}

#[test]
fn the_global_tracer_provider_of_opentelemetry_is_left_alone() {
    use opentelemetry::trace::{Span as _, Tracer as _};
    let recorded = Recorded::new();
    let spans = recorded.spans(|| {
        let mut span = opentelemetry::global::tracer("somebody").start("theirs");
        assert!(!span.is_recording());
        span.end();
    });
    assert_eq!(spans.names(), [""; 0]);
}

#[test]
fn a_span_that_lasts_ends_when_it_was_left_last() {
    let recorded = Recorded::new();
    let mut left = 0;
    let spans = recorded.spans(|| {
        let span = info_span!("op");
        span.in_scope(|| ());
        left = unix_ns();
        while unix_ns() <= left + Duration::from_millis(2).as_nanos() as u64 {
            std::thread::yield_now();
        }
        drop(span);
    });
    assert!(spans.one("op").end_time_unix_nano <= left);
}

fn unix_ns() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    since.as_nanos() as u64
}
