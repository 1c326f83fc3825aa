//! The files of one destination in the spool directory. Everything here blocks and belongs on a thread that may.
//!
//! A process appends to *segments*, files of some 256 KiB; the oldest is read, sent frame by frame, each marked in place, and
//! removed. The names say to whom they belong:
//!
//! ```text
//! rvh_trace-<destination>-<owner's start>-<process id>-<random>-<number>.spool
//! rvh_trace-<destination>-<owner's start>-<process id>-<random>.lock
//! ```
//!
//! Their order is that of age. An owner holds the lock of its files while it lives. What a dead one left behind belongs to
//! whoever takes its lock, so nothing is sent by two. Files with other names are nobody's business, and no file is ever
//! opened that is not a regular one.

use std::collections::{HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::file::{self, Refused};
use super::frame::{self, Frames};
use super::lock::Lock;
use crate::config::SpoolConfig;

/// A segment of this size is complete.
const SEGMENT_BYTES: u64 = 256 * 1024;
/// How often a full directory is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const PREFIX: &str = "rvh_trace-";
/// Digits of destination, start, process and random number, and the dashes between them.
const OWNER_DIGITS: [usize; 4] = [8, 12, 8, 8];
const OWNER_LEN: usize = 8 + 12 + 8 + 8 + 3;

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    owner: String,
    bytes: u64,
    /// How many spans this process wrote into it and has not settled; 0 in those of others.
    waiting: u64,
    is_ours: bool,
}

/// A request that waits on disk.
#[derive(Debug)]
pub(super) struct Kept {
    /// Where it lies in its segment.
    pub(super) offset: u64,
    pub(super) spans: u64,
    pub(super) request: Bytes,
}

/// What the oldest segment holds.
#[derive(Debug)]
pub(super) struct Oldest {
    pub(super) requests: Vec<Kept>,
    /// Whether this process wrote it.
    pub(super) is_ours: bool,
    /// Whether it could not be read to its end.
    pub(super) is_damaged: bool,
    /// Spans that this process wrote into it and that are not there any more.
    pub(super) lost: u64,
}

#[derive(Debug)]
pub(super) struct Directory {
    config: SpoolConfig,
    /// Of the destination, in the names of its files.
    key: String,
    /// This process, in the names of its files; `None` before the first.
    owner: Option<String>,
    locks: Vec<(String, Lock)>,
    /// Oldest first.
    segments: VecDeque<Segment>,
    next_number: u32,
    /// The last of `segments`, while it is written to.
    writing: Option<File>,
    /// The first of `segments`, while it is read, and how much of it was.
    reading: Option<File>,
    read_bytes: u64,
    /// What [`Self::change_of_bytes`] has told so far.
    told_bytes: u64,
    /// What the files of everybody took when it was last looked, and when that was.
    used: u64,
    looked: Option<Instant>,
    /// Not ours, in spite of its name.
    foreign: HashSet<PathBuf>,
    /// Written last: the memory tells whether a request was.
    last: Option<Bytes>,
}

impl Directory {
    /// The files of the destination of this name. Touches nothing.
    pub(super) fn new(config: SpoolConfig, destination: &str) -> Self {
        let mut crc = flate2::Crc::new();
        crc.update(destination.as_bytes());
        Self {
            config,
            key: format!("{:08x}", crc.sum()),
            owner: None,
            locks: Vec::new(),
            segments: VecDeque::new(),
            next_number: 0,
            writing: None,
            reading: None,
            read_bytes: 0,
            told_bytes: 0,
            used: 0,
            looked: None,
            foreign: HashSet::new(),
            last: None,
        }
    }

    /// By how much the files that are this process's to send have grown since the last call; two's complement.
    pub(super) fn change_of_bytes(&mut self) -> u64 {
        let bytes: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        bytes.wrapping_sub(std::mem::replace(&mut self.told_bytes, bytes))
    }

    /// Writes a request behind all others. One that was written last is not written again.
    pub(super) fn append(&mut self, request: &Bytes, spans: u64) -> Result<(), Refused> {
        let is_same =
            |last: &Bytes| last.as_ptr() == request.as_ptr() && last.len() == request.len();
        if self.last.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let spans_in_header = u32::try_from(spans).unwrap_or(u32::MAX);
        let Some(header) = frame::header(request, spans_in_header) else {
            return Err(Refused::Full);
        };
        let len = (header.len() + request.len()) as u64;
        let is_complete = self
            .segments
            .back()
            .is_none_or(|last| last.bytes >= SEGMENT_BYTES);
        if is_complete || !self.is_writing_in_place() {
            self.writing = None;
        }
        if self.writing.is_none() {
            self.look();
        }
        if self.used + len > self.config.max_bytes {
            if self
                .looked
                .is_some_and(|looked| looked.elapsed() < LOOK_AGAIN)
            {
                return Err(Refused::Full);
            }
            self.look();
            if self.used + len > self.config.max_bytes {
                return Err(Refused::Full);
            }
        }
        let was_begun = self.writing.is_some();
        let mut written = self.write(&header, request);
        if was_begun && self.writing.is_none() {
            // What that file had no room for, a new one may have.
            written = self.write(&header, request);
        }
        written?;
        let Some(segment) = self.segments.back_mut() else {
            return Err(Refused::Io(io::ErrorKind::NotFound.into()));
        };
        segment.bytes += len;
        segment.waiting += spans;
        self.used += len;
        self.last = Some(request.clone());
        Ok(())
    }

    /// Writes a whole frame or nothing. An error ends a segment that has frames; one without is tried again the next time,
    /// so that a full disk is not filled with empty files.
    fn write(&mut self, header: &[u8], request: &[u8]) -> io::Result<()> {
        if self.writing.is_none() {
            self.begin_segment()?;
        }
        let (Some(file), Some(segment)) = (&mut self.writing, self.segments.back()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let written = file
            .write_all(header)
            .and_then(|()| file.write_all(request));
        if written.is_err() {
            // Part of a frame would hide those behind it.
            let is_cut = file.set_len(segment.bytes).is_ok();
            if segment.bytes > 0 || !is_cut {
                self.writing = None;
            }
        }
        written
    }

    /// Whether the segment that is written to is still where its name says: somebody may have removed or moved it.
    fn is_writing_in_place(&self) -> bool {
        match (&self.writing, self.segments.back()) {
            (Some(file), Some(segment)) => file::is_at(file, &segment.path),
            _ => false,
        }
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let has_lock = |owner: &str| {
            self.locks
                .iter()
                .any(|(known, lock)| known == owner && lock.is_in_place())
        };
        let owner = match &self.owner {
            Some(owner) if has_lock(owner) => owner.clone(),
            // The first, or the directory is another one than it was.
            _ => self.begin_owner()?,
        };
        let path = self.path(&format!("{owner}-{:08x}.spool", self.next_number));
        let mut options = OpenOptions::new();
        options.append(true).create_new(true);
        file::private(&mut options);
        self.writing = Some(options.open(&path)?);
        self.next_number += 1;
        self.segments.push_back(Segment {
            path,
            owner,
            bytes: 0,
            waiting: 0,
            is_ours: true,
        });
        Ok(())
    }

    fn begin_owner(&mut self) -> io::Result<String> {
        file::make_private(&self.config.directory)?;
        let unix_ms = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_millis() as u64);
        let owner = format!(
            "{}-{:012x}-{:08x}-{:08x}",
            self.key,
            unix_ms & 0xffff_ffff_ffff,
            std::process::id(),
            fastrand::u32(..),
        );
        let lock = Lock::take(&self.path(&format!("{owner}.lock")))?;
        self.locks
            .push((owner.clone(), lock.ok_or(io::ErrorKind::AlreadyExists)?));
        self.owner = Some(owner.clone());
        Ok(owner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.config.directory.join(format!("{PREFIX}{name}"))
    }

    /// Counts what the files of everybody take.
    fn look(&mut self) {
        self.looked = Some(Instant::now());
        let Ok(entries) = std::fs::read_dir(&self.config.directory) else {
            self.used = 0;
            return;
        };
        self.used = entries
            .flatten()
            .filter(|entry| {
                owner_of(&entry.file_name().to_string_lossy()).is_some_and(|(_, number)| number)
            })
            .filter_map(|entry| entry.metadata().ok())
            .map(|metadata| metadata.len())
            .sum();
    }

    /// Takes over what processes left behind that are no more.
    pub(super) fn adopt(&mut self) -> io::Result<()> {
        let mut owners = Vec::new();
        for name in self.names()? {
            if let Some((owner, _)) = owner_of(&name)
                && owner.starts_with(&self.key)
                && !owners.iter().any(|known| known == owner)
                && !self.locks.iter().any(|(known, _)| known == owner)
            {
                owners.push(owner.to_owned());
            }
        }
        let last = self.segments.back().map(|segment| segment.path.clone());
        let mut found: Vec<Segment> = self.segments.drain(..).collect();
        let result = owners
            .into_iter()
            .try_for_each(|owner| self.adopt_one(owner, &mut found));
        found.sort_by(|one, other| one.path.cmp(&other.path));
        self.segments = found.into();
        if self.segments.back().map(|segment| &segment.path) != last.as_ref() {
            // Only the last one is written to.
            self.writing = None;
        }
        result
    }

    fn adopt_one(&mut self, owner: String, found: &mut Vec<Segment>) -> io::Result<()> {
        let Some(lock) = Lock::take(&self.path(&format!("{owner}.lock")))? else {
            return Ok(());
        };
        // Listed under the lock: its last owner may have removed some before it let go.
        let mut any = false;
        for name in self.names()? {
            let path = self.config.directory.join(&name);
            if owner_of(&name) != Some((owner.as_str(), true)) || self.foreign.contains(&path) {
                continue;
            }
            match std::fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_file() => found.push(Segment {
                    path,
                    owner: owner.clone(),
                    bytes: metadata.len(),
                    waiting: 0,
                    is_ours: false,
                }),
                _ => continue,
            }
            any = true;
        }
        if any {
            self.locks.push((owner, lock));
        } else {
            lock.remove();
        }
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        match std::fs::read_dir(&self.config.directory) {
            Ok(entries) => Ok(entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// What the oldest segment holds; `None` when there is none. It stays the oldest until [`Self::finish`].
    pub(super) fn oldest(&mut self) -> Option<Oldest> {
        self.last = None;
        self.reading = None;
        let max_bytes = self.config.max_bytes;
        let segment = self.segments.front_mut()?;
        let bytes = match file::read(&segment.path, max_bytes) {
            Ok((file, bytes)) => {
                self.reading = Some(file);
                Bytes::from(bytes)
            }
            Err(_) => Bytes::new(),
        };
        if self.reading.is_none() || !frame::is_ours(&bytes) {
            // Somebody else's, or beyond our reach: left where it is.
            self.foreign.insert(segment.path.clone());
        }
        self.read_bytes = bytes.len() as u64;
        let mut frames = Frames::new(&bytes);
        let requests: Vec<_> = frames
            .by_ref()
            .filter(|frame| !frame.is_settled)
            .map(|frame| Kept {
                offset: frame.offset as u64,
                spans: frame.spans.into(),
                request: bytes.slice_ref(frame.request),
            })
            .collect();
        let found: u64 = requests.iter().map(|kept| kept.spans).sum();
        let lost = segment.waiting.saturating_sub(found);
        segment.waiting -= lost;
        Some(Oldest {
            is_damaged: frames.is_damaged() || self.reading.is_none(),
            requests,
            is_ours: segment.is_ours,
            lost,
        })
    }

    /// Marks a request of the oldest segment, so that nobody sends it again.
    pub(super) fn settle(&mut self, offset: u64, spans: u64) {
        if let Some(file) = &mut self.reading {
            // If it cannot be marked, it is sent again should this process be killed before the segment is removed.
            let _ = file
                .seek(SeekFrom::Start(offset + frame::STATE_AT))
                .and_then(|_| file.write_all(&[frame::SETTLED]));
        }
        if let Some(segment) = self.segments.front_mut() {
            segment.waiting = segment.waiting.saturating_sub(spans);
        }
    }

    /// Removes the oldest segment, of which nothing is left that can be sent, unless it has grown since it was read.
    pub(super) fn finish(&mut self) {
        let is_readable = self.reading.take().is_some();
        let is_written = self.segments.len() == 1 && self.writing.is_some();
        let has_grown = |segment: &Segment| segment.bytes > self.read_bytes;
        if is_written && is_readable && self.segments.front().is_some_and(has_grown) {
            return;
        }
        if is_written {
            self.writing = None;
        }
        let Some(segment) = self.segments.pop_front() else {
            return;
        };
        if !self.foreign.contains(&segment.path) {
            let _ = std::fs::remove_file(&segment.path);
            self.used = self.used.saturating_sub(segment.bytes);
        }
        let is_last = !self
            .segments
            .iter()
            .any(|other| other.owner == segment.owner);
        if is_last && self.owner.as_ref() != Some(&segment.owner) {
            self.unlock(&segment.owner);
        }
    }

    fn unlock(&mut self, owner: &str) {
        if let Some(index) = self.locks.iter().position(|(known, _)| known == owner) {
            self.locks.swap_remove(index).1.remove();
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take()
            && !self.segments.iter().any(|segment| segment.owner == owner)
        {
            self.unlock(&owner);
        }
    }
}

/// The owner of a file of this name, and whether it is a segment.
fn owner_of(name: &str) -> Option<(&str, bool)> {
    let (owner, rest) = name.strip_prefix(PREFIX)?.split_at_checked(OWNER_LEN)?;
    let is_hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let mut parts = owner.split('-');
    let is_owner = OWNER_DIGITS
        .iter()
        .all(|digits| parts.next().is_some_and(|part| is_hex(part, *digits)));
    if !is_owner || parts.next().is_some() {
        return None;
    }
    if rest == ".lock" {
        return Some((owner, false));
    }
    let number = rest.strip_prefix('-')?.strip_suffix(".spool")?;
    is_hex(number, 8).then_some((owner, true))
}
