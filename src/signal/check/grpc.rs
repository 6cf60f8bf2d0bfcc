//! gRPC's health protocol: `grpc.health.v1.Health/Check` answers SERVING.
//!
//! The messages have one field each, so they are written and read by hand: a string that asks, a number that answers.

use std::net::IpAddr;

use http_body_util::BodyExt;
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};

use super::answer::status_line;
use super::fault::{own_address, quoted, resolve, unanswered};
use super::{Course, Late};
use crate::core::sample::Measurement;
use crate::core::settings::{Target, Tls};
use crate::signal::tls;

/// The answer has seven bytes; what is longer is something else.
const ANSWER_MAX: usize = 16 * 1024;

/// Asks one server.
#[derive(Debug)]
pub(super) struct Health {
    /// To a replica's own address.
    direct: bool,
    tls: Tls,
    url: Url,
    service: String,
}

impl Health {
    pub(super) fn new(
        target: &Target,
        service: &str,
        tls: &Tls,
        address: Option<IpAddr>,
    ) -> Result<Self, String> {
        let base = match target {
            Target::Url(url) => url.replacen("grpc://", "http://", 1).replacen("grpcs://", "https://", 1),
            Target::Replica { port, .. } => {
                // An address speaks TLS if somebody said how.
                let scheme = if *tls == Tls::default() { "http" } else { "https" };
                format!("{scheme}://{}", own_address(address, *port)?)
            }
        };
        let wrong = |why: &str| format!("the gRPC address {base:?} cannot be used: {why}");
        let mut url = Url::parse(&base).map_err(|e| wrong(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong("write it like http://orders:50051, or https:// for TLS"));
        }
        url.set_path("/grpc.health.v1.Health/Check");
        url.set_query(None);
        let direct = matches!(target, Target::Replica { .. });
        Ok(Self { direct, tls: tls.clone(), url, service: service.to_owned() })
    }

    pub(super) async fn make(&self, course: &Course) -> Measurement {
        self.ask(course).await.unwrap_or_else(|failed| failed)
    }

    async fn ask(&self, course: &Course) -> Result<Measurement, Measurement> {
        let client = tls::http2_client(&self.tls, self.direct).map_err(|why| course.unable(&why))?;
        if let Some(host) = self.url.domain() {
            resolve(course, host, self.url.port_or_known_default().unwrap_or(80)).await?;
        }
        course.late(Late::Theirs(None));
        let request = client
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
            .header(TE, HeaderValue::from_static("trailers"))
            .body(question(&self.service));
        let response = request.send().await.map_err(|e| unanswered(course, &e))?;
        let status = response.status();
        let kind = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if status != reqwest::StatusCode::OK || !kind.starts_with("application/grpc") {
            let said = course.after(&format!("{} without gRPC", status_line(status)));
            return Err(course.failed(&format!("{said} (content type \"{}\")", quoted(kind))));
        }
        let (message, ended) = read(course, response.into()).await?;
        Ok(match verdict(&message, &ended) {
            Ok(serving) => course.passed(course.after(serving)),
            Err(said) => course.failed(&course.after(&said)),
        })
    }
}

/// The message of the answer, and the headers or trailers that say how it went.
async fn read(
    course: &Course,
    response: http::Response<reqwest::Body>,
) -> Result<(Vec<u8>, HeaderMap), Measurement> {
    let (head, mut body) = response.into_parts();
    let mut ended = head.headers;
    let mut message = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame.map_err(|e| unanswered(course, &e))?.into_data() {
            Ok(data) if message.len() + data.len() > ANSWER_MAX => {
                return Err(course.failed(&course.after("an answer far longer than a health answer")));
            }
            Ok(data) => message.extend_from_slice(&data),
            Err(other) => ended.extend(other.into_trailers().unwrap_or_default()),
        }
    }
    Ok((message, ended))
}

/// The request: a gRPC frame around `HealthCheckRequest { service: 1 }`.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

/// What is read in an answer, for fuzzing: its message, and the status and the words at its end.
///
/// # Errors
/// What is wrong with it, as it would be told.
pub fn examine(message: &[u8], status: &[u8], said: &[u8]) -> Result<&'static str, String> {
    let ended = [("grpc-status", status), ("grpc-message", said)];
    let ended = ended.into_iter().filter_map(|(name, value)| {
        Some((HeaderName::from_static(name), HeaderValue::from_bytes(value).ok()?))
    });
    verdict(message, &ended.collect())
}

/// What the server says of itself: `Ok` if it serves.
fn verdict(message: &[u8], ended: &HeaderMap) -> Result<&'static str, String> {
    let text = |name: &str| ended.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        Some("0") => {}
        Some(code) => {
            let said = text("grpc-message").map(unescaped).filter(|said| !said.is_empty());
            let said = said.map(|said| format!(": {}", quoted(&said))).unwrap_or_default();
            return Err(format!("gRPC status {}{said}", status_name(code)));
        }
        None => return Err("no gRPC status at the end of the answer".into()),
    }
    match status_of(message) {
        Some(1) => Ok("SERVING"),
        Some(2) => Err("NOT_SERVING".into()),
        Some(3) => Err("SERVICE_UNKNOWN".into()),
        Some(0) => Err("UNKNOWN".into()),
        Some(other) => Err(format!("health status {other}")),
        None => Err("its answer is no health answer".into()),
    }
}

/// The field `status` of a `HealthCheckResponse` in a gRPC frame: 1, a varint; left out if it is 0. Other fields are
/// passed over.
fn status_of(frame: &[u8]) -> Option<u64> {
    let (head, mut message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(head.get(1..)?.try_into().ok()?);
    if head.first() != Some(&0) || usize::try_from(length) != Ok(message.len()) {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Messages are percent-encoded.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%')
            .then(|| after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn status_name(code: &str) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let name = code.parse().ok().and_then(|n: usize| NAMES.get(n));
    name.map_or_else(|| quoted(code), |name| format!("{code} {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_a_frame_around_one_string() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("shop"), *b"\0\0\0\0\x06\x0a\x04shop");
        let long = question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 5 + 3 + 300);
    }

    #[test]
    fn only_a_whole_health_answer_is_one() {
        let frame = |message: &[u8]| {
            [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
        };
        assert_eq!(status_of(&frame(&[8, 1])), Some(1));
        assert_eq!(status_of(&frame(&[])), Some(0), "left out is zero");
        assert_eq!(status_of(&frame(&[0x12, 2, 9, 9, 8, 2, 0x19, 0, 0, 0, 0, 0, 0, 0, 0])), Some(2));
        assert_eq!(status_of(&frame(&[8, 0x80, 0x01])), Some(128));
        let broken: [&[u8]; 6] =
            [b"", b"\0\0\0\0", &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 9, 8, 1], &[0, 0, 0, 0, 1, 8], b"hello"];
        for bytes in broken {
            assert_eq!(status_of(bytes), None, "{bytes:?}");
        }
        assert_eq!(status_of(&frame(&[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1])), None);
        assert_eq!(status_of(&frame(&[0x12, 200, 1])), None);
    }

    #[test]
    fn how_it_went_stands_at_the_end() {
        let ended = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v)))
                .collect::<HeaderMap>()
        };
        let serving = [0, 0, 0, 0, 2, 8, 1];
        assert_eq!(verdict(&serving, &ended(&[("grpc-status", "0")])), Ok("SERVING"));
        assert_eq!(
            verdict(&serving, &ended(&[("grpc-status", "14"), ("grpc-message", "db%20gone%0a%C3%A4%zz")])),
            Err("gRPC status 14 UNAVAILABLE: db gone ä%zz".into())
        );
        assert_eq!(verdict(&serving, &ended(&[("grpc-status", "99")])), Err("gRPC status 99".into()));
        assert_eq!(
            verdict(&serving, &HeaderMap::new()),
            Err("no gRPC status at the end of the answer".into())
        );
    }
}
