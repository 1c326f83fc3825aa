//! An exporter that the program brings.

use std::fmt;
use std::sync::Arc;

use crate::pipeline::exporter::Exporter;

type Build = Arc<dyn Fn() -> Box<dyn Exporter> + Send + Sync>;

/// Makes an exporter that this library does not know, on the worker thread and again in a forked child.
#[derive(Clone)]
pub struct CustomExporter {
    name: String,
    /// Two with the same identity are the same exporter.
    identity: usize,
    build: Build,
}

impl CustomExporter {
    /// `name` is for logs. `identity` tells one exporter from another, as its address does.
    pub fn new(name: String, identity: usize, build: Build) -> Self {
        Self {
            name,
            identity,
            build,
        }
    }

    /// Makes the exporter.
    pub fn build(&self) -> Box<dyn Exporter> {
        (self.build)()
    }
}

impl PartialEq for CustomExporter {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for CustomExporter {}

impl fmt::Debug for CustomExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CustomExporter({})", self.name)
    }
}
