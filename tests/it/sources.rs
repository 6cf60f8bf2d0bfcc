//! Requests, errors and latency from a metrics page and from a Prometheus server, over a real connection.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use backstop::clock::Clock;
use backstop::core::Timestamp;
use backstop::core::sample::{Measurement, Requests, Signal};
use backstop::core::settings::{MetricsSource, PromqlSource, Target, Tls};
use backstop::signal::Probe;
use backstop::signal::promql::{PrometheusClient, PromqlProbe};
use backstop::signal::scrape::ScrapeProbe;

/// Long enough for a loaded machine, short enough to wait for what never comes.
const PATIENT: Duration = Duration::from_secs(10);
const IMPATIENT: Duration = Duration::from_millis(300);

/// What a server says to its next request; the last is said again and again. `None` says nothing and hangs.
type Script = Vec<Option<String>>;

/// A server, and the requests that it got.
struct Server {
    port: u16,
    got: mpsc::UnboundedReceiver<String>,
}

impl Server {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, got) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut hanging = Vec::new();
            let mut script = script.into_iter().peekable();
            let mut last = None;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                asked.send(String::from_utf8(request).unwrap()).ok();
                last = script.next().unwrap_or(last);
                match &last {
                    // Whoever stops listening half-way is the one who is tested.
                    Some(answer) => _ = stream.write_all(answer.as_bytes()).await,
                    None => hanging.push(stream),
                }
            }
        });
        Self { port, got }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The next request: its first line decoded, and everything else as it was.
    async fn asked(&mut self) -> String {
        let request = self.got.recv().await.unwrap();
        let (line, headers) = request.split_once("\r\n").unwrap();
        let line = reqwest::Url::parse(&format!("http://x{}", line.split(' ').nth(1).unwrap())).unwrap();
        let pairs: Vec<_> = line.query_pairs().map(|(k, v)| format!("{k}={v}")).collect();
        format!("{} {}\n{headers}", line.path(), pairs.join(" "))
    }
}

fn answer(status: &str, headers: &str, body: &str) -> Option<String> {
    Some(format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ))
}

fn ok(body: &str) -> Option<String> {
    answer("200 OK", "Content-Type: text/plain; version=0.0.4\r\n", body)
}

fn page(good: u64, bad: u64) -> String {
    format!("http_requests_total{{code=\"200\"}} {good}\nhttp_requests_total{{code=\"500\"}} {bad}\n")
}

fn metrics(target: Target) -> MetricsSource {
    MetricsSource::auto(target, Duration::from_secs(1), PATIENT)
}

fn requests(mut measured: Vec<(Signal, Measurement)>) -> Requests {
    assert_eq!(measured.len(), 1, "{measured:?}");
    match measured.remove(0) {
        (Signal::Requests, Measurement::Requests(requests)) => requests,
        other => panic!("{other:?}"),
    }
}

fn unavailable(mut measured: Vec<(Signal, Measurement)>) -> String {
    assert_eq!(measured.len(), 1, "{measured:?}");
    match measured.remove(0) {
        (Signal::Requests, Measurement::Unavailable { why }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_page_is_asked_for_with_the_token_that_the_file_holds_now() {
    let mut server = Server::start(vec![ok(&page(5, 1)), ok(&page(25, 3))]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let mut source = metrics(Target::Replica { port: server.port, path: "/metrics".into() });
    source.token_file = Some(file.clone());
    let probe = ScrapeProbe::new(&source, Some(Ipv4Addr::LOCALHOST.into()), Clock::start());

    let why = unavailable(probe.measure().await);
    assert!(why.contains("token cannot be used: No such file"), "{why}");
    std::fs::write(&file, " \n").unwrap();
    assert!(unavailable(probe.measure().await).contains("it is empty"));
    std::fs::write(&file, "first\n").unwrap();
    assert!(probe.measure().await.is_empty(), "the first page gives nothing");
    let asked = server.asked().await;
    assert!(
        asked.starts_with("/metrics ") && asked.contains("\r\nauthorization: Bearer first\r\n"),
        "{asked}"
    );
    assert!(asked.contains("application/openmetrics-text;version=1.0.0"), "{asked}");
    std::fs::write(&file, "second").unwrap();
    time_passes().await;
    let found = requests(probe.measure().await);
    assert_eq!((found.total, found.errors), (22, 2));
    assert!(found.window > Duration::ZERO && found.window < PATIENT, "{:?}", found.window);
    assert!(server.asked().await.contains("Bearer second"));
}

#[tokio::test]
async fn what_answers_badly_is_not_measured() {
    let endless = format!("{}\n", "# HELP x y".repeat(100)).repeat(20_000);
    for (said, why) in [
        (
            answer("401 Unauthorized", "", ""),
            "answered 401 Unauthorized: metrics.token_file must hold a token",
        ),
        (answer("404 Not Found", "", "no"), "answered 404 Not Found: is the path right?"),
        (answer("200 OK", "Content-Type: text/html\r\n", "<html>\n"), "is HTML, not metrics"),
        (ok("").map(|a| a.replace("Content-Length: 0", "Content-Length: 10")), "the answer broke off"),
        (
            answer("302 Found", "Location: http://elsewhere.example/metrics\r\n", ""),
            "to http://elsewhere.example/metrics, which is",
        ),
        (answer("301 Moved", "Location: /again\r\n", ""), "redirects more than 3 times"),
        (answer("302 Found", "", ""), "without saying where to"),
        (ok(&endless), "larger than 16 MiB"),
        (None, "no whole answer within 300ms"),
    ] {
        let hangs = said.is_none();
        let server = Server::start(vec![said]).await;
        let mut source = metrics(Target::Url(server.url("/metrics")));
        if hangs {
            source.timeout = IMPATIENT;
        }
        let said = unavailable(ScrapeProbe::new(&source, None, Clock::start()).measure().await);
        assert!(said.starts_with("the metrics page") || said.starts_with("the page"), "{said}");
        assert!(said.contains(why), "{said}");
    }
}

/// Two pages of one millisecond have no time between them in which anything could have increased.
async fn time_passes() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

#[tokio::test]
async fn a_redirect_on_the_same_host_is_followed() {
    let there = answer("307 Temporary Redirect", "Location: /metrics/\r\n", "");
    let mut server = Server::start(vec![there, ok(&page(5, 1)), ok(&page(6, 1))]).await;
    let source = metrics(Target::Url(server.url("/metrics")));
    let probe = ScrapeProbe::new(&source, None, Clock::start());
    assert!(probe.measure().await.is_empty());
    server.asked().await;
    assert!(server.asked().await.starts_with("/metrics/ "));
    time_passes().await;
    assert_eq!(requests(probe.measure().await).total, 1);
}

#[tokio::test]
async fn where_nobody_can_be_asked_it_says_why() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let refused = metrics(Target::Url(format!("http://user:secret@127.0.0.1:{closed}/")));
    let why = unavailable(ScrapeProbe::new(&refused, None, Clock::start()).measure().await);
    assert_eq!(why, "the metrics page: connection refused");
    let replica = metrics(Target::Replica { port: 80, path: "/metrics".into() });
    let why = unavailable(ScrapeProbe::new(&replica, None, Clock::start()).measure().await);
    assert!(why.contains("no address of its own"), "{why}");
    for (url, said) in
        [("ftp://x/", "must begin with http:// or https://"), ("no url", "the metrics URL cannot be used")]
    {
        let why = unavailable(
            ScrapeProbe::new(&metrics(Target::Url(url.into())), None, Clock::start()).measure().await,
        );
        assert!(why.contains(said), "{why}");
    }
    let mut no_ca = metrics(Target::Url("https://localhost/".into()));
    no_ca.tls.ca_file = Some("/nowhere.pem".into());
    let why = unavailable(ScrapeProbe::new(&no_ca, None, Clock::start()).measure().await);
    assert!(why.starts_with("the CA file /nowhere.pem cannot be used"), "{why}");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

/// A server that speaks only TLS, with a certificate for `localhost` that only the test's CA vouches for.
fn tls_server() -> u16 {
    let certificate = CertificateDer::from_pem_file(fixture("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(fixture("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (n, stream) in (0..).zip(listener.incoming()) {
            use std::io::{Read, Write};
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            // A client that does not trust us hangs up in the middle of the handshake.
            if stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                stream.write_all(ok(&page(n, 0)).unwrap().as_bytes()).unwrap();
                stream.conn.send_close_notify();
                _ = stream.flush();
            }
        }
    });
    port
}

#[tokio::test]
async fn who_is_trusted_is_what_is_said_about_tls() {
    let port = tls_server();
    let url = || Target::Url(format!("https://localhost:{port}/"));
    let replica = || Target::Replica { port, path: "/".into() };
    let ca = || Tls { ca_file: Some(fixture("ca.pem")), insecure: false };
    let insecure = Tls { ca_file: None, insecure: true };
    let ask = async |target, tls| {
        let source = MetricsSource { tls, ..metrics(target) };
        ScrapeProbe::new(&source, Some(Ipv4Addr::LOCALHOST.into()), Clock::start()).measure().await
    };
    let why = unavailable(ask(url(), Tls::default()).await);
    assert!(why.contains("certificate"), "{why}");
    assert!(ask(url(), ca()).await.is_empty());
    assert!(ask(url(), insecure.clone()).await.is_empty());
    let elsewhere = Target::Url(format!("https://127.0.0.1:{port}/"));
    let why = unavailable(ask(elsewhere, ca()).await);
    assert!(why.contains("not valid for name"), "{why}");
    // No certificate is made out for a replica's own address: with a CA its issuer is asked for, not its name.
    assert!(ask(replica(), ca()).await.is_empty());
    assert!(ask(replica(), insecure).await.is_empty());
    let other = Tls { ca_file: Some(fixture("server.pem")), insecure: false };
    let why = unavailable(ask(replica(), other).await);
    assert!(why.contains("certificate"), "{why}");
}

fn promql(server: &Server) -> PromqlSource {
    PromqlSource {
        url: server.url(""),
        interval: Duration::from_secs(15),
        timeout: PATIENT,
        token_file: None,
        tls: Tls::default(),
        requests: "sum(increase(http_requests_total[$window]))".into(),
        errors: "sum(increase(http_requests_total{code=~\"5..\"}[$window]))".into(),
        latency: Some("sum by (le) (increase(http_request_duration_seconds_bucket[$window]))".into()),
    }
}

/// A result of an instant query, as pairs of labels and value.
fn vector(series: &[(&str, &str)]) -> Option<String> {
    let series: Vec<_> = series
        .iter()
        .map(|(labels, value)| format!("{{\"metric\":{{{labels}}},\"value\":[1700000000.781,\"{value}\"]}}"))
        .collect();
    let result = series.join(",");
    let body = format!(
        "{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":[{result}]}},\"warnings\":[\"w\"]}}"
    );
    answer("200 OK", "Content-Type: application/json\r\n", &body)
}

#[tokio::test]
async fn prometheus_is_asked_about_the_time_since_the_last_answer_and_one_interval() {
    let latency = vector(&[("\"le\":\"0.1\"", "60"), ("\"le\":\"+Inf\"", "80"), ("\"le\":\"0.5\"", "70.2")]);
    let mut server = Server::start(vec![vector(&[("", "80")]), vector(&[("", "8")]), latency]).await;
    let found = requests(PromqlProbe::new(&promql(&server), Clock::start()).measure().await);
    // Half of the thirty seconds that were asked about are new.
    assert_eq!((found.window, found.total, found.errors), (Duration::from_secs(15), 40, 4));
    assert_eq!(found.latency.bounds, [0.1, 0.5]);
    assert_eq!(found.latency.counts, [30, 35, 40]);
    let asked = server.asked().await;
    assert!(asked.starts_with("/api/v1/query query=sum(increase(http_requests_total[30s]))\n"), "{asked}");
    for _ in 0..2 {
        let asked = server.asked().await;
        assert!(asked.contains("[30s])) time=1700000000.781\n"), "about the same moment: {asked}");
    }
}

#[tokio::test]
async fn no_errors_are_zero_errors_and_no_requests_are_nothing() {
    let mut server = Server::start(vec![vector(&[("", "80")]), vector(&[])]).await;
    let mut source = promql(&server);
    source.latency = None;
    let found = requests(PromqlProbe::new(&source, Clock::start()).measure().await);
    assert_eq!((found.total, found.errors, found.latency.is_empty()), (40, 0, true));
    server.asked().await;
    let server = Server::start(vec![vector(&[])]).await;
    let why = unavailable(PromqlProbe::new(&promql(&server), Clock::start()).measure().await);
    assert!(why.starts_with("the query for requests finds nothing within 30s"), "{why}");
    assert!(why.contains(&format!("promtool query instant http://127.0.0.1:{} ", server.port)), "{why}");
}

#[tokio::test]
async fn what_prometheus_refuses_is_said_with_what_to_try() {
    let error = |kind: &str, error: &str| {
        format!("{{\"status\":\"error\",\"errorType\":\"{kind}\",\"error\":\"{error}\"}}")
    };
    let scalar = "{\"status\":\"success\",\"data\":{\"resultType\":\"string\",\"result\":[1,\"x\"]}}";
    for (said, why) in [
        (
            answer("400 Bad Request", "", &error("bad_data", "parse error: unclosed")),
            "refused the query `sum(increase(http_requests_total[30s]))`: bad_data: parse error: unclosed; try it with: promtool query instant http",
        ),
        (
            answer("422 Unprocessable Entity", "", &error("execution", "many-to-many")),
            "execution: many-to-many",
        ),
        (
            answer("503 Service Unavailable", "", &error("timeout", "query timed out")),
            "timeout: query timed out",
        ),
        (answer("401 Unauthorized", "", "who?"), "configure a token_file whose token it accepts"),
        (
            answer("502 Bad Gateway", "Content-Type: text/html\r\n", "<h1>nginx</h1>"),
            "is no Prometheus: 502 Bad Gateway, text/html",
        ),
        (answer("200 OK", "", scalar), "gives a text, not numbers"),
        (vector(&[("", "NaN")]), "gives NaN, which is no count"),
    ] {
        let server = Server::start(vec![said]).await;
        let said = unavailable(PromqlProbe::new(&promql(&server), Clock::start()).measure().await);
        assert!(said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn a_long_range_comes_in_parts_that_fit_together() {
    let part = |times: &[u64]| {
        let values: Vec<_> = times.iter().map(|t| format!("[{t},\"{}\"]", t * 2)).collect();
        let body = format!(
            "{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[{{\"metric\":{{\"job\":\"api\"}},\
             \"values\":[{}]}}]}}}}",
            values.join(",")
        );
        answer("200 OK", "", &body)
    };
    let mut server = Server::start(vec![part(&[0, 99_990]), part(&[100_000, 150_000])]).await;
    let url = server.url("/prom/");
    let client = PrometheusClient::new(&url, &Tls::default(), None, PATIENT).unwrap();
    assert_eq!(client.server(), url.trim_end_matches('/'));
    let at = Timestamp::from_secs;
    let found = client.query_range("up", at(0), at(150_000), Duration::from_secs(10)).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].labels["job"], "api");
    let points = [(0, 0.0), (99_990, 199_980.0), (100_000, 200_000.0), (150_000, 300_000.0)];
    assert_eq!(found[0].points, points.map(|(t, v)| (at(t), v)));
    let asked = server.asked().await;
    assert!(
        asked.starts_with("/prom/api/v1/query_range query=up start=0.000 end=99990.000 step=10\n"),
        "{asked}"
    );
    assert!(server.asked().await.contains("start=100000.000 end=150000.000 "));
}
