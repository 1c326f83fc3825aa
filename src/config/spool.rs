//! Where spans are kept on disk while a destination does not take them.

use std::path::PathBuf;

use super::Arguments;
use super::source::Variables;
use crate::error::Error;

/// Settings of the disk spool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpoolConfig {
    /// Made when it is first written to, for this user alone, if it is not there. Several processes may share it.
    pub directory: PathBuf,
    /// What the spool files in the directory may take together, whichever process wrote them.
    pub max_bytes: u64,
}

impl SpoolConfig {
    /// The default of [`Self::max_bytes`].
    pub const DEFAULT_MAX_BYTES: u64 = 64 << 20;
}

pub(super) fn load(
    arguments: &Arguments,
    variables: &mut Variables<'_>,
) -> Result<Option<SpoolConfig>, Error> {
    let path = arguments
        .spool_directory
        .as_ref()
        .map(|path| path.to_string_lossy());
    let check = |text: &str| {
        if text.trim().is_empty() {
            Err("not a path".to_owned())
        } else {
            Ok(PathBuf::from(text))
        }
    };
    let named = variables.text(
        ("spool_directory", path.as_deref()),
        &["RVH_TRACE_SPOOL_DIRECTORY"],
        check,
        "no spool",
    )?;
    let max_bytes = variables
        .whole_number(
            ("spool_max_bytes", arguments.spool_max_bytes),
            &["RVH_TRACE_SPOOL_MAX_BYTES"],
            1,
            SpoolConfig::DEFAULT_MAX_BYTES,
        )?
        .map_or(SpoolConfig::DEFAULT_MAX_BYTES, u64::from);
    Ok(named.map(|named| SpoolConfig {
        // Not the text of it: a path need not be UTF-8.
        directory: arguments.spool_directory.clone().unwrap_or(named),
        max_bytes,
    }))
}
