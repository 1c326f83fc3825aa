//! Where one setting comes from: an argument, else the first variable that makes sense, else a default.
//!
//! A parser returns the value, or a [`Problem`]: what the input *is*, written to follow it, as in `"x" is not a number`.
//! A problem with an argument is an error; a problem with a variable is one warning, and the variable counts as unset
//! (OpenTelemetry specification, "Common Configuration").

use std::fmt::{Debug, Display};
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::Error;

/// What is wrong with a value: `not a number`.
pub(super) type Problem = String;

/// What "no limit" is for a timeout of 0, and the longest duration that is taken: 2^31 - 1 ms, about 25 days. Adding it to
/// an `Instant` cannot overflow.
pub(super) const NO_LIMIT: Duration = Duration::from_millis(i32::MAX as u64);

/// The environment, and what was wrong in it.
pub(super) struct Variables<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    pub(super) warnings: Vec<String>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            get,
            warnings: Vec::new(),
        }
    }

    /// The value of a variable; one that is empty, or only white space, is unset.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        let value = (self.get)(name)?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// Each variable is complained of once, however many signals read it.
    pub(super) fn warn(&mut self, name: &str, what: impl Display, instead: impl Display) {
        let prefix = format!("{name}: ");
        if self.warnings.iter().any(|said| said.starts_with(&prefix)) {
            return;
        }
        self.warnings
            .push(format!("{prefix}{what}; using {instead}"));
    }

    /// The first of the variables `names`, most specific first, that `parse` accepts. `default` is what the caller uses
    /// if there is none.
    pub(super) fn read<T>(
        &mut self,
        names: &[&'static str],
        parse: impl Fn(&str) -> Result<T, Problem>,
        default: impl Display,
    ) -> Option<T> {
        self.read_named(names, parse, default)
            .map(|(_, parsed)| parsed)
    }

    /// [`read`](Self::read), with the name of the variable that was taken.
    pub(super) fn read_named<T>(
        &mut self,
        names: &[&'static str],
        parse: impl Fn(&str) -> Result<T, Problem>,
        default: impl Display,
    ) -> Option<(&'static str, T)> {
        let mut refused = Vec::new();
        let mut taken = None;
        for name in names {
            let Some(value) = self.value(name) else {
                continue;
            };
            match parse(&value) {
                Ok(parsed) => {
                    taken = Some((*name, value, parsed));
                    break;
                }
                Err(problem) => refused.push((name, value, problem)),
            }
        }
        let instead = match &taken {
            Some((name, value, _)) => format!("{name}={}", shown(name, value)),
            None => default.to_string(),
        };
        for (name, value, problem) in refused {
            self.warn(
                name,
                format_args!("{} is {problem}", shown(name, &value)),
                &instead,
            );
        }
        taken.map(|(name, _, parsed)| (name, parsed))
    }

    /// The distinct members of a comma-separated list; members with a problem are left out, in one warning. `None` if
    /// there is no member left. `none` alone is the empty list.
    fn read_list<T: PartialEq>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Problem>,
        default: &str,
    ) -> Option<Vec<T>> {
        let value = self.value(name)?;
        let members: Vec<_> = value
            .split(',')
            .map(str::trim)
            .filter(|member| !member.is_empty())
            .collect();
        if matches!(members[..], [only] if is_none(only)) {
            return Some(Vec::new());
        }
        let (mut taken, mut taken_names, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        for member in members {
            match parse(member) {
                Ok(parsed) if taken.contains(&parsed) => {}
                Ok(parsed) => {
                    taken.push(parsed);
                    taken_names.push(member);
                }
                Err(problem) => problems.push(format!("{member:?} is {problem}")),
            }
        }
        if !problems.is_empty() {
            let instead = taken_names.join(",");
            let instead = if taken.is_empty() { default } else { &instead };
            self.warn(name, problems.join(", "), instead);
        }
        (!taken.is_empty()).then_some(taken)
    }

    /// A text, from an argument or from variables.
    pub(super) fn text<T>(
        &mut self,
        (name, value): (&'static str, Option<&str>),
        variables: &[&'static str],
        parse: impl Fn(&str) -> Result<T, Problem>,
        default: impl Display,
    ) -> Result<Option<T>, Error> {
        Ok(match argument(name, value, &parse)? {
            Some(value) => Some(value),
            None => self.read(variables, parse, default),
        })
    }

    /// A list of distinct members, from an argument or from a variable.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        (name, members): (&'static str, Option<&Vec<String>>),
        variable: &'static str,
        parse: impl Fn(&str) -> Result<T, Problem>,
        default: &str,
    ) -> Result<Option<Vec<T>>, Error> {
        match members {
            Some(members) => argument_list(name, members, parse).map(Some),
            None => Ok(self.read_list(variable, parse, default)),
        }
    }

    /// A whole number from `least` to 2^32 - 1, from an argument or from variables.
    pub(super) fn whole_number(
        &mut self,
        (name, value): (&'static str, Option<i64>),
        variables: &[&'static str],
        least: u32,
        default: impl Display,
    ) -> Result<Option<u32>, Error> {
        let check = |value: Option<i64>| {
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| *value >= least)
                .ok_or_else(|| format!("not a whole number between {least} and {}", u32::MAX))
        };
        Ok(
            match argument(name, value.as_ref(), |value| check(Some(*value)))? {
                Some(value) => Some(value),
                None => self.read(variables, |text| check(text.parse().ok()), default),
            },
        )
    }

    /// A duration in milliseconds, from an argument or from variables, which must be whole numbers.
    pub(super) fn milliseconds(
        &mut self,
        (name, value): (&'static str, Option<f64>),
        variables: &[&'static str],
        default: Duration,
    ) -> Result<Duration, Error> {
        let check = |ms: Option<f64>, what: &str| {
            ms.filter(|ms| (0.0..=f64::from(i32::MAX)).contains(ms))
                .map(|ms| Duration::from_secs_f64(ms / 1000.0))
                .ok_or_else(|| format!("not a {what} of milliseconds between 0 and {}", i32::MAX))
        };
        let whole = |text: &str| check(text.parse().ok().map(u32::into), "whole number");
        Ok(
            match argument(name, value.as_ref(), |ms| check(Some(*ms), "number"))? {
                Some(value) => value,
                None => self
                    .read(variables, whole, format_args!("{} ms", default.as_millis()))
                    .unwrap_or(default),
            },
        )
    }

    /// [`milliseconds`](Self::milliseconds) of a timeout, where 0 is no limit.
    pub(super) fn timeout(
        &mut self,
        argument: (&'static str, Option<f64>),
        variables: &[&'static str],
        default: Duration,
    ) -> Result<Duration, Error> {
        let timeout = self.milliseconds(argument, variables, default)?;
        Ok(if timeout.is_zero() { NO_LIMIT } else { timeout })
    }

    /// A switch; only `true`, in any case, switches on.
    pub(super) fn switch(&mut self, argument: Option<bool>, variables: &[&'static str]) -> bool {
        self.switch_or(false, argument, variables)
    }

    /// A switch that stands at `default` unless it is told `true` or `false`, in any case.
    pub(super) fn switch_or(
        &mut self,
        default: bool,
        argument: Option<bool>,
        variables: &[&'static str],
    ) -> bool {
        let parse = |text: &str| match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("not true or false".into()),
        };
        argument
            .or_else(|| self.read(variables, parse, if default { "true" } else { "false" }))
            .unwrap_or(default)
    }
}

/// Checks an argument, if it was given.
pub(super) fn argument<A: Debug + ?Sized, T>(
    name: &str,
    value: Option<&A>,
    check: impl FnOnce(&A) -> Result<T, Problem>,
) -> Result<Option<T>, Error> {
    let refuse = |value: &A, problem| {
        let value = format!("{value:?}");
        Error::configuration(
            name,
            format!("{} is {problem}", without_password(name, &value)),
        )
    };
    value
        .map(|value| check(value).map_err(|problem| refuse(value, problem)))
        .transpose()
}

/// Checks every member of a list argument; the distinct ones are kept. `none` alone is the empty list.
fn argument_list<T: PartialEq>(
    name: &str,
    members: &[String],
    parse: impl Fn(&str) -> Result<T, Problem>,
) -> Result<Vec<T>, Error> {
    let mut taken = Vec::new();
    if matches!(members, [only] if is_none(only)) {
        return Ok(taken);
    }
    for member in members {
        if let Some(parsed) = argument(name, Some(member.as_str()), &parse)?
            && !taken.contains(&parsed)
        {
            taken.push(parsed);
        }
    }
    Ok(taken)
}

pub(super) fn is_none(name: &str) -> bool {
    name.eq_ignore_ascii_case("none")
}

/// Undoes percent-encoding; `None` for a percent sign without two digits and for what is not UTF-8.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut after_percent = text.split('%').skip(1);
    let is_escape =
        |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !after_percent.all(is_escape) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

fn shown(name: &str, value: &str) -> String {
    without_password(name, &format!("{value:?}"))
}

/// Takes user and password out of an endpoint that is about to be shown; `name` is the setting.
pub(super) fn without_password(name: &str, value: &str) -> String {
    let authority = value.find("://").map_or(1, |scheme| scheme + 3);
    match value.rfind('@') {
        Some(at) if name.to_ascii_lowercase().ends_with("endpoint") && at >= authority => {
            format!("{}***{}", &value[..authority], &value[at..])
        }
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percent_encoding_is_undone_or_refused() {
        for (text, expected) in [
            ("plain", Some("plain")),
            ("", Some("")),
            ("a%20b%2c%C3%A9+", Some("a b,é+")),
            ("100%", None),
            ("%4", None),
            ("%zz", None),
            ("%é0", None),
            ("%ff", None),
        ] {
            assert_eq!(percent_decoded(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn passwords_in_endpoints_are_not_shown() {
        for (value, expected) in [
            (r#""http://user:secret@host""#, r#""http://***@host""#),
            (r#""user:secret@host:4317""#, r#""***@host:4317""#),
            (r#""http://host""#, r#""http://host""#),
        ] {
            assert_eq!(
                without_password("OTEL_EXPORTER_OTLP_ENDPOINT", value),
                expected
            );
        }
        assert_eq!(without_password("log_level", "\"a@b\""), "\"a@b\"");
    }

    proptest! {
        #[test]
        fn decoding_what_was_encoded_is_the_identity(text: String) {
            let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
            prop_assert_eq!(percent_decoded(&encoded), Some(text));
        }

        #[test]
        fn any_text_is_decoded_or_refused(text: String) {
            if let Some(decoded) = percent_decoded(&text) {
                prop_assert!(decoded == text || text.contains('%'));
            }
        }
    }
}
