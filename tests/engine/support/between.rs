//! Somebody between the daemon and its engine, who lets everything through, and does something just before a request of
//! a certain kind arrives: what a busy day does by chance, done on purpose and without waiting.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

type Deed = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Shared {
    /// What is done before the next request with these words in its first line.
    waits: Mutex<Option<(&'static str, Deed)>>,
}

pub(crate) struct Between {
    home: TempDir,
    shared: Arc<Shared>,
}

impl Between {
    pub(crate) fn new(engine: &str) -> Self {
        let home = tempfile::Builder::new().prefix("backstop-between-").tempdir().unwrap();
        let between = Self { home, shared: Arc::default() };
        let listener = UnixListener::bind(between.socket()).unwrap();
        let (shared, engine) = (Arc::clone(&between.shared), engine.to_owned());
        // Ends with the process: it is blocked in `accept` when the test is over, and holds nothing that matters.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(engine) = UnixStream::connect(&engine) else { continue };
                let shared = Arc::clone(&shared);
                let (from, to) = (stream.try_clone().unwrap(), engine.try_clone().unwrap());
                std::thread::spawn(move || pass(stream, engine, |bytes| shared.look(bytes)));
                std::thread::spawn(move || pass(to, from, |_| ()));
            }
        });
        between
    }

    /// Where the daemon finds its engine.
    pub(crate) fn socket(&self) -> PathBuf {
        self.home.path().join("docker.sock")
    }

    /// Does something, once, before the next request whose first line holds `words`.
    pub(crate) fn before_the_next(&self, words: &'static str, deed: impl FnOnce() + Send + 'static) {
        *self.shared.waits.lock().unwrap() = Some((words, Box::new(deed)));
    }

    /// Whether that was done.
    pub(crate) fn was_done(&self) -> bool {
        self.shared.waits.lock().unwrap().is_none()
    }
}

impl Shared {
    /// The head of a request is sent in one piece, and it begins one.
    fn look(&self, bytes: &[u8]) {
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let wanted = |waits: &mut (&str, Deed)| line.contains(waits.0);
        let deed = self.waits.lock().unwrap().take_if(wanted);
        if let Some((_, deed)) = deed {
            deed();
        }
    }
}

/// Passes on what comes, until one of the two is gone.
fn pass(mut from: UnixStream, mut to: UnixStream, mut look: impl FnMut(&[u8])) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(n) = from.read(&mut bytes) {
        let Some(read) = bytes.get(..n).filter(|read| !read.is_empty()) else { break };
        look(read);
        if to.write_all(read).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
