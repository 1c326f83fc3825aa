//! What the operating system does with a spool file, and why it would not. Everything here blocks.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use super::frame::HEADER_LEN;

/// Why a request was not written.
#[derive(Debug)]
pub(super) enum Refused {
    /// The files in the directory take all the room they may.
    Full,
    /// The disk has no room for them, or none for this user.
    DiskFull(io::Error),
    /// The operating system would not.
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::DiskFull(error),
            _ => Self::Io(error),
        }
    }
}

/// A regular file that is no larger than any of ours can be, open for marking.
pub(super) fn read(path: &Path, max_bytes: u64) -> io::Result<(File, Vec<u8>)> {
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    if len > max_bytes.saturating_add(HEADER_LEN as u64) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::with_capacity(len as usize);
    (&file).take(len).read_to_end(&mut bytes)?;
    Ok((file, bytes))
}

/// Whether the file is the one of this name, or one that has lost it.
#[cfg(unix)]
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(file), Ok(named)) => identity(file) == identity(named),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(super) fn is_at(_file: &File, _path: &Path) -> bool {
    true
}

#[cfg(unix)]
pub(super) fn private(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

#[cfg(not(unix))]
pub(super) fn private(_options: &mut OpenOptions) {}

/// Makes a directory that only this user can look into, unless it is there.
pub(super) fn make_private(directory: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(directory)
}
