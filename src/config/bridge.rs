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
            let parsed = Targets::from_str(member).ok();
            // An empty level would be `error`.
            let parsed = parsed.filter(|_| !member.ends_with('=')).ok_or_else(|| {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lets_through(filter: &str, target: &str, level: Level) -> bool {
        filter
            .parse::<Filter>()
            .is_ok_and(|filter| filter.enables(target, level))
    }

    #[test]
    fn the_longest_target_decides_and_a_bare_level_is_for_the_rest() {
        for (filter, target, level, expected) in [
            ("info", "any", Level::INFO, true),
            ("info", "any", Level::DEBUG, false),
            ("hyper=warn", "any", Level::ERROR, false),
            ("info,hyper=warn", "hyper::client", Level::INFO, false),
            (
                "info,hyper=warn,hyper::client=trace",
                "hyper::client",
                Level::TRACE,
                true,
            ),
            (" info , hyper = off ", "any", Level::INFO, false),
            (" info , hyper=off ,", "hyper", Level::ERROR, false),
            ("warn,warn,debug", "any", Level::DEBUG, true),
            ("hyper", "hyper", Level::TRACE, true),
            ("", "any", Level::ERROR, false),
        ] {
            assert_eq!(
                lets_through(filter, target, level),
                expected,
                "{filter:?} {target} {level}"
            );
        }
    }

    #[test]
    fn what_is_more_than_target_and_level_is_refused() {
        for filter in [
            "hyper=loud",
            "app[load]=info",
            "app{id}=info",
            "info/text",
            "a=b=info",
            "hyper=",
        ] {
            assert!(filter.parse::<Filter>().is_err(), "{filter:?}");
        }
    }

    #[test]
    fn the_least_severe_level_of_all_is_known() {
        for (filter, level) in [
            ("", LevelFilter::OFF),
            ("off", LevelFilter::OFF),
            ("info,hyper=off", LevelFilter::INFO),
            ("warn,hyper=debug", LevelFilter::DEBUG),
        ] {
            let parsed = filter.parse::<Filter>().map(|filter| filter.max_level());
            assert_eq!(parsed, Ok(level), "{filter:?}");
        }
    }

    fn load_with(arguments: &Arguments, variables: &[(&str, &str)]) -> Option<BridgeConfig> {
        let env = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        load(arguments, &mut Variables::new(&env)).ok().flatten()
    }

    #[test]
    fn nothing_is_taken_unless_something_asks_for_it() {
        let none = Arguments::default();
        assert_eq!(load_with(&none, &[("RUST_LOG", "trace")]), None);
        assert_eq!(load_with(&none, &[("RVH_TRACE_RUST_LOG", "off")]), None);
        let events = load_with(&none, &[("RVH_TRACE_RUST_EVENTS", "WARNING")]);
        let at_warn = BridgeConfig {
            filter: Filter::at_level(Level::WARN),
            events: Some(Level::WARN),
        };
        assert_eq!(events, Some(at_warn));
        let arguments = Arguments {
            rust_log: Some("debug".into()),
            rust_events: Some("none".into()),
            ..Arguments::default()
        };
        let variables = [
            ("RVH_TRACE_RUST_LOG", "error"),
            ("RVH_TRACE_RUST_EVENTS", "info"),
        ];
        let at_debug = BridgeConfig {
            filter: Filter::at_level(Level::DEBUG),
            events: None,
        };
        assert_eq!(load_with(&arguments, &variables), Some(at_debug));
    }
}
