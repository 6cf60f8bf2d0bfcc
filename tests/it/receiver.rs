//! A local receiver of announcements: keeps what comes in, answers as it is told; and a notifier that sends there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use backstop::clock::Clock;
use backstop::core::Timestamp;
use backstop::core::announcement::{Announcement, AnnouncementKind};
use backstop::notify::plan::{Channel, Endpoint, Medium, Plan};
use backstop::notify::{Notifier, NotifierHandle, Outlook, Pauses, every_kind};
use backstop::store::Store;

/// No test takes this long, unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough to be told from at once, short enough not to be waited for.
pub(crate) const QUICK: Pauses = Pauses {
    first: Duration::from_millis(40),
    longest: Duration::from_millis(80),
    look: Duration::from_millis(100),
    settled: Duration::from_millis(50),
    again: Duration::from_millis(150),
};

/// A request that came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// Names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// What a request is answered with.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Status(u16),
    /// Status and a body without end.
    Endless(u16),
    Hang,
}

/// A server. The last of its answers is given to all that follow.
pub(crate) struct Receiver {
    pub(crate) url: String,
    pub(crate) got: mpsc::UnboundedReceiver<Request>,
    task: JoinHandle<()>,
}

impl Receiver {
    pub(crate) async fn start(answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (told, got) = mpsc::unbounded_channel();
        let (answers, asked) = (answers.to_vec(), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, asked, told) = (answers.clone(), Arc::clone(&asked), told.clone());
                tokio::spawn(async move {
                    let _ = serve(stream, &answers, &asked, &told).await;
                });
            }
        });
        Self { url, got, task }
    }

    pub(crate) async fn next(&mut self) -> Request {
        tokio::time::timeout(PATIENCE, self.got.recv()).await.expect("nothing was posted").unwrap()
    }

    /// The next whose JSON is as wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Request {
        loop {
            let request = self.next().await;
            if wanted(&request.json()) {
                return request;
            }
        }
    }

    pub(crate) fn slack(&self, name: &str) -> Channel {
        Channel::new(name, Medium::Slack(Endpoint::at(&format!("{}/slack", self.url))))
    }

    pub(crate) fn pagerduty(&self, name: &str) -> Channel {
        let endpoint = Endpoint::at(&format!("{}/v2/enqueue", self.url));
        Channel::new(
            name,
            Medium::PagerDuty { endpoint, routing_key: "0123456789abcdef0123456789abcdef".into() },
        )
    }

    pub(crate) fn alertmanager(&self, name: &str) -> Channel {
        Channel::new(name, Medium::Alertmanager(Endpoint::at(&self.url)))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    answers: &[Answer],
    asked: &AtomicUsize,
    told: &mpsc::UnboundedSender<Request>,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let _ = told.send(Request { path, headers, body });
    match answers[asked.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1)] {
        Answer::Status(status) => {
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            stream.write_all(answer.as_bytes()).await
        }
        Answer::Endless(status) => {
            let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            loop {
                stream.write_all(&[b'x'; 4096]).await?;
            }
        }
        Answer::Hang => {
            // Until the other side has had enough.
            stream.read_to_end(&mut bytes).await.map(drop)
        }
    }
}

/// A notifier that runs.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) store: Store,
    pub(crate) handle: NotifierHandle,
    pub(crate) plan: watch::Sender<Arc<Plan>>,
    /// Channel and outcome.
    pub(crate) outcomes: mpsc::UnboundedReceiver<(String, &'static str)>,
    /// Services that are well, by the picture of a time.
    pub(crate) well: Arc<Mutex<BTreeMap<String, Timestamp>>>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Bench {
    pub(crate) async fn start(plan: Plan) -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        Self::on(dir, store, plan)
    }

    fn on(dir: TempDir, store: Store, plan: Plan) -> Self {
        let (count, outcomes) = mpsc::unbounded_channel();
        let count = Arc::new(move |channel: &str, outcome| {
            let _ = count.send((channel.to_owned(), outcome));
        });
        let well: Arc<Mutex<BTreeMap<String, Timestamp>>> = Arc::default();
        let seen = Arc::clone(&well);
        let clock = Clock::start();
        let outlook = Outlook(Arc::new(move |subject: &str| {
            seen.lock().unwrap().get(subject).map(|since| clock.now().max(*since))
        }));
        let (notifier, handle) = Notifier::new(Some(store.clone()), clock, count);
        let (plan, plans) = watch::channel(Arc::new(plan));
        let stop = CancellationToken::new();
        let notifier = notifier.with_pauses(QUICK).of_fleet("production", outlook);
        let running = tokio::spawn(notifier.run(plans, stop.clone()));
        Self { dir, store, handle, plan, outcomes, well, stop, running }
    }

    /// Another process on the same store.
    pub(crate) async fn restart(self, plan: Plan) -> Self {
        self.stop.cancel();
        self.running.await.unwrap();
        Self::on(self.dir, self.store, plan)
    }

    /// Ends as a process that is killed: nothing more is written. What is to be done before the next begins is done with
    /// its directory.
    pub(crate) async fn kill(self, plan: Plan, between: impl FnOnce(&std::path::Path)) -> Self {
        self.running.abort();
        let _ = self.running.await;
        between(self.dir.path());
        Self::on(self.dir, self.store, plan)
    }

    /// Waits until it is written down that something was delivered.
    pub(crate) async fn recorded(&self, channel: &str, deliveries: usize) {
        let query =
            format!("SELECT title FROM delivery_log WHERE channel = '{channel}' AND state = 'delivered'");
        let written = async {
            while self.sql(&query).len() < deliveries {
                // The database of another process has no event for it.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, written).await.expect("it was never written down");
    }

    pub(crate) async fn say(&self, a: &Announcement) {
        self.store.enqueue(a).await.unwrap();
        self.handle.wake();
    }

    /// Waits for an outcome of a channel.
    pub(crate) async fn outcome(&mut self, channel: &str, outcome: &str) {
        let found = async {
            while let Some((of, is)) = self.outcomes.recv().await {
                if of == channel && is == outcome {
                    return;
                }
            }
            panic!("the notifier ended");
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("{channel} was never {outcome}"));
    }

    pub(crate) fn sql(&self, query: &str) -> Vec<String> {
        let c = rusqlite::Connection::open(self.dir.path().join("backstop.sqlite3")).unwrap();
        c.busy_timeout(PATIENCE).unwrap();
        let mut rows = c.prepare(query).unwrap();
        let rows = rows.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
        rows.map(|row| row.unwrap().unwrap_or_default()).collect()
    }
}

/// An announcement of a kind that happened just now.
pub(crate) fn now(kind: AnnouncementKind, key: &str) -> Announcement {
    let mut a = every_kind().into_iter().find(|a| a.kind == kind).unwrap();
    a.key = key.into();
    a.at = Clock::start().now();
    a
}

/// What is wrong with a value by a schema of the fixtures: the part of JSON Schema that they use, and `maxBytes`.
pub(crate) fn against(schema: &str, value: &Value) -> Vec<String> {
    let path = format!("{}/tests/fixtures/notify/{schema}.schema.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut wrong = Vec::new();
    check(&schema, value, "$", &mut wrong);
    wrong
}

fn check(schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let limit = |key: &str| schema[key].as_u64().map(|limit| usize::try_from(limit).unwrap());
    let mut say = |what: String| wrong.push(format!("{at}: {what}"));
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if schema["type"].as_str().is_some_and(|wanted| wanted != is) {
        say(format!("is {is}, not {}", schema["type"]));
        return;
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        say(format!("{value} is not one of {}", schema["enum"]));
    }
    if limit("maxBytes")
        .is_some_and(|max| value.as_str().map_or_else(|| value.to_string().len(), str::len) > max)
    {
        say("has too many bytes".into());
    }
    match value {
        Value::String(text) => {
            let length = text.chars().count();
            if limit("maxLength").is_some_and(|max| length > max)
                || limit("minLength").is_some_and(|min| length < min)
            {
                say(format!("has {length} characters"));
            }
            if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
                say(format!("{text} is no time"));
            }
        }
        Value::Number(n) => {
            let n = n.as_f64().unwrap();
            if schema["minimum"].as_f64().is_some_and(|min| n < min)
                || schema["maximum"].as_f64().is_some_and(|max| n > max)
            {
                say(format!("{n} is out of bounds"));
            }
        }
        Value::Array(items) => {
            if limit("maxItems").is_some_and(|max| items.len() > max)
                || limit("minItems").is_some_and(|min| items.len() < min)
            {
                say(format!("has {} items", items.len()));
            }
            for (n, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{at}[{n}]"), wrong);
            }
        }
        Value::Object(fields) => check_fields(schema, fields, at, wrong),
        Value::Null | Value::Bool(_) => {}
    }
    if let Some(ways) = schema["oneOf"].as_array() {
        let fits = ways.iter().filter(|way| {
            let mut inner = Vec::new();
            check(way, value, at, &mut inner);
            inner.is_empty()
        });
        if fits.count() != 1 {
            wrong.push(format!("{at}: is none of what it can be: {value}"));
        }
    }
}

fn check_fields(schema: &Value, fields: &serde_json::Map<String, Value>, at: &str, wrong: &mut Vec<String>) {
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            wrong.push(format!("{at}: lacks {name}"));
        }
    }
    for (name, inner) in fields {
        let at = format!("{at}.{name}");
        match (schema["properties"].get(name), &schema["additionalProperties"]) {
            (Some(schema), _) | (None, schema @ Value::Object(_)) => check(schema, inner, &at, wrong),
            (None, Value::Bool(false)) => wrong.push(format!("{at}: is not expected")),
            (None, _) => {}
        }
    }
}
