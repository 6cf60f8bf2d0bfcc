//! Notifications of an Alertmanager, or of whatever has the token: each is either refused with what is wrong, or its alerts
//! have names and words that fit on a line.
#![no_main]

use backstop::signal::alerts::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| match parse(data) {
    Ok(notification) => {
        for alert in notification.alerts {
            let (name, summary, _) = (alert.name(&[]), alert.summary(), alert.began());
            assert!(!name.is_empty() && name.chars().count() <= 200, "{name}");
            assert!(summary.chars().count() <= 500, "{summary}");
            assert!(!name.contains(char::is_control) && !summary.contains(char::is_control));
        }
    }
    Err(wrong) => assert!(!wrong.contains(char::is_control), "{wrong}"),
});
