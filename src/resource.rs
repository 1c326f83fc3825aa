//! What produces the telemetry: the attributes that every exported batch carries once.
//!
//! Names are those of the semantic conventions 1.44. Detection reads the host name and one symbolic link, at set-up.
//! Command-line arguments are left out on purpose: they can hold secrets, and the conventions advise against them.

use std::path::PathBuf;

use crate::attribute::Value;
use crate::id::TraceId;

const SERVICE_NAME: &str = "service.name";
const SERVICE_INSTANCE_ID: &str = "service.instance.id";
const PROCESS_PID: &str = "process.pid";

/// A resource attribute's value, owned.
#[derive(Clone, PartialEq, Debug)]
pub enum ResourceValue {
    /// Text.
    Str(String),
    /// True or false.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// A double.
    Float(f64),
    /// A sequence.
    Array(Vec<ResourceValue>),
}

impl ResourceValue {
    /// The value as the wire writer takes it.
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Self::Str(text) => Value::Str(text),
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Int(int) => Value::Int(*int),
            Self::Float(float) => Value::Float(*float),
            Self::Array(values) => Value::Array(values.iter().map(Self::as_value).collect()),
        }
    }
}

impl<'a> From<&'a ResourceValue> for Value<'a> {
    fn from(value: &'a ResourceValue) -> Self {
        value.as_value()
    }
}

macro_rules! resource_value_from {
    ($($from:ty => $variant:ident),*) => {$(
        impl From<$from> for ResourceValue {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

resource_value_from!(String => Str, &str => Str, bool => Bool, i64 => Int, u32 => Int, f64 => Float);

/// The entity that spans come from. Keys are unique.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Resource {
    /// What describes it, in the order it was found.
    pub attributes: Vec<(String, ResourceValue)>,
    /// Whether [`Resource::detect`] made up the instance id, so that a forked child needs another one.
    instance_id_is_generated: bool,
}

impl Resource {
    /// A resource of exactly these attributes; of equal keys the last counts.
    pub fn new(attributes: impl IntoIterator<Item = (String, ResourceValue)>) -> Self {
        let mut resource = Self::default();
        for (key, value) in attributes {
            resource.set(key, value);
        }
        resource
    }

    /// What this process knows of itself, overridden by `environment` (`OTEL_RESOURCE_ATTRIBUTES`), then `explicit`
    /// attributes, then `service_name`.
    ///
    /// `language` is `telemetry.sdk.language`; `runtime` is what the language's runtime knows, `process.runtime.*` and
    /// the like, and yields to everything else that names the same key.
    pub fn detect(
        service_name: Option<&str>,
        environment: &[(String, String)],
        explicit: &[(String, ResourceValue)],
        language: &str,
        runtime: &[(String, ResourceValue)],
    ) -> Self {
        let environment = environment
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().into()));
        let service_name = service_name.map(|name| (SERVICE_NAME.to_owned(), name.into()));
        let chosen = Self::new(
            environment
                .chain(explicit.iter().cloned())
                .chain(service_name),
        );
        let instance_id_is_generated = chosen.get(SERVICE_INSTANCE_ID).is_none();
        Self {
            instance_id_is_generated,
            ..Self::of_this_process(language)
                .merge(&Self::new(runtime.iter().cloned()))
                .merge(&chosen)
        }
    }

    fn of_this_process(language: &str) -> Self {
        let executable = executable();
        let executable_name = executable
            .as_ref()
            .and_then(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned());
        // The fallback is prescribed: semantic conventions, "Service".
        let service_name = match &executable_name {
            Some(name) => format!("unknown_service:{name}"),
            None => "unknown_service".to_owned(),
        };
        let mut resource = Self::default();
        resource.set("telemetry.sdk.name", "rvh_trace");
        resource.set("telemetry.sdk.language", language);
        resource.set("telemetry.sdk.version", env!("CARGO_PKG_VERSION"));
        resource.set(SERVICE_NAME, service_name);
        resource.set(SERVICE_INSTANCE_ID, random_uuid());
        resource.set(PROCESS_PID, std::process::id());
        if let Some(name) = executable_name {
            resource.set("process.executable.name", name);
        }
        if let Some(path) = executable {
            resource.set(
                "process.executable.path",
                path.to_string_lossy().into_owned(),
            );
        }
        resource.set(
            "host.name",
            gethostname::gethostname().to_string_lossy().into_owned(),
        );
        resource.set("host.arch", host_arch(std::env::consts::ARCH));
        resource.set("os.type", os_type(std::env::consts::OS));
        resource
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&ResourceValue> {
        self.attributes
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// Both resources' attributes. Where both have a key, the value of `updating` is taken, even an empty one
    /// (OpenTelemetry specification, "Resource SDK", "Merge").
    #[must_use]
    pub fn merge(mut self, updating: &Self) -> Self {
        for (key, value) in &updating.attributes {
            self.set(key.clone(), value.clone());
        }
        self
    }

    /// This resource in a forked child: the child's `process.pid`, and an instance id of its own unless one was chosen.
    /// An id that was chosen stays; whoever chose it answers for its uniqueness.
    #[must_use]
    pub fn for_current_process(&self) -> Self {
        let mut resource = self.clone();
        if resource.get(PROCESS_PID).is_some() {
            resource.set(PROCESS_PID, std::process::id());
        }
        if self.instance_id_is_generated {
            resource.set(SERVICE_INSTANCE_ID, random_uuid());
        }
        resource
    }

    fn set(&mut self, key: impl Into<String>, value: impl Into<ResourceValue>) {
        let (key, value) = (key.into(), value.into());
        match self.attributes.iter_mut().find(|(name, _)| *name == key) {
            Some((_, known)) => *known = value,
            None => self.attributes.push((key, value)),
        }
    }
}

/// The running executable. Linux marks one that was replaced while it runs, as package upgrades do.
fn executable() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?;
    match path
        .to_str()
        .and_then(|path| path.strip_suffix(" (deleted)"))
    {
        Some(before) => Some(before.into()),
        None => Some(path),
    }
}

/// A version 4 UUID (RFC 9562, section 5.4), drawn from the operating system so that a forked child's differs.
fn random_uuid() -> String {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        bytes = TraceId::random().to_bytes();
    }
    let bits = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// Rust's name of an architecture as `host.arch`; unlisted ones keep their name.
fn host_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        "powerpc" => "ppc32",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// Rust's name of an operating system as `os.type`; unlisted ones keep their name.
fn os_type(os: &str) -> &str {
    match os {
        "macos" => "darwin",
        "dragonfly" => "dragonflybsd",
        "illumos" => "solaris",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<'a>(resource: &'a Resource, key: &str) -> &'a str {
        match resource.get(key) {
            Some(ResourceValue::Str(text)) => text,
            _ => "",
        }
    }

    fn pair(key: &str, value: &str) -> (String, ResourceValue) {
        (key.into(), value.into())
    }

    fn detect(
        service_name: Option<&str>,
        environment: &[(&str, &str)],
        explicit: &[(&str, &str)],
    ) -> Resource {
        let environment: Vec<_> = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let explicit: Vec<_> = explicit.iter().map(|(k, v)| pair(k, v)).collect();
        let runtime = [pair("process.runtime.name", "cpython")];
        Resource::detect(service_name, &environment, &explicit, "python", &runtime)
    }

    #[test]
    fn a_process_describes_itself() {
        let resource = detect(None, &[], &[]);
        assert_eq!(text(&resource, "telemetry.sdk.name"), "rvh_trace");
        assert_eq!(text(&resource, "telemetry.sdk.language"), "python");
        assert_eq!(
            text(&resource, "telemetry.sdk.version"),
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(text(&resource, "process.runtime.name"), "cpython");
        assert_eq!(
            resource.get("process.pid"),
            Some(&ResourceValue::Int(std::process::id().into()))
        );
        assert!(!text(&resource, "host.name").is_empty());
        let path = text(&resource, "process.executable.path");
        let name = text(&resource, "process.executable.name");
        assert!(!name.is_empty() && path.ends_with(name), "{path} {name}");
        assert_eq!(
            text(&resource, "service.name"),
            format!("unknown_service:{name}")
        );
        assert_eq!(resource.get("process.command_args"), None);
    }

    #[test]
    fn the_name_argument_wins_over_attributes_and_attributes_over_the_environment() {
        let environment = [("service.name", "env"), ("a", "env"), ("b", "env")];
        let explicit = [("service.name", "explicit"), ("a", "explicit")];
        assert_eq!(
            text(&detect(None, &environment, &[]), "service.name"),
            "env"
        );
        assert_eq!(
            text(&detect(None, &environment, &explicit), "service.name"),
            "explicit"
        );
        let resource = detect(Some("argument"), &environment, &explicit);
        assert_eq!(text(&resource, "service.name"), "argument");
        assert_eq!(
            (text(&resource, "a"), text(&resource, "b")),
            ("explicit", "env")
        );
        let overridden = detect(None, &[("process.runtime.name", "mine")], &[]);
        assert_eq!(text(&overridden, "process.runtime.name"), "mine");
    }

    #[test]
    fn merging_takes_the_updating_value_even_if_empty_and_keeps_the_rest() {
        let old = Resource::new([pair("a", "1"), pair("b", "2"), pair("b", "3")]);
        let merged = old.merge(&Resource::new([pair("a", ""), pair("c", "4")]));
        assert_eq!(
            merged.attributes,
            [pair("a", ""), pair("b", "3"), pair("c", "4")]
        );
    }

    #[test]
    fn a_forked_child_gets_another_instance_id_unless_one_was_chosen() {
        let mut parent = detect(None, &[], &[]);
        parent.set(PROCESS_PID, 1_u32);
        let child = parent.for_current_process();
        assert_eq!(
            child.get(PROCESS_PID),
            Some(&ResourceValue::Int(std::process::id().into()))
        );
        assert_ne!(
            child.get(SERVICE_INSTANCE_ID),
            parent.get(SERVICE_INSTANCE_ID)
        );
        assert_eq!(child.attributes.len(), parent.attributes.len());

        for chosen in [
            detect(None, &[("service.instance.id", "mine")], &[]),
            detect(None, &[], &[("service.instance.id", "mine")]),
        ] {
            assert_eq!(
                text(&chosen.for_current_process(), "service.instance.id"),
                "mine"
            );
        }
    }

    #[test]
    fn instance_ids_are_version_4_uuids() {
        for _ in 0..64 {
            let uuid = random_uuid();
            let groups: Vec<_> = uuid.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12], "{uuid}");
            assert!(
                uuid.bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')),
                "{uuid}"
            );
            assert_eq!(uuid.as_bytes()[14], b'4', "{uuid}");
            assert!(
                matches!(uuid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'),
                "{uuid}"
            );
        }
        assert_ne!(random_uuid(), random_uuid());
    }

    #[test]
    fn architectures_and_systems_have_their_conventional_names() {
        for (rust, convention) in [
            ("x86_64", "amd64"),
            ("aarch64", "arm64"),
            ("x86", "x86"),
            ("s390x", "s390x"),
        ] {
            assert_eq!(host_arch(rust), convention);
        }
        for (rust, convention) in [
            ("linux", "linux"),
            ("macos", "darwin"),
            ("windows", "windows"),
        ] {
            assert_eq!(os_type(rust), convention);
        }
    }

    #[test]
    fn nested_values_reach_the_writer_whole() {
        let value = ResourceValue::Array(vec![true.into(), 7_i64.into(), 0.5.into(), "x".into()]);
        let expected = vec![
            Value::Bool(true),
            Value::Int(7),
            Value::Float(0.5),
            Value::Str("x"),
        ];
        assert_eq!(value.as_value(), Value::Array(expected));
    }
}
