//! One request holds as many spans and bytes as receivers take; one that a destination calls too large goes in halves.

mod exporters;

use exporters::{
    Answer, Attempt, Destination, Gate, WATCHDOG, decoded, end_spans, names, settled, start, tracer,
};
use rvh_trace::attribute::Value;
use rvh_trace::error::Error;
use rvh_trace::pipeline::exporter::Outcome;

fn sizes(destination: &Destination) -> Vec<usize> {
    destination
        .attempts()
        .iter()
        .map(|attempt| attempt.spans)
        .collect()
}

fn too_large() -> Answer {
    Answer::Now(Outcome::TooLarge {
        error: "too large for a test".into(),
    })
}

/// Finds a request too large by this rule, and takes the others.
fn too_large_if(rule: impl Fn(&Attempt) -> bool + Send + Sync + 'static) -> Destination {
    Destination::that(move |attempt| {
        if rule(attempt) {
            too_large()
        } else {
            Answer::Now(Outcome::DELIVERED)
        }
    })
}

#[test]
fn by_the_number_of_spans() {
    let gate = Gate::default();
    let first = gate.clone();
    let destination = Destination::that(move |_| Answer::When(first.clone(), Outcome::DELIVERED));
    let tracer = tracer(&[&destination], |batch| batch.max_export_batch_size = 4);
    let all = names("n", 14);
    end_spans(tracer, &all[..4]);
    destination.wait_for_attempts(1);
    end_spans(tracer, &all[4..]);
    gate.open();
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(sizes(&destination), [4, 4, 4, 2]);
    assert_eq!(destination.delivered(), all);
}

#[test]
fn what_is_less_than_a_batch_waits_for_the_next_one() {
    let gate = Gate::default();
    let first = gate.clone();
    let destination = Destination::that(move |_| Answer::When(first.clone(), Outcome::DELIVERED));
    let tracer = tracer(&[&destination], |batch| batch.max_export_batch_size = 4);
    let all = names("n", 19);
    end_spans(tracer, &all[..4]);
    destination.wait_for_attempts(1);
    end_spans(tracer, &all[4..14]);
    gate.open();
    destination.wait_for_delivered(12);
    // The two that wait and two more are a batch.
    end_spans(tracer, &all[14..16]);
    destination.wait_for_delivered(16);
    end_spans(tracer, &all[16..]);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(sizes(&destination), [4, 4, 4, 4, 3]);
    assert_eq!(destination.delivered(), all);
}

#[test]
fn by_two_mebibytes_and_a_larger_span_goes_alone() {
    let destination = Destination::open();
    let tracer = tracer(&[&destination], |batch| batch.max_queue_bytes = 64 << 20);
    let kilobytes = [700, 700, 700, 3_000, 10, 700, 700];
    for (name, kilobytes) in names("n", 7).iter().zip(kilobytes) {
        let mut span = start(tracer, name);
        span.push_attribute("large", &Value::Str(&"x".repeat(kilobytes * 1000)));
        span.end();
    }
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    // A wake-up may cut the run of spans anywhere; what must not happen is a request over the limit.
    for attempt in destination.attempts() {
        assert!(
            attempt.spans == 1 || attempt.request.len() <= (2 << 20) + 4096,
            "{} bytes",
            attempt.request.len()
        );
    }
    assert!(
        destination
            .attempts()
            .iter()
            .any(|attempt| attempt.spans > 1),
        "small ones go together"
    );
    assert_eq!(destination.delivered(), names("n", 7));
}

#[test]
fn by_a_number_of_bytes_that_was_set() {
    let destination = Destination::open();
    let tracer = tracer(&[&destination], |batch| {
        batch.max_request_bytes = 1_000;
    });
    let all = names("n", 30);
    for name in &all {
        let mut span = start(tracer, name);
        span.push_attribute("text", &Value::Str(&"x".repeat(200)));
        span.end();
    }
    let mut alone = start(tracer, "alone");
    alone.push_attribute("text", &Value::Str(&"x".repeat(5_000)));
    alone.end();
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let attempts = destination.attempts();
    let (last, others) = attempts.split_last().unwrap_or_else(|| unreachable!());
    assert_eq!(last.names(), ["alone"]);
    for attempt in others {
        // The resource comes on top.
        let spans = decoded(&attempt.request);
        assert!(spans.iter().map(prost::Message::encoded_len).sum::<usize>() <= 1_000);
    }
    assert!(others.len() < 30, "small ones go together");
    assert_eq!(settled(tracer), [31, 0, 0, 0, 0]);
}

#[test]
fn in_halves_while_they_are_too_large() {
    let destination = too_large_if(|attempt| attempt.spans > 3);
    let tracer = tracer(&[&destination], |_| {});
    let all = names("n", 11);
    end_spans(tracer, &all);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(sizes(&destination), [11, 5, 2, 3, 6, 3, 3]);
    assert_eq!(
        destination.delivered(),
        all,
        "in the order in which they ended"
    );
    assert_eq!(settled(tracer), [11, 0, 0, 0, 0]);
    assert_eq!(tracer.stats().retries, 0, "a half is another request");
}

#[test]
fn down_to_the_one_span_that_is_too_large_alone() {
    let destination = too_large_if(|attempt| attempt.names().contains(&"n5".to_owned()));
    let tracer = tracer(&[&destination], |_| {});
    let mut all = names("n", 8);
    end_spans(tracer, &all);
    let flushed = tracer.force_flush(WATCHDOG);
    assert_eq!(
        flushed,
        Err(Error::Export(
            "1 spans were lost: too large for a test".into()
        ))
    );
    all.remove(5);
    assert_eq!(destination.delivered(), all);
    assert_eq!(settled(tracer), [7, 0, 1, 0, 0]);
}

#[test]
fn only_for_the_destination_that_asked() {
    let (small, large) = (
        too_large_if(|attempt| attempt.spans > 1),
        Destination::open(),
    );
    let tracer = tracer(&[&small, &large], |_| {});
    let all = names("n", 4);
    end_spans(tracer, &all);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(small.delivered(), all);
    assert_eq!(large.delivered(), all, "each span once");
    assert_eq!(settled(tracer), [4, 0, 0, 0, 0]);
}
