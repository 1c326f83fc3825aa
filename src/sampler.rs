//! Whether a span is recorded: the six samplers that OpenTelemetry's environment variables name.
//!
//! Decided once, at span start, from the parent and the trace id; costs one comparison.

use crate::context::{SpanContext, TraceFlags};
use crate::id::TraceId;

/// A standard sampler (OpenTelemetry specification, "Built-in samplers").
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Sampler {
    /// Decides every span by itself, whatever the parent says.
    Always(Root),
    /// Follows the sampled flag of a parent, remote or local; decides only spans without one, and those whose remote parent
    /// left it open.
    ParentBased(Root),
}

/// How a span without a parent is decided.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Root {
    /// `always_on`
    On,
    /// `always_off`
    Off,
    /// `traceidratio`: the share of traces that is kept.
    Ratio(Ratio),
}

/// A sampling ratio between 0 and 1, as the rejection threshold on the trace id's 56 random bits.
///
/// A trace kept at one ratio is kept at every higher one, and by every other service that compares the same bits
/// (OpenTelemetry specification, "`TraceState`: Probability Sampling").
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ratio {
    threshold: u64,
}

impl Ratio {
    const RANDOM_VALUES: u64 = 1 << 56;

    /// The ratio, or `None` outside 0..=1.
    pub fn new(ratio: f64) -> Option<Self> {
        if !(0.0..=1.0).contains(&ratio) {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "2^56 is exact in f64 and the product is between 0 and 2^56"
        )]
        let kept = (ratio * Self::RANDOM_VALUES as f64) as u64;
        Some(Self {
            threshold: Self::RANDOM_VALUES - kept,
        })
    }

    /// Whether a trace with this id is kept.
    pub fn keeps(self, trace_id: TraceId) -> bool {
        trace_id.randomness() >= self.threshold
    }
}

impl Root {
    fn samples(self, trace_id: TraceId) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
            Self::Ratio(ratio) => ratio.keeps(trace_id),
        }
    }
}

impl Default for Sampler {
    /// `parentbased_always_on`, the default of `OTEL_TRACES_SAMPLER`.
    fn default() -> Self {
        Self::ParentBased(Root::On)
    }
}

impl Sampler {
    /// Whether a span in `trace_id` with this parent is recorded. `parent` is `None` for a root.
    #[inline]
    pub fn samples(&self, parent: Option<&SpanContext>, trace_id: TraceId) -> bool {
        match (self, parent) {
            (Self::ParentBased(_), Some(parent)) if parent.is_sampled() => true,
            (Self::ParentBased(_), Some(parent))
                if !parent.flags.contains(TraceFlags::DEFERRED) =>
            {
                false
            }
            (Self::ParentBased(root) | Self::Always(root), _) => root.samples(trace_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent(sampled: bool) -> SpanContext {
        SpanContext {
            flags: TraceFlags::default().with_sampled(sampled),
            ..SpanContext::INVALID
        }
    }

    #[test]
    fn parent_based_follows_the_parent_and_decides_only_roots() {
        let sampler = Sampler::ParentBased(Root::Off);
        assert!(sampler.samples(Some(&parent(true)), TraceId::random()));
        assert!(!sampler.samples(None, TraceId::random()));
        assert!(!Sampler::default().samples(Some(&parent(false)), TraceId::random()));
        assert!(Sampler::Always(Root::On).samples(Some(&parent(false)), TraceId::random()));
    }

    #[test]
    fn what_a_parent_left_open_is_decided_as_a_root_is() {
        let open = SpanContext {
            flags: TraceFlags::DEFERRED,
            ..SpanContext::INVALID
        };
        for (root, sampled) in [(Root::On, true), (Root::Off, false)] {
            let sampler = Sampler::ParentBased(root);
            assert_eq!(sampler.samples(Some(&open), TraceId::random()), sampled);
        }
    }

    #[test]
    fn a_ratio_keeps_its_share_and_nests_in_every_higher_one() {
        let (low, high) = (Ratio::new(0.25), Ratio::new(0.5));
        let (Some(low), Some(high)) = (low, high) else {
            unreachable!()
        };
        let ids: Vec<_> = (0..20_000).map(|_| TraceId::random()).collect();
        let kept = ids.iter().filter(|id| low.keeps(**id)).count();
        assert!(
            (4_300..5_700).contains(&kept),
            "kept {kept} of 20000 at 0.25"
        );
        assert!(ids.iter().all(|id| !low.keeps(*id) || high.keeps(*id)));
    }

    #[test]
    fn the_ends_of_the_range_are_all_and_nothing() {
        let all = Ratio::new(1.0).map(|r| r.keeps(TraceId::INVALID));
        let none = Ratio::new(0.0).map(|r| r.keeps(TraceId::from_bytes([0xff; 16])));
        assert_eq!((all, none), (Some(true), Some(false)));
        assert_eq!(
            (Ratio::new(1.1), Ratio::new(-0.1), Ratio::new(f64::NAN)),
            (None, None, None)
        );
    }
}
