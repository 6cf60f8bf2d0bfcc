//! Answers to a gRPC health check: only a whole one says that a server serves, and what else it says fits on a line.
#![no_main]

use backstop::signal::check::grpc::examine;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The status, the words, and the rest is the message.
    let mut parts = data.splitn(3, |b| *b == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (status, said, message) = (next(), next(), next());
    match examine(message, status, said) {
        Ok(serving) => {
            assert_eq!((serving, status), ("SERVING", &b"0"[..]));
            let length = u32::try_from(message.len() - 5).unwrap().to_be_bytes();
            assert_eq!(message[..5], [&[0], &length[..]].concat());
        }
        Err(wrong) => assert!(!wrong.contains(char::is_control) && wrong.len() < 2048, "{wrong}"),
    }
});
