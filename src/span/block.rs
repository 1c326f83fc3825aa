//! Events about a block of the event loop that is not over: they stand on the span as soon as the block is found, and say
//! how long it lasted when it is known.

use super::Span;
use crate::attribute::Value;
use crate::event_loop::Block;
use crate::wire::span::put_event_with_numbers;

/// The event, and the span that stands for it where no span is recorded.
pub const LOOP_BLOCKED: &str = "rvh_trace.loop.blocked";
/// How long the loop was blocked, in seconds.
pub const BLOCKED_TIME: &str = "rvh_trace.loop.blocked_time";
/// Which share of that garbage collections took.
pub const GC_SHARE: &str = "rvh_trace.loop.gc_share";

/// Where in the entries of a span the numbers of a block stand.
#[derive(Debug, Clone)]
pub(super) struct OpenBlock {
    event: u32,
    block: Block,
    numbers: [usize; 2],
}

impl OpenBlock {
    pub(super) fn write(&self, entries: &mut [u8]) {
        let (seconds, share) = self.block.measure();
        for (at, number) in self.numbers.into_iter().zip([seconds, share]) {
            entries[at..at + 8].copy_from_slice(&number.to_bits().to_le_bytes());
        }
    }
}

impl Span {
    /// Adds the event of a block that is not over. How long it lasted is measured when [`Self::end_block`] is called or the
    /// span ends, whichever comes first. Gives what [`Self::end_block`] takes.
    pub fn begin_block(&mut self, block: Block, attributes: &[(&str, Value<'_>)]) -> Option<u32> {
        if !self.is_recording() {
            return None;
        }
        // Not before the span itself, whatever the loop was busy with when the beat was due.
        let since_unix_ns = self.start.later_unix_ns().saturating_sub(block.lasted_ns());
        let unix_ns = since_unix_ns.max(self.start.unix_ns());
        let limits = self.tracer.limits();
        let extra = self.extra.get_or_insert_default();
        if extra.events >= limits.events {
            extra.dropped_events += 1;
            return None;
        }
        extra.events += 1;
        let entries = extra.entries.len();
        let numbers = put_event_with_numbers(
            &mut extra.entries,
            LOOP_BLOCKED,
            unix_ns,
            [BLOCKED_TIME, GC_SHARE],
            attributes,
            limits,
        )?;
        let open = OpenBlock {
            event: extra.events,
            block,
            numbers,
        };
        open.write(&mut extra.entries);
        extra.blocks.push(open);
        let event = extra.events;
        self.show_event(entries);
        Some(event)
    }

    /// The block is over.
    pub fn end_block(&mut self, event: u32) {
        let Some(extra) = &mut self.extra else { return };
        if let Some(index) = extra.blocks.iter().position(|open| open.event == event) {
            extra.blocks.remove(index).write(&mut extra.entries);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::Arc;
    use std::time::Duration;

    use opentelemetry_proto::tonic::trace::v1::{Span as OtlpSpan, span::Event};

    use super::*;
    use crate::config::{Arguments, Config};
    use crate::event_loop::Heart;
    use crate::pipeline::exporter::memory::{MemoryExporter, decode};
    use crate::span::SpanKind;
    use crate::tracer::{Started, Tracer};

    const WATCHDOG: Duration = Duration::from_secs(20);

    /// The span that arrives of what `record` makes of one.
    fn exported(arguments: &Arguments, record: impl FnOnce(&mut Span)) -> OtlpSpan {
        let (config, _) = Config::load(arguments, &|_| None).unwrap();
        let memory = MemoryExporter::default();
        let given = memory.clone();
        let tracer =
            Tracer::with_exporters(config, Arc::new(move || vec![Box::new(given.clone())]));
        let Started::Recording(mut span) = tracer.start(None, SpanKind::Internal, "op") else {
            unreachable!("everything is sampled")
        };
        record(&mut span);
        span.end();
        tracer.force_flush(WATCHDOG).unwrap();
        let request = decode(&memory.take().remove(0)).unwrap();
        request.resource_spans[0].scope_spans[0].spans[0].clone()
    }

    /// A block that has begun.
    fn block() -> Block {
        let heart = Heart::new(Duration::from_millis(1));
        heart.beat();
        heart.block(crate::clock::monotonic_ns() - 5_000_000_000)
    }

    fn number(event: &Event, key: &str) -> f64 {
        use opentelemetry_proto::tonic::common::v1::any_value::Value::DoubleValue;

        let pair = event
            .attributes
            .iter()
            .find(|pair| pair.key == key)
            .unwrap();
        match pair.value.clone().unwrap().value {
            Some(DoubleValue(number)) => number,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn a_block_is_measured_when_it_ends_or_its_span_does() {
        let long = "x".repeat(300);
        let attributes = [("code.stacktrace", Value::Str(&long))];
        for ends in [true, false] {
            let span = exported(&Arguments::default(), |span| {
                span.add_event("before", 1, &attributes);
                let first = span.begin_block(block(), &attributes).unwrap();
                let second = span.begin_block(block(), &[]).unwrap();
                span.add_event("between", 2, &[]);
                if ends {
                    span.end_block(second);
                    span.end_block(first);
                    span.end_block(first);
                }
            });
            let names: Vec<_> = span.events.iter().map(|event| &event.name[..]).collect();
            assert_eq!(names, ["before", LOOP_BLOCKED, LOOP_BLOCKED, "between"]);
            for event in &span.events[1..3] {
                assert!(number(event, BLOCKED_TIME) >= 5.0);
                assert!((0.0..=1.0).contains(&number(event, GC_SHARE)));
                // The block began before the span.
                assert_eq!(event.time_unix_nano, span.start_time_unix_nano);
            }
            assert_eq!(span.events[1].attributes.len(), 3);
        }
    }

    #[test]
    fn limits_hold_and_an_event_without_its_numbers_is_left_as_it_is() {
        let few = Arguments {
            event_attribute_count_limit: Some(1),
            event_count_limit: Some(1),
            ..Arguments::default()
        };
        let span = exported(&few, |span| {
            assert!(span.begin_block(block(), &[("a", Value::Int(1))]).is_none());
            assert!(span.begin_block(block(), &[]).is_none());
        });
        let [event] = &span.events[..] else {
            unreachable!("{:?}", span.events)
        };
        assert_eq!(
            (event.attributes.len(), event.dropped_attributes_count),
            (1, 2)
        );
        assert_eq!(span.dropped_events_count, 1);
        let mut ended = None;
        exported(&Arguments::default(), |span| {
            span.end();
            ended = span.begin_block(block(), &[]);
            span.end_block(1);
        });
        assert!(ended.is_none());
    }
}
