//! Which spans are recorded: `OTEL_TRACES_SAMPLER` and its argument.

use super::Arguments;
use super::source::{Problem, Variables, argument};
use crate::error::Error;
use crate::sampler::{Ratio, Root, Sampler};

const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

enum Named {
    Fixed(Sampler),
    ByRatio(fn(Root) -> Sampler),
}

/// The sampler. A ratio in an argument counts over a variable's sampler that takes none.
pub(super) fn load(arguments: &Arguments, variables: &mut Variables<'_>) -> Result<Sampler, Error> {
    let ratio = argument("sampler_ratio", arguments.sampler_ratio.as_ref(), |ratio| {
        check_ratio(*ratio)
    })?;
    let named = match argument("sampler", arguments.sampler.as_deref(), parse)? {
        Some(Named::Fixed(sampler)) if ratio.is_none() => return Ok(sampler),
        Some(Named::Fixed(_)) => {
            return Err(Error::configuration(
                "sampler_ratio",
                "only the samplers traceidratio and parentbased_traceidratio take a ratio",
            ));
        }
        Some(named) => named,
        None => match variables.read(&["OTEL_TRACES_SAMPLER"], parse, "parentbased_always_on") {
            Some(Named::ByRatio(sampler)) => Named::ByRatio(sampler),
            _ if ratio.is_some() => Named::ByRatio(Sampler::ParentBased),
            named => named.unwrap_or(Named::Fixed(Sampler::default())),
        },
    };
    match named {
        Named::ByRatio(sampler) => {
            let parse = |text: &str| check_ratio(text.parse().unwrap_or(f64::NAN));
            let ratio = ratio.or_else(|| variables.read(&[SAMPLER_ARG], parse, "1.0"));
            Ok(sampler(ratio.map_or(Root::On, Root::Ratio)))
        }
        Named::Fixed(sampler) => {
            if let Some(value) = variables.value(SAMPLER_ARG) {
                let problem = format!(
                    "{value:?} is not used, as OTEL_TRACES_SAMPLER does not name a sampler with a ratio"
                );
                variables.warn(SAMPLER_ARG, problem, "the sampler without it");
            }
            Ok(sampler)
        }
    }
}

fn check_ratio(ratio: f64) -> Result<Ratio, Problem> {
    Ratio::new(ratio).ok_or_else(|| "not a number between 0 and 1".into())
}

fn parse(name: &str) -> Result<Named, Problem> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "always_on" => Named::Fixed(Sampler::Always(Root::On)),
        "always_off" => Named::Fixed(Sampler::Always(Root::Off)),
        "traceidratio" => Named::ByRatio(Sampler::Always),
        "parentbased_always_on" => Named::Fixed(Sampler::ParentBased(Root::On)),
        "parentbased_always_off" => Named::Fixed(Sampler::ParentBased(Root::Off)),
        "parentbased_traceidratio" => Named::ByRatio(Sampler::ParentBased),
        _ => {
            return Err("not always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or \
                        parentbased_traceidratio"
                .into());
        }
    })
}
