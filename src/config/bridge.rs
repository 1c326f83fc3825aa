//! What is taken of the instrumentation of Rust code: `tracing` and `log`.

use std::str::FromStr;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::Arguments;
use super::source::{Problem, Variables, is_none};
use crate::error::Error;

/// What [`crate::bridge`] takes.
#[derive(Clone, PartialEq, Debug)]
pub struct BridgeConfig {
    /// What counts at all.
    pub filter: Filter,
    /// The least severe level of the events that are queued for the host language's log; `None`: none are.
    pub events: Option<Level>,
}

/// Which spans, events and records count, by target and level.
///
/// The syntax is that of `RUST_LOG` without its patterns: `info,hyper=warn,shop::stock=trace,noisy=off`.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Targets);

impl Filter {
    /// Lets through what is at least as severe as `level`, whoever says it.
    pub fn at_level(level: Level) -> Self {
        Self(Targets::new().with_default(level))
    }

    /// What tracing-subscriber filters by.
    pub fn targets(&self) -> &Targets {
        &self.0
    }

    /// Whether something of this target and level is let through.
    pub fn enables(&self, target: &str, level: Level) -> bool {
        self.0.would_enable(target, &level)
    }

    /// The least severe level that anything is let through at.
    pub fn max_level(&self) -> LevelFilter {
        let levels = self.0.iter().map(|(_, level)| level);
        levels
            .chain(self.0.default_level())
            .max()
            .unwrap_or(LevelFilter::OFF)
    }
}

impl FromStr for Filter {
    /// What the text is, instead of a filter.
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let members = text.split(',').map(str::trim);
        let mut targets = Vec::new();
        let mut default = None;
        for member in members.filter(|member| !member.is_empty()) {
            if member.contains(['[', '{', '/']) {
                return Err(format!(
                    "not a list of levels and target=level: {member:?} filters by more than target and level"
                ));
            }
            let parsed = Targets::from_str(member).map_err(|_| {
                format!(
                    "not a list of levels and target=level: {member:?} ends in no level (off, error, warn, info, debug, trace)"
                )
            })?;
            default = parsed.default_level().or(default);
            targets.extend(parsed);
        }
        let filter = Targets::new().with_targets(targets);
        Ok(Self(match default {
            Some(level) => filter.with_default(level),
            None => filter,
        }))
    }
}

/// `None` unless something asks for it: an extension's own `RUST_LOG` is not meant for us.
pub(super) fn load(
    arguments: &Arguments,
    variables: &mut Variables<'_>,
) -> Result<Option<BridgeConfig>, Error> {
    let filter = variables.text(
        ("rust_log", arguments.rust_log.as_deref()),
        &["RVH_TRACE_RUST_LOG"],
        Filter::from_str,
        "none",
    )?;
    let events = variables.text(
        ("rust_events", arguments.rust_events.as_deref()),
        &["RVH_TRACE_RUST_EVENTS"],
        parse_level,
        "none",
    )?;
    let events = events.flatten();
    let filter = filter.or_else(|| events.map(Filter::at_level));
    Ok(filter
        .filter(|filter| filter.max_level() != LevelFilter::OFF)
        .map(|filter| BridgeConfig { filter, events }))
}

fn parse_level(name: &str) -> Result<Option<Level>, Problem> {
    if is_none(name) {
        return Ok(None);
    }
    match name.to_ascii_lowercase().as_str() {
        "error" => Ok(Some(Level::ERROR)),
        "warning" | "warn" => Ok(Some(Level::WARN)),
        "info" => Ok(Some(Level::INFO)),
        "debug" => Ok(Some(Level::DEBUG)),
        "trace" => Ok(Some(Level::TRACE)),
        _ => Err("not none, error, warning, info, debug or trace".into()),
    }
}
