//! Answers of a Prometheus server, or of whatever says that it is one: each is either refused in words, or its numbers hang
//! together.
#![no_main]

use backstop::signal::promql::examine;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // A form feed ends an answer: JSON has none.
    let answers: Vec<&[u8]> = data.split(|b| *b == 0x0c).collect();
    for found in examine(&answers) {
        match found {
            Ok(found) => {
                assert!(found.errors <= found.total);
                let latency = found.latency;
                assert!(latency.counts.is_empty() || latency.counts.len() == latency.bounds.len() + 1);
                assert!(latency.counts.is_sorted() && latency.bounds.is_sorted());
                assert!(latency.bounds.iter().all(|b| b.is_finite() && *b > 0.0));
            }
            Err(why) => assert!(!why.is_empty() && !why.contains('\n'), "{why}"),
        }
    }
});
