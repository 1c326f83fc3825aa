//! Time for spans: Unix nanoseconds whose differences are monotonic.
//!
//! One clock read a reading (22 ns). A reading is the monotonic clock plus the offset to Unix time, measured again at most
//! once a second so that wall-clock corrections show up in new spans. A span ends with the offset it started with: its
//! duration is never negative and never contains a clock step.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How long a measured offset serves.
const RESYNC_NS: u64 = 1_000_000_000;

/// Unix time when the monotonic clock was 0; 0 before the first reading. Relaxed: any recent value is right.
static OFFSET_NS: AtomicU64 = AtomicU64::new(0);
/// Monotonic time of the last measurement.
static SYNCED_NS: AtomicU64 = AtomicU64::new(0);

/// A start: when, and what turns later readings of the monotonic clock into Unix time.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    unix_ns: u64,
    offset_ns: u64,
}

impl Default for Start {
    fn default() -> Self {
        Self::NEVER
    }
}

impl Start {
    /// The start of what has not started.
    pub(crate) const NEVER: Self = Self {
        unix_ns: 0,
        offset_ns: 0,
    };

    /// The current time.
    #[inline]
    pub fn now() -> Self {
        let now = monotonic_ns();
        let offset_ns = if now - SYNCED_NS.load(Ordering::Relaxed).min(now) < RESYNC_NS {
            match OFFSET_NS.load(Ordering::Relaxed) {
                0 => measure_offset(),
                offset => offset,
            }
        } else {
            measure_offset()
        };
        Self {
            unix_ns: now + offset_ns,
            offset_ns,
        }
    }

    /// A start that the caller gives, in nanoseconds since the Unix epoch.
    pub fn at(unix_ns: u64) -> Self {
        Self {
            unix_ns,
            ..Self::now()
        }
    }

    /// When it started, in nanoseconds since the Unix epoch.
    #[inline]
    pub const fn unix_ns(self) -> u64 {
        self.unix_ns
    }

    /// The current time on this start's own clock, in nanoseconds since the Unix epoch.
    #[inline]
    pub fn later_unix_ns(self) -> u64 {
        monotonic_ns() + self.offset_ns
    }
}

/// Nanoseconds of a clock that never goes back, since a moment that is fixed for the process. They last 584 years.
///
/// Straight from the system where there is one call for it: `Instant` answers a subtraction only, checked and in 128 bits,
/// which takes half as long again as the call.
#[cfg(unix)]
#[inline]
#[expect(unsafe_code, reason = "a system call")]
pub(crate) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing. The clock exists everywhere and the call cannot fail otherwise.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

#[cfg(not(unix))]
pub(crate) fn monotonic_ns() -> u64 {
    static ANCHOR: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    ANCHOR
        .get_or_init(std::time::Instant::now)
        .elapsed()
        .as_nanos() as u64
}

#[cold]
fn measure_offset() -> u64 {
    let unix_ns = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64);
    let now = monotonic_ns();
    let offset = unix_ns.saturating_sub(now).max(1);
    OFFSET_NS.store(offset, Ordering::Relaxed);
    SYNCED_NS.store(now, Ordering::Relaxed);
    offset
}

/// `2026-11-21T17:36:21.123456Z`: UTC, to the microsecond (RFC 3339).
pub(crate) fn rfc3339(unix_ns: u64) -> String {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let (seconds, micros) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000 / 1000);
    // Days since 1 March of the year 0: a leap day is then the last of its year.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / (DAYS_IN_400_YEARS - 1)) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // Months of 31, 30, 31, 30, 31 days, from March: 153 days in five.
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, is_next_year) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z",
        era * 400 + year + is_next_year
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_the_calendar_has_it() {
        for (unix_ns, shown) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001_999, "2000-02-29T00:00:00.000001Z"),
            (951_868_799_999_999_999, "2000-02-29T23:59:59.999999Z"),
            (951_868_800_000_000_000, "2000-03-01T00:00:00.000000Z"),
            (1_767_225_599_000_000_000, "2025-12-31T23:59:59.000000Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551Z"),
        ] {
            assert_eq!(rfc3339(unix_ns), shown);
        }
    }

    #[test]
    fn a_start_is_unix_time_and_later_never_goes_back() {
        let start = Start::now();
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64);
        assert!(start.unix_ns().abs_diff(wall) < 5_000_000_000);
        let mut last = start.unix_ns();
        for _ in 0..10_000 {
            let now = start.later_unix_ns();
            assert!(now >= last);
            last = now;
        }
    }
}
