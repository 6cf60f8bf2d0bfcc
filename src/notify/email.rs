//! E-mail by SMTP. A message has the same `Message-ID` in every attempt, so that one that came twice is seen as one.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lettre::address::{Address, Envelope};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::plan::{Audience, Channel, Secret};
use super::post::{Failure, cut};
use super::words::{self, users_title};
use super::{kinds, words::digest};
use crate::core::announcement::Announcement;

/// A subject that is longer is cut by whoever shows it.
const SUBJECT_MAX: usize = 200;
/// What a person reads of a mail.
const TEXT_MAX: usize = 32 << 10;
/// What is kept of why a mail was not taken.
const WHY_MAX: usize = 300;
/// Recipients that are remembered because others of the same mail are still to have it.
const TAKEN_MAX: usize = 1024;

/// A way to send mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The server's name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is kept from others.
    pub tls: MailTls,
    /// User and password, where it wants them.
    pub credentials: Option<(String, Secret)>,
    /// Who signed its certificate, in PEM, if that is not one of those that everybody trusts.
    pub ca: Option<String>,
    /// The sender.
    pub from: Mailbox,
    /// Those who get it.
    pub to: Vec<Mailbox>,
}

impl Eq for Secret {}

/// How the connection is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// It begins in the open and must become TLS.
    Starttls,
    /// TLS from the first byte.
    Implicit,
    /// Not at all.
    None,
}

/// A mail, ready to be sent but for who sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) id: String,
    pub(super) thread: Option<String>,
    pub(super) subject: String,
    pub(super) text: String,
}

/// Whether an address is one that mail can be sent to.
pub fn mailbox(text: &str) -> Option<Mailbox> {
    text.parse().ok()
}

/// The mail; none if the channel's readers are not told of such.
pub(super) fn write(a: &Announcement, channel: &Channel) -> Option<Written> {
    let quiet = Channel { mention: false, ..channel.clone() };
    let text = words::text(a, &quiet, TEXT_MAX)?;
    let subject = match (channel.audience, kinds::phase(a)) {
        (Audience::Users, Some(phase)) => users_title(phase).to_owned(),
        (Audience::Users | Audience::Internal, _) => format!("[{}] {}", a.environment, a.title),
    };
    let subject = cut(&subject.split_whitespace().collect::<Vec<_>>().join(" "), SUBJECT_MAX);
    let thread = a.rollback.as_ref().map(|rollback| digest(rollback.as_str()));
    Some(Written { id: words::id(a), thread, subject, text })
}

/// The connection's settings, made once.
pub(super) struct Mailer {
    mail: Mail,
    timeout: Duration,
    transport: Result<AsyncSmtpTransport<Tokio1Executor>, String>,
    /// Who has taken a mail already that others are still to have, by its id; newest last.
    taken: Mutex<VecDeque<(String, Address)>>,
}

impl std::fmt::Debug for Mailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailer").field("mail", &self.mail).finish_non_exhaustive()
    }
}

impl Mailer {
    pub(super) fn new(mail: &Mail, timeout: Duration) -> Self {
        // Without a provider rustls panics; that somebody installed one before is just as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let transport = transport(mail, timeout);
        Self { mail: mail.clone(), timeout, transport, taken: Mutex::default() }
    }

    /// Sends it once; says whom the server refused, if others got it.
    pub(super) async fn send(&self, written: &Written) -> Result<Option<String>, Failure> {
        let all: Vec<Address> = self.mail.to.iter().map(|to| to.email.clone()).collect();
        let had: Vec<Address> =
            self.taken().iter().filter(|(id, _)| *id == written.id).map(|(_, who)| who.clone()).collect();
        let to: Vec<Address> = all.into_iter().filter(|who| !had.contains(who)).collect();
        match self.send_to(written, to.clone()).await {
            Ok(()) => Ok(None),
            Err((failure, of_recipient)) if !of_recipient || to.len() + had.len() < 2 => Err(failure),
            Err(_) => self.send_to_each(written, to, had.len()).await,
        }
    }

    /// One address that is refused ends the whole conversation, so each gets a mail of its own: nobody hears less because
    /// another one has left.
    async fn send_to_each(
        &self,
        written: &Written,
        to: Vec<Address>,
        had: usize,
    ) -> Result<Option<String>, Failure> {
        let (mut taken, mut refused, mut later) = (had, Vec::new(), Vec::new());
        for who in to {
            match self.send_to(written, vec![who.clone()]).await {
                Ok(()) => {
                    taken += 1;
                    let mut known = self.taken();
                    known.push_back((written.id.clone(), who));
                    let over = known.len().saturating_sub(TAKEN_MAX);
                    known.drain(..over);
                }
                Err((failure, true)) if failure.permanent => refused.push(format!("{who}: {}", failure.why)),
                Err((failure, _)) => later.push(format!("{who}: {}", failure.why)),
            }
        }
        let said = |words: &str, whom: &[String]| cut(&format!("{words} {}", whom.join("; ")), WHY_MAX);
        if !later.is_empty() {
            later.extend(refused);
            return Err(Failure::again(said("not taken for", &later)));
        }
        let why = said("refused for", &refused);
        if taken == 0 { Err(Failure::permanent(why)) } else { Ok(Some(why).filter(|_| !refused.is_empty())) }
    }

    /// One conversation. How it failed, and whether that may be because of a recipient.
    async fn send_to(&self, written: &Written, to: Vec<Address>) -> Result<(), (Failure, bool)> {
        let transport = self.transport.as_ref().map_err(|why| (Failure::again(why.clone()), false))?;
        let no_mail = |e: &dyn std::fmt::Display| (Failure::permanent(format!("no mail: {e}")), false);
        let message = message(&self.mail, written).map_err(|e| no_mail(&e))?;
        let envelope = Envelope::new(Some(self.mail.from.email.clone()), to).map_err(|e| no_mail(&e))?;
        // Its own limit is for each command; a server that answers one letter a minute would keep us for ever.
        match tokio::time::timeout(self.timeout, transport.send_raw(&envelope, &message.formatted())).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => {
                let code = e.status().map(u16::from);
                Err((self.failure(&e), code.is_some_and(|code| matches!(code, 450..=452 | 550..=556))))
            }
            Err(_) => Err((Failure::again(format!("no answer within {:?}", self.timeout)), false)),
        }
    }

    fn taken(&self) -> MutexGuard<'_, VecDeque<(String, Address)>> {
        // A panic elsewhere leaves a list of addresses, which is as good as before.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self, e: &lettre::transport::smtp::Error) -> Failure {
        let mut why = e.to_string();
        let mut cause = std::error::Error::source(e);
        while let Some(inner) = cause {
            why = format!("{why}: {inner}");
            cause = inner.source();
        }
        if let Some((_, password)) = &self.mail.credentials {
            why = why.replace(password.expose(), "[...]");
        }
        let why = cut(&why.split_whitespace().collect::<Vec<_>>().join(" "), WHY_MAX);
        // What the server refuses for good, and what it cannot do that we insist on; all else may be over next time.
        if e.is_permanent() || e.is_client() { Failure::permanent(why) } else { Failure::again(why) }
    }
}

fn transport(mail: &Mail, timeout: Duration) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let parameters = || {
        let mut parameters = TlsParameters::builder(mail.host.clone());
        if let Some(ca) = &mail.ca {
            let ca =
                Certificate::from_pem(ca.as_bytes()).map_err(|e| format!("its `ca_file` is no PEM: {e}"))?;
            parameters = parameters.add_root_certificate(ca);
        }
        parameters
            .build_rustls()
            .map_err(|e| format!("no TLS: {e}; is a CA bundle installed (ca-certificates)?"))
    };
    let tls = match mail.tls {
        MailTls::Starttls => Tls::Required(parameters()?),
        MailTls::Implicit => Tls::Wrapper(parameters()?),
        MailTls::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&mail.host)
        .port(mail.port)
        .timeout(Some(timeout))
        .tls(tls);
    if let Some((user, password)) = &mail.credentials {
        builder = builder.credentials(Credentials::new(user.clone(), password.expose().to_owned()));
    }
    Ok(builder.build())
}

fn message(mail: &Mail, written: &Written) -> Result<Message, lettre::error::Error> {
    let mut builder = Message::builder()
        .from(mail.from.clone())
        .subject(&written.subject)
        .message_id(Some(format!("<{}@backstop>", written.id)))
        // So that nobody's holiday notice answers.
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".into(),
        ));
    if let Some(thread) = &written.thread {
        builder = builder.references(format!("<{thread}@backstop>"));
    }
    for to in &mail.to {
        builder = builder.to(to.clone());
    }
    builder.header(ContentType::TEXT_PLAIN).body(written.text.clone())
}
