//! Requests that no person made, as far as their User-Agent admits it.

/// The value of `user_agent.synthetic.type`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SyntheticType {
    /// A crawler, or a service that makes previews of links.
    Bot,
    /// A monitor or a health check.
    Test,
}

/// How well-known programs begin a word of their User-Agent, in lower case, as their operators publish it. Not simply
/// `bot`: phones and libraries have it in their names too.
const KNOWN: [(&str, SyntheticType); 58] = {
    use SyntheticType::{Bot, Test};
    [
        ("adsbot-google", Bot),
        ("ahrefsbot", Bot),
        ("alwayson", Test),
        ("amazon-route53-health-check-service", Test),
        ("amazonbot", Bot),
        ("apis-google", Bot),
        ("applebot", Bot),
        ("archive.org_bot", Bot),
        ("baiduspider", Bot),
        ("better uptime bot", Test),
        ("bingbot", Bot),
        ("bingpreview", Bot),
        ("blackbox exporter", Test),
        ("bytespider", Bot),
        ("ccbot", Bot),
        ("chatgpt-user", Bot),
        ("checkly", Test),
        ("claude-searchbot", Bot),
        ("claude-user", Bot),
        ("claudebot", Bot),
        ("consul health check", Test),
        ("datadog/synthetics", Test),
        ("datadogsynthetics", Test),
        ("discordbot", Bot),
        ("dotbot", Bot),
        ("duckduckbot", Bot),
        ("elb-healthchecker", Test),
        ("facebookexternalhit", Bot),
        ("google-inspectiontool", Bot),
        ("googlebot", Bot),
        ("googlehc", Test),
        ("googleother", Bot),
        ("googlestackdrivermonitoring", Test),
        ("gptbot", Bot),
        ("ia_archiver", Bot),
        ("kube-probe", Test),
        ("linkedinbot", Bot),
        ("mediapartners-google", Bot),
        ("meta-externalagent", Bot),
        ("mj12bot", Bot),
        ("msnbot", Bot),
        ("newrelicpinger", Test),
        ("oai-searchbot", Bot),
        ("perplexitybot", Bot),
        ("petalbot", Bot),
        ("pingdom", Test),
        ("pinterestbot", Bot),
        ("semrushbot", Bot),
        ("site24x7", Test),
        ("slackbot", Bot),
        ("slurp", Bot),
        ("statuscake", Test),
        ("storebot-google", Bot),
        ("telegrambot", Bot),
        ("twitterbot", Bot),
        ("uptimerobot", Test),
        ("yandexbot", Bot),
        ("yandeximages", Bot),
    ]
};

impl SyntheticType {
    /// The value of the attribute.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bot => "bot",
            Self::Test => "test",
        }
    }

    /// What a User-Agent says of itself; `None` for a person, for what is not known and for what pretends.
    ///
    /// One pass, in any case; a word that begins like a known name decides, the first one in the text.
    ///
    /// ```
    /// use rvh_trace::http_server::SyntheticType;
    ///
    /// let agent = b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    /// assert_eq!(SyntheticType::of(agent), Some(SyntheticType::Bot));
    /// ```
    pub fn of(user_agent: &[u8]) -> Option<Self> {
        let mut in_word = false;
        for (place, byte) in user_agent.iter().enumerate() {
            let begins = !in_word && byte.is_ascii_alphanumeric();
            in_word = byte.is_ascii_alphanumeric();
            if begins && let Some(found) = begins_with_known(&user_agent[place..]) {
                return Some(found);
            }
        }
        None
    }
}

fn begins_with_known(text: &[u8]) -> Option<SyntheticType> {
    let first = text.first()?.to_ascii_lowercase();
    let begins_text = |known: &str| {
        text.get(..known.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(known.as_bytes()))
    };
    KNOWN
        .iter()
        .find(|(known, _)| known.as_bytes()[0] == first && begins_text(known))
        .map(|(_, synthetic)| *synthetic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn well_known_programs_are_recognised_and_people_are_not() {
        for (agent, expected) in [
            (
                "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
                Some("bot"),
            ),
            (
                "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Googlebot/2.1) Safari/537.36",
                Some("bot"),
            ),
            ("Mozilla/5.0 (compatible; Yahoo! Slurp)", Some("bot")),
            (
                "AdsBot-Google (+http://www.google.com/adsbot.html)",
                Some("bot"),
            ),
            ("facebookexternalhit/1.1", Some("bot")),
            ("GOOGLEBOT", Some("bot")),
            (
                "Mozilla/5.0 (compatible; MSIE 9.0; Windows NT 6.1; Trident/5.0; AppInsights) AlwaysOn",
                Some("test"),
            ),
            ("kube-probe/1.31", Some("test")),
            ("ELB-HealthChecker/2.0", Some("test")),
            ("Consul Health Check", Some("test")),
            (
                "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
                Some("test"),
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                None,
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; CUBOT KINGKONG) AppleWebKit/537.36",
                None,
            ),
            ("notgooglebot/1.0", None),
            ("python-httpx/0.28", None),
            ("google", None),
            ("", None),
        ] {
            let found = SyntheticType::of(agent.as_bytes()).map(SyntheticType::as_str);
            assert_eq!(found, expected, "{agent}");
        }
    }

    #[test]
    fn every_known_name_is_found_as_itself() {
        for (place, (known, synthetic)) in KNOWN.iter().enumerate() {
            assert_eq!(
                SyntheticType::of(known.as_bytes()),
                Some(*synthetic),
                "{known}"
            );
            assert_eq!(known.to_ascii_lowercase(), *known);
            assert!(place == 0 || KNOWN[place - 1].0 < *known, "{known}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_agent(agent: Vec<u8>) {
            SyntheticType::of(&agent);
        }

        #[test]
        fn a_known_name_is_found_anywhere(before in "[ -/]{0,10}", after in "[ -~]{0,10}") {
            prop_assert_eq!(SyntheticType::of(format!("{before}BingBot{after}").as_bytes()), Some(SyntheticType::Bot));
        }
    }
}
