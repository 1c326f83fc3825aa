//! The inputs that fuzzing has kept, through the targets that they are kept for; and bytes at random, as many as a test may.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a library there, a module here")]
mod targets;

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

/// Its name, which is that of its corpus, and what it does with an input.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 8] = [
    ("traceparent", targets::traceparent),
    ("tracestate", targets::tracestate),
    ("baggage", targets::baggage),
    ("propagators", targets::propagators),
    ("forwarded", targets::forwarded),
    ("response", targets::response),
    ("waterfall", targets::waterfall),
    ("spool", targets::spool),
];

#[test]
fn no_input_of_the_corpus_breaks_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in TARGETS {
        let inputs: Vec<_> = fs::read_dir(corpus.join(name))
            .unwrap()
            .map(|input| input.unwrap().path())
            .collect();
        assert!(inputs.len() > 1, "{name} has no corpus");
        for input in inputs {
            target(&fs::read(&input).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_break_a_target(data in vec(any::<u8>(), 0..600)) {
        for (_, target) in TARGETS {
            target(&data);
        }
    }

    #[test]
    fn no_text_breaks_a_target(data in "[-0-9a-f=,;:\\.\\[\\]\"%_*@ \t\nA-Zx\\PC]{0,300}") {
        for (_, target) in TARGETS {
            target(data.as_bytes());
        }
    }
}
