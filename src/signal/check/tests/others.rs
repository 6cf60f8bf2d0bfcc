//! TCP, gRPC and commands.

use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

type Bytes = Cursor<Vec<u8>>;

fn tcp(port: u16) -> CheckKind {
    CheckKind::Tcp(Target::Replica { port, path: String::new() })
}

#[tokio::test]
async fn a_port_that_accepts_passes() {
    let quiet = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = quiet.local_addr().unwrap().port();
    passed(&make(tcp(port), PATIENT, Some("127.0.0.1")).await, "connected after ");
    let by_name = CheckKind::Tcp(Target::Url(format!("tcp://localhost:{port}")));
    passed(&make(by_name, PATIENT, None).await, "connected after ");
    drop(quiet);
    failed(&make(tcp(port), PATIENT, Some("127.0.0.1")).await, "connection refused after ");
}

#[tokio::test]
async fn a_port_that_accepts_and_hangs_up_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // First it says something before it hangs up, then it does not.
    tokio::spawn(async move {
        let (mut talks, _) = listener.accept().await.unwrap();
        talks.write_all(b"220 ready\r\n").await.unwrap();
        drop(talks);
        while let Ok((silent, _)) = listener.accept().await {
            drop(silent);
        }
    });
    passed(&make(tcp(port), PATIENT, Some("127.0.0.1")).await, "connected after ");
    failed(&make(tcp(port), PATIENT, Some("127.0.0.1")).await, "accepted, but closed at once after ");
}

#[tokio::test]
async fn where_nobody_can_be_knocked_at_is_not_the_services_fault() {
    unmeasured(&make(tcp(80), PATIENT, None).await, "no address of its own");
    let url = |url: &str| CheckKind::Tcp(Target::Url(url.into()));
    unmeasured(
        &make(url("tcp://nobody.invalid:1"), PATIENT, None).await,
        "our resolver, asked for nobody.invalid,",
    );
    unmeasured(&make(url("db:5432"), PATIENT, None).await, "write it like tcp://db.example.com:5432");
}

/// What a gRPC server does with one request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// This health status, with gRPC status 0.
    Status(u8),
    /// Headers only, with this gRPC status.
    Only(&'static str),
    /// The message, and then nothing.
    NoEnd,
    Nothing,
    Html,
    Endless,
}

/// A gRPC server, and the services it was asked about.
async fn grpc_server(answer: Answer) -> (u16, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, questions) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(speak_grpc(connection, answer, asked));
        }
    });
    (port, questions)
}

/// Answers everything that comes over one connection.
pub(super) async fn speak_grpc(
    connection: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    answer: Answer,
    asked: tokio::sync::mpsc::UnboundedSender<Vec<u8>>,
) {
    let mut connection = h2::server::Builder::new().handshake::<_, Bytes>(connection).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let asked = asked.clone();
        tokio::spawn(async move { serve(answer, request, respond, asked).await });
    }
}

async fn serve(
    answer: Answer,
    request: ::http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    asked: tokio::sync::mpsc::UnboundedSender<Vec<u8>>,
) {
    let (head, mut body) = request.into_parts();
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/grpc.health.v1.Health/Check"));
    assert_eq!(
        (&head.headers["te"], &head.headers["content-type"]),
        (&"trailers".parse().unwrap(), &"application/grpc".parse().unwrap())
    );
    let mut question = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        question.extend_from_slice(&data);
    }
    let _ = asked.send(question);
    let head = |kind: &str| ::http::Response::builder().header("content-type", kind);
    let grpc = || head("application/grpc+proto").body(()).unwrap();
    let end = ::http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    match answer {
        Answer::Status(status) => {
            let mut stream = respond.send_response(grpc(), false).unwrap();
            stream.send_data(Cursor::new(vec![0, 0, 0, 0, 2, 8, status]), false).unwrap();
            stream.send_trailers(end).unwrap();
        }
        Answer::Only(status) => {
            let only =
                head("application/grpc").header("grpc-status", status).header("grpc-message", "not%20here");
            respond.send_response(only.body(()).unwrap(), true).unwrap();
        }
        Answer::NoEnd => {
            let mut stream = respond.send_response(grpc(), false).unwrap();
            stream.send_data(Cursor::new(vec![0, 0, 0, 0, 2, 8, 1]), true).unwrap();
        }
        Answer::Nothing => std::future::pending().await,
        Answer::Html => {
            let mut stream = respond.send_response(head("text/html").body(()).unwrap(), false).unwrap();
            stream.send_data(Cursor::new(b"<html>".to_vec()), true).unwrap();
        }
        Answer::Endless => {
            let mut stream = respond.send_response(grpc(), false).unwrap();
            while stream.send_data(Cursor::new(vec![0; 8192]), false).is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

fn grpc(port: u16, service: &str) -> CheckKind {
    let target = Target::Replica { port, path: String::new() };
    CheckKind::Grpc { target, service: service.into(), tls: Tls::default() }
}

async fn asked_of(answer: Answer, timeout: Duration) -> Measurement {
    let (port, _questions) = grpc_server(answer).await;
    make(grpc(port, ""), timeout, Some("127.0.0.1")).await
}

#[tokio::test]
async fn grpc_serving_passes_and_everything_else_fails_with_its_name() {
    passed(&asked_of(Answer::Status(1), PATIENT).await, "SERVING after ");
    for (answer, why) in [
        (Answer::Status(2), "NOT_SERVING after "),
        (Answer::Status(3), "SERVICE_UNKNOWN after "),
        (Answer::Status(0), "UNKNOWN after "),
        (Answer::Only("12"), "gRPC status 12 UNIMPLEMENTED: not here after "),
        (Answer::Only("5"), "gRPC status 5 NOT_FOUND: not here after "),
        (Answer::Only("0"), "its answer is no health answer after "),
        (Answer::NoEnd, "no gRPC status at the end of the answer after "),
        (Answer::Html, "200 OK without gRPC after "),
        (Answer::Endless, "an answer far longer than a health answer after "),
    ] {
        failed(&asked_of(answer, PATIENT).await, why);
    }
    failed(&asked_of(Answer::Nothing, IMPATIENT).await, "no answer within 300ms");
}

#[tokio::test]
async fn grpc_asks_about_the_service_that_is_meant() {
    let (port, mut questions) = grpc_server(Answer::Status(1)).await;
    for (service, question) in [("", &b"\0\0\0\0\0"[..]), ("shop.Orders", b"\0\0\0\0\x0d\x0a\x0bshop.Orders")]
    {
        passed(&make(grpc(port, service), PATIENT, Some("127.0.0.1")).await, "SERVING after ");
        assert_eq!(questions.recv().await.unwrap(), question);
    }
    for url in [format!("http://localhost:{port}"), format!("grpc://127.0.0.1:{port}/whatever?x")] {
        let kind = CheckKind::Grpc { target: Target::Url(url), service: String::new(), tls: Tls::default() };
        passed(&make(kind, PATIENT, None).await, "SERVING after ");
    }
}

#[tokio::test]
async fn grpc_is_not_what_an_http_server_speaks() {
    let port = says("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    failed(&make(grpc(port, ""), PATIENT, Some("127.0.0.1")).await, "after ");
    let closed = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port() };
    failed(&make(grpc(closed, ""), PATIENT, Some("127.0.0.1")).await, "connection refused after ");
    let url = |url: &str| CheckKind::Grpc {
        target: Target::Url(url.into()),
        service: String::new(),
        tls: Tls::default(),
    };
    unmeasured(
        &make(url("http://nobody.invalid"), PATIENT, None).await,
        "our resolver, asked for nobody.invalid,",
    );
    unmeasured(&make(url("orders:50051"), PATIENT, None).await, "write it like http://orders:50051");
}

/// Commands that end as told, and how many were started.
#[derive(Debug, Default)]
struct Commands {
    /// How the next one ends; none if it hangs.
    ends: Mutex<Option<Ran>>,
    /// The engine is in trouble.
    trouble: Mutex<Option<&'static str>>,
    hang_in_prepare: bool,
    started: AtomicUsize,
}

impl Commands {
    fn end(&self, code: i64, output: &str) {
        *self.ends.lock().unwrap() = Some(Ran { code, output: output.into() });
    }
}

#[async_trait]
impl CommandRunner for Commands {
    async fn prepare(&self, replica: &ReplicaId, command: &[String]) -> Result<String, String> {
        assert_eq!((replica.as_str(), command), ("r", &["pg_isready".to_owned(), "-q".to_owned()][..]));
        if self.hang_in_prepare {
            std::future::pending::<()>().await;
        }
        self.trouble.lock().unwrap().map_or_else(|| Ok("exec".into()), |why| Err(why.into()))
    }

    async fn run(&self, id: &str) -> Result<Ran, String> {
        assert_eq!(id, "exec");
        self.started.fetch_add(1, Ordering::SeqCst);
        let ends = self.ends.lock().unwrap().clone();
        match ends {
            Some(ran) => Ok(ran),
            None => std::future::pending().await,
        }
    }

    async fn runs(&self, id: &str) -> Result<bool, String> {
        assert_eq!(id, "exec");
        Ok(self.ends.lock().unwrap().is_none())
    }
}

fn command(commands: &Arc<Commands>) -> CheckProbe {
    let tools = CheckTools { commands: Arc::clone(commands) as _, ..tools() };
    probe_with(&tools, CheckKind::Command(vec!["pg_isready".into(), "-q".into()]), IMPATIENT, None)
}

#[tokio::test]
async fn a_command_passes_by_its_exit_code() {
    let commands = Arc::new(Commands::default());
    let probe = command(&commands);
    commands.end(0, "whatever\n");
    passed(&probe.check().await, "exit code 0 after ");
    commands.end(2, "trying\nno attempt was made\n\n");
    failed(&probe.check().await, "exit code 2 after 1ms: no attempt was made");
    commands.end(127, "OCI runtime exec failed: \"pg_isready\": executable file not found in $PATH");
    failed(
        &probe.check().await,
        "exit code 127 after 1ms: OCI runtime exec failed: \"pg_isready\": executable",
    );
    commands.end(1, "");
    failed(&probe.check().await, "exit code 1 after 1ms");
    commands.end(1, &"x".repeat(10_000));
    assert!(matches!(probe.check().await, Measurement::Check { detail, .. } if detail.len() < 300));
}

#[tokio::test]
async fn a_command_that_hangs_fails_and_is_not_started_again_beside_itself() {
    let commands = Arc::new(Commands::default());
    let probe = command(&commands);
    failed(&probe.check().await, "the command did not end within 300ms");
    for _ in 0..3 {
        failed(&probe.check().await, "the command of an earlier check, given 300ms, still runs");
    }
    assert_eq!(commands.started.load(Ordering::SeqCst), 1);
    commands.end(0, "");
    passed(&probe.check().await, "exit code 0");
    assert_eq!(commands.started.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_engine_that_cannot_run_it_is_not_the_services_fault() {
    let commands = Arc::new(Commands::default());
    *commands.trouble.lock().unwrap() = Some("the engine does not answer");
    unmeasured(&command(&commands).check().await, "the engine does not answer");
    let hangs = Arc::new(Commands { hang_in_prepare: true, ..Commands::default() });
    unmeasured(&command(&hangs).check().await, "the engine did not answer in time");
    let check = HealthCheck {
        kind: CheckKind::Command(vec!["true".into()]),
        interval: PATIENT,
        timeout: PATIENT,
        required: true,
    };
    let nowhere = CheckProbe::new(&tools(), Signal::Dependencies, &check, None).measure().await;
    assert_eq!(nowhere[0].0, Signal::Dependencies);
    unmeasured(&nowhere[0].1, "a command needs a replica to run in");
    unmeasured(&make(CheckKind::Command(Vec::new()), PATIENT, None).await, "the check has no command");
}
