//! What the answer to one step must be, and what is taken from it.

use reqwest::{Response, StatusCode};
use serde_json::Value;

use super::fault::{innermost, quoted};
use super::json_path::{JsonPath, described, same};
use super::template::Values;
use super::{Course, Late};
use crate::core::sample::Measurement;
use crate::core::settings::HttpStep;

/// What is read of an answer's body that nobody looks into: a health page is far smaller, and an endless one ends here.
const DRAINED: usize = 64 * 1024;

/// What is read of one that is looked into: 64 checks at once then cost 16 MiB at most.
const LOOKED_INTO: usize = 256 * 1024;

/// A value that is carried along: tokens have one to four KiB.
const VALUE_MAX: usize = 16 * 1024;

/// What an answer must be.
#[derive(Debug)]
pub(super) struct Expected {
    status: Vec<(u16, u16)>,
    contains: Option<String>,
    json: Vec<(JsonPath, Value)>,
    capture: Vec<(String, JsonPath)>,
}

/// What was read of a body.
struct Body {
    bytes: Vec<u8>,
    /// More came than was read.
    cut: bool,
}

impl Expected {
    pub(super) fn new(step: &HttpStep) -> Result<Self, String> {
        let value = |(path, text): &(String, String)| {
            let value = serde_json::from_str(text).map_err(|e| {
                format!("{path} cannot be compared with `{}`, which is no JSON: {e}", quoted(text))
            })?;
            Ok::<_, String>((JsonPath::parse(path)?, value))
        };
        let place = |(name, path): &(String, String)| Ok::<_, String>((name.clone(), JsonPath::parse(path)?));
        Ok(Self {
            status: step.status.clone(),
            contains: step.contains.clone(),
            json: step.json.iter().map(value).collect::<Result<_, _>>()?,
            capture: step.capture.iter().map(place).collect::<Result<_, _>>()?,
        })
    }

    /// Judges an answer, and takes the values from it that later steps need. Gives what is said of it if it passes.
    ///
    /// # Errors
    /// The check's result, if the answer is not what it must be.
    pub(super) async fn judge(
        &self,
        course: &Course,
        mut response: Response,
        values: &mut Values,
    ) -> Result<String, Measurement> {
        let status = response.status();
        let answer = course.after(&status_line(status));
        if !self.status.iter().any(|(from, to)| (*from..=*to).contains(&status.as_u16())) {
            return Err(course.failed(&answer));
        }
        course.late(Late::Theirs(Some(format!("{answer}, but its body did not end"))));
        let looks = self.looks_into_it();
        let body = read(&mut response, if looks { LOOKED_INTO } else { DRAINED })
            .await
            .map_err(|e| course.failed(&format!("{answer}, but its body broke off: {}", innermost(&e))))?;
        if looks {
            self.look_into(&body, values).map_err(|but| course.failed(&format!("{answer}, but {but}")))?;
        }
        Ok(answer)
    }

    const fn looks_into_it(&self) -> bool {
        self.contains.is_some() || !self.json.is_empty() || !self.capture.is_empty()
    }

    fn look_into(&self, body: &Body, values: &mut Values) -> Result<(), String> {
        if let Some(wanted) = &self.contains
            && !String::from_utf8_lossy(&body.bytes).contains(wanted.as_str())
        {
            let within = if body.cut { "the first 256 KiB of its body do" } else { "its body does" };
            return Err(format!("{within} not contain \"{}\"", quoted(wanted)));
        }
        if self.json.is_empty() && self.capture.is_empty() {
            return Ok(());
        }
        let document = body.json()?;
        for (path, wanted) in &self.json {
            let found = path.find(&document)?;
            if !same(found, wanted) {
                return Err(format!("{path} is {}, not {}", described(found), described(wanted)));
            }
        }
        for (name, path) in &self.capture {
            // What stands in its place may be a secret, too: it is not shown.
            let found =
                path.find(&document).map_err(|_| format!("there is no {path} to carry along as {name}"))?;
            values.insert(name.clone(), carried(path, found)?);
        }
        Ok(())
    }
}

impl Body {
    fn json(&self) -> Result<Value, String> {
        if self.cut {
            return Err("its body is longer than 256 KiB, which is not read as JSON".into());
        }
        serde_json::from_slice(&self.bytes).map_err(|e| match self.bytes.trim_ascii_start().first() {
            Some(b'<') => "its body is not JSON but looks like HTML".into(),
            None => "its body is empty, not JSON".into(),
            Some(_) => format!("its body is not JSON: {e}"),
        })
    }
}

/// A value as it is put into later steps.
fn carried(path: &JsonPath, value: &Value) -> Result<String, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(is) => is.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            return Err(format!("{path} is {}, which cannot be carried along", described(value)));
        }
    };
    if text.len() > VALUE_MAX {
        return Err(format!("{path} is longer than {} KiB", VALUE_MAX / 1024));
    }
    Ok(text)
}

async fn read(response: &mut Response, limit: usize) -> Result<Body, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > limit {
            bytes.extend(chunk.iter().take(limit - bytes.len()));
            return Ok(Body { bytes, cut: true });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body { bytes, cut: false })
}

pub(super) fn status_line(status: StatusCode) -> String {
    status
        .canonical_reason()
        .map_or_else(|| status.as_u16().to_string(), |reason| format!("{} {reason}", status.as_u16()))
}
