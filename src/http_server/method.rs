//! Request methods: which ones a span names.

/// The methods that keep their name (semantic conventions, `http.request.method`); case-sensitive.
const KNOWN_METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
];

/// Whether a method is reported as it is. `configured` replaces the standard list.
pub fn is_known_method(method: &str, configured: Option<&[String]>) -> bool {
    match configured {
        Some(methods) => methods.iter().any(|known| known == method),
        None => KNOWN_METHODS.contains(&method),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_exact_case() {
        assert!(is_known_method("QUERY", None));
        assert!(!is_known_method("get", None));
        let configured = ["PURGE".to_owned()];
        assert!(is_known_method("PURGE", Some(&configured)));
        assert!(!is_known_method("GET", Some(&configured)));
    }
}
