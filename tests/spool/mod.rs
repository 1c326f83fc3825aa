//! A spool directory of a test, and tracers that use it.

#![allow(dead_code, reason = "each test file uses its part")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rvh_trace::config::{BatchConfig, SpoolConfig};
use rvh_trace::pipeline::exporter::Outcome;
use rvh_trace::tracer::Tracer;

use crate::exporters::{self, Answer, Destination, wait_until};

/// A directory that goes when this goes. It is made by whoever writes into it first.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("rvh_trace-spool-test-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The files in it, in order of their names.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(&self.0) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Those of them that hold spans.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "spool");
        self.files().into_iter().filter(is_segment).collect()
    }

    /// A tracer that keeps here what these destinations do not take.
    pub(crate) fn tracer(
        &self,
        destinations: &[&Destination],
        set: impl FnOnce(&mut BatchConfig, &mut SpoolConfig),
    ) -> &'static Tracer {
        exporters::tracer(destinations, |batch| {
            let mut spool = SpoolConfig {
                directory: self.0.clone(),
                max_bytes: SpoolConfig::DEFAULT_MAX_BYTES,
            };
            set(batch, &mut spool);
            batch.spool = Some(spool);
        })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A collector that can be down.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    is_up: Arc<AtomicBool>,
}

impl Collector {
    /// Cannot be reached.
    pub(crate) fn down() -> Self {
        Self::default()
    }

    /// Takes everything from now on.
    pub(crate) fn come_back(&self) {
        self.is_up.store(true, Ordering::SeqCst);
    }

    /// Cannot be reached from now on.
    pub(crate) fn go_down(&self) {
        self.is_up.store(false, Ordering::SeqCst);
    }

    pub(crate) fn destination(&self) -> Destination {
        let is_up = Arc::clone(&self.is_up);
        Destination::that(move |_| {
            Answer::Now(if is_up.load(Ordering::SeqCst) {
                Outcome::DELIVERED
            } else {
                unreachable_collector()
            })
        })
    }
}

/// What an exporter says of a collector that is not there.
pub(crate) fn unreachable_collector() -> Outcome {
    Outcome::Retryable {
        after: None,
        error: "connection refused".into(),
    }
}

/// Shuts a tracer down and waits until nothing of it is left, as if its process had ended.
pub(crate) fn end(tracer: &'static Tracer) {
    let _ = tracer.shutdown(Duration::from_secs(60));
    wait_until("the end of the worker", || !tracer.stats().worker_alive);
}
