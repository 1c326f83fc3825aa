//! What a collector says back, over HTTP and over gRPC alike.
//!
//! Everything here reads bytes that a stranger wrote: nothing can fail, sizes are bounded, and text is made safe for a
//! log line before it leaves.

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use super::Outcome;
use crate::wire::json;

/// Characters of a foreign text that a log line carries.
const EXCERPT: usize = 200;

/// `google.rpc.Status`: the body of an OTLP/HTTP failure and the `grpc-status-details-bin` of a gRPC one.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The outcome of a request that was taken, with what `partial_success` says of it. The response of every signal has the
/// same fields under the same numbers; only their names differ.
///
/// A body that does not decode changes nothing: the status has already said that the spans were taken.
pub(super) fn delivered(body: &[u8]) -> Outcome {
    ExportTraceServiceResponse::decode(body)
        .ok()
        .and_then(|response| response.partial_success)
        .map_or(Outcome::DELIVERED, |partial| Outcome::Delivered {
            // A negative count is nonsense, and nonsense rejects nothing.
            rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
            message: (!partial.error_message.is_empty()).then(|| excerpt(&partial.error_message)),
        })
}

/// [`delivered`] for a body in JSON.
pub(super) fn delivered_json(body: &[u8]) -> Outcome {
    json::partial_success(body).map_or(Outcome::DELIVERED, |(rejected, message)| {
        Outcome::Delivered {
            rejected,
            message: (!message.is_empty()).then(|| excerpt(&message)),
        }
    })
}

/// [`failure_message`] for a body in JSON.
pub(super) fn failure_message_json(body: &[u8]) -> String {
    match json::status_message(body) {
        Some(message) if !message.is_empty() => excerpt(&message),
        _ => text_of(body),
    }
}

fn text_of(body: &[u8]) -> String {
    excerpt(&String::from_utf8_lossy(
        &body[..body.len().min(4 * EXCERPT)],
    ))
}

/// What the body of a failure says: the message of a `google.rpc.Status`, else its text; empty when it says nothing.
pub(super) fn failure_message(body: &[u8]) -> String {
    match RpcStatus::decode(body) {
        Ok(status) if !status.message.is_empty() => excerpt(&status.message),
        _ => text_of(body),
    }
}

/// The delay of the `RetryInfo` in an encoded `google.rpc.Status`; zero when it names none, `None` without `RetryInfo`.
pub(super) fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status
        .details
        .iter()
        .find(|detail| detail.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay;
    Some(delay.map_or(Duration::ZERO, |delay| {
        let seconds = u64::try_from(delay.seconds).unwrap_or(0);
        let nanos = u32::try_from(delay.nanos).unwrap_or(0).min(999_999_999);
        Duration::new(seconds, nanos)
    }))
}

/// The delay of a `Retry-After` header: seconds or a date (RFC 9110, section 10.2.3). A date gone by means now.
pub(super) fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(header).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Whether a gRPC message says that the request was too big. Every implementation has its own words for it and no code:
/// grpc-go and grpc-core "larger than max", tonic "message length too large", grpc-java "exceeds maximum size", grpc-dotnet
/// "exceeds the maximum configured message size", and a proxy in front just answers HTTP 413.
pub(super) fn is_about_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [
        "larger than max",
        "too large",
        "maximum size",
        "max size",
        "message size",
        "size limit",
        "status code 413",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// The beginning of a foreign text on one line, without anything that could move a terminal's cursor.
pub(super) fn excerpt(text: &str) -> String {
    let text = text.trim();
    let mut line: String = text
        .chars()
        .take(EXCERPT)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(EXCERPT).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    /// An encoded response with this partial success.
    pub(crate) fn partial(rejected_spans: i64, error_message: &str) -> Vec<u8> {
        ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans,
                error_message: error_message.into(),
            }),
        }
        .encode_to_vec()
    }

    /// An encoded `google.rpc.Status`, with a `RetryInfo` when there is a delay.
    pub(crate) fn rpc_status(message: &str, retry: Option<Duration>) -> Vec<u8> {
        let retry_info = |delay: Duration| Detail {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
            value: RetryInfo {
                retry_delay: Some(Delay {
                    seconds: delay.as_secs().cast_signed(),
                    nanos: delay.subsec_nanos().cast_signed(),
                }),
            }
            .encode_to_vec(),
        };
        let unrelated = Detail {
            type_url: "type.googleapis.com/google.rpc.DebugInfo".into(),
            value: vec![0xff; 300],
        };
        RpcStatus {
            code: 8,
            message: message.into(),
            details: std::iter::once(unrelated)
                .chain(retry.map(retry_info))
                .collect(),
        }
        .encode_to_vec()
    }

    #[test]
    fn partial_success_is_read_and_an_undecodable_body_still_counts_as_delivered() {
        assert_eq!(delivered(b""), Outcome::DELIVERED);
        assert_eq!(delivered(b"<html>ok</html>"), Outcome::DELIVERED);
        assert_eq!(delivered(&partial(0, "")), Outcome::DELIVERED);
        assert_eq!(
            delivered(&partial(3, "too old")),
            Outcome::Delivered {
                rejected: 3,
                message: Some("too old".into())
            }
        );
        assert_eq!(
            delivered(&partial(-1, "a warning")),
            Outcome::Delivered {
                rejected: 0,
                message: Some("a warning".into())
            }
        );
    }

    #[test]
    fn a_failure_speaks_through_its_status_or_else_its_text() {
        let long = "x".repeat(150);
        assert_eq!(failure_message(&rpc_status(&long, None)), long);
        assert_eq!(
            failure_message(b" no such\r\npage\x1b[2J "),
            "no such  page [2J"
        );
        assert_eq!(failure_message(b""), "");
        assert_eq!(
            failure_message("é".repeat(900).as_bytes()),
            format!("{}…", "é".repeat(200))
        );
    }

    #[test]
    fn retry_info_is_found_among_other_details() {
        let delay = Duration::new(7, 250_000_000);
        assert_eq!(retry_info(&rpc_status("", Some(delay))), Some(delay));
        assert_eq!(retry_info(&rpc_status("", None)), None);
        assert_eq!(retry_info(b"\xff\xff"), None);
    }

    #[test]
    fn retry_after_takes_seconds_and_dates() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").ok();
        let after = |header| now.and_then(|now| retry_after(header, now));
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            after("Sun, 06 Nov 1994 08:50:00 GMT"),
            Some(Duration::from_secs(23))
        );
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("-5"), None);
        assert_eq!(after("soon"), None);
    }
}
