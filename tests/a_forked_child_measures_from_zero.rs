//! `fork` copies what the parent has measured. The parent exports it; the child starts at zero, with a time of its own.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod collector;

use std::panic::{AssertUnwindSafe, catch_unwind};

use collector::{Collector, GET, METRICS, WATCHDOG, instruments, only_duration, took, tracer};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use rvh_trace::id::enter_forked_child;
use rvh_trace::pipeline::exporter::memory;

/// Runs `child` in a forked child; gives its process id and exit code.
#[expect(
    unsafe_code,
    reason = "fork, waitpid and an exit that runs nothing of the parent's"
)]
fn in_child(child: impl FnOnce()) -> (libc::pid_t, i32) {
    // SAFETY: the child uses what a child of a threaded process may: memory of its own, glibc's allocator (usable after
    // fork), and locks that no other thread held, because the only other threads wait.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    if pid == 0 {
        let failed = catch_unwind(AssertUnwindSafe(child)).is_err();
        // SAFETY: ends this process, without the exit handlers of the parent's test harness.
        unsafe { libc::_exit(i32::from(failed)) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writes, and `pid` is our own child, waited for once.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "the child was killed: {status}");
    (pid, libc::WEXITSTATUS(status))
}

fn process_id(body: &[u8]) -> Option<Value> {
    let request = memory::decode_metrics(body).unwrap();
    let resource = request.resource_metrics[0].resource.clone().unwrap();
    let mut attributes = resource.attributes.into_iter();
    let pid = attributes.find(|attribute| attribute.key == "process.pid");
    pid.unwrap().value.unwrap().value
}

#[test]
fn a_forked_child_measures_from_zero() {
    let collector = Collector::open();
    let tracer = tracer(&collector);
    for _ in 0..5 {
        instruments(tracer).record(&GET, &took(1));
    }
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let of_parent = only_duration(&collector.last_metrics()).clone();

    let (pid, code) = in_child(|| {
        enter_forked_child();
        tracer.after_fork_in_child();
        assert_eq!(tracer.stats().metric_exports, 0);
        // Nothing was measured here.
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
        instruments(tracer).record(&GET, &took(2));
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
        assert_eq!(tracer.stats().metric_exports, 1);
        assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
    });
    assert_eq!(code, 0, "the child failed, see above");
    let bodies = collector.bodies(METRICS);
    // The parent's, and the child's flush and shutdown.
    assert_eq!(bodies.len(), 3);
    let metrics = collector::metrics(&bodies[1]);
    let of_child = only_duration(&metrics);
    assert_eq!((of_child.count, of_child.sum), (1, Some(2e-9)));
    assert!(of_child.start_time_unix_nano > of_parent.time_unix_nano);
    assert_eq!(process_id(&bodies[1]), Some(Value::IntValue(pid.into())));

    instruments(tracer).record(&GET, &took(1));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let metrics = collector.last_metrics();
    assert_eq!(only_duration(&metrics).count, 6);
    assert_eq!(
        only_duration(&metrics).start_time_unix_nano,
        of_parent.start_time_unix_nano
    );
}
