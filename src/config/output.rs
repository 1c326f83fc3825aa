//! An exporter that writes to a standard stream or to a file: where, and in which form.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

use crate::error::Error;

/// Settings of an exporter that writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutputConfig {
    /// Where it writes.
    pub stream: OutputStream,
    /// What it writes.
    pub format: OutputFormat,
}

/// Where bytes go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OutputStream {
    /// Standard output, whatever that is at the time of writing.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to this file, which is made if it is not there; its folder is not. The path is absolute, so that a change
    /// of the working directory does not make it another file.
    File(PathBuf),
}

/// What a span becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutputFormat {
    /// A readable line.
    Compact,
    /// A row of the waterfall of its trace.
    Pretty,
    /// A JSON object on a line.
    Json,
    /// Part of a request in OTLP/JSON, one request a line (OpenTelemetry specification, "OpenTelemetry Protocol File Exporter").
    OtlpJson,
}

impl OutputStream {
    /// `stdout`, `stderr`, a `file://` URL or a path.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] for a text that is none of these.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            _ if text.starts_with("file:") => {
                // Without a host.
                let path = Some(text)
                    .filter(|text| text.starts_with("file:///"))
                    .and_then(|text| Url::parse(text).ok())
                    .and_then(|url| url.to_file_path().ok());
                path.ok_or_else(|| {
                    let problem =
                        format!("{text:?} is not a URL of a file; file:///folder/name is");
                    Error::configuration("output_stream", problem)
                })
                .and_then(|path| Self::file(&path))
            }
            _ => Self::file(Path::new(text)),
        }
    }

    /// The file of this path; a relative one is taken from the working directory of this moment.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] for an empty path.
    pub fn file(path: &Path) -> Result<Self, Error> {
        let absolute = std::path::absolute(path);
        absolute.map(Self::File).map_err(|error| {
            let problem = format!(
                "\"{}\" is not stdout, stderr or a path: {error}",
                path.display()
            );
            Error::configuration("output_stream", problem)
        })
    }
}

impl fmt::Display for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl OutputFormat {
    /// The format of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] that lists the names.
    pub fn parse(name: &str) -> Result<Self, Error> {
        match name {
            "compact" => Ok(Self::Compact),
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(Error::configuration(
                "format",
                format!("{name:?} is not compact, pretty or json"),
            )),
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Pretty => "pretty",
            Self::Json => "json",
            Self::OtlpJson => "otlp",
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_name_a_url_or_a_path() {
        assert_eq!(OutputStream::parse("stdout"), Ok(OutputStream::Stdout));
        assert_eq!(OutputStream::parse("stderr"), Ok(OutputStream::Stderr));
        let file = |path: &str| Ok(OutputStream::File(path.into()));
        assert_eq!(OutputStream::parse("/var/spans"), file("/var/spans"));
        assert_eq!(OutputStream::parse("file:///a%20b"), file("/a b"));
        let here = std::env::current_dir().unwrap().join("spans");
        assert_eq!(
            OutputStream::parse("spans"),
            Ok(OutputStream::File(here.clone()))
        );
        assert_eq!(
            OutputStream::file(Path::new("spans")),
            Ok(OutputStream::File(here))
        );
        for wrong in ["", "file:spans", "file://host/share"] {
            let error = OutputStream::parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with("output_stream: "), "{wrong}: {error}");
        }
    }
}
