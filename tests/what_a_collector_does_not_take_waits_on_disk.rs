//! With a spool directory, what cannot be delivered is on disk until it can be, and is delivered once.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod exporters;
mod spool;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use exporters::{
    Answer, Destination, WATCHDOG, balanced, end_spans, in_time, names, settled, start, wait_until,
};
use rvh_trace::attribute::Value;
use rvh_trace::pipeline::exporter::Outcome;
use rvh_trace::pipeline::spool::frame;
use spool::{Collector, Directory, end, unreachable_collector};

#[test]
fn until_the_collector_is_back() {
    let (directory, collector) = (Directory::new(), Collector::down());
    let destination = collector.destination();
    let tracer = directory.tracer(&[&destination], |_, _| {});
    end_spans(tracer, names("n", 3));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()), "on disk is not lost");
    let stats = balanced(tracer);
    assert_eq!((stats.spooled, stats.exported, stats.pending()), (3, 0, 0));
    assert!(stats.spooled_bytes > 0);
    assert_eq!(stats.last_error.as_deref(), Some("connection refused"));
    assert_eq!(directory.segments().len(), 1);

    collector.come_back();
    end_spans(tracer, names("later", 2));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let mut delivered = destination.delivered();
    delivered.sort();
    assert_eq!(delivered, ["later0", "later1", "n0", "n1", "n2"]);
    assert_eq!(settled(tracer), [5, 0, 0, 0, 0]);
    let stats = tracer.stats();
    assert_eq!(
        (stats.spooled, stats.spooled_bytes, stats.recovered),
        (0, 0, 0)
    );
    assert!(directory.segments().is_empty());
    end(tracer);
    assert!(directory.files().is_empty(), "a clean end leaves nothing");
}

#[test]
fn it_is_sent_without_anybody_asking() {
    let (directory, collector) = (Directory::new(), Collector::down());
    let destination = collector.destination();
    let tracer = directory.tracer(&[&destination], |batch, _| batch.max_export_batch_size = 4);
    end_spans(tracer, names("n", 4));
    wait_until("the spool", || tracer.stats().spooled == 4);
    collector.come_back();
    destination.wait_for_delivered(4);
    wait_until("the count", || tracer.stats().exported == 4);
    assert_eq!(settled(tracer), [4, 0, 0, 0, 0]);
}

#[test]
fn a_collector_that_is_down_is_not_asked_for_every_request() {
    let (directory, collector) = (Directory::new(), Collector::down());
    let destination = collector.destination();
    let tracer = directory.tracer(&[&destination], |batch, _| batch.max_export_batch_size = 1);
    end_spans(tracer, names("n", 500));
    wait_until("the spool", || tracer.stats().spooled == 500);
    assert!(
        destination.attempts().len() < 100,
        "{}",
        destination.attempts().len()
    );
    assert_eq!(balanced(tracer).dropped(), 0);
}

#[test]
fn a_later_process_sends_it_oldest_first() {
    let (directory, collector) = (Directory::new(), Collector::down());
    for round in 0..3 {
        let down = collector.destination();
        let tracer = directory.tracer(&[&down], |batch, _| batch.max_export_batch_size = 2);
        for number in 0..4 {
            end_spans(tracer, names(&format!("{round}.{number}."), 2));
            assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
        }
        end(tracer);
        assert_eq!(tracer.stats().dropped(), 0);
    }
    let destination = Destination::open();
    let tracer = directory.tracer(&[&destination], |_, _| {});
    end_spans(tracer, ["new"]);
    destination.wait_for_delivered(24);
    let mut delivered = destination.delivered();
    delivered.retain(|name| name != "new");
    let expected: Vec<_> = (0..3)
        .flat_map(|round| (0..4).map(move |number| (round, number)))
        .flat_map(|(round, number)| names(&format!("{round}.{number}."), 2))
        .collect();
    assert_eq!(delivered, expected);
    wait_until("the count", || tracer.stats().recovered == 24);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(
        settled(tracer),
        [1, 0, 0, 0, 0],
        "the others are no spans of this process"
    );
    end(tracer);
    assert!(directory.files().is_empty());
}

#[test]
fn a_shutdown_writes_what_it_has_no_time_to_send() {
    let directory = Directory::new();
    let destination = Destination::that(|_| Answer::Never);
    let tracer = directory.tracer(&[&destination], |batch, _| batch.max_export_batch_size = 2);
    end_spans(tracer, names("n", 2));
    destination.wait_for_attempts(1);
    end_spans(tracer, names("queued", 5));
    let ended = in_time("shutdown", || tracer.shutdown(Duration::from_secs(2)));
    assert_eq!(ended, Ok(()));
    assert_eq!(settled(tracer), [0; 5]);
    assert_eq!(tracer.stats().spooled, 7);

    wait_until("the end of the worker", || !tracer.stats().worker_alive);
    let destination = Destination::open();
    let tracer = directory.tracer(&[&destination], |_, _| {});
    end_spans(tracer, ["new"]);
    destination.wait_for_delivered(7);
}

#[test]
fn nothing_is_lost_while_a_collector_hangs_and_the_queue_fills() {
    let directory = Directory::new();
    let hangs = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&hangs);
    let destination = Destination::that(move |_| {
        if still.load(Ordering::SeqCst) {
            Answer::Never
        } else {
            Answer::Now(Outcome::DELIVERED)
        }
    });
    let tracer = directory.tracer(&[&destination], |batch, _| {
        batch.max_export_batch_size = 10;
        batch.max_queue_spans = Some(100);
    });
    for number in 0..50 {
        end_spans(tracer, names(&format!("{number}."), 10));
        wait_until("room", || tracer.stats().pending() < 80);
    }
    assert_eq!(balanced(tracer).dropped(), 0);
    hangs.store(false, Ordering::SeqCst);
    wait_until("all of them", || {
        let _ = tracer.force_flush(WATCHDOG);
        balanced(tracer).exported == 500
    });
    let mut delivered = destination.delivered();
    delivered.sort();
    delivered.dedup();
    assert_eq!(delivered.len(), 500);
}

#[test]
fn what_has_no_room_is_dropped_for_that_reason() {
    let (directory, collector) = (Directory::new(), Collector::down());
    let destination = collector.destination();
    let tracer = directory.tracer(&[&destination], |_, spool| spool.max_bytes = 2_000);
    end_spans(tracer, ["first"]);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let mut large = start(tracer, "large");
    large.push_attribute("text", &Value::Str(&"x".repeat(3_000)));
    large.end();
    assert!(
        tracer.force_flush(WATCHDOG).is_err(),
        "a loss is not a success"
    );
    let stats = balanced(tracer);
    assert_eq!((stats.spooled, stats.dropped_spool_full), (1, 1));
    assert!(stats.spooled_bytes <= 2_000);

    collector.come_back();
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(
        destination.delivered(),
        ["first"],
        "what was there first stays"
    );
    end_spans(tracer, ["there is room again"]);
    collector.go_down();
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(tracer.stats().spooled, 1);
}

#[test]
fn the_bound_is_that_of_the_directory() {
    let directory = Directory::new();
    let collectors = [Collector::down(), Collector::down()];
    let tracers = collectors.each_ref().map(|collector| {
        directory.tracer(&[&collector.destination()], |_, spool| {
            spool.max_bytes = 4_000;
        })
    });
    for _ in 0..20 {
        for tracer in tracers {
            end_spans(tracer, names("n", 2));
            let _ = tracer.force_flush(WATCHDOG);
            balanced(tracer);
        }
    }
    let bytes: u64 = directory
        .segments()
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    // Each looks at what the other has written when it begins a file: one file each may come on top.
    assert!(bytes <= 2 * 4_000, "{bytes}");
    for tracer in tracers {
        assert!(tracer.stats().dropped_spool_full > 0);
    }
}

#[test]
fn two_processes_share_a_directory_and_send_nothing_twice() {
    let (directory, collector) = (Directory::new(), Collector::down());
    let destination = collector.destination();
    // One that is dead, and whose files both would like to have.
    let dead = directory.tracer(&[&destination], |_, _| {});
    end_spans(dead, names("dead", 3));
    end(dead);
    let both = [(); 2].map(|()| directory.tracer(&[&destination], |_, _| {}));
    for (number, tracer) in both.into_iter().enumerate() {
        end_spans(tracer, names(&format!("{number}."), 3));
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
        assert_eq!(balanced(tracer).spooled, 3);
    }
    collector.come_back();
    // The younger one first: it could see the files of the other.
    for tracer in both.into_iter().rev() {
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    }
    destination.wait_for_delivered(9);
    for tracer in both {
        end(tracer);
        assert_eq!(settled(tracer), [3, 0, 0, 0, 0]);
    }
    let mut delivered = destination.delivered();
    delivered.sort();
    assert_eq!(
        delivered,
        [names("0.", 3), names("1.", 3), names("dead", 3)].concat()
    );
    let recovered: u64 = both.iter().map(|tracer| tracer.stats().recovered).sum();
    assert_eq!(recovered, 3);
    assert!(directory.files().is_empty());
}

#[test]
fn a_request_that_turns_out_too_large_goes_in_halves() {
    let directory = Directory::new();
    let is_down = Arc::new(AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    let destination = Destination::that(move |attempt| {
        Answer::Now(if down.load(Ordering::SeqCst) {
            unreachable_collector()
        } else if attempt.spans > 2 || attempt.names().contains(&"n4".to_owned()) {
            Outcome::TooLarge {
                error: "too large".into(),
            }
        } else {
            Outcome::DELIVERED
        })
    });
    let tracer = directory.tracer(&[&destination], |_, _| {});
    end_spans(tracer, names("n", 7));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    is_down.store(false, Ordering::SeqCst);
    let _ = tracer.force_flush(WATCHDOG);
    assert_eq!(
        destination.delivered(),
        ["n0", "n1", "n2", "n3", "n5", "n6"]
    );
    assert_eq!(settled(tracer), [6, 0, 1, 0, 0]);
}

#[test]
fn what_is_refused_for_good_is_not_kept() {
    let directory = Directory::new();
    let answers = Arc::new(std::sync::Mutex::new(vec![
        Outcome::Rejected {
            error: "no such tenant".into(),
        },
        unreachable_collector(),
    ]));
    let destination = Destination::that(move |_| {
        Answer::Now(answers.lock().unwrap().pop().unwrap_or(Outcome::DELIVERED))
    });
    let tracer = directory.tracer(&[&destination], |_, _| {});
    end_spans(tracer, names("n", 2));
    assert!(tracer.force_flush(WATCHDOG).is_err());
    assert_eq!(settled(tracer), [0, 0, 2, 0, 0]);
    assert!(directory.segments().is_empty());
}

#[test]
fn with_several_destinations_each_keeps_its_own() {
    let (directory, collector) = (Directory::new(), Collector::down());
    let (down, open) = (collector.destination(), Destination::open());
    let tracer = directory.tracer(&[&down, &open], |_, _| {});
    end_spans(tracer, names("n", 3));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(balanced(tracer).spooled, 3);
    collector.come_back();
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(settled(tracer), [3, 0, 0, 0, 0]);
    assert_eq!(down.delivered(), names("n", 3));
    assert_eq!(open.delivered(), names("n", 3), "not a second time");
}

#[test]
fn torn_and_foreign_files_are_skipped_and_counted() {
    let (directory, collector) = (Directory::new(), Collector::down());
    for round in 0..3 {
        let tracer = directory.tracer(&[&collector.destination()], |_, _| {});
        for number in 0..3 {
            end_spans(tracer, [format!("{round}.{number}")]);
            assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
        }
        end(tracer);
    }
    let segments = directory.segments();
    // The last frame of the first is torn; the second is somebody else's; the third is whole.
    let bytes = std::fs::read(&segments[0]).unwrap();
    std::fs::write(&segments[0], &bytes[..bytes.len() - 7]).unwrap();
    std::fs::write(&segments[1], "not a spool file at all").unwrap();
    std::fs::write(directory.path().join("notes.txt"), "mine").unwrap();

    let destination = Destination::open();
    let tracer = directory.tracer(&[&destination], |_, _| {});
    end_spans(tracer, ["new"]);
    destination.wait_for_delivered(5);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let mut delivered = destination.delivered();
    delivered.sort();
    assert_eq!(delivered, ["0.0", "0.1", "2.0", "2.1", "2.2", "new"]);
    let stats = balanced(tracer);
    assert_eq!((stats.damaged_spool_files, stats.recovered), (2, 5));
    assert_eq!(
        directory.segments(),
        segments[1..2],
        "what is not ours stays"
    );
    assert!(directory.path().join("notes.txt").exists());
}

#[test]
fn spans_whose_file_was_tampered_with_are_counted_as_lost() {
    let (directory, collector) = (Directory::new(), Collector::down());
    let destination = collector.destination();
    let tracer = directory.tracer(&[&destination], |_, _| {});
    for name in names("n", 3) {
        end_spans(tracer, [name]);
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    }
    let segment = &directory.segments()[0];
    let mut bytes = std::fs::read(segment).unwrap();
    let second = frame::Frames::new(&bytes).nth(1).unwrap().offset;
    bytes[second + frame::HEADER_LEN + 5] ^= 1;
    std::fs::write(segment, bytes).unwrap();
    collector.come_back();
    wait_until("all are settled", || {
        let _ = tracer.force_flush(WATCHDOG);
        balanced(tracer).spooled == 0
    });
    assert_eq!(destination.delivered(), ["n0"]);
    let stats = balanced(tracer);
    assert_eq!((stats.exported, stats.dropped_spool_damaged), (1, 2));
}

#[test]
fn a_directory_that_cannot_be_used_is_as_good_as_none() {
    let (directory, collector) = (Directory::new(), Collector::down());
    std::fs::write(directory.path(), "a file").unwrap();
    let destination = collector.destination();
    let tracer = directory.tracer(&[&destination], |batch, _| {
        batch.export_timeout = Duration::from_millis(50);
    });
    let before = rvh_trace::diagnostic::swallowed_count();
    end_spans(tracer, names("n", 2));
    assert!(tracer.force_flush(WATCHDOG).is_err());
    assert_eq!(settled(tracer), [0, 0, 0, 2, 0]);
    assert!(rvh_trace::diagnostic::swallowed_count() > before);
    collector.come_back();
    end_spans(tracer, ["taken"]);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(destination.delivered(), ["taken"]);
}

#[test]
fn an_exporter_that_panics_over_a_kept_request_does_not_get_it_again() {
    let directory = Directory::new();
    let destination = Destination::that(|attempt| {
        assert!(
            attempt.number != 1,
            "an exporter panics, as a test wants it to"
        );
        Answer::Now(if attempt.number == 0 {
            unreachable_collector()
        } else {
            Outcome::DELIVERED
        })
    });
    let tracer = directory.tracer(&[&destination], |_, _| {});
    end_spans(tracer, ["lost"]);
    let _ = tracer.force_flush(WATCHDOG);
    end_spans(tracer, ["sent"]);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(settled(tracer), [1, 0, 1, 0, 0]);
    assert_eq!(destination.delivered(), ["sent"]);
}

#[test]
fn an_exporter_behind_a_spool_is_started_and_ended_as_any_other() {
    let (directory, destination) = (Directory::new(), Destination::open());
    let tracer = directory.tracer(&[&destination], |_, _| {});
    end_spans(tracer, ["n"]);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(destination.started_and_ended(), [1, 0]);
    end(tracer);
    assert_eq!(destination.started_and_ended(), [1, 1]);
}

#[test]
#[cfg(unix)]
fn nobody_else_can_read_what_is_kept() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, collector) = (Directory::new(), Collector::down());
    let tracer = directory.tracer(&[&collector.destination()], |_, _| {});
    end_spans(tracer, ["n"]);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(directory.path()), 0o700);
    for file in directory.files() {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}
