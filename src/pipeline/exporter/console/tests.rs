use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use prost::Message;

use super::*;
use crate::pipeline::waterfall::tests::{TRACE, remote, request, span};

/// What was printed so far.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Closed;

impl Write for Closed {
    fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
}

fn console() -> (ConsoleExporter, Paper) {
    let paper = Paper::default();
    (
        ConsoleExporter::to(Box::new(paper.clone()), RenderOptions::default()),
        paper,
    )
}

fn export(console: &mut ConsoleExporter, spans: Vec<Span>) -> Option<Outcome> {
    let request = request("shop", spans).encode_to_vec();
    console.export(request.into(), 1).now_or_never()
}

/// The span in another trace.
fn in_trace(number: u16, span: Span) -> Span {
    let [high, low] = number.to_be_bytes();
    let mut trace_id = TRACE;
    (trace_id[0], trace_id[1]) = (high, low);
    Span {
        trace_id: trace_id.to_vec(),
        ..span
    }
}

#[test]
fn a_trace_is_printed_once_its_root_has_ended() {
    let (mut console, paper) = console();
    assert_eq!(
        export(&mut console, vec![span(2, 1, "child", 1, 2)]),
        Some(Outcome::DELIVERED)
    );
    assert_eq!(paper.take(), "");
    export(&mut console, vec![span(1, 0, "root", 0, 3)]);
    let printed = paper.take();
    assert!(
        printed.contains(" · shop · 2 spans · 3.00ms\nroot") && printed.contains("\n└─ child"),
        "{printed}"
    );
    console.flush();
    assert_eq!(
        (
            paper.take().as_str(),
            console.held.len(),
            console.held_spans
        ),
        ("", 0, 0)
    );
}

#[test]
fn a_parent_in_another_process_makes_a_root() {
    let (mut console, paper) = console();
    export(&mut console, vec![remote(span(1, 9, "GET /", 0, 3))]);
    assert!(paper.take().contains("\nGET /"));
}

#[test]
fn a_child_that_outlives_its_root_comes_under_a_header_that_says_so() {
    let (mut console, paper) = console();
    // `step` has ended, its parent `background` has not.
    export(
        &mut console,
        vec![span(3, 2, "step", 1, 2), span(1, 0, "root", 0, 3)],
    );
    let printed = paper.take();
    assert!(
        printed.contains("root") && !printed.contains("step"),
        "{printed}"
    );
    export(&mut console, vec![span(2, 1, "background", 1, 9)]);
    let printed = paper.take();
    assert!(
        printed.contains(" · late arrivals\nbackground") && printed.contains("\n└─ step"),
        "{printed}"
    );
}

#[test]
fn a_second_root_of_the_same_trace_waits_for_nobody_and_is_not_late() {
    let (mut console, paper) = console();
    export(&mut console, vec![remote(span(1, 9, "first", 0, 3))]);
    paper.take();
    export(&mut console, vec![span(3, 2, "part", 4, 5)]);
    assert_eq!(paper.take(), "");
    export(&mut console, vec![remote(span(2, 9, "second", 4, 6))]);
    let printed = paper.take();
    assert!(
        printed.contains("2 spans · 2.00ms\nsecond") && printed.contains("\n└─ part"),
        "{printed}"
    );
}

#[test]
fn flush_prints_what_has_no_root_yet_oldest_first() {
    let (mut console, paper) = console();
    for number in 0..20 {
        export(
            &mut console,
            vec![in_trace(
                number,
                span(2, 1, &format!("child{number:02}"), 1, 2),
            )],
        );
    }
    console.flush();
    let printed = paper.take();
    assert_eq!(printed.matches(" · incomplete\n").count(), 20, "{printed}");
    let order: Vec<_> = (0..20)
        .map(|number| printed.find(&format!("child{number:02}")))
        .collect();
    assert!(order.is_sorted() && order[0].is_some(), "{printed}");
    assert_eq!((console.held.len(), console.held_spans), (0, 0));
}

#[test]
fn memory_is_bounded_and_the_oldest_goes_first() {
    let (mut console, paper) = console();
    for number in 0..600 {
        export(
            &mut console,
            vec![in_trace(
                number,
                span(2, 1, &format!("child{number:03}"), 1, 2),
            )],
        );
    }
    assert_eq!(console.held.len(), MAX_TRACES);
    let printed = paper.take();
    let last = 600 - MAX_TRACES - 1;
    assert!(printed.contains(&format!("child{last:03}")), "{printed}");
    assert!(
        !printed.contains(&format!("child{:03}", last + 1)),
        "{printed}"
    );

    export(
        &mut console,
        vec![span(2, 1, "one of many", 1, 2); MAX_SPANS + 1],
    );
    assert!(console.held_spans <= MAX_SPANS);

    let root = |number: u64| Span {
        span_id: number.to_be_bytes().to_vec(),
        ..span(0, 0, "root", 0, 1)
    };
    export(
        &mut console,
        (0..MAX_PRINTED as u64 + 5).map(root).collect(),
    );
    let printed = &console.printed;
    assert_eq!(
        (printed.known.len(), printed.oldest_first.len()),
        (MAX_PRINTED, MAX_PRINTED)
    );
}

#[test]
fn circles_and_foreign_ids_are_held_and_flushed() {
    let (mut console, paper) = console();
    let mut odd = span(1, 2, "odd", 0, 1);
    (odd.trace_id, odd.span_id, odd.parent_span_id) = (vec![1; 3], vec![2; 100], vec![3; 5]);
    export(
        &mut console,
        vec![span(1, 2, "hen", 0, 1), span(2, 1, "egg", 0, 1), odd],
    );
    assert_eq!(paper.take(), "");
    console.flush();
    let printed = paper.take();
    for name in ["hen", "egg", "odd"] {
        assert_eq!(printed.matches(name).count(), 1, "{name}\n{printed}");
    }
}

#[test]
fn a_closed_output_is_ignored_and_rubbish_is_rejected() {
    let mut console = ConsoleExporter::to(Box::new(Closed), RenderOptions::default());
    assert_eq!(
        export(&mut console, vec![span(1, 0, "root", 0, 1)]),
        Some(Outcome::DELIVERED)
    );
    let outcome = console
        .export(Bytes::from_static(b"\x0a\x7f"), 1)
        .now_or_never();
    assert!(
        matches!(outcome, Some(Outcome::Rejected { .. })),
        "{outcome:?}"
    );
}
