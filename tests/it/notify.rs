//! Announcing, against servers that misbehave in every way that webhooks do.

use std::io::Write;
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
use backstop::core::release::RollbackId;
use backstop::notify::plan::{Channel, Endpoint, Medium, Plan};
use backstop::notify::{Notifier, NotifierHandle, Pauses};
use backstop::store::Store;

/// No test takes this long, unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough to be told from at once, short enough not to be waited for.
const QUICK: Pauses = Pauses {
    first: Duration::from_millis(40),
    longest: Duration::from_millis(80),
    look: Duration::from_millis(200),
    settled: Duration::from_millis(50),
    again: Duration::from_millis(100),
};
/// A part of every URL here that must never be seen.
const TOKEN: &str = "T0K3NT0K3NT0K3N";

/// What a server does with a request. The last of a list is done with all that follow.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Status(u16),
    /// Status and `Retry-After`.
    Wait(u16, &'static str),
    /// Says nothing.
    Hang,
    /// Quotes the path that was asked for, as many servers do.
    Quote(u16),
    /// To the same server, where it would be answered with 200.
    Redirect,
}

/// A webhook's server. It tells which announcements it got, in order, with the time.
struct Server {
    url: String,
    got: mpsc::UnboundedReceiver<(String, Timestamp)>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, answers)
    }

    fn on(listener: TcpListener, answers: &[Answer]) -> Self {
        let url = format!("http://{}/services/{TOKEN}", listener.local_addr().unwrap());
        let (told, got) = mpsc::unbounded_channel();
        let (answers, asked) = (answers.to_vec(), Arc::new(AtomicUsize::new(0)));
        let clock = Clock::start();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, asked, told) = (answers.clone(), Arc::clone(&asked), told.clone());
                tokio::spawn(async move {
                    let _ = serve(stream, &answers, &asked, &told, clock).await;
                });
            }
        });
        Self { url, got, task }
    }

    /// The key of the next announcement that comes in, and when it came.
    async fn next(&mut self) -> (String, Timestamp) {
        tokio::time::timeout(PATIENCE, self.got.recv()).await.expect("nothing was posted").unwrap()
    }

    async fn keys(&mut self, count: usize) -> Vec<String> {
        let mut keys = Vec::new();
        for _ in 0..count {
            keys.push(self.next().await.0);
        }
        keys
    }

    fn target(&self) -> Option<Arc<Plan>> {
        target(&self.url, PATIENCE)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn target(url: &str, timeout: Duration) -> Option<Arc<Plan>> {
    let channel = Channel::new("webhook", Medium::Slack(Endpoint::at(url)));
    Some(Arc::new(Plan::of(vec![Channel { timeout, ..channel }])))
}

/// One connection: one request and its answer.
async fn serve(
    mut stream: TcpStream,
    answers: &[Answer],
    asked: &AtomicUsize,
    told: &mpsc::UnboundedSender<(String, Timestamp)>,
    clock: Clock,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let (head, body) = loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let message: Value = serde_json::from_str(&body)?;
    let said_by =
        message["blocks"].as_array().unwrap().last().unwrap()["elements"][0]["text"].as_str().unwrap();
    let key = said_by.rsplit(" · ").next().unwrap().to_owned();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let _ = told.send((key, clock.now()));
    let answer = answers[asked.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1)];
    let (status, header, body) = match answer {
        Answer::Status(status) => (status, String::new(), String::new()),
        Answer::Wait(status, after) => (status, format!("Retry-After: {after}\r\n"), String::new()),
        Answer::Quote(status) => (status, String::new(), format!("Cannot POST {path}: no_team")),
        Answer::Redirect => (302, "Location: /elsewhere\r\n".to_owned(), String::new()),
        Answer::Hang => {
            // Until the other side has had enough.
            stream.read_to_end(&mut request).await?;
            return Ok(());
        }
    };
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status} X\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await
}

fn announcement(key: &str, rollback: Option<&str>) -> Announcement {
    Announcement {
        key: key.into(),
        at: Clock::start().now().before(Duration::from_secs(1)),
        kind: AnnouncementKind::RollbackInProgress,
        service: None,
        rollback: rollback.map(RollbackId::new),
        approval: None,
        environment: "production".into(),
        title: format!("ROLLBACK: {key}"),
        fields: Vec::new(),
        next: None,
        severity: None,
        closes: None,
    }
}

/// A notifier that runs, on a store or without one.
struct Bench {
    dir: TempDir,
    store: Option<Store>,
    handle: NotifierHandle,
    target: watch::Sender<Arc<Plan>>,
    outcomes: mpsc::UnboundedReceiver<&'static str>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Bench {
    async fn start(target: Option<Arc<Plan>>) -> Self {
        let dir = TempDir::new().unwrap();
        let store = Some(Store::open(dir.path()).await.unwrap());
        Self::on(dir, store, target)
    }

    fn without_store(target: Option<Arc<Plan>>) -> Self {
        Self::on(TempDir::new().unwrap(), None, target)
    }

    fn on(dir: TempDir, store: Option<Store>, target: Option<Arc<Plan>>) -> Self {
        let (count, outcomes) = mpsc::unbounded_channel();
        let count = Arc::new(move |_: &str, outcome| {
            let _ = count.send(outcome);
        });
        let (notifier, handle) = Notifier::new(store.clone(), Clock::start(), count);
        let (target, targets) = watch::channel(target.unwrap_or_default());
        let stop = CancellationToken::new();
        let running = tokio::spawn(notifier.with_pauses(QUICK).run(targets, stop.clone()));
        Self { dir, store, handle, target, outcomes, stop, running }
    }

    /// Another process on the same store.
    async fn restart(self, target: Option<Arc<Plan>>) -> Self {
        self.stop.cancel();
        self.running.await.unwrap();
        Self::on(self.dir, self.store, target)
    }

    async fn say(&self, key: &str, rollback: Option<&str>) {
        self.store.as_ref().unwrap().enqueue(&announcement(key, rollback)).await.unwrap();
        self.handle.wake();
    }

    async fn outcome(&mut self) -> &'static str {
        tokio::time::timeout(PATIENCE, self.outcomes.recv()).await.expect("nothing happened").unwrap()
    }

    async fn expect(&mut self, outcomes: &[&str]) {
        for expected in outcomes {
            assert_eq!(self.outcome().await, *expected);
        }
    }

    /// Key, state and last error of everything in the outbox, once nothing is due there.
    async fn outbox(&self) -> Vec<(String, String, String)> {
        self.handle.drain(PATIENCE).await;
        let c = rusqlite::Connection::open(self.dir.path().join("backstop.sqlite3")).unwrap();
        let mut rows = c
            .prepare("SELECT title, state, coalesce(last_error, '') FROM announcements ORDER BY date, title")
            .unwrap();
        let rows = rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    async fn states(&self) -> Vec<String> {
        self.outbox().await.into_iter().map(|(_, state, _)| state).collect()
    }

    /// Makes every write to the outbox fail, or work again. Reading goes on.
    fn break_writes(&self, broken: bool) {
        let c = rusqlite::Connection::open(self.dir.path().join("backstop.sqlite3")).unwrap();
        c.busy_timeout(PATIENCE).unwrap();
        let change = "CREATE TRIGGER broken BEFORE UPDATE ON outbox BEGIN SELECT RAISE(ABORT, 'broken'); END";
        c.execute_batch(if broken { change } else { "DROP TRIGGER broken" }).unwrap();
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_tried_until_it_is_up() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let mut bench = Bench::start(target(&format!("http://{address}/services/{TOKEN}"), PATIENCE)).await;
    bench.say("a", None).await;
    bench.expect(&["retried", "retried"]).await;
    let mut server = Server::on(TcpListener::bind(address).await.unwrap(), &[Answer::Status(200)]);
    assert_eq!(server.next().await.0, "a");
    while bench.outcome().await != "delivered" {}
    assert_eq!(bench.states().await, ["delivered"]);
}

#[tokio::test]
async fn a_server_that_fails_twice_gets_it_a_third_time_and_pauses_grow() {
    let mut server = Server::start(&[Answer::Status(500), Answer::Status(503), Answer::Status(200)]).await;
    let mut bench = Bench::start(server.target()).await;
    bench.say("a", None).await;
    bench.say("a", None).await;
    bench.expect(&["retried", "retried", "delivered"]).await;
    let times = [server.next().await.1, server.next().await.1, server.next().await.1];
    assert!(times[1].since(times[0]) >= QUICK.first && times[2].since(times[1]) >= QUICK.first * 2);
    assert_eq!(bench.states().await, ["delivered"], "said twice, it is one");
    bench.say("a", None).await;
    bench.handle.drain(PATIENCE).await;
    assert!(server.got.try_recv().is_err(), "said again later, it is not posted again");
}

#[tokio::test]
async fn a_server_may_ask_for_more_patience_but_not_for_less() {
    let mut server =
        Server::start(&[Answer::Wait(429, "1"), Answer::Wait(429, "0"), Answer::Status(200)]).await;
    let mut bench = Bench::start(server.target()).await;
    bench.say("a", None).await;
    let times = [server.next().await.1, server.next().await.1, server.next().await.1];
    assert!(times[1].since(times[0]) >= Duration::from_secs(1));
    assert!(times[2].since(times[1]) >= QUICK.first * 2, "`Retry-After: 0` is no busy loop");
    bench.expect(&["retried", "retried", "delivered"]).await;
}

#[tokio::test]
async fn a_server_may_name_the_date() {
    // Far enough for every clock, so that this one is held for the longest time that is granted, an hour.
    let mut server =
        Server::start(&[Answer::Wait(429, "Fri, 01 Jan 2100 00:00:00 GMT"), Answer::Status(200)]).await;
    let mut bench = Bench::start(server.target()).await;
    bench.say("a", None).await;
    bench.expect(&["retried"]).await;
    bench.handle.drain(PATIENCE).await;
    let c = rusqlite::Connection::open(bench.dir.path().join("backstop.sqlite3")).unwrap();
    let next: i64 = c.query_row("SELECT next_ms FROM deliveries", [], |row| row.get(0)).unwrap();
    let next = Timestamp::from_millis(next.try_into().unwrap());
    let pause = next.since(server.next().await.1);
    assert!(pause > Duration::from_secs(59 * 60) && pause < Duration::from_secs(61 * 60), "{pause:?}");
    assert!(server.got.try_recv().is_err());
}

#[tokio::test]
async fn a_server_that_hangs_is_left_after_the_timeout_and_others_are_not_held_up() {
    let mut server = Server::start(&[Answer::Hang, Answer::Status(200)]).await;
    let mut bench = Bench::start(target(&server.url, Duration::from_millis(100))).await;
    bench.say("a", None).await;
    bench.say("b", None).await;
    assert_eq!(server.keys(3).await, ["a", "b", "a"]);
    bench.expect(&["retried", "delivered", "delivered"]).await;
}

#[tokio::test]
async fn what_is_useless_to_try_again_is_given_up() {
    for (answer, said) in [
        (Answer::Redirect, "the final URL is wanted"),
        (Answer::Status(410), "410 Gone"),
        (Answer::Quote(404), "Cannot POST [...]: no_team"),
    ] {
        let mut server = Server::start(&[answer, Answer::Status(200)]).await;
        let mut bench = Bench::start(server.target()).await;
        bench.say("a", None).await;
        bench.expect(&["abandoned"]).await;
        let (_, state, why) = bench.outbox().await.remove(0);
        assert!(state == "abandoned" && why.contains(said), "{state}: {why}");
        assert_eq!(server.keys(1).await, ["a"]);
        bench.handle.drain(PATIENCE).await;
        assert!(server.got.try_recv().is_err(), "it was tried again, or the redirect was followed");
    }
}

#[tokio::test]
async fn news_of_yesterday_is_given_up() {
    let server = Server::start(&[Answer::Status(500)]).await;
    let mut bench = Bench::start(server.target()).await;
    let old = Clock::start().now().before(Duration::from_secs(25 * 60 * 60));
    let old = Announcement { at: old, ..announcement("old", None) };
    bench.store.as_ref().unwrap().enqueue(&old).await.unwrap();
    bench.handle.wake();
    bench.expect(&["abandoned"]).await;
    assert_eq!(bench.states().await, ["abandoned"]);
}

#[tokio::test]
async fn a_rollback_is_not_complete_before_it_is_in_progress() {
    let failing = [Answer::Status(500), Answer::Status(200), Answer::Status(500), Answer::Status(200)];
    let mut server = Server::start(&failing).await;
    let bench = Bench::start(None).await;
    bench.stop.cancel();
    for (key, rollback) in [("r1", Some("r")), ("r2", Some("r")), ("s1", Some("s"))] {
        bench.store.as_ref().unwrap().enqueue(&announcement(key, rollback)).await.unwrap();
    }
    let mut bench = bench.restart(server.target()).await;
    // r1 fails; s1 is no part of it and goes on; r1 fails again; then r2 may.
    assert_eq!(server.keys(5).await, ["r1", "s1", "r1", "r1", "r2"]);
    bench.expect(&["retried", "delivered", "retried", "delivered", "delivered"]).await;
}

#[tokio::test]
async fn what_waited_is_delivered_after_a_restart() {
    let mut down = Server::start(&[Answer::Status(500)]).await;
    let bench = Bench::start(down.target()).await;
    bench.say("a", None).await;
    bench.say("b", None).await;
    down.keys(2).await;
    let mut up = Server::start(&[Answer::Status(200)]).await;
    let bench = bench.restart(up.target()).await;
    let mut keys = up.keys(2).await;
    keys.sort();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(bench.states().await, ["delivered", "delivered"]);
}

#[tokio::test]
async fn what_was_said_by_a_clock_that_was_ahead_does_not_wait_for_ours() {
    let mut server = Server::start(&[Answer::Status(200)]).await;
    let bench = Bench::start(None).await;
    let mut tomorrow = announcement("a", None);
    tomorrow.at = Clock::start().now() + Duration::from_secs(24 * 3600);
    bench.store.as_ref().unwrap().enqueue(&tomorrow).await.unwrap();
    let _bench = bench.restart(server.target()).await;
    assert_eq!(server.keys(1).await, ["a"]);
}

#[tokio::test]
async fn without_a_webhook_it_is_done_when_it_is_logged() {
    let mut bench = Bench::start(None).await;
    bench.say("a", None).await;
    bench.expect(&["no_channel"]).await;
    assert_eq!(bench.states().await, ["delivered"]);
    bench.handle.send_now(announcement("b", None));
    bench.expect(&["no_channel"]).await;
}

#[tokio::test]
async fn a_new_target_gets_at_once_what_waited_for_the_old_one() {
    let mut old = Server::start(&[Answer::Wait(503, "3600")]).await;
    let mut bench = Bench::start(old.target()).await;
    bench.say("a", Some("r")).await;
    bench.say("b", Some("r")).await;
    bench.expect(&["retried"]).await;
    old.next().await;
    // The same once more, as after a reload that changed something else: nothing is tried for that.
    bench.target.send_replace(old.target().unwrap());
    bench.handle.drain(PATIENCE).await;
    assert!(old.got.try_recv().is_err());
    let mut new = Server::start(&[Answer::Status(200)]).await;
    bench.target.send_replace(new.target().unwrap());
    assert_eq!(new.keys(2).await, ["a", "b"]);
    bench.expect(&["delivered", "delivered"]).await;
}

#[tokio::test]
async fn a_target_is_changed_in_the_middle_of_a_long_list() {
    let mut hangs = Server::start(&[Answer::Hang]).await;
    let bench = Bench::start(target(&hangs.url, Duration::from_millis(300))).await;
    for n in 0..20 {
        bench.say(&format!("{n:02}"), None).await;
    }
    hangs.next().await;
    let mut new = Server::start(&[Answer::Status(200)]).await;
    bench.target.send_replace(new.target().unwrap());
    let mut keys = new.keys(20).await;
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 20);
    let tried = 1 + std::iter::from_fn(|| hangs.got.try_recv().ok()).count();
    assert!(tried < 5, "the old target was tried {tried} times more");
}

#[tokio::test]
async fn without_a_store_it_is_delivered_from_memory_in_order_and_once() {
    let mut server =
        Server::start(&[Answer::Status(500), Answer::Status(200), Answer::Status(500), Answer::Status(200)])
            .await;
    let bench = Bench::without_store(server.target());
    for (key, rollback) in [("r1", Some("r")), ("r2", Some("r")), ("x", None), ("r1", Some("r"))] {
        bench.handle.send_now(announcement(key, rollback));
    }
    // It would be lost, so this waits for the retries too.
    bench.handle.drain(PATIENCE).await;
    assert_eq!(server.keys(5).await, ["r1", "x", "r1", "r1", "r2"]);
    assert!(server.got.try_recv().is_err());
}

#[tokio::test]
async fn what_was_delivered_is_not_repeated_while_the_outbox_cannot_say_so() {
    let mut server = Server::start(&[Answer::Status(200), Answer::Status(500), Answer::Status(200)]).await;
    let mut bench = Bench::start(server.target()).await;
    bench.break_writes(true);
    bench.say("a", Some("r")).await;
    assert_eq!(server.next().await.0, "a");
    bench.say("b", Some("r")).await;
    assert_eq!(server.keys(2).await, ["b", "b"], "neither is it a reason to be silent, nor to hurry");
    // One that is only in memory comes after those of its rollback that are in the outbox.
    bench.handle.send_now(announcement("c", Some("r")));
    assert_eq!(server.next().await.0, "c");
    for _ in 0..3 {
        bench.handle.drain(PATIENCE).await;
    }
    assert!(server.got.try_recv().is_err(), "it was posted again");
    bench.expect(&["delivered", "retried", "delivered", "delivered"]).await;
    bench.break_writes(false);
    assert_eq!(bench.states().await, ["delivered", "delivered"]);
}

#[tokio::test]
async fn what_is_in_memory_waits_for_what_is_before_it_in_the_outbox() {
    let mut server = Server::start(&[Answer::Status(500), Answer::Status(500), Answer::Status(200)]).await;
    let bench = Bench::start(server.target()).await;
    bench.say("r1", Some("r")).await;
    assert_eq!(server.next().await.0, "r1");
    bench.handle.send_now(announcement("r2", Some("r")));
    assert_eq!(server.keys(3).await, ["r1", "r1", "r2"]);
}

#[tokio::test]
async fn too_many_in_memory_drop_the_oldest_and_are_counted() {
    let mut hangs = Server::start(&[Answer::Hang]).await;
    let mut bench = Bench::without_store(hangs.target());
    for n in 0..300 {
        bench.handle.send_now(announcement(&format!("{n}"), None));
    }
    hangs.next().await;
    bench.expect(&["abandoned"; 300 - 256]).await;
    assert!(bench.outcomes.try_recv().is_err());
}

#[tokio::test]
async fn draining_ends_by_its_deadline_and_when_nobody_delivers() {
    let mut hangs = Server::start(&[Answer::Hang]).await;
    let bench = Bench::start(hangs.target()).await;
    bench.say("a", None).await;
    hangs.next().await;
    let draining = bench.handle.drain(Duration::from_millis(50));
    tokio::time::timeout(PATIENCE, draining).await.expect("it must end by its deadline");
    bench.stop.cancel();
    bench.running.await.unwrap();
    let draining = bench.handle.drain(PATIENCE * 2);
    tokio::time::timeout(PATIENCE, draining).await.expect("nobody is there to wait for");
}

/// Set in the process that runs one test alone.
const ALONE: &str = "BACKSTOP_TEST_ALONE";

/// What was logged on this thread.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_url_is_in_no_log_and_no_error() {
    // In a process of its own: what is of interest to whom is remembered once for all threads, and other tests have no
    // interest in any log.
    if std::env::var_os(ALONE).is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "notify::the_url_is_in_no_log_and_no_error"]).env(ALONE, "1");
        let out = again.output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let answers =
        [Answer::Quote(500), Answer::Hang, Answer::Redirect, Answer::Quote(404), Answer::Status(200)];
    let mut server = Server::start(&answers).await;
    let mut bench = Bench::start(target(&server.url, Duration::from_millis(100))).await;
    for key in ["a", "b", "c"] {
        bench.say(key, None).await;
    }
    server.keys(5).await;
    bench.expect(&["retried", "retried", "abandoned", "abandoned", "delivered"]).await;
    let refused = format!("http://127.0.0.1:1/services/{TOKEN}");
    bench.target.send_replace(target(&refused, PATIENCE).unwrap());
    bench.say("d", None).await;
    bench.expect(&["retried"]).await;
    bench.target.send_replace(target(&format!("nonsense {TOKEN}"), PATIENCE).unwrap());
    bench.say("e", None).await;
    bench.expect(&["retried"]).await;

    let kept = format!("{:?}{:?}{:?}", bench.outbox().await, bench.handle, *bench.target.borrow());
    assert!(kept.contains("no_team") || kept.contains("final URL"), "{kept}");
    assert!(!kept.contains(TOKEN), "{kept}");
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for said in
        ["is tried again", "was given up", "it answered 500", "timed out", "backstop notify test webhook"]
    {
        assert!(logged.contains(said), "{said} is not in:\n{logged}");
    }
    assert!(!logged.contains(TOKEN), "{logged}");
}
