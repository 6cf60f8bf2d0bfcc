//! The Prometheus text format 0.0.4 and OpenMetrics 1.0: what a page says about the metrics that matter here.
//!
//! Written for this one purpose, because what there is does another: the crates either stop at the first line that
//! they do not like, or keep every series of the page. Here one pass looks at each line's name, and only lines of
//! sought metrics are read further; a page of a million other series costs no memory. Where a sought line cannot be
//! understood the page is refused, with the number of the line: a number that is missing would make another one wrong.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// Sought series that are kept. A busy service has hundreds; this many come of a label that holds a user or a URL.
pub const SERIES_MAX: usize = 20_000;

/// Bounds of one histogram that are kept; Micrometer publishes up to 276.
const BOUNDS_MAX: usize = 512;

/// Of a page that holds no metrics, this many characters are shown.
const SHOWN_MAX: usize = 60;
/// The names and values of a series' labels: Prometheus' own limits, where they are set, are far below.
const LABELS_MAX: usize = 4096;
/// Above 2^53 a number no longer tells one request from the next.
const COUNT_MAX: f64 = 9_007_199_254_740_992.0;

/// The labels of a series in the order of their names.
pub type Labels = Box<[(Box<str>, Box<str>)]>;

/// What is looked for, by name without `_total`, `_count`, `_sum`, `_bucket`, `_created`.
#[derive(Debug, Default)]
pub struct Sought {
    names: HashMap<String, usize>,
    labels: Vec<(String, String)>,
}

impl Sought {
    /// Looks for metrics of these names, and of them for the series that have all these labels.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>, labels: &[(String, String)]) -> Self {
        let mut found = Self { names: HashMap::new(), labels: labels.to_vec() };
        for name in names {
            let next = found.names.len();
            found.names.entry(name.to_owned()).or_insert(next);
        }
        found
    }

    fn place(&self, name: &str) -> Option<(usize, Role)> {
        const SUFFIXES: [(&str, Role); 5] = [
            ("_total", Role::Value),
            ("_count", Role::Count),
            ("_sum", Role::Sum),
            ("_bucket", Role::Bucket),
            ("_created", Role::Created),
        ];
        let whole = self.names.get(name).map(|i| (*i, Role::Value));
        whole.or_else(|| {
            let (suffix, role) = SUFFIXES.iter().find(|(suffix, _)| name.ends_with(suffix))?;
            Some((*self.names.get(name.strip_suffix(suffix)?)?, *role))
        })
    }
}

/// What a line of a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Value,
    Count,
    Sum,
    Bucket,
    Created,
}

/// What a page says about the sought metrics.
#[derive(Debug, Default)]
pub struct Page {
    metrics: BTreeMap<String, Metric>,
    /// When the process started, in seconds since the epoch: `process_start_time_seconds`.
    pub started: Option<f64>,
    /// The last line ends without a line feed.
    pub open_ended: bool,
}

/// What a page says about one metric.
#[derive(Debug, Default, PartialEq)]
pub struct Metric {
    /// Its type, if the page tells: `counter`, `histogram`, ...
    pub kind: Option<String>,
    /// Its unit, if the page tells.
    pub unit: Option<String>,
    /// Values by series: of a counter, or of something else with that name.
    pub values: BTreeMap<Labels, f64>,
    /// Counts of histograms and summaries.
    pub counts: BTreeMap<Labels, f64>,
    /// Sums of histograms and summaries. One that is no sum of times is left out.
    pub sums: BTreeMap<Labels, f64>,
    /// Cumulative buckets of histograms, by the bits of their bounds; those of a bound not above zero are left out.
    pub buckets: BTreeMap<Labels, BTreeMap<u64, f64>>,
    /// When series began, in seconds since the epoch.
    pub created: BTreeMap<Labels, f64>,
}

impl Metric {
    /// Whether it has any series.
    pub fn has_series(&self) -> bool {
        !(self.values.is_empty() && self.counts.is_empty() && self.buckets.is_empty())
    }
}

impl Page {
    /// The metric of that name, if the page mentions it.
    pub fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics.get(name)
    }

    /// Keeps the series of an older page that are not on this one: when they come back, they have not begun anew.
    /// If they are too many, none is kept.
    pub(super) fn remember(&mut self, old: Self) {
        let series = |page: &Self| {
            page.metrics
                .values()
                .map(|m| m.values.len() + m.counts.len() + m.buckets.len() + m.created.len())
                .sum::<usize>()
        };
        if series(self) + series(&old) > 2 * SERIES_MAX {
            return;
        }
        for (name, old) in old.metrics {
            let metric = self.metrics.entry(name).or_default();
            old.values.into_iter().for_each(|(k, v)| _ = metric.values.entry(k).or_insert(v));
            old.counts.into_iter().for_each(|(k, v)| _ = metric.counts.entry(k).or_insert(v));
            old.sums.into_iter().for_each(|(k, v)| _ = metric.sums.entry(k).or_insert(v));
            old.buckets.into_iter().for_each(|(k, v)| _ = metric.buckets.entry(k).or_insert(v));
            old.created.into_iter().for_each(|(k, v)| _ = metric.created.entry(k).or_insert(v));
        }
    }
}

/// Reads a page.
///
/// # Errors
/// Why nothing can be learnt from it, for people: it is something else, it broke off, or a line of a sought metric is
/// not what it should be.
pub fn scan(body: &[u8], sought: &Sought, content_type: &str) -> Result<Page, String> {
    let mut names: Vec<&str> = vec![""; sought.names.len()];
    for (name, place) in &sought.names {
        names[*place] = name;
    }
    let mut scan = Scan {
        sought,
        names,
        found: Vec::new(),
        page: Page::default(),
        last: (Vec::new(), None),
        series: 0,
        samples: 0,
        ended: false,
    };
    scan.found.resize_with(sought.names.len(), Metric::default);
    scan.page.open_ended = !body.is_empty() && !body.ends_with(b"\n");
    for (number, line) in body.split(|b| *b == b'\n').enumerate() {
        scan.line(line).map_err(|why| {
            if scan.page.open_ended && body.ends_with(line) {
                return "the page broke off in the middle of a line".to_owned();
            }
            format!("line {}: {why}", number + 1)
        })?;
        if scan.ended {
            break;
        }
    }
    scan.finish(body, content_type)
}

struct Scan<'s> {
    sought: &'s Sought,
    names: Vec<&'s str>,
    found: Vec<Metric>,
    page: Page,
    /// The last name and what it is: lines of one metric follow each other.
    last: (Vec<u8>, Option<(usize, Role)>),
    series: usize,
    samples: usize,
    ended: bool,
}

/// A metric that is always looked at.
const STARTED: &[u8] = b"process_start_time_seconds";

impl Scan<'_> {
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        let line = line.trim_ascii_start();
        let Some(first) = line.first() else { return Ok(()) };
        if *first == b'#' {
            self.comment(line);
            return Ok(());
        }
        let end = line.iter().position(|b| matches!(b, b'{' | b' ' | b'\t')).unwrap_or(line.len());
        let name = &line[..end];
        if self.last.0 != name || self.samples == 0 {
            if !is_name(name) {
                // Not a metric at all: a page that is full of such lines has no samples in the end.
                return Ok(());
            }
            self.last.0.clear();
            self.last.0.extend_from_slice(name);
            self.last.1 = std::str::from_utf8(name).ok().and_then(|name| self.sought.place(name));
        }
        self.samples += 1;
        if name == STARTED {
            self.page.started = std::str::from_utf8(line).ok().and_then(sample).map(|s| s.value);
        }
        let Some((place, role)) = self.last.1 else { return Ok(()) };
        let line = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8")?;
        let read = sample(line).ok_or_else(|| format!("this is no sample: {}", cut(line)))?;
        self.take(place, role, read)
    }

    fn comment(&mut self, line: &[u8]) {
        let Ok(line) = std::str::from_utf8(line) else { return };
        if line.trim_ascii_end() == "# EOF" {
            self.ended = true;
            return;
        }
        let mut words = line[1..].splitn(3, [' ', '\t']).skip_while(|w| w.is_empty());
        let (Some(what), Some(rest)) = (words.next(), words.next()) else { return };
        let Some((name, value)) = rest.trim_start().split_once([' ', '\t']) else { return };
        let name = name.strip_suffix("_total").unwrap_or(name);
        let Some(metric) = self.sought.names.get(name).and_then(|place| self.found.get_mut(*place)) else {
            return;
        };
        match what {
            "TYPE" => metric.kind = Some(cut(value.trim())),
            "UNIT" => metric.unit = Some(cut(value.trim())),
            _ => {}
        }
    }

    fn take(&mut self, place: usize, role: Role, read: Sample<'_>) -> Result<(), String> {
        let Sample { mut labels, value, .. } = read;
        let wanted = |(k, v): &(String, String)| labels.iter().any(|(name, is)| name == k && is == v);
        // Quantiles of several series cannot be added up.
        if !self.sought.labels.iter().all(wanted) || labels.iter().any(|(name, _)| name == "quantile") {
            return Ok(());
        }
        let named = |labels: &[(Cow<'_, str>, Cow<'_, str>)]| {
            let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
            format!("{}{{{}}}", self.names[place], cut(&labels.join(",")))
        };
        let sensible = (0.0..=COUNT_MAX).contains(&value);
        if role == Role::Sum && !sensible {
            return Ok(());
        }
        if role != Role::Created && !sensible {
            return Err(format!("{} is {value}, which is no count", named(&labels)));
        }
        if labels.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > LABELS_MAX {
            return Err(format!("{} has labels of more than {LABELS_MAX} bytes", named(&labels)));
        }
        let bound = labels.iter().position(|(name, _)| name == "le").map(|i| labels.swap_remove(i).1);
        labels.sort_unstable();
        let key: Labels = labels.iter().map(|(k, v)| (Box::from(&**k), Box::from(&**v))).collect();
        let metric = &mut self.found[place];
        let (before, new) = match role {
            Role::Value => (metric.values.insert(key, value), true),
            Role::Count => (metric.counts.insert(key, value), true),
            // It comes with a count, which is counted.
            Role::Sum => (metric.sums.insert(key, value), false),
            Role::Created => (metric.created.insert(key, value).filter(|_| false), false),
            Role::Bucket => {
                let Some(bound) = bound.as_deref().and_then(number).filter(|b| !b.is_nan()) else {
                    return Err(format!("a bucket of {} has no bound `le`", named(&labels)));
                };
                if bound <= 0.0 {
                    return Ok(());
                }
                let buckets = metric.buckets.entry(key).or_default();
                let new = buckets.is_empty();
                if buckets.len() >= BOUNDS_MAX {
                    return Err(format!("{} has more than {BOUNDS_MAX} buckets", named(&labels)));
                }
                (buckets.insert(bound.to_bits(), value), new)
            }
        };
        if before.is_some_and(|before| before != value) {
            return Err(format!("{} is there twice, with different values", named(&labels)));
        }
        self.series += usize::from(new && before.is_none());
        if self.series > SERIES_MAX {
            return Err(format!(
                "{} has more than {SERIES_MAX} series: choose some with metrics.labels, or drop a label that holds \
                 users or whole URLs",
                self.names[place]
            ));
        }
        Ok(())
    }

    fn finish(mut self, body: &[u8], content_type: &str) -> Result<Page, String> {
        if self.samples == 0 {
            return Err(nothing(body, content_type));
        }
        if content_type.starts_with("application/openmetrics-text") && !self.ended {
            return Err("the page broke off: OpenMetrics ends with `# EOF`, and this one does not".into());
        }
        self.page.open_ended &= !self.ended;
        for (name, metric) in self.names.into_iter().zip(self.found) {
            if metric != Metric::default() {
                self.page.metrics.insert(name.to_owned(), metric);
            }
        }
        Ok(self.page)
    }
}

/// What a page is that holds no metrics.
fn nothing(body: &[u8], content_type: &str) -> String {
    let begins = String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN_MAX)]);
    let begins = begins.trim();
    if begins.is_empty() {
        return "the page is empty".into();
    }
    let what = if begins.starts_with('<') || content_type.starts_with("text/html") {
        "the page is HTML, not metrics: is the path right?"
    } else {
        "the page holds no metrics in the Prometheus text format: is the path right?"
    };
    format!("{what} It begins with {:?}", cut(begins))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// The name, with whatever is appended to it.
    pub name: &'a str,
    /// Labels in the order of the line.
    pub labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The value.
    pub value: f64,
}

/// Reads a line that is neither empty nor a comment. A timestamp and an exemplar are looked at only to tell whether
/// the line is whole.
pub fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim_ascii();
    let end = line.find(['{', ' ', '\t'])?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name.as_bytes()) {
        return None;
    }
    let mut labels = Vec::new();
    rest = rest.trim_ascii_start();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = read_labels(inside, &mut labels)?.trim_ascii_start();
    }
    let (value, rest) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    let value = number(value)?;
    let rest = rest.trim_ascii_start();
    let (time, exemplar) = match rest.find('#') {
        Some(at) => (rest[..at].trim_ascii_end(), &rest[at..]),
        None => (rest, ""),
    };
    if !time.is_empty() {
        number(time)?;
    }
    if !exemplar.is_empty() {
        let inside = exemplar[1..].trim_ascii_start().strip_prefix('{')?;
        read_labels(inside, &mut Vec::new())?;
    }
    Some(Sample { name, labels, value })
}

/// Reads labels up to the closing brace, and gives what follows it.
fn read_labels<'a>(mut rest: &'a str, labels: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>) -> Option<&'a str> {
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Some(after);
        }
        let name;
        (name, rest) = match rest.strip_prefix('"') {
            Some(quoted) => read_text(quoted)?,
            None => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
                let (name, after) = rest.split_at(end);
                (Cow::Borrowed(Some(name).filter(|n| !n.is_empty())?), after)
            }
        };
        rest = rest.trim_ascii_start().strip_prefix('=')?.trim_ascii_start();
        let value;
        (value, rest) = read_text(rest.strip_prefix('"')?)?;
        labels.push((name, value));
        rest = rest.trim_ascii_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return None,
        }
    }
}

/// Reads a text up to its closing quote, and gives what follows it.
fn read_text(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    if text.as_bytes()[end] == b'"' {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut value = text[..end].to_owned();
    let mut characters = text[end..].char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((Cow::Owned(value), &text[end + at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                other => value.extend(['\\', other]),
            },
            c => value.push(c),
        }
    }
    None
}

/// A number of the text format: what Go writes. Names of infinity are accepted only as it writes them.
fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ if text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) => {
            text.parse().ok()
        }
        _ => None,
    }
}

fn is_name(name: &[u8]) -> bool {
    let valid = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':');
    name.first().is_some_and(|b| valid(b) && !b.is_ascii_digit()) && name.iter().all(valid)
}
