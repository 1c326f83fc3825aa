//! The thread that looks whether hearts beat.
//!
//! It runs while there is something to watch. Its lock is held for the look alone, never while a loop is examined, which may
//! have to wait for the GIL: a thread that holds the GIL may take the lock.

use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::heart::{Heart, Look};
use crate::clock::monotonic_ns;
use crate::id::process_generation;

/// If the watcher itself wakes this much too late, the process was stopped or got no processor, and the loops are not to blame
/// before they had [`GRACE`] to beat.
const OVERSLEPT_NS: u64 = 20_000_000;
const GRACE: Duration = Duration::from_millis(100);

/// A loop that is watched.
pub trait Watched: Send + Sync + 'static {
    /// Its heart.
    fn heart(&self) -> &Heart;

    /// Called on the watcher's thread, without a lock, when the beat that was due at `due_ns` has not come.
    fn examine(&self, due_ns: u64);
}

/// The thread and what it watches.
#[derive(Debug)]
pub struct Watcher<W> {
    generation: u32,
    state: Mutex<State<W>>,
    /// Something to look at came or went, the watcher shall end, or it has.
    changed: Condvar,
}

#[derive(Debug)]
struct State<W> {
    watched: Vec<Arc<W>>,
    is_running: bool,
    is_closed: bool,
}

impl<W: Watched> Watcher<W> {
    fn new() -> Self {
        Self {
            generation: process_generation(),
            state: Mutex::new(State {
                watched: Vec::new(),
                is_running: false,
                is_closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches one more. Nothing happens after [`Self::close`].
    pub fn add(&'static self, watched: Arc<W>) -> io::Result<()> {
        let mut state = self.lock();
        if state.is_closed {
            return Ok(());
        }
        if !state.is_running {
            thread::Builder::new()
                .name("rvh-trace-watch".into())
                .spawn(move || self.run())?;
            state.is_running = true;
        }
        state.watched.push(watched);
        self.changed.notify_all();
        Ok(())
    }

    /// What is watched and was not stopped.
    pub fn watched(&self) -> Vec<Arc<W>> {
        let state = self.lock();
        let alive = |watched: &&Arc<W>| !watched.heart().is_stopped();
        state.watched.iter().filter(alive).cloned().collect()
    }

    /// Looks again now: a heart was stopped, or begins to beat.
    pub fn look_again(&self) {
        // Between its look and its wait the thread would miss it, and it may wait for ever.
        let _looked = self.lock();
        self.changed.notify_all();
    }

    /// Ends the thread, for good, and waits at most `timeout` for it. The caller must not hold the GIL.
    pub fn close(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        state.is_closed = true;
        self.changed.notify_all();
        while state.is_running {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            state
                .watched
                .retain(|watched| !watched.heart().is_stopped());
            if state.is_closed || state.watched.is_empty() {
                state.is_running = false;
                self.changed.notify_all();
                return;
            }
            let now_ns = monotonic_ns();
            let mut until_ns = u64::MAX;
            let mut late = Vec::new();
            for watched in &state.watched {
                match watched.heart().look(now_ns) {
                    Look::Well { until_ns: well_ns } => until_ns = until_ns.min(well_ns),
                    Look::Late { due_ns } => late.push((Arc::clone(watched), due_ns)),
                }
            }
            if late.is_empty() {
                state = self.wait(state, Duration::from_nanos(until_ns - now_ns));
                if monotonic_ns() > until_ns.saturating_add(OVERSLEPT_NS) {
                    state = self.wait(state, GRACE);
                }
            } else {
                drop(state);
                for (watched, due_ns) in late {
                    watched.examine(due_ns);
                }
                state = self.lock();
            }
        }
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State<W>>,
        timeout: Duration,
    ) -> MutexGuard<'a, State<W>> {
        self.changed
            .wait_timeout(state, timeout)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

/// The watcher of this process: a forked child gets one of its own, so that it does not matter what the parent's held.
#[derive(Debug)]
pub struct PerProcess<W>(AtomicPtr<Watcher<W>>);

impl<W: Watched> PerProcess<W> {
    /// None yet.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// The watcher of this process; a new one, which watches nothing and has no thread, if there was none.
    #[expect(unsafe_code, reason = "the pointer is null or leaked")]
    pub fn get(&self) -> &'static Watcher<W> {
        let before = self.0.load(Ordering::Acquire);
        // SAFETY: null, or from `Box::leak` below; what it points to is never freed.
        if let Some(watcher) = unsafe { before.as_ref() }
            && watcher.generation == process_generation()
        {
            return watcher;
        }
        let new: *mut _ = Box::leak(Box::new(Watcher::new()));
        let kept = match self
            .0
            .compare_exchange(before, new, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => new,
            Err(kept) => kept,
        };
        // SAFETY: as above, and not null.
        unsafe { &*kept }
    }
}

impl<W: Watched> Default for PerProcess<W> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const DEADLINE: Duration = Duration::from_secs(20);

    struct Patient {
        heart: Heart,
        examined: Sender<u64>,
    }

    impl Watched for Patient {
        fn heart(&self) -> &Heart {
            &self.heart
        }

        fn examine(&self, due_ns: u64) {
            let _ = self.examined.send(due_ns);
        }
    }

    fn patient(threshold_ms: u64) -> (Arc<Patient>, Receiver<u64>) {
        let (examined, examinations) = channel();
        let heart = Heart::new(Duration::from_millis(threshold_ms));
        (Arc::new(Patient { heart, examined }), examinations)
    }

    #[test]
    fn a_heart_that_stops_beating_is_examined_and_one_at_rest_is_not() {
        let watcher = PerProcess::<Patient>::new().get();
        let (blocked, examinations) = patient(20);
        let (resting, no_examinations) = patient(20);
        resting.heart.beat();
        resting.heart.rest();
        watcher.add(Arc::clone(&resting)).unwrap();
        watcher.add(Arc::clone(&blocked)).unwrap();
        blocked.heart.beat();
        watcher.look_again();
        let due_ns = examinations.recv_timeout(DEADLINE).unwrap();
        assert!(blocked.heart.is_awaited(due_ns));
        assert!(no_examinations.try_recv().is_err());
    }

    /// Watched after another, so that its heart is asked for when that has been looked at: once, it has somebody else do
    /// something then, and gives it time.
    struct Meanwhile {
        heart: Heart,
        questions: AtomicUsize,
        go: Sender<()>,
        done: Mutex<Receiver<()>>,
    }

    enum Either {
        Patient(Arc<Patient>),
        Meanwhile(Meanwhile),
    }

    impl Watched for Either {
        fn heart(&self) -> &Heart {
            match self {
                Self::Patient(patient) => patient.heart(),
                Self::Meanwhile(meanwhile) => {
                    // Asked first whether it was stopped, then for the look.
                    if meanwhile.questions.fetch_add(1, Ordering::Relaxed) == 1 {
                        meanwhile.go.send(()).unwrap();
                        let done = meanwhile.done.lock().unwrap();
                        let _ = done.recv_timeout(Duration::from_millis(200));
                    }
                    &meanwhile.heart
                }
            }
        }

        fn examine(&self, due_ns: u64) {
            if let Self::Patient(patient) = self {
                patient.examine(due_ns);
            }
        }
    }

    #[test]
    fn a_heart_that_begins_to_beat_between_the_look_and_the_wait_is_watched() {
        let watcher = PerProcess::<Either>::new().get();
        let (blocked, examinations) = patient(20);
        let (go, asked) = channel();
        let (answer, done) = channel();
        let meanwhile = Meanwhile {
            heart: Heart::new(Duration::from_millis(20)),
            questions: AtomicUsize::new(0),
            go,
            done: Mutex::new(done),
        };
        watcher
            .add(Arc::new(Either::Patient(Arc::clone(&blocked))))
            .unwrap();
        watcher.add(Arc::new(Either::Meanwhile(meanwhile))).unwrap();
        asked.recv_timeout(DEADLINE).unwrap();
        blocked.heart.beat();
        watcher.look_again();
        let _ = answer.send(());
        let due_ns = examinations.recv_timeout(DEADLINE).unwrap();
        assert!(blocked.heart.is_awaited(due_ns));
    }

    #[test]
    fn the_thread_ends_with_the_last_heart_and_starts_again_with_the_next() {
        let watcher = PerProcess::<Patient>::new().get();
        for _ in 0..2 {
            let (one, _examinations) = patient(60_000);
            watcher.add(Arc::clone(&one)).unwrap();
            assert_eq!(watcher.watched().len(), 1);
            assert!(one.heart.stop());
            assert!(!one.heart.stop());
            assert!(watcher.watched().is_empty());
            watcher.look_again();
            let deadline = Instant::now() + DEADLINE;
            let mut state = watcher.lock();
            while state.is_running {
                assert!(Instant::now() < deadline);
                state = watcher.wait(state, Duration::from_millis(10));
            }
        }
    }

    #[test]
    fn a_closed_watcher_has_no_thread_and_watches_nothing_more() {
        let watcher = PerProcess::<Patient>::new().get();
        let (one, _examinations) = patient(60_000);
        watcher.add(one).unwrap();
        watcher.close(DEADLINE);
        assert!(!watcher.lock().is_running);
        let (another, _examinations) = patient(60_000);
        watcher.add(another).unwrap();
        assert!(!watcher.lock().is_running);
    }
}
