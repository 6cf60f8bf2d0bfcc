//! Links that answer a question: signed, for one question, and good for one answer.
//!
//! Whoever can read the message can answer; that is what such a link is for. What it is worth is written down with the
//! answer (`by link`), and two people cannot be made out of one by it. Chats fetch links to show a preview, so opening one
//! only shows the question; the answer is a form that a person sends.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use axum::extract::{Form, Path as UrlPath, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::ApiState;
use super::body::text;
use super::operate::{BY_CHARS_MAX, WHY_CHARS_MAX, duration, run};
use crate::core::Command;
use crate::core::approval::{Approval, Via, Word, time_of_day};
use crate::core::release::{ApprovalId, ServiceName};
use crate::report::escape;

/// The key's file in the state directory.
const KEY_FILE: &str = "link-key";
/// As long as the digest that it goes into.
const KEY_BYTES: usize = 32;
/// Longest token: a service name and an id, with their signature.
const TOKEN_CHARS_MAX: usize = 2048;

/// Makes links and reads them.
#[derive(Clone)]
pub struct Links {
    key: std::sync::Arc<SecretBox<[u8; KEY_BYTES]>>,
}

/// What a link is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Purpose {
    #[serde(rename = "s")]
    service: ServiceName,
    #[serde(rename = "q")]
    question: ApprovalId,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Links")
    }
}

impl Links {
    /// With the key of this state directory, which is made if it is not there: links of an earlier run stay good.
    ///
    /// # Errors
    /// The key can be neither read nor written.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(KEY_FILE);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let key = <[u8; KEY_BYTES]>::try_from(bytes).map_err(|bytes| {
                    let what = format!(
                        "{} has {} bytes instead of {KEY_BYTES}; delete it",
                        path.display(),
                        bytes.len()
                    );
                    io::Error::new(io::ErrorKind::InvalidData, what)
                })?;
                Ok(Self::with_key(key))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; KEY_BYTES];
                getrandom::fill(&mut key).map_err(|e| io::Error::other(e.to_string()))?;
                let mut file =
                    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                file.write_all(&key)?;
                file.sync_all()?;
                Ok(Self::with_key(key))
            }
            Err(e) => Err(e),
        }
    }

    /// With this key.
    pub fn with_key(key: [u8; KEY_BYTES]) -> Self {
        Self { key: std::sync::Arc::new(SecretBox::new(Box::new(key))) }
    }

    /// The link to answer a question, below the address under which people reach this daemon.
    pub fn url(&self, public: &str, service: &ServiceName, question: &ApprovalId) -> String {
        let purpose = Purpose { service: service.clone(), question: question.clone() };
        let said = serde_json::to_vec(&purpose).unwrap_or_default();
        let (said, signature) = (URL_SAFE_NO_PAD.encode(&said), self.sign(&said));
        format!("{}/answer/{said}.{}", public.trim_end_matches('/'), URL_SAFE_NO_PAD.encode(signature))
    }

    fn mac(&self, said: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose_secret()).ok()?;
        mac.update(b"backstop answer v1\0");
        mac.update(said);
        Some(mac)
    }

    fn sign(&self, said: &[u8]) -> Vec<u8> {
        self.mac(said).map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
    }

    /// What a link is for, if we made it.
    fn read(&self, token: &str) -> Option<Purpose> {
        let (said, signature) = token.get(..TOKEN_CHARS_MAX.min(token.len()))?.split_once('.')?;
        let (said, signature) = (URL_SAFE_NO_PAD.decode(said).ok()?, URL_SAFE_NO_PAD.decode(signature).ok()?);
        // In constant time.
        self.mac(&said)?.verify_slice(&signature).ok()?;
        serde_json::from_slice(&said).ok()
    }
}

/// What the form sends.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    answer: String,
    name: Option<String>,
    why: Option<String>,
    span: Option<String>,
}

/// Shows the question, and changes nothing: previews of chats and scanners of mail come here too.
pub(super) async fn show(State(state): State<ApiState>, UrlPath(token): UrlPath<String>) -> Response {
    match open_question(&state, &token) {
        Ok((purpose, approval)) => page(StatusCode::OK, &question(&purpose.service, &approval)),
        Err(response) => *response,
    }
}

/// Takes the answer.
pub(super) async fn answer(
    State(state): State<ApiState>,
    UrlPath(token): UrlPath<String>,
    form: Result<Form<Answer>, axum::extract::rejection::FormRejection>,
) -> Response {
    let (purpose, _) = match open_question(&state, &token) {
        Ok(open) => open,
        Err(response) => return *response,
    };
    let Ok(Form(form)) = form else {
        return note(
            StatusCode::BAD_REQUEST,
            "The form came incomplete",
            "Open the link again, and send it once more.",
        );
    };
    let (by, command) = match command(purpose, form) {
        Ok(command) => command,
        Err(why) => return note(StatusCode::BAD_REQUEST, "That cannot be taken down", &why),
    };
    match run(&state, command, by).await {
        Ok(done) => note(StatusCode::OK, "Taken down", &done),
        Err(why) => note(StatusCode::CONFLICT, "Nothing was changed", &why),
    }
}

fn command(purpose: Purpose, form: Answer) -> Result<(String, Command), String> {
    let field = |name, given, max| text(name, given, max).map_err(|error| error.error);
    let by = field("name", form.name, BY_CHARS_MAX)?;
    if by.is_empty() {
        return Err("Please say who you are: it is written down with the answer.".into());
    }
    let why = field("why", form.why, WHY_CHARS_MAX)?;
    let Purpose { service, question } = purpose;
    let (question, via) = (Some(question), Via::Link);
    let word = match form.answer.as_str() {
        "approve" => Word::Approved,
        "cancel" => Word::Refused,
        "extend" => {
            let span = duration(form.span.as_deref().unwrap_or("30m")).map_err(|error| error.error)?;
            return Ok((by, Command::Extend { service, question, span, why, via }));
        }
        other => return Err(format!("`{other}` is no answer: `approve`, `cancel` or `extend` would be.")),
    };
    Ok((by, Command::Answer { service, question, word, why, via }))
}

/// The question that a link is for, or the page that says why there is none.
fn open_question(state: &ApiState, token: &str) -> Result<(Purpose, Approval), Box<Response>> {
    let no = |status, title, text: &str| Err(Box::new(note(status, title, text)));
    let Some(purpose) = state.links.as_ref().and_then(|links| links.read(token)) else {
        return no(
            StatusCode::FORBIDDEN,
            "This link is not good",
            "It was not made by this daemon, or was changed on its way. Open it from the message itself.",
        );
    };
    let fleet = state.fleet();
    let service = fleet.services.iter().find(|s| s.name == purpose.service);
    let asked = service.and_then(|s| s.flags.approval.as_deref()).filter(|a| a.id == purpose.question);
    match asked {
        None => no(
            StatusCode::GONE,
            "This question is closed",
            &format!(
                "It is over, or was answered. backstop explain {0} and backstop history {0} say how.",
                purpose.service
            ),
        ),
        Some(approval) => match approval
            .said
            .iter()
            .find(|said| said.via == Via::Link && !matches!(said.word, Word::Extended { .. }))
        {
            Some(said) => no(
                StatusCode::GONE,
                "This link was used already",
                &format!(
                    "{} answered: {}. Who wants something else uses backstop on the command line.",
                    said.by,
                    said.word.name()
                ),
            ),
            None => Ok((purpose, approval.clone())),
        },
    }
}

fn question(service: &ServiceName, approval: &Approval) -> String {
    let decision = &approval.decision;
    let release =
        |r: &Option<crate::core::release::Release>| r.as_ref().map_or("nothing".into(), ToString::to_string);
    let until = approval.deadline().map_or(String::new(), |until| {
        format!("<dt>Goes ahead</dt><dd>at {} unless somebody says no</dd>", time_of_day(until))
    });
    let said = approval.said.iter().map(|said| {
        format!("<dt>{}</dt><dd>{} {}</dd>", said.word.name(), escape(&said.by), escape(&said.why))
    });
    let extend = if approval.deadline().is_some() {
        "<button name=\"answer\" value=\"extend\">Wait 30 min longer</button>"
    } else {
        ""
    };
    format!(
        "<h1>Roll {service} back?</h1><dl><dt>Reason</dt><dd>{reason}</dd><dt>Runs now</dt><dd>{from}</dd>\
         <dt>Would go back to</dt><dd>{to}</dd><dt>Severity</dt><dd>{severity}</dd>{until}{said}</dl>\
         <form method=\"post\"><label>Your name <input name=\"name\" required maxlength=\"{BY_CHARS_MAX}\" autocomplete=\"name\"></label>\
         <label>Why <input name=\"why\" maxlength=\"{WHY_CHARS_MAX}\"></label><p>\
         <button name=\"answer\" value=\"approve\" class=\"go\">Roll back</button>\
         <button name=\"answer\" value=\"cancel\">Leave it as it is</button>{extend}</p></form>",
        service = escape(service.as_str()),
        reason = escape(&decision.reason.to_string()),
        from = escape(&release(&decision.from)),
        to = escape(&release(&decision.to)),
        severity = decision.severity,
        said = said.collect::<String>(),
    )
}

fn note(status: StatusCode, title: &str, text: &str) -> Response {
    page(status, &format!("<h1>{}</h1><p>{}</p>", escape(title), escape(text)))
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem;\
color:#1b1f24;background:#fff}dt{font-weight:600;margin-top:.6rem}dd{margin:0;overflow-wrap:anywhere}label{display:block;\
margin:.8rem 0}input{font:inherit;width:100%;box-sizing:border-box;padding:.4rem}button{font:inherit;padding:.6rem 1rem;\
margin:.3rem .5rem .3rem 0}.go{background:#b42318;color:#fff;border:0;border-radius:4px}\
@media(prefers-color-scheme:dark){body{background:#14171a;color:#e6e8ea}input{background:#22272c;color:inherit;border:1px solid #555}}";

fn page(status: StatusCode, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><meta name=\"robots\" content=\"noindex\"><title>Backstop</title>\
         <style>{STYLE}</style></head><body>{body}</body></html>"
    );
    // Nothing but its own style, and a form to where it came from.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    (status, [(header::CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(links: &Links) -> String {
        let url = links.url(
            "https://ops.example.com/backstop/",
            &ServiceName::new("shop/api"),
            &ApprovalId::new("0a1"),
        );
        url.strip_prefix("https://ops.example.com/backstop/answer/").unwrap().to_owned()
    }

    #[test]
    fn a_link_is_read_by_whoever_made_it_and_by_nobody_else() {
        let links = Links::with_key([7; KEY_BYTES]);
        let token = token(&links);
        let purpose = links.read(&token).unwrap();
        assert_eq!((purpose.service.as_str(), purpose.question.as_str()), ("shop/api", "0a1"));
        assert_eq!(Links::with_key([8; KEY_BYTES]).read(&token), None);
    }

    #[test]
    fn no_byte_of_a_link_can_be_changed() {
        let links = Links::with_key([7; KEY_BYTES]);
        let token = token(&links);
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            // The last characters of base64 may carry bits that mean nothing; then nothing was changed.
            assert!(links.read(&forged).is_none_or(|p| p == links.read(&token).unwrap()), "{forged}");
        }
        for bad in ["", ".", "a.b", &token[..token.len() - 4], &"A".repeat(5000)] {
            assert_eq!(links.read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_key_outlives_the_process_and_is_nobody_elses() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let token = token(&Links::open(dir.path()).unwrap());
        assert!(Links::open(dir.path()).unwrap().read(&token).is_some());
        let mode = std::fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(dir.path().join(KEY_FILE), b"short").unwrap();
        assert!(Links::open(dir.path()).unwrap_err().to_string().contains("5 bytes instead of 32"));
    }

    #[test]
    fn what_others_wrote_is_no_markup() {
        assert_eq!(escape("<b title='x'>&\"</b>"), "&lt;b title=&#39;x&#39;&gt;&amp;&quot;&lt;/b&gt;");
    }
}
