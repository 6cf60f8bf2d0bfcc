//! HTTP checks: one request or several, one after the other, each using what those before it found.

use std::net::IpAddr;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::answer::{Expected, status_line};
use super::fault::{own_address, quoted, resolve, unanswered};
use super::template::{Source, Template, Values, Writing};
use super::{Course, Late};
use crate::core::sample::Measurement;
use crate::core::settings::{HttpStep, Target, Tls};
use crate::signal::tls;

/// The steps of a check, and the values that are known before the first.
#[derive(Debug)]
pub(super) struct Steps(Vec<Step>, Values);

#[derive(Debug)]
struct Step {
    /// For people, without secrets: `GET /me`.
    title: String,
    method: Method,
    url: Template,
    headers: Vec<(HeaderName, Source)>,
    body: Option<(Source, Writing)>,
    /// Of the body, unless a header says another one.
    content_type: Option<HeaderValue>,
    redirects: u32,
    /// To a replica's own address.
    direct: bool,
    tls: Tls,
    expected: Expected,
}

/// One request, ready to be sent, and sent again where it is redirected to.
struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<String>,
}

impl Steps {
    /// # Errors
    /// What cannot be used, for people: only settings that nobody validated bring that about.
    pub(super) fn new(steps: &[HttpStep], address: Option<IpAddr>) -> Result<Self, String> {
        Self::knowing(steps, address, Values::new())
    }

    /// The same, with values that any step can use.
    pub(super) fn knowing(
        steps: &[HttpStep],
        address: Option<IpAddr>,
        given: Values,
    ) -> Result<Self, String> {
        if steps.is_empty() {
            return Err("the check has no step: give it a path or a URL".into());
        }
        let mut known: Vec<&str> = given.keys().map(String::as_str).collect();
        let mut made = Vec::new();
        for (step, number) in steps.iter().zip(1..) {
            let of_step = |why: String| if steps.len() == 1 { why } else { format!("step {number}: {why}") };
            let one = Step::new(step, address).map_err(of_step)?;
            if let Some(name) = one.names().find(|name| !known.contains(name)) {
                return Err(of_step(format!(
                    "no step before it captures `{name}`, which it uses as {{{{{name}}}}}"
                )));
            }
            known.extend(step.capture.iter().map(|(name, _)| name.as_str()));
            made.push(one);
        }
        Ok(Self(made, given))
    }

    /// Makes the steps in order; the first that is not as it should be ends it.
    pub(super) async fn make(&self, course: &Course) -> Measurement {
        let mut values = self.1.clone();
        let mut last = String::new();
        for (step, number) in self.0.iter().zip(1..) {
            if self.0.len() > 1 {
                course.step(format!("step {number} of {} ({}): ", self.0.len(), step.title));
            }
            match step.make(course, &mut values).await {
                Ok(answer) => last = answer,
                Err(measurement) => return measurement,
            }
        }
        match self.0.len() {
            1 => course.passed(last),
            all => course.passed(format!("all {all} steps passed, the last with {last}")),
        }
    }
}

impl Step {
    fn new(step: &HttpStep, address: Option<IpAddr>) -> Result<Self, String> {
        let url = written_url(&step.target, &step.tls, address)?;
        let method: Method =
            step.method.parse().map_err(|_| format!("`{}` is no HTTP method", step.method))?;
        let mut headers = Vec::new();
        for (name, value) in &step.headers {
            let parsed: HeaderName = name.parse().map_err(|_| format!("`{name}` is no name of a header"))?;
            headers.push((parsed, Source::new(value)));
        }
        let body = step.body.as_ref().map(Source::new);
        let content_type = match &body {
            Some(body) if !headers.iter().any(|(name, _)| name == CONTENT_TYPE) => {
                Some(usual_content_type(body))
            }
            _ => None,
        };
        let writing = writing(&headers, content_type);
        Ok(Self {
            title: format!("{method} {}", path_of(&url)),
            method,
            url: Template::parse(&url),
            headers,
            body: body.map(|body| (body, writing)),
            content_type: content_type.map(HeaderValue::from_static),
            redirects: step.redirects,
            direct: matches!(step.target, Target::Replica { .. }),
            tls: step.tls.clone(),
            expected: Expected::new(step)?,
        })
    }

    /// The names of the values that it uses.
    fn names(&self) -> impl Iterator<Item = &str> {
        let texts = self.headers.iter().map(|(_, value)| value).chain(self.body.iter().map(|(body, _)| body));
        self.url.names().chain(texts.flat_map(Source::names))
    }

    async fn make(&self, course: &Course, values: &mut Values) -> Result<String, Measurement> {
        course.late(Late::Ours("our own files could not be read in time".into()));
        let client = tls::client(&self.tls, self.direct).map_err(|why| course.unable(&why))?;
        let request = self.request(course, values).await?;
        let response = self.send(course, &client, request).await?;
        self.expected.judge(course, response, values).await
    }

    async fn request(&self, course: &Course, values: &Values) -> Result<Request, Measurement> {
        let text = self.url.fill(values, Writing::Percent);
        let url = Url::parse(&text).map_err(|e| course.unable(&unusable(&text, &e.to_string())))?;
        if self.url.names().next().is_some() && climbs(&text) {
            return Err(course.failed("a value that an earlier step found makes the path climb (`..`)"));
        }
        let mut headers = HeaderMap::new();
        if let Some(content_type) = &self.content_type {
            headers.insert(CONTENT_TYPE, content_type.clone());
        }
        for (name, value) in &self.headers {
            let text = value.fill(values, Writing::Raw).await.map_err(|why| course.unable(&why))?;
            // Never with the text itself: it may be a secret.
            let mut value = HeaderValue::from_str(&text).map_err(|_| {
                let what =
                    format!("the header {name} would have a line break or another control character in it");
                if value.names().next().is_some() { course.failed(&what) } else { course.unable(&what) }
            })?;
            value.set_sensitive(true);
            headers.append(name.clone(), value);
        }
        let body = match &self.body {
            Some((body, writing)) => {
                Some(body.fill(values, *writing).await.map_err(|why| course.unable(&why))?)
            }
            None => None,
        };
        Ok(Request { method: self.method.clone(), url, headers, body })
    }

    /// Sends it, and follows as many redirects as it may.
    async fn send(
        &self,
        course: &Course,
        client: &Client,
        mut request: Request,
    ) -> Result<Response, Measurement> {
        let mut followed = 0;
        loop {
            if let Some(host) = request.url.domain() {
                let port = request.url.port_or_known_default().unwrap_or(80);
                resolve(course, host, port)
                    .await
                    .map_err(|unresolved| redirected_to(followed, unresolved))?;
            }
            course.late(Late::Theirs(None));
            let mut sent = client.request(request.method.clone(), request.url.clone());
            sent = sent.headers(request.headers.clone());
            if let Some(body) = &request.body {
                sent = sent.body(body.clone());
            }
            let response = sent.send().await.map_err(|e| unanswered(course, &e))?;
            let there = response.headers().get(LOCATION).filter(|_| response.status().is_redirection());
            let Some(there) = there.filter(|_| self.redirects > 0) else {
                return Ok(response);
            };
            if followed == self.redirects {
                let times = if followed == 1 { "once".into() } else { format!("{followed} times") };
                return Err(course.failed(&course.after(&format!("redirected more than {times}"))));
            }
            followed += 1;
            request = request.redirected(response.status(), there).map_err(|why| {
                let status = status_line(response.status());
                course.failed(&course.after(&format!("{status}, {why}")))
            })?;
        }
    }
}

impl Request {
    /// What is sent to where a redirect leads.
    fn redirected(mut self, status: StatusCode, there: &HeaderValue) -> Result<Self, String> {
        let text = String::from_utf8_lossy(there.as_bytes());
        let url = self.url.join(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| format!("but it leads to `{}`, which is no HTTP URL", quoted(&text)))?;
        if url.origin() != self.url.origin() {
            // Whatever was configured to be sent was meant for the one that was asked.
            self.headers.clear();
            self.body = None;
        }
        let as_get = match status {
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            // RFC 9110, 15.4.2: for historical reasons a POST becomes a GET.
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        if as_get {
            self.method = Method::GET;
            self.headers.remove(CONTENT_TYPE);
            self.body = None;
        }
        Ok(Self { url, ..self })
    }
}

/// The URL with the places for values still in it.
fn written_url(target: &Target, tls: &Tls, address: Option<IpAddr>) -> Result<String, String> {
    let text = match target {
        Target::Url(url) => url.clone(),
        Target::Replica { port, path } => {
            // An address speaks TLS if somebody said how.
            let scheme = if *tls == Tls::default() { "http" } else { "https" };
            format!("{scheme}://{}{path}", own_address(address, *port)?)
        }
    };
    let authority =
        text.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(""));
    if Template::parse(authority).names().next().is_some() {
        // An answer must not decide whom we ask.
        return Err(unusable(&text, "a captured value may stand in its path and query only"));
    }
    let sample = Template::parse(&text).names().map(|name| (name.to_owned(), "1".to_owned())).collect();
    let parsed = Url::parse(&Template::parse(&text).fill(&sample, Writing::Percent))
        .map_err(|e| unusable(&text, &e.to_string()))?;
    match parsed.scheme() {
        "http" | "https" => Ok(text),
        _ => Err(unusable(&text, "it must begin with http:// or https://")),
    }
}

fn unusable(url: &str, why: &str) -> String {
    format!("the health URL {url:?} cannot be used: {why}")
}

/// The path of a URL, without the query: that may hold secrets.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/");
    path.split(['?', '#']).next().unwrap_or("/")
}

/// Whether a path goes up by a whole part of `.` or `..`, which a URL parser would follow: values are percent-encoded,
/// but dots need no encoding.
fn climbs(url: &str) -> bool {
    path_of(url).split('/').any(|part| matches!(part, "." | ".."))
}

/// What a body is that nobody gave a type: what it looks like, or a form, as curl has it.
fn usual_content_type(body: &Source) -> &'static str {
    let looks_like_json = match body {
        Source::Known(template) => {
            template.fill(&Values::new(), Writing::Raw).trim_start().starts_with(['{', '['])
        }
        Source::File(path) => path.extension().is_some_and(|e| e == "json"),
    };
    if looks_like_json { "application/json" } else { "application/x-www-form-urlencoded" }
}

/// How values are written into a body of that type.
fn writing(headers: &[(HeaderName, Source)], usual: Option<&'static str>) -> Writing {
    let given = headers.iter().find(|(name, _)| name == CONTENT_TYPE).map(|(_, value)| match value {
        Source::Known(template) => template.fill(&Values::new(), Writing::Raw),
        Source::File(_) => String::new(),
    });
    let kind = given.or_else(|| usual.map(str::to_owned)).unwrap_or_default().to_ascii_lowercase();
    if kind.contains("json") {
        Writing::Json
    } else if kind.contains("x-www-form-urlencoded") {
        Writing::Percent
    } else {
        Writing::Raw
    }
}

/// A name that is not known says where it came from, if it is not the one that was configured.
fn redirected_to(followed: u32, unresolved: Measurement) -> Measurement {
    match unresolved {
        Measurement::Unavailable { why } if followed > 0 => {
            super::unavailable(format!("our resolver does not know where it redirects to: {why}"))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_either_kind_makes_a_url() {
        let replica = Target::Replica { port: 8080, path: "/a?b=c".into() };
        let url = |address: &str, tls: &Tls| written_url(&replica, tls, address.parse().ok()).unwrap();
        assert_eq!(url("172.17.0.2", &Tls::default()), "http://172.17.0.2:8080/a?b=c");
        assert_eq!(url("fd00::2", &Tls::default()), "http://[fd00::2]:8080/a?b=c");
        let tls = Tls { insecure: true, ca_file: None };
        assert_eq!(url("fd00::2", &tls), "https://[fd00::2]:8080/a?b=c");
    }

    #[test]
    fn a_title_tells_the_path_and_no_more() {
        for (url, path) in [
            ("http://me:secret@shop/me?token=secret#x", "/me"),
            ("http://shop", "/"),
            ("http://shop?q=/secret", "/secret"),
            ("http://shop/{{id}}/x", "/{{id}}/x"),
        ] {
            assert_eq!(path_of(url), path);
        }
    }

    #[test]
    fn a_redirect_takes_nothing_along_to_somebody_else() {
        let request = |method: Method| Request {
            method,
            url: Url::parse("http://shop/login").unwrap(),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]),
            body: Some("secret".into()),
        };
        let to = |method: Method, status: u16, there: &'static str| {
            request(method)
                .redirected(StatusCode::from_u16(status).unwrap(), &HeaderValue::from_static(there))
                .unwrap()
        };
        let same = to(Method::POST, 307, "/x");
        assert_eq!((same.url.as_str(), same.body.as_deref()), ("http://shop/x", Some("secret")));
        let get = to(Method::POST, 302, "x?y=1");
        assert_eq!((get.url.as_str(), get.method, get.body), ("http://shop/x?y=1", Method::GET, None));
        for there in ["http://other/", "https://shop/", "http://shop:81/", "//other/"] {
            let other = to(Method::POST, 308, there);
            assert!(other.headers.is_empty() && other.body.is_none(), "{there}");
        }
        let nowhere = request(Method::GET)
            .redirected(StatusCode::FOUND, &HeaderValue::from_static("file:///etc/passwd"));
        assert!(nowhere.err().unwrap().contains("no HTTP URL"));
    }
}
