//! Requests that make no span and no metric, by their URL.

use super::pattern::Pattern;

/// Patterns of URLs that are not traced.
///
/// Each is searched for in `scheme://host[:port]/path`, in exact case, as OpenTelemetry Python does with
/// `OTEL_PYTHON_EXCLUDED_URLS`: `/health` also finds `/api/healthz`, `^https://` finds by scheme, `/health$` by the end of
/// the path, as the query is not part of it. Texts cost a few nanoseconds each, regular expressions some more for each
/// character of the URL.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ExcludedUrls(Vec<Pattern>);

impl FromIterator<Pattern> for ExcludedUrls {
    /// From patterns made with [`Pattern::anywhere`].
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        let mut patterns: Vec<_> = patterns.into_iter().collect();
        // The cheap ones first.
        patterns.sort_by_key(|pattern| pattern.literal().is_none());
        Self(patterns)
    }
}

impl ExcludedUrls {
    /// Whether no URL is excluded, so that none needs to be put together.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request for this URL is not traced.
    pub fn excludes(&self, url: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn excluded(patterns: &[&str]) -> ExcludedUrls {
        patterns
            .iter()
            .filter_map(|pattern| Pattern::anywhere(pattern).ok())
            .collect()
    }

    #[test]
    fn any_pattern_excludes_by_any_part_of_the_url() {
        let urls = excluded(&["^https?://internal[:/]", "/health$", "metrics"]);
        assert!(!urls.is_empty());
        for (url, expected) in [
            ("http://shop/health", true),
            ("http://shop:8000/health", true),
            ("http://shop/healthy", false),
            ("http://shop/api/metrics/1", true),
            ("http://shop/Metrics", false),
            ("https://internal:8443/", true),
            ("http://internals/", false),
            ("", false),
        ] {
            assert_eq!(urls.excludes(url), expected, "{url}");
        }
    }

    #[test]
    fn no_pattern_excludes_nothing() {
        let urls = ExcludedUrls::default();
        assert!(urls.is_empty() && !urls.excludes("http://shop/") && !urls.excludes(""));
    }

    proptest! {
        #[test]
        fn any_url_is_excluded_or_not(url: String) {
            let found = url.contains('a') || url.contains("//");
            prop_assert_eq!(excluded(&["a", "/[/]"]).excludes(&url), found);
        }
    }
}
