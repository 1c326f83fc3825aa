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
        Some(extra.events)
    }

    /// The block is over.
    pub fn end_block(&mut self, event: u32) {
        let Some(extra) = &mut self.extra else { return };
        if let Some(index) = extra.blocks.iter().position(|open| open.event == event) {
            extra.blocks.remove(index).write(&mut extra.entries);
        }
    }
}
