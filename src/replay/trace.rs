//! Plain traces: what happened to some services, as JSON Lines ordered by `t` (seconds).
//!
//! One object a line: `{"t":0,"service":"api","kind":"deploy","version":"v2"}`. The kinds are `deploy`, `health`,
//! `requests`, `memory`, `exit`, `report` and `dependency`. Counts are increments within the window, not counters;
//! what is missing is missing data, not zero. Fields that nobody knows are passed over; a line that cannot be what it
//! says is named by its number, with what would be right, and then the whole trace is refused: half a story would
//! give a decision that nobody can trust.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, BufRead};
use std::time::Duration;

use super::bare::{Bare, Buckets};
use crate::core::release::ServiceName;
use crate::core::sample::{Latencies, Requests, reporter};

/// A longer line is no line of a trace.
const LINE_MAX: usize = 1 << 20;
/// More lines than this do not fit into memory beside the traces that other threads work on.
const LINES_MAX: usize = 20_000_000;
/// A trace tells of so many services at most.
const SERVICES_MAX: usize = 10_000;
/// So many mistakes are named; whoever has more has one mistake in his generator.
const WRONG_MAX: usize = 20;
/// Beyond this many seconds on either side of zero, `t` is not in seconds (it would be the year 5138).
const T_MAX: f64 = 1e11;
/// Above this, a double no longer tells one whole number from the next.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// What a window without a length is taken for if there was none before it.
const WINDOW_DEFAULT: f64 = 5.0;
/// And at most.
const WINDOW_GUESSED_MAX: f64 = 60.0;

/// The mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// What is right in place of what is no JSON object.
const OBJECT: &str =
    r#"each line must be one JSON object, as in {"t":5,"service":"api","kind":"health","ok":true}"#;
/// And in place of one array of them.
const ARRAY: &str = "it begins a JSON array; right would be JSON Lines, one object a line without brackets and commas \
                     around them: jq -c '.[]' FILE | backstop replay -";
const KINDS: &str = "deploy, health, requests, memory, exit, report, dependency";

/// A whole trace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    /// Every service that is spoken of.
    pub services: BTreeMap<ServiceName, Cast>,
    /// What happened, in order of time.
    pub events: Vec<Event>,
}

/// What a trace tells about a service anywhere in it: that decides what is measured of it at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cast {
    /// There are health checks.
    pub health: bool,
    /// There are requests.
    pub requests: bool,
    /// What it depends on, by name.
    pub dependencies: BTreeSet<String>,
    /// When it is deployed, in seconds.
    pub deploys: Vec<f64>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When, in seconds.
    pub t: f64,
    /// To whom.
    pub service: ServiceName,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Another release runs from here on.
    Deploy {
        /// What it is called, if it is called anything.
        version: Option<String>,
    },
    /// The health check was asked.
    Health {
        /// Whether it passed.
        ok: bool,
        /// How long it took.
        latency: Duration,
    },
    /// Requests ended.
    Requests(Requests),
    /// Memory was measured, in bytes.
    Memory {
        /// In use.
        used: u64,
        /// The limit; none if there is none.
        limit: Option<u64>,
    },
    /// The main process ended.
    Exit {
        /// With this code.
        code: i64,
        /// Killed for want of memory.
        oom: bool,
    },
    /// A user reported a problem.
    Report {
        /// Who, always written the same way; empty if nobody says.
        reporter: String,
    },
    /// Something that it depends on was checked.
    Dependency {
        /// What.
        name: String,
        /// Whether it is well.
        ok: bool,
    },
}

/// Everything that is wrong with a trace, by line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wrong {
    /// Line number, from one, and what is wrong with it and would be right.
    pub lines: Vec<(usize, String)>,
    /// How many more there are.
    pub more: usize,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (number, what)) in self.lines.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}line {number}: {what}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more like these", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Wrong {}

impl Trace {
    /// Reads a trace to its end.
    ///
    /// # Errors
    /// Every line that cannot be used (the first twenty are named), or where reading failed.
    pub fn read(mut from: impl BufRead) -> Result<Self, Wrong> {
        let mut reading = Reading::default();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let got = io::Read::take(&mut from, LINE_MAX as u64 + 1).read_until(b'\n', &mut line);
            // Some editors begin a file with a mark that is not text.
            if number == 1 && line.starts_with(MARK) {
                line.drain(..MARK.len());
            }
            if reading.last.is_none() && reading.wrong.lines.is_empty() && begins_array(&line) {
                reading.wrong(number, ARRAY.into());
                break;
            }
            match got {
                Ok(0) => break,
                Ok(n) if n > LINE_MAX => {
                    reading.wrong(number, format!("it is longer than {LINE_MAX} bytes; this is no trace"));
                    break;
                }
                Ok(_) => reading.line(number, &line),
                Err(e) => {
                    reading.wrong(number, format!("it cannot be read: {e}"));
                    break;
                }
            }
            if reading.trace.events.len() > LINES_MAX || reading.trace.services.len() > SERVICES_MAX {
                let most = format!("{LINES_MAX} lines and {SERVICES_MAX} services are the most; split it");
                reading.wrong(number, most);
                break;
            }
        }
        if reading.wrong.lines.is_empty() { Ok(reading.trace) } else { Err(reading.wrong) }
    }

    /// Reads a trace from text.
    ///
    /// # Errors
    /// As [`Trace::read`].
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        Self::read(text.as_bytes())
    }

    /// A trace of events that are in order of time already; for those who make traces of other things.
    pub fn of(events: Vec<Event>) -> Self {
        let mut trace = Self::default();
        for event in &events {
            trace.cast(event);
        }
        trace.events = events;
        trace
    }

    /// The service's part, by what is told of it.
    fn cast(&mut self, event: &Event) {
        if !self.services.contains_key(&event.service) {
            self.services.insert(event.service.clone(), Cast::default());
        }
        let Some(cast) = self.services.get_mut(&event.service) else { return };
        match &event.what {
            What::Deploy { .. } => cast.deploys.push(event.t),
            What::Health { .. } => cast.health = true,
            What::Requests(_) => cast.requests = true,
            What::Dependency { name, .. } => {
                if !cast.dependencies.contains(name) {
                    cast.dependencies.insert(name.clone());
                }
            }
            What::Memory { .. } | What::Exit { .. } | What::Report { .. } => {}
        }
    }
}

/// A trace that is being read.
#[derive(Debug, Default)]
struct Reading {
    trace: Trace,
    wrong: Wrong,
    /// The time of the line before, and its number.
    last: Option<(f64, usize)>,
    /// When each service last told of requests.
    windows: BTreeMap<ServiceName, f64>,
}

impl Reading {
    fn wrong(&mut self, number: usize, what: String) {
        if self.wrong.lines.len() < WRONG_MAX {
            self.wrong.lines.push((number, what));
        } else {
            self.wrong.more += 1;
        }
    }

    fn line(&mut self, number: usize, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        match std::str::from_utf8(line) {
            Ok(text) => match self.event(number, text.trim()) {
                Ok(event) => {
                    self.trace.cast(&event);
                    self.trace.events.push(event);
                }
                Err(what) => self.wrong(number, what),
            },
            Err(_) => self.wrong(number, "it is not UTF-8 text; this is no trace".into()),
        }
    }

    fn event(&mut self, number: usize, text: &str) -> Result<Event, String> {
        if !text.starts_with('{') {
            return Err(no_object(text));
        }
        let bare: Bare<'_> = serde_json::from_str(text).map_err(|e| malformed(text, &e))?;
        let t = bare.t.ok_or("`t` is missing: when it happened, in seconds, as in \"t\":12.5")?;
        if !t.is_finite() || t.abs() > T_MAX {
            return Err(format!("`t` is {t}, which is not a time in seconds"));
        }
        if let Some((before, at)) = self.last.filter(|(before, _)| t < *before) {
            return Err(format!(
                "it is out of order: its `t` is {t}, and line {at} has {before}; sort the trace by `t`"
            ));
        }
        self.last = Some((t, number));
        let kind = bare.kind.as_deref().ok_or_else(|| format!("`kind` is missing: one of {KINDS}"))?;
        let service = bare.service.as_deref().filter(|name| !name.trim().is_empty());
        let service = service.ok_or("`service` is missing: whom it is about, as in \"service\":\"api\"")?;
        let service = ServiceName::new(service);
        let what = match kind {
            "deploy" => What::Deploy { version: bare.version.map(|v| v.0).filter(|v| !v.is_empty()) },
            "health" => health(&bare)?,
            "requests" => self.requests(&service, t, &bare)?,
            "memory" => memory(&bare)?,
            "exit" => exit(&bare)?,
            "report" => {
                What::Report { reporter: reporter(bare.reporter.map(|r| r.0).as_deref().unwrap_or_default()) }
            }
            "dependency" => dependency(&bare)?,
            unknown => return Err(format!("the kind {unknown:?} is unknown; right would be one of {KINDS}")),
        };
        Ok(Event { t, service, what })
    }

    fn requests(&mut self, service: &ServiceName, t: f64, bare: &Bare<'_>) -> Result<What, String> {
        let guessed = || {
            let since = self.windows.get(service).map_or(WINDOW_DEFAULT, |before| t - before);
            if since > 0.0 { since.min(WINDOW_GUESSED_MAX) } else { WINDOW_DEFAULT }
        };
        let window = match bare.window_s {
            None => guessed(),
            Some(w) if w > 0.0 && w <= T_MAX => w,
            Some(w) => return Err(format!("`window_s` is {w}; it must be above zero")),
        };
        self.windows.insert(service.clone(), t);
        let total = count("total", bare.total)?;
        let errors = count("errors", bare.errors)?;
        if errors > total {
            return Err(format!("`errors` is {errors} of a `total` of {total}; it cannot be more"));
        }
        let latency = bare
            .latency_buckets_ms
            .as_ref()
            .map_or_else(|| Ok(Latencies::default()), |b| latencies(b, total))?;
        let window = Duration::from_secs_f64(window);
        Ok(What::Requests(Requests { window, total, errors, latency, ..Requests::default() }))
    }
}

/// What a line is that is no object. Serde would take an array for an object, by position.
fn no_object(text: &str) -> String {
    let what = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Array(_)) => "it is a JSON array".to_owned(),
        Ok(serde_json::Value::String(_)) => "it is a JSON text".to_owned(),
        Ok(_) => format!("it is only `{text}`"),
        Err(_) => "it is no JSON".to_owned(),
    };
    format!("{what}; {OBJECT}")
}

/// Whether a trace that begins with this line is one JSON array over many lines, or one of objects in a single line.
fn begins_array(line: &[u8]) -> bool {
    let inside = line.trim_ascii().strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
    inside.is_some_and(|inside| inside.is_empty() || inside.starts_with(b"{"))
}

/// What serde says, with the field that it says it of.
fn malformed(text: &str, error: &serde_json::Error) -> String {
    let at = serde_path_to_error::deserialize::<_, Bare<'_>>(&mut serde_json::Deserializer::from_str(text));
    let path = at.err().map(|e| e.path().to_string()).filter(|path| path != "." && path != "?");
    // serde counts lines within the one line that it was given.
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
    // Its names of types are Rust's.
    let said = said.replace("expected f64", "expected a number").replace("a borrowed string", "a string");
    match path {
        Some(path) if error.is_data() => format!("`{path}`: {said}"),
        _ => format!("{said} at column {}; {OBJECT}", error.column()),
    }
}

fn health(bare: &Bare<'_>) -> Result<What, String> {
    let ok = bare.ok.ok_or("`ok` is missing: whether the check passed, true or false")?;
    let latency = match bare.latency_ms {
        None => Duration::ZERO,
        Some(ms) => Duration::try_from_secs_f64(ms / 1000.0)
            .map_err(|_| format!("`latency_ms` is {ms}, which is not a time"))?,
    };
    Ok(What::Health { ok, latency })
}

fn memory(bare: &Bare<'_>) -> Result<What, String> {
    let used = count("used_bytes", bare.used_bytes)?;
    let limit = match bare.limit_bytes {
        None => None,
        limit => Some(count("limit_bytes", limit)?).filter(|limit| *limit > 0),
    };
    Ok(What::Memory { used, limit })
}

fn exit(bare: &Bare<'_>) -> Result<What, String> {
    let oom = bare.oom.unwrap_or(false);
    // 128 + SIGKILL: what the kernel's kill looks like.
    let code =
        bare.code.or(oom.then_some(137.0)).ok_or("`code` is missing: the exit code, as in \"code\":1")?;
    if code.fract() != 0.0 || code.abs() > EXACT {
        return Err(format!("`code` is {code}; an exit code is a whole number, as in \"code\":137"));
    }
    #[allow(clippy::cast_possible_truncation, reason = "a whole number that fits was just asked for")]
    Ok(What::Exit { code: code as i64, oom })
}

fn dependency(bare: &Bare<'_>) -> Result<What, String> {
    let name = bare.name.as_deref().filter(|name| !name.trim().is_empty());
    let name = name.ok_or("`name` is missing: what it depends on, as in \"name\":\"db\"")?;
    let ok = bare.ok.ok_or("`ok` is missing: whether the dependency is well, true or false")?;
    Ok(What::Dependency { name: name.to_owned(), ok })
}

/// A count: some generators write `812.0`.
fn count(field: &str, value: Option<f64>) -> Result<u64, String> {
    let value = value.ok_or_else(|| format!("`{field}` is missing"))?;
    if !(0.0..=EXACT).contains(&value) {
        return Err(format!("`{field}` is {value}; it must be zero or more"));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was just asked for"
    )]
    Ok(value.round() as u64)
}

/// The histogram with its bounds in seconds, in their order.
fn latencies(buckets: &Buckets, total: u64) -> Result<Latencies, String> {
    let mut typed = buckets.0.clone();
    typed.sort_by(|a, b| a.0.total_cmp(&b.0));
    typed.dedup_by_key(|(bound, _)| *bound);
    let mut found = Latencies::default();
    let mut below = (0.0, 0);
    let mut all = None;
    for (bound, value) in typed {
        let n = count(&format!("latency_buckets_ms.{bound}"), Some(value))?;
        if n < below.1 {
            return Err(format!(
                "`latency_buckets_ms` must be cumulative: {n} requests up to {bound} ms, and {} up to {} ms",
                below.1, below.0
            ));
        }
        below = (bound, n);
        if bound.is_infinite() && bound > 0.0 {
            all = Some(n);
        } else if bound > 0.0 {
            found.bounds.push(bound / 1000.0);
            found.counts.push(n);
        } else if n > 0 || bound < 0.0 {
            return Err(format!("`latency_buckets_ms` has the bound {bound}; bounds are above zero"));
        }
    }
    if found.bounds.is_empty() {
        return Ok(Latencies::default());
    }
    found.counts.push(all.unwrap_or_else(|| total.max(below.1)));
    thin(&mut found);
    Ok(found)
}

/// Keeps as many bounds as are kept anywhere, evenly spread, the last one always.
fn thin(found: &mut Latencies) {
    let n = found.bounds.len();
    if n <= Latencies::BOUNDS_MAX {
        return;
    }
    let kept: Vec<usize> = (1..=Latencies::BOUNDS_MAX).map(|i| i * n / Latencies::BOUNDS_MAX - 1).collect();
    let all = found.counts.last().copied();
    found.bounds = kept.iter().filter_map(|i| found.bounds.get(*i).copied()).collect();
    found.counts = kept.iter().filter_map(|i| found.counts.get(*i).copied()).chain(all).collect();
}
