//! Somebody who answers in the place of a registry: a load balancer without a registry behind it, a captive portal, a
//! cache that mixes things up.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::eventually;
use super::wait::seconds;

/// How it answers whoever asks for an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manner {
    /// Not at all: it listens, and takes what it is sent.
    Silent,
    /// That it is a registry; and then not at all.
    SilentAboutImages,
    /// With a page for people, and success.
    Page,
    /// With the manifest of another image than it was asked for.
    AnotherImage,
}

/// The manifest of no image that anybody pushed.
const ANOTHER: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}"#;

#[derive(Debug)]
struct Shared {
    manner: Manner,
    asked: AtomicUsize,
    over: AtomicBool,
    /// Who waits for an answer: to be let go at the end.
    waiting: Mutex<Vec<TcpStream>>,
}

#[derive(Debug)]
pub(crate) struct StandIn {
    address: String,
    shared: Arc<Shared>,
}

impl StandIn {
    /// Listens where the registry was that has just stopped.
    #[track_caller]
    pub(crate) fn at(address: &str, manner: Manner) -> Self {
        let listener = eventually(seconds(60), "the address is free", || {
            TcpListener::bind(address).map_err(|e| e.to_string())
        });
        let shared = Arc::new(Shared {
            manner,
            asked: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            waiting: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if own.over.load(Ordering::SeqCst) {
                    return;
                }
                let own = Arc::clone(&own);
                std::thread::spawn(move || own.answer(stream));
            }
        });
        Self { address: address.to_owned(), shared }
    }

    /// How many have asked so far.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // Whoever accepts is woken up, and the address is free again.
        let _ = TcpStream::connect(&self.address);
        self.shared.waiting.lock().unwrap().clear();
    }
}

impl Shared {
    fn answer(&self, stream: TcpStream) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.manner == Manner::Silent {
            self.waiting.lock().unwrap().push(stream);
            return;
        }
        let Some(path) = asked_for(&stream) else { return };
        let (kind, body) = match self.manner {
            _ if path == "/v2/" && self.manner != Manner::Page => ("application/json", "{}"),
            Manner::Silent | Manner::SilentAboutImages => {
                self.waiting.lock().unwrap().push(stream);
                return;
            }
            Manner::Page => ("text/html", "<html><body><h1>Welcome to the hotel</h1></body></html>"),
            Manner::AnotherImage => ("application/vnd.docker.distribution.manifest.v2+json", ANOTHER),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = (&stream).write_all(format!("{head}{body}").as_bytes());
    }
}

/// The path of a request; none of what is no request, as the beginning of TLS.
fn asked_for(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.strip_prefix("GET ").or(first.strip_prefix("HEAD "))?.split(' ').next()?.to_owned();
    lines.map_while(Result::ok).find(String::is_empty)?;
    Some(path)
}
