//! The other end of a webhook: keeps what it is sent, and can refuse it first.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::eventually;

#[derive(Clone, Debug, Default)]
struct Received {
    bodies: Arc<Mutex<Vec<Value>>>,
    refusals: Arc<AtomicUsize>,
}

#[derive(Debug)]
pub(crate) struct Webhook {
    address: String,
    received: Received,
}

impl Webhook {
    pub(crate) fn start() -> Self {
        Self::refusing(0)
    }

    /// Answers the first `times` deliveries with 503 and forgets them.
    pub(crate) fn refusing(times: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let received = Received { refusals: Arc::new(AtomicUsize::new(times)), ..Received::default() };
        let shared = received.clone();
        // Ends with the process: it is blocked in `accept` when the test is over, and holds nothing that matters.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || shared.take(stream));
            }
        });
        Self { address, received }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.received.bodies.lock().unwrap().clone()
    }

    /// The first announcement whose text holds all of `words`.
    #[track_caller]
    pub(crate) fn announced(&self, deadline: Duration, words: &[&str]) -> Value {
        eventually(deadline, &format!("an announcement with {words:?}"), || {
            let bodies = self.bodies();
            let fits = |body: &&Value| words.iter().all(|word| body.to_string().contains(word));
            bodies.iter().find(fits).cloned().ok_or_else(|| format!("{bodies:#?}"))
        })
    }
}

impl Webhook {
    /// How many announcements hold all of `words`. Each is delivered at least once: the same one again is no other.
    pub(crate) fn announcements(&self, words: &[&str]) -> usize {
        let all: BTreeSet<String> = self.bodies().iter().map(Value::to_string).collect();
        all.iter().filter(|body| words.iter().all(|word| body.contains(word))).count()
    }
}

impl Received {
    fn take(&self, mut stream: TcpStream) {
        let Some(body) = read_body(&stream) else { return };
        let refuse =
            self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if !refuse {
            self.bodies.lock().unwrap().push(serde_json::from_str(&body).unwrap_or(Value::String(body)));
        }
        let status = if refuse { "503 Service Unavailable" } else { "200 OK" };
        let _ = stream.write_all(
            format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").as_bytes(),
        );
    }
}

fn read_body(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}
