//! What containers write, as the engine sends it: however it is cut on the way the lines are the same, and whatever they
//! hold, the numbers hang together.
#![no_main]

use std::collections::VecDeque;

use backstop::core::sample::Measurement;
use backstop::signal::logs::frames::Decoder;
use backstop::signal::logs::{LINE_MAX, examine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for tty in [false, true] {
        let mut whole = VecDeque::new();
        let mut decoder = Decoder::new(tty);
        decoder.feed(data, &mut whole);
        decoder.finish(&mut whole);
        let mut bytewise = VecDeque::new();
        let mut decoder = Decoder::new(tty);
        for byte in data.chunks(1) {
            decoder.feed(byte, &mut bytewise);
        }
        decoder.finish(&mut bytewise);
        assert_eq!(whole, bytewise);
        // A byte that is no UTF-8 becomes three.
        assert!(whole.iter().flatten().all(|line| line.text.len() <= 3 * LINE_MAX));
    }
    for (_, found) in examine(data) {
        let Measurement::Requests(found) = found else { continue };
        assert!(found.errors <= found.total);
        assert!(found.parts.iter().map(|part| part.total).sum::<u64>() <= found.total);
        let latency = found.latency;
        assert!(latency.counts.is_empty() || latency.counts.len() == latency.bounds.len() + 1);
        assert!(latency.counts.is_sorted());
    }
});
