//! Regular expressions of settings, for header names and URLs.
//!
//! The syntax is that of the `regex-lite` crate, which is Python's without look-around, backreferences and `\Z`. Matching
//! takes linear time whatever a client sends. A pattern without special characters, which most are, is compared as text.

use regex_lite::{Regex, RegexBuilder};

/// The characters that make more than text of a pattern.
const SPECIAL: [char; 14] = [
    '\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$',
];

/// One compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    /// The whole of this text, in any case.
    Whole,
    /// This text, which is ASCII, anywhere and in any case.
    AnywhereInAnyCase,
    /// This text anywhere.
    Anywhere,
    Regex(Regex),
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Pattern {
    /// A pattern that is to match the whole text, in any ASCII case.
    ///
    /// # Errors
    ///
    /// What `source` is instead of a pattern, to be written behind it.
    pub fn whole(source: &str) -> Result<Self, String> {
        // Alone first: `a)|(b` compiles only inside parentheses.
        let literal = Self::compile(source, Matcher::Whole, true)?;
        match literal.matcher {
            Matcher::Regex(_) => Self::compile(&format!(r"\A(?:{source})\z"), Matcher::Whole, true),
            _ => Ok(literal),
        }
    }

    /// A pattern that is to match any part of the text, in any ASCII case.
    ///
    /// # Errors
    ///
    /// As [`whole`](Self::whole).
    pub fn anywhere_in_any_case(source: &str) -> Result<Self, String> {
        Self::compile(source, Matcher::AnywhereInAnyCase, true)
    }

    /// A pattern that is to match any part of the text.
    ///
    /// # Errors
    ///
    /// As [`whole`](Self::whole).
    pub fn anywhere(source: &str) -> Result<Self, String> {
        Self::compile(source, Matcher::Anywhere, false)
    }

    fn compile(source: &str, literal: Matcher, in_any_case: bool) -> Result<Self, String> {
        // An empty pattern would match everything: more likely an accident than a wish.
        if source.is_empty() {
            return Err("not a regular expression; to match everything, use .*".into());
        }
        let matcher = if source.contains(SPECIAL) {
            let regex = RegexBuilder::new(source)
                .case_insensitive(in_any_case)
                .build()
                .map_err(|error| {
                    format!(
                        "not a regular expression without look-around and backreferences: {error}"
                    )
                })?;
            Matcher::Regex(regex)
        } else {
            literal
        };
        Ok(Self {
            source: source.to_owned(),
            matcher,
        })
    }

    /// The whole text that it stands for, if it is no more than text.
    pub fn literal(&self) -> Option<&str> {
        (!matches!(self.matcher, Matcher::Regex(_))).then_some(&self.source)
    }

    /// Whether `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        match &self.matcher {
            Matcher::Whole => text.eq_ignore_ascii_case(&self.source),
            Matcher::AnywhereInAnyCase => text
                .as_bytes()
                .windows(self.source.len())
                .any(|part| part.eq_ignore_ascii_case(self.source.as_bytes())),
            Matcher::Anywhere => text.contains(&self.source),
            Matcher::Regex(regex) => regex.is_match(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Compile = fn(&str) -> Result<Pattern, String>;

    #[test]
    fn patterns_match_all_or_part_of_a_text() {
        let cases: [(Compile, &str, &str, bool); 17] = [
            (Pattern::whole, "accept", "Accept", true),
            (Pattern::whole, "accept", "accept-language", false),
            (Pattern::whole, "Accept.*", "accept-language", true),
            (
                Pattern::whole,
                "accept|accept-language",
                "accept-language",
                true,
            ),
            (Pattern::whole, "x-.", "a-x-b", false),
            (Pattern::whole, "accept|host", "accept-language", false),
            (Pattern::whole, "^x-.$", "X-B", true),
            (Pattern::whole, "x-.", "x-b\n", false),
            (Pattern::anywhere_in_any_case, "Cookie", "set-cookie", true),
            (
                Pattern::anywhere_in_any_case,
                "^cookie",
                "set-cookie",
                false,
            ),
            (
                Pattern::anywhere_in_any_case,
                "COOKIE2?$",
                "set-cookie",
                true,
            ),
            (
                Pattern::anywhere_in_any_case,
                "longer than it",
                "text",
                false,
            ),
            (Pattern::anywhere, "health", "http://shop/healthz", true),
            (Pattern::anywhere, "HEALTH", "http://shop/healthz", false),
            (Pattern::anywhere, "/health$", "http://shop/healthz", false),
            (
                Pattern::anywhere,
                r"//[^/]+/(health|ready)$",
                "http://shop/ready",
                true,
            ),
            (Pattern::anywhere, "é", "/caf\u{e9}", true),
        ];
        for (compile, source, text, expected) in cases {
            let matches = compile(source).map(|pattern| pattern.matches(text));
            assert_eq!(matches, Ok(expected), "{source} {text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let compilers: [Compile; 3] = [
            Pattern::whole,
            Pattern::anywhere_in_any_case,
            Pattern::anywhere,
        ];
        for compile in compilers {
            for source in ["", "(", "a)|(b", "[a", "a{2", "*", "(?=a)", r"(a)\1"] {
                let problem = compile(source).err().unwrap_or_default();
                assert!(
                    problem.starts_with("not a regular expression"),
                    "{source}: {problem}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_pattern_and_text_give_an_answer(source in "[ab(){}|?*+.,0-9\\[\\]^$\\\\é]{0,12}", text: String) {
            for compiled in [Pattern::whole(&source), Pattern::anywhere(&source)].into_iter().flatten() {
                compiled.matches(&text);
            }
        }

        #[test]
        fn an_escaped_text_matches_itself(text in "[ -~é]{1,20}", before in "[ -~]{0,5}") {
            let source = regex_lite::escape(&text);
            let whole = Pattern::whole(&source).map(|pattern| pattern.matches(&text));
            prop_assert_eq!(whole, Ok(true));
            let part = format!("{before}{text}.");
            prop_assert_eq!(Pattern::anywhere(&source).map(|pattern| pattern.matches(&part)), Ok(true));
            prop_assert_eq!(Pattern::whole(&source).map(|pattern| pattern.matches(&part)), Ok(false));
        }
    }
}
