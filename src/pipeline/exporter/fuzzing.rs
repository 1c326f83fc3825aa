//! The reading of a collector's answers, for the fuzz targets in `fuzz/` alone; no part of the public interface.

use std::time::SystemTime;

use super::{Outcome, response};

/// Reads `answer` in every way in which an answer is read; the texts that could reach a log line.
pub fn read_response(answer: &[u8], now: SystemTime) -> Vec<String> {
    let text = String::from_utf8_lossy(answer);
    let _ = response::retry_info(answer);
    let _ = response::retry_after(&text, now);
    let _ = response::is_about_size(&text);
    let mut texts = vec![response::failure_message(answer), response::excerpt(&text)];
    if let Outcome::Delivered {
        message: Some(message),
        ..
    } = response::delivered(answer)
    {
        texts.push(message);
    }
    texts
}
