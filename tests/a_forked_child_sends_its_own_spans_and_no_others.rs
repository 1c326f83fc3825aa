//! `fork` copies a process with one thread: the child has the parent's queue and half-done spans, and no worker.
//!
//! What was queued or alive is the parent's to send. The child sends its own spans, with ids and a resource of its own.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod exporters;

use std::io::{PipeWriter, Read, Write, pipe};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use exporters::{Answer, Destination, Gate, WATCHDOG, end_spans, settled, start, tracer};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use rvh_trace::id::{TraceId, enter_forked_child};
use rvh_trace::pipeline::exporter::{Outcome, memory};
use rvh_trace::span::Span;
use rvh_trace::tracer::Tracer;

const SUCCESS: i32 = 0;

/// What the child does; gives what it exported to the parent.
fn child(
    tracer: &'static Tracer,
    mut inherited: Span,
    destination: &Destination,
    mut to_parent: &PipeWriter,
) {
    enter_forked_child();
    // The next of the parent's sequence, unless it was reseeded.
    let next_id = TraceId::random();
    tracer.after_fork_in_child();
    let before = destination.attempts().len();
    inherited.end();
    assert_eq!(settled(tracer), [0; 5], "the counters start at zero");
    end_spans(tracer, ["of the child"]);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(settled(tracer), [1, 0, 0, 0, 0]);
    let attempts = destination.attempts().split_off(before);
    assert_eq!(attempts.len(), 1);
    to_parent.write_all(&next_id.to_bytes()).unwrap();
    to_parent.write_all(&attempts[0].request).unwrap();
    assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
}

/// Forks. In the child, runs `child` and never comes back; in the parent, gives the child's process id.
#[expect(
    unsafe_code,
    reason = "fork, and an exit that runs nothing of the parent's"
)]
fn fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child uses what a child of a threaded process may: memory of its own, glibc's allocator (usable after
    // fork), and locks that no other thread held, because the only other threads wait.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    if pid == 0 {
        let code = if catch_unwind(AssertUnwindSafe(child)).is_ok() {
            SUCCESS
        } else {
            1
        };
        // SAFETY: ends this process, without the exit handlers of the parent's test harness.
        unsafe { libc::_exit(code) };
    }
    pid
}

#[expect(unsafe_code, reason = "waitpid")]
fn exit_code(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is valid for writes, and `pid` is our own child, waited for once.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "the child was killed: {status}");
    libc::WEXITSTATUS(status)
}

fn resource_spans(request: &[u8]) -> ResourceSpans {
    let mut decoded = memory::decode(request).unwrap();
    assert_eq!(decoded.resource_spans.len(), 1);
    decoded.resource_spans.remove(0)
}

fn resource_attribute(resource_spans: &ResourceSpans, key: &str) -> any_value::Value {
    let is_it = |attribute: &&KeyValue| attribute.key == key;
    let resource = resource_spans.resource.as_ref().unwrap();
    let attribute = resource.attributes.iter().find(is_it).unwrap();
    attribute.value.clone().unwrap().value.unwrap()
}

#[test]
fn a_forked_child_sends_its_own_spans_and_no_others() {
    let gate = Gate::default();
    let parents = gate.clone();
    let destination = Destination::that(move |attempt| match attempt.names()[0].as_str() {
        "of the child" => Answer::Now(Outcome::DELIVERED),
        _ => Answer::When(parents.clone(), Outcome::DELIVERED),
    });
    let tracer = tracer(&[&destination], |batch| {
        batch.export_timeout = Duration::from_secs(3600);
    });

    // One span on its way, one queued, one alive.
    end_spans(tracer, ["on its way"]);
    assert!(tracer.force_flush(Duration::ZERO).is_err());
    destination.wait_for_attempts(1);
    end_spans(tracer, ["queued"]);
    let alive = start(tracer, "alive");
    let mut alive_in_parent = Some(alive);

    let (mut from_child, to_parent) = pipe().unwrap();
    let pid = fork(|| {
        child(
            tracer,
            alive_in_parent.take().unwrap(),
            &destination,
            &to_parent,
        );
    });
    let next_id = TraceId::random();
    drop(to_parent);
    let mut sent = Vec::new();
    from_child.read_to_end(&mut sent).unwrap();
    assert_eq!(exit_code(pid), SUCCESS, "the child failed, see above");

    let (childs_next_id, request) = sent.split_first_chunk::<16>().unwrap();
    assert_ne!(*childs_next_id, next_id.to_bytes(), "both drew the same id");
    let of_child = resource_spans(request);
    let names: Vec<_> = of_child
        .scope_spans
        .iter()
        .flat_map(|scope| &scope.spans)
        .map(|span| &span.name)
        .collect();
    assert_eq!(names, ["of the child"]);

    alive_in_parent.unwrap().end();
    gate.open();
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(destination.delivered(), ["on its way", "queued", "alive"]);
    assert_eq!(settled(tracer), [3, 0, 0, 0, 0]);

    let of_parent = resource_spans(&destination.attempts()[0].request);
    assert_eq!(
        resource_attribute(&of_child, "process.pid"),
        any_value::Value::IntValue(pid.into())
    );
    assert_eq!(
        resource_attribute(&of_parent, "process.pid"),
        any_value::Value::IntValue(std::process::id().into())
    );
    assert_ne!(
        resource_attribute(&of_child, "service.instance.id"),
        resource_attribute(&of_parent, "service.instance.id")
    );
    assert_eq!(
        resource_attribute(&of_child, "service.name"),
        resource_attribute(&of_parent, "service.name")
    );
}
