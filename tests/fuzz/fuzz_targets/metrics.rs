//! Metrics pages of all kinds, one after the other: whatever they hold, the numbers hang together.
#![no_main]

use std::time::Duration;

use backstop::core::Timestamp;
use backstop::core::settings::{MetricsSource, Target};
use backstop::signal::scrape::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let source = MetricsSource::auto(
        Target::Url("http://localhost/".into()),
        Duration::from_secs(1),
        Duration::from_secs(1),
    );
    let mut reader = Reader::new(&source);
    // A form feed begins a new page: none of the formats uses it.
    for (at, page) in (1..).zip(data.split(|b| *b == 0x0c)) {
        let kind = if page.first() == Some(&b'\r') { "application/openmetrics-text" } else { "text/plain" };
        if let Ok(Some(found)) = reader.read(Timestamp::from_secs(at), page, kind) {
            assert!(found.errors <= found.total);
            let latency = found.latency;
            assert!(latency.counts.is_empty() || latency.counts.len() == latency.bounds.len() + 1);
            assert!(latency.counts.is_sorted() && latency.bounds.is_sorted());
            assert!(latency.bounds.iter().all(|b| b.is_finite() && *b > 0.0));
        }
    }
});
