//! Whole lines to a standard stream or to the end of a file.
//!
//! Nothing is buffered and no lock is taken, so that a forked child writes whatever its parent was doing. A file is opened
//! for appending: several processes may write to one, each a whole batch of lines at a time. Only a file system without
//! room cuts a line in the middle; the rest of that line is then kept and written before anything else, so that every
//! line of the file is whole once there is room again.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use crate::config::OutputStream;
use crate::error::Error;

/// A place for lines.
#[derive(Debug)]
pub struct Output {
    stream: OutputStream,
    file: Option<File>,
    /// The rest of a line that is cut in the middle.
    torn: Vec<u8>,
}

impl Output {
    /// An output that is opened by the first line, and again by the next one for as long as that fails.
    pub fn new(stream: OutputStream) -> Self {
        Self {
            stream,
            file: None,
            torn: Vec::new(),
        }
    }

    /// Opens it now.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] that says what is wrong with the file and what to change.
    pub fn open(&mut self) -> Result<(), Error> {
        let OutputStream::File(path) = &self.stream else {
            return Ok(());
        };
        let file = open(path).map_err(|error| {
            Error::configuration(
                "output_stream",
                format!(
                    "{} cannot be opened: {}",
                    path.display(),
                    advice(path, &error)
                ),
            )
        })?;
        self.file = Some(file);
        Ok(())
    }

    /// Whether it is a terminal.
    pub fn is_terminal(&self) -> bool {
        use std::io::IsTerminal;
        match self.stream {
            OutputStream::Stdout => io::stdout().is_terminal(),
            OutputStream::Stderr => io::stderr().is_terminal(),
            OutputStream::File(_) => false,
        }
    }

    /// Writes `lines`, each of which ends in a newline. Blocks for as long as the stream does.
    pub fn write_lines(&mut self, lines: &[u8]) -> io::Result<()> {
        let was_torn = !self.torn.is_empty();
        let bytes = if was_torn {
            Cow::Owned([&std::mem::take(&mut self.torn), lines].concat())
        } else {
            Cow::Borrowed(lines)
        };
        let (written, result) = self.write_as_far(&bytes);
        let (done, rest) = bytes.split_at(written);
        let is_cut = match done.last() {
            Some(last) => *last != b'\n',
            None => was_torn,
        };
        if result.is_err() && is_cut {
            let end = rest.iter().position(|byte| *byte == b'\n');
            self.torn = rest[..end.map_or(rest.len(), |end| end + 1)].to_vec();
        }
        result
    }

    /// Writes until all is written or something is wrong; how much was.
    fn write_as_far(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        let result = self.with_stream(|stream| {
            while written < bytes.len() {
                match stream.write(&bytes[written..]) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(count) => written += count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        (written, result)
    }

    fn with_stream(&mut self, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        match &self.stream {
            OutputStream::Stdout => write(&mut duplicate(&io::stdout())?),
            OutputStream::Stderr => write(&mut duplicate(&io::stderr())?),
            OutputStream::File(path) => {
                let file = match &mut self.file {
                    Some(file) => file,
                    none => none.insert(open(path)?),
                };
                write(file)
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.write_lines(lines).map(|()| lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A standard stream without its lock, which another thread may have held at a fork. Duplicated for each batch of lines,
/// so that it is what the program has made of it by then.
#[cfg(unix)]
fn duplicate(stream: &impl std::os::fd::AsFd) -> io::Result<File> {
    let descriptor = stream.as_fd().try_clone_to_owned();
    // A program that has closed it wants to read nothing.
    descriptor
        .map(File::from)
        .map_err(|_| ErrorKind::BrokenPipe.into())
}

#[cfg(not(unix))]
fn duplicate(stream: &impl std::os::windows::io::AsHandle) -> io::Result<File> {
    let handle = stream.as_handle().try_clone_to_owned();
    handle
        .map(File::from)
        .map_err(|_| ErrorKind::BrokenPipe.into())
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A named pipe without a reader is an error then, and not a wait without end.
        options.custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(path)?;
    #[cfg(unix)]
    make_blocking(&file)?;
    Ok(file)
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "a system call")]
fn make_blocking(file: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for as long as `file` lives, and these commands take no pointer.
    let result = unsafe {
        match libc::fcntl(file.as_raw_fd(), libc::F_GETFL) {
            -1 => -1,
            flags => libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK),
        }
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What is wrong and what would be right.
fn advice(path: &Path, error: &io::Error) -> String {
    let folder = path.parent().unwrap_or(path).display();
    match error.kind() {
        ErrorKind::NotFound => {
            format!("there is no folder {folder}; make it first, or name a file in another one")
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!("{error}; name a file that this user may write, or let it write in {folder}")
        }
        ErrorKind::IsADirectory => "it is a folder; name a file in it".to_owned(),
        ErrorKind::NotADirectory => {
            format!("{folder} is not a folder; name a file in one")
        }
        #[cfg(unix)]
        _ if error.raw_os_error() == Some(libc::ENXIO) => {
            "it is a named pipe or a socket, and nobody reads from it; start the reader first"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
