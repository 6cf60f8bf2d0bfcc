//! E-mail, against a server that speaks SMTP as they do: plain, STARTTLS, TLS from the first byte, log-in, refusals.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstop::core::announcement::AnnouncementKind as Kind;
use backstop::notify::plan::{Channel, Medium, Plan};
use backstop::notify::{Mail, MailTls, Tried, mailbox, try_channel};
use base64::Engine as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::receiver::{Bench, PATIENCE, now};

const PASSWORD: &str = "hunter2-hunter2";
/// What such a server says: to all, and when it is asked for each.
const GREYLISTED: &str = "451 4.7.1 greylisted";
/// What the server says for an address that is called so.
const DEAD: [(&str, &str); 2] = [("dead@", "550 5.1.1 no such user"), ("full@", "452 4.2.2 mailbox full")];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

/// What the server does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Plain,
    Starttls,
    Implicit,
}

/// A mail that came in.
#[derive(Debug)]
struct Got {
    encrypted: bool,
    login: Option<String>,
    to: Vec<String>,
    data: String,
}

/// A server; each connection answers `RCPT` with the next of `answers`, the last for all that follow.
async fn server(how: How, answers: &'static [&'static str]) -> (u16, mpsc::UnboundedReceiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, got) = mpsc::unbounded_channel();
    let certificate = CertificateDer::from_pem_file(fixture("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(fixture("server.key")).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        let mut n = 0;
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, told) = (acceptor.clone(), told.clone());
            let answer = answers[n.min(answers.len() - 1)];
            n += 1;
            tokio::spawn(async move {
                if how == How::Implicit {
                    let stream = acceptor.accept(stream).await?;
                    talk(BufStream::new(stream), (true, false), true, answer, &told).await?;
                    return Ok::<_, std::io::Error>(());
                }
                let offer = how == How::Starttls;
                if let Some(stream) =
                    talk(BufStream::new(stream), (false, offer), true, answer, &told).await?
                {
                    let stream = acceptor.accept(stream.into_inner()).await?;
                    talk(BufStream::new(stream), (true, false), false, answer, &told).await?;
                }
                Ok(())
            });
        }
    });
    (port, got)
}

/// One conversation; gives the stream back if it becomes TLS now.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: BufStream<S>,
    (encrypted, offers_tls): (bool, bool),
    greets: bool,
    answer: &str,
    told: &mpsc::UnboundedSender<Got>,
) -> std::io::Result<Option<BufStream<S>>> {
    if greets {
        say(&mut stream, "220 mail.example").await?;
    }
    let mut got = Got { encrypted, login: None, to: Vec::new(), data: String::new() };
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let command = line.trim_end().to_owned();
        match command.split([' ', ':']).next().unwrap().to_uppercase().as_str() {
            "EHLO" => {
                let tls = if offers_tls { "250-STARTTLS\r\n" } else { "" };
                say(&mut stream, &format!("250-mail.example\r\n{tls}250 AUTH PLAIN LOGIN")).await?;
            }
            "STARTTLS" => {
                say(&mut stream, "220 go").await?;
                return Ok(Some(stream));
            }
            "AUTH" => {
                let given = command.rsplit(' ').next().unwrap();
                let given = base64::engine::general_purpose::STANDARD.decode(given).unwrap();
                let given = String::from_utf8(given).unwrap().replace('\0', " ").trim().to_owned();
                let right = given.ends_with(PASSWORD);
                got.login = Some(given);
                say(&mut stream, if right { "235 welcome" } else { "535 5.7.8 wrong password" }).await?;
            }
            "RCPT" => {
                if answer == "hang" {
                    std::future::pending::<()>().await;
                }
                let dead = DEAD.iter().find(|(who, _)| command.contains(who)).map(|(_, said)| *said);
                if dead.is_none() {
                    got.to.push(command);
                }
                say(&mut stream, dead.unwrap_or(answer)).await?;
            }
            "DATA" => {
                say(&mut stream, "354 go on").await?;
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line).await?;
                    if line == ".\r\n" {
                        break;
                    }
                    got.data.push_str(&line);
                }
                say(&mut stream, "250 taken").await?;
                let next = Got { encrypted, login: None, to: Vec::new(), data: String::new() };
                let _ = told.send(std::mem::replace(&mut got, next));
            }
            "QUIT" => {
                say(&mut stream, "221 bye").await?;
                return Ok(None);
            }
            _ => say(&mut stream, "250 ok").await?,
        }
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufStream<S>,
    text: &str,
) -> std::io::Result<()> {
    stream.write_all(format!("{text}\r\n").as_bytes()).await?;
    stream.flush().await
}

fn mail(port: u16, tls: MailTls) -> Mail {
    Mail {
        host: "localhost".into(),
        port,
        tls,
        credentials: None,
        ca: Some(std::fs::read_to_string(fixture("ca.pem")).unwrap()),
        from: mailbox("Backstop <backstop@example.com>").unwrap(),
        to: vec![mailbox("ops@example.com").unwrap(), mailbox("Anna <anna@example.com>").unwrap()],
    }
}

fn channel(mail: Mail, timeout: Duration) -> Channel {
    Channel { timeout, ..Channel::new("mail", Medium::Email(mail)) }
}

#[tokio::test]
async fn a_mail_is_tried_again_with_the_same_id_and_words() {
    let (port, mut got) =
        server(How::Plain, &[GREYLISTED, GREYLISTED, GREYLISTED, "421 too many", "250 ok"]).await;
    let mut bench = Bench::start(Plan::of(vec![channel(mail(port, MailTls::None), PATIENCE)])).await;
    let a = now(Kind::RollbackInProgress, "r/in-progress");
    bench.say(&a).await;
    bench.outcome("mail", "retried").await;
    bench.outcome("mail", "retried").await;
    bench.outcome("mail", "delivered").await;
    let got = got.recv().await.unwrap();
    assert_eq!(got.to, ["RCPT TO:<ops@example.com>", "RCPT TO:<anna@example.com>"]);
    assert!(got.data.contains("Subject: [production] ROLLBACK IN PROGRESS: shop\r\n"), "{}", got.data);
    assert!(got.data.contains("Auto-Submitted: auto-generated\r\n"));
    let id = got.data.lines().find(|line| line.starts_with("Message-ID: <msg_")).expect("an id of our own");
    assert!(id.ends_with("@backstop>"), "{id}");
    assert!(got.data.contains("ROLLBACK IN PROGRESS: shop\r\nEnvironment: production\r\n"));
    assert!(!got.data.contains("@channel"), "nobody is called by mail");
}

#[tokio::test]
async fn tls_is_spoken_as_it_was_said_and_the_password_only_then() {
    for (how, tls) in [(How::Starttls, MailTls::Starttls), (How::Implicit, MailTls::Implicit)] {
        let (port, mut got) = server(how, &["250 ok"]).await;
        let with = Mail { credentials: Some(("backstop".into(), PASSWORD.into())), ..mail(port, tls) };
        let tried = try_channel(&channel(with.clone(), PATIENCE), "staging", now(Kind::Test, "").at).await;
        assert_eq!(tried, Tried::Delivered, "{how:?}");
        let got = got.recv().await.unwrap();
        assert!(got.encrypted, "{how:?}");
        assert_eq!(got.login.unwrap(), format!("backstop {PASSWORD}"));
        assert!(got.data.contains("Subject: [staging] TEST: nothing happened\r\n"), "{}", got.data);

        let wrong = Mail { credentials: Some(("backstop".into(), "hunter2-wrong".into())), ..with.clone() };
        let Tried::Failed(why) =
            try_channel(&channel(wrong, PATIENCE), "staging", now(Kind::Test, "").at).await
        else {
            panic!("a wrong password was taken");
        };
        assert!(why.contains("wrong password") && !why.contains("hunter2"), "{why}");
        let untrusted = Mail { ca: None, ..with };
        let Tried::Failed(why) =
            try_channel(&channel(untrusted, PATIENCE), "staging", now(Kind::Test, "").at).await
        else {
            panic!("anybody is trusted");
        };
        assert!(why.contains("certificate") || why.contains("UnknownIssuer"), "{why}");
    }
    // A server that does not offer it gets nothing in the open.
    let (port, mut got) = server(How::Plain, &["250 ok"]).await;
    let tried =
        try_channel(&channel(mail(port, MailTls::Starttls), PATIENCE), "x", now(Kind::Test, "").at).await;
    assert!(matches!(tried, Tried::Failed(_)), "{tried:?}");
    assert!(got.try_recv().is_err());
}

#[tokio::test]
async fn what_a_mail_server_refuses_for_good_is_given_up_and_one_that_hangs_is_left() {
    let (port, _got) = server(How::Plain, &["550 5.1.1 no such user"]).await;
    let mut bench = Bench::start(Plan::of(vec![channel(mail(port, MailTls::None), PATIENCE)])).await;
    bench.say(&now(Kind::Stuck, "a")).await;
    bench.outcome("mail", "abandoned").await;
    bench.handle.drain(PATIENCE).await;
    let why = bench.sql("SELECT last_error FROM delivery_log").remove(0);
    assert!(why.contains("no such user"), "{why}");

    let (port, mut got) = server(How::Plain, &["hang", "250 ok"]).await;
    let short = channel(mail(port, MailTls::None), Duration::from_millis(200));
    let mut bench = Bench::start(Plan::of(vec![short])).await;
    bench.say(&now(Kind::Stuck, "a")).await;
    bench.outcome("mail", "retried").await;
    bench.outcome("mail", "delivered").await;
    assert!(got.recv().await.unwrap().data.contains("A PERSON IS NEEDED"));
}

/// Whoever has left, or does not empty their mailbox, keeps nobody else from hearing.
#[tokio::test]
async fn a_mailbox_that_is_dead_silences_nobody_else() {
    let to = |more: &str, port| {
        let mut mail = mail(port, MailTls::None);
        mail.to.insert(0, mailbox(more).unwrap());
        mail
    };
    let (port, mut got) = server(How::Plain, &["250 ok"]).await;
    let dead = to("dead@example.com", port);
    let mut bench = Bench::start(Plan::of(vec![channel(dead.clone(), PATIENCE)])).await;
    bench.say(&now(Kind::Stuck, "a")).await;
    bench.outcome("mail", "delivered").await;
    bench.handle.drain(PATIENCE).await;
    let first = got.recv().await.unwrap();
    let second = got.recv().await.unwrap();
    assert_eq!([first.to, second.to].concat(), ["RCPT TO:<ops@example.com>", "RCPT TO:<anna@example.com>"]);
    let id = |data: &str| data.lines().find(|line| line.starts_with("Message-ID")).map(str::to_owned);
    assert_eq!(id(&first.data), id(&second.data));
    let why = bench.sql("SELECT last_error FROM delivery_log WHERE state = 'delivered'").remove(0);
    assert!(why.starts_with("refused for dead@example.com: ") && why.contains("no such user"), "{why}");
    let tried = try_channel(&channel(dead, PATIENCE), "x", now(Kind::Test, "").at).await;
    let Tried::Failed(why) = tried else { panic!("nobody was told of the dead one") };
    assert!(why.starts_with("others got it, but it was refused for dead@example.com"), "{why}");

    // One that may take it later is asked again, and alone.
    let (port, mut got) = server(How::Plain, &["250 ok"]).await;
    let mut bench = Bench::start(Plan::of(vec![channel(to("full@example.com", port), PATIENCE)])).await;
    bench.say(&now(Kind::Stuck, "a")).await;
    bench.outcome("mail", "retried").await;
    bench.outcome("mail", "retried").await;
    for who in ["ops", "anna"] {
        assert_eq!(got.recv().await.unwrap().to, [format!("RCPT TO:<{who}@example.com>")]);
    }
    assert!(got.try_recv().is_err(), "somebody got it twice");
}
