//! Which process a spool file belongs to: whoever holds the advisory lock of its owner.
//!
//! A lock ends with its process, however that ends, so the files of one that was killed are free for the next. `flock` is
//! held by the open file, which a forked child inherits: [`enter_forked_child`] closes it there, or the child would keep the
//! files of a dead parent locked.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::sync::{Mutex, PoisonError};

#[cfg(unix)]
use super::file::is_at;

/// The descriptors of the locks that this process holds.
#[cfg(unix)]
static HELD: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// A lock that is held. Dropping it unlocks.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

#[cfg(unix)]
impl Lock {
    /// Takes the lock at this path, whose file is made if need be; `None` if another process or another part of this one
    /// holds it.
    pub(super) fn take(path: &Path) -> io::Result<Option<Self>> {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::OpenOptionsExt;

        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // A FIFO of that name must not hold up the worker, a symbolic link not lead it elsewhere.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        // Its last owner may have removed it between our opening and locking it.
        if !try_lock(&file)? || !is_at(&file, path) {
            return Ok(None);
        }
        held().push(file.as_raw_fd());
        Ok(Some(Self {
            file,
            path: path.to_owned(),
        }))
    }

    /// Whether it still keeps others out: not if its file was removed or moved.
    pub(super) fn is_in_place(&self) -> bool {
        is_at(&self.file, &self.path)
    }

    /// Removes the file too: there is nothing left to lock.
    pub(super) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(unix)]
impl Drop for Lock {
    fn drop(&mut self) {
        use std::os::fd::AsRawFd;
        let own = self.file.as_raw_fd();
        // Before the file is closed: its number may be another file's a moment later.
        held().retain(|held| *held != own);
    }
}

#[cfg(unix)]
fn held() -> std::sync::MutexGuard<'static, Vec<i32>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "a system call")]
fn try_lock(file: &File) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is that of an open file.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        error => Err(error),
    }
}

/// Leaves the locks to the parent. Call it in a forked child before any other thread exists.
#[cfg(unix)]
#[expect(unsafe_code, reason = "a system call")]
pub(crate) fn enter_forked_child() {
    // A thread of the parent may have held it at the fork: then the child keeps the locks for as long as it lives.
    if let Ok(mut held) = HELD.try_lock() {
        for descriptor in held.drain(..) {
            // SAFETY: the descriptor is that of a `Lock`, which only a thread of the parent would use.
            unsafe { libc::close(descriptor) };
        }
    }
}

#[cfg(not(unix))]
impl Lock {
    pub(super) fn take(_path: &Path) -> io::Result<Option<Self>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn is_in_place(&self) -> bool {
        false
    }

    pub(super) fn remove(self) {
        let _ = (self.file, self.path);
    }
}

#[cfg(not(unix))]
pub(crate) fn enter_forked_child() {}
