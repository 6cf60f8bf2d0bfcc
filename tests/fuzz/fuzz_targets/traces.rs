//! Traces for `backstop replay`: whatever they hold, each is either refused with the line that is wrong, or played to its
//! end, and what is decided is in order.
#![no_main]

use backstop::core::settings::{FleetSettings, ServiceSettings};
use backstop::replay::{Trace, run_trace};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Trace::parse(text) {
        Ok(trace) => {
            let lines = run_trace(&trace, &|_| ServiceSettings::default(), FleetSettings::default());
            assert!(lines.is_sorted_by(|a, b| a.t <= b.t));
        }
        Err(wrong) => assert!(wrong.to_string().contains("line "), "{wrong}"),
    }
});
