//! A span that layers see: everything that is done to it is passed on, see [`crate::layer`].
//!
//! Nothing here is reached before a layer listens. A span that had begun by then stays unseen.

use std::ops::Range;

use super::{Phase, Span};
use crate::attribute::Value;
use crate::clock::Start;
use crate::id::process_generation;
use crate::layer::{self, Kind, Route};
use crate::wire::span::Finished;

impl Span {
    /// [`Self::begin`], by an owner that calls immediate layers after each thing it does to the span.
    #[inline]
    pub fn begin_attended(&mut self, start: Start) {
        self.begin_by(start, Route::Here);
    }

    /// [`Self::end`], where no layer can be called afterwards.
    pub fn end_unattended(&mut self) {
        if self.phase == Phase::Attended {
            self.phase = Phase::Observed;
        }
        self.end();
    }

    /// Shows a span that has just begun to the layers.
    #[cold]
    pub(super) fn show(&mut self, route: Route) {
        self.phase = match route {
            Route::Here => Phase::Attended,
            Route::Queue => Phase::Observed,
        };
        if self.publish(Kind::NewSpan, 0..self.fields.len(), 0..0, 0) {
            return;
        }
        self.phase = Phase::Started;
        if !self.tracer.exports() {
            // It is recorded for layers alone.
            self.phase = Phase::Ended;
            self.empty();
        }
    }

    #[cold]
    pub(super) fn push_observed(&mut self, key: &str, value: &Value<'_>) {
        self.change(Kind::Record, |span| span.write_attribute(key, value));
    }

    /// Does what adds attributes or events to the span, and shows those to the layers.
    #[cold]
    pub(super) fn change(&mut self, kind: Kind, change: impl FnOnce(&mut Self)) {
        if self.phase == Phase::Ended {
            return;
        }
        let (fields, entries) = (self.fields.len(), self.entries_len());
        let phase = std::mem::replace(&mut self.phase, Phase::Started);
        change(self);
        self.phase = phase;
        let (fields, entries) = (fields..self.fields.len(), entries..self.entries_len());
        // Neither, if it is over a limit.
        if !fields.is_empty() || !entries.is_empty() {
            self.publish(kind, fields, entries, 0);
        }
    }

    /// Shows an event that was written from `start` on, by a thread that calls no layers.
    pub(super) fn show_event(&mut self, start: usize) {
        if matches!(self.phase, Phase::Attended | Phase::Observed) {
            self.phase = Phase::Observed;
            self.publish(Kind::Event, 0..0, start..self.entries_len(), 0);
        }
    }

    #[cold]
    pub(super) fn end_observed(&mut self, end_unix_ns: u64) {
        if self.phase == Phase::Ended {
            return;
        }
        let end_unix_ns = end_unix_ns.max(self.start.unix_ns());
        if self.generation == process_generation() {
            let name = 0..self.name_end as usize;
            self.publish(Kind::Close, name, 0..0, end_unix_ns);
        }
        if self.tracer.exports() {
            self.phase = Phase::Started;
            self.encode(end_unix_ns);
        } else {
            self.phase = Phase::Ended;
            self.empty();
        }
    }

    fn entries_len(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.entries.len())
    }

    /// Passes on what of the span's fields and entries a record tells; whether anybody will see it.
    fn publish(
        &mut self,
        kind: Kind,
        fields: Range<usize>,
        entries: Range<usize>,
        end_unix_ns: u64,
    ) -> bool {
        let mut route = match self.phase {
            Phase::Attended => Route::Here,
            _ => Route::Queue,
        };
        let extra = self.extra.as_deref();
        let told = layer::publish(
            kind,
            &mut route,
            &Finished {
                context: &self.context,
                parent_span_id: self.parent_span_id,
                parent_is_remote: self.parent_is_remote,
                kind: self.kind,
                start_unix_ns: self.start.unix_ns(),
                end_unix_ns,
                fields: &self.fields[fields],
                entries: extra.map_or(&[], |extra| &extra.entries[entries]),
                dropped_attributes: 0,
                dropped_events: 0,
                dropped_links: 0,
                status: self.status,
                status_message: extra.map_or("", |extra| &extra.status_message),
            },
        );
        if route == Route::Queue {
            self.phase = Phase::Observed;
        }
        told
    }
}
