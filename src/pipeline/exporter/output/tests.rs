use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::*;

#[test]
fn a_line_that_was_cut_is_completed_before_the_next() -> io::Result<()> {
    let (mut reader, writer) = UnixStream::pair()?;
    writer.set_nonblocking(true)?;
    let mut output = Output::new(OutputStream::File("/nowhere/at/all".into()));
    output.file = Some(OwnedFd::from(writer).into());
    let line = |digit: char| format!("{}\n", digit.to_string().repeat(1000));
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    // More than the socket holds: the first that it does not take whole is cut.
    for _ in 0..10_000 {
        match output.write_lines(line('1').as_bytes()) {
            Ok(()) => accepted.push(line('1')),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                refused.push(output.torn.len());
                break;
            }
        }
    }
    // Still no room: what is owed stays the same.
    assert!(output.write_lines(line('2').as_bytes()).is_err());
    assert_eq!(refused, [output.torn.len()]);
    reader.set_nonblocking(true)?;
    let mut read = Vec::new();
    let _ = reader.read_to_end(&mut read);
    output.write_lines(line('3').as_bytes())?;
    assert!(output.torn.is_empty());
    let _ = reader.read_to_end(&mut read);
    let text = String::from_utf8_lossy(&read);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.iter().all(|line| line.len() == 1000), "{refused:?}");
    assert_eq!(lines.last(), Some(&line('3').trim_end()));
    // The line that was cut is whole, and counted as refused all the same.
    assert!((accepted.len() + 1..=accepted.len() + 2).contains(&lines.len()));
    assert!(!text.contains('2'));
    Ok(())
}

#[test]
fn a_file_that_cannot_be_opened_says_what_to_change() {
    for (path, advice) in [
        (
            "/nowhere/at/all",
            "there is no folder /nowhere/at; make it first",
        ),
        ("/", "it is a folder; name a file in it"),
        ("/dev/null/x", "/dev/null is not a folder"),
    ] {
        let mut output = Output::new(OutputStream::File(path.into()));
        let error = output.open().map_err(|error| error.to_string());
        let said = error.as_ref().err().is_some_and(|error| {
            error.starts_with(&format!("output_stream: {path} cannot be opened"))
                && error.contains(advice)
        });
        assert!(said, "{error:?}");
        assert!(output.write_lines(b"line\n").is_err());
    }
}

#[test]
fn a_full_device_refuses_and_keeps_nothing() {
    let mut output = Output::new(OutputStream::File("/dev/full".into()));
    assert_eq!(output.open(), Ok(()));
    assert!(output.write_lines(b"line\n").is_err());
    assert!(output.torn.is_empty());
}
