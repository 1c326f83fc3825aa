//! What the semantic conventions leave to the user: attributes and metrics that are recorded only if asked for by name.

use super::named_set::named_set;

named_set! {
    /// The opt-in attributes and metrics that are on.
    ///
    /// ```
    /// use rvh_trace::http_server::OptIn;
    ///
    /// let opt_in: OptIn = ["client.port".parse()?].into_iter().collect();
    /// assert!(opt_in.has(OptIn::CLIENT_PORT) && !opt_in.has(OptIn::ACTIVE_REQUESTS_METRIC));
    /// # Ok::<(), String>(())
    /// ```
    pub struct OptIn(u8) {
        /// Span attribute `client.port`.
        CLIENT_PORT = "client.port",
        /// Span attribute `user_agent.synthetic.type`, see [`SyntheticType`](super::SyntheticType).
        USER_AGENT_SYNTHETIC_TYPE = "user_agent.synthetic.type",
        /// Span attribute `http.request.body.size`, in bytes as they passed.
        REQUEST_BODY_SIZE = "http.request.body.size",
        /// Span attribute `http.response.body.size`, in bytes as they passed.
        RESPONSE_BODY_SIZE = "http.response.body.size",
        /// Metric `http.server.active_requests`.
        ACTIVE_REQUESTS_METRIC = "http.server.active_requests",
        /// Metric `http.server.request.body.size`.
        REQUEST_BODY_SIZE_METRIC = "http.server.request.body.size",
        /// Metric `http.server.response.body.size`.
        RESPONSE_BODY_SIZE_METRIC = "http.server.response.body.size",
        /// `server.address` and `server.port` on metrics. Clients choose them: whoever asks for them bounds what `Host` may be.
        SERVER_ADDRESS_ON_METRICS = "server.address",
    }
}

impl Default for OptIn {
    fn default() -> Self {
        Self::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_its_own_member() {
        let sets: Vec<OptIn> = OptIn::NAMES
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        assert_eq!(
            sets,
            [
                OptIn::CLIENT_PORT,
                OptIn::USER_AGENT_SYNTHETIC_TYPE,
                OptIn::REQUEST_BODY_SIZE,
                OptIn::RESPONSE_BODY_SIZE,
                OptIn::ACTIVE_REQUESTS_METRIC,
                OptIn::REQUEST_BODY_SIZE_METRIC,
                OptIn::RESPONSE_BODY_SIZE_METRIC,
                OptIn::SERVER_ADDRESS_ON_METRICS,
            ]
        );
        for (place, one) in sets.iter().enumerate() {
            assert!(sets[..place].iter().all(|other| !other.has(*one)));
        }
    }
}
