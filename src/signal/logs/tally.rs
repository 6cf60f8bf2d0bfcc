//! What is counted between two measurements. Bounded whatever the log says: so many lines are looked at, so many routes
//! told apart, one line kept.

use std::collections::HashMap;
use std::time::Duration;

use super::access::{AccessReader, Request, looks_like_a_request};
use super::errors::ErrorPattern;
use super::excerpt::{excerpt, without_colours};
use super::fields::Fields;
use crate::core::sample::{Latencies, Measurement, Part, Requests, Signal};
use crate::core::settings::{AccessLog, LatencyUnit, LogSource};

/// Lines that are looked at between two measurements: ten thousand a second at the shipped interval, a few percent of a
/// core. What a flood brings beyond that is not read, which makes counts lower bounds and leaves shares as they are.
const LINES_MAX: u64 = 100_000;

/// Routes that are told apart between two measurements, of which the busiest are reported.
const ROUTES_MAX: usize = 256;

/// Upper bounds of latencies in seconds: from a tenth of a millisecond to a minute, each 1.5 times the one before
/// (rounded, because they are written down with each sample). Of the bucket layouts in use it is the coarsest that
/// never confuses 1.8 with 2.2 times the baseline: the interpolated p99 is off by 2 % at worst in 95 of 100 cases.
const BOUNDS: [f64; 34] = [
    0.0001, 0.00015, 0.000225, 0.00034, 0.00051, 0.00076, 0.00114, 0.00171, 0.00256, 0.00384, 0.00577,
    0.00865, 0.013, 0.0195, 0.0292, 0.0438, 0.0657, 0.0985, 0.148, 0.222, 0.333, 0.499, 0.748, 1.12, 1.68,
    2.53, 3.79, 5.68, 8.52, 12.8, 19.2, 28.8, 43.1, 64.7,
];

/// Reads lines and counts.
#[derive(Debug)]
pub(super) struct Reader {
    errors: ErrorPattern,
    access: AccessReader,
    tally: Drained,
}

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Drained {
    lines: u64,
    unread: u64,
    errors: u64,
    /// The last line that told of an error, as it was.
    last: String,
    requests: u64,
    failed: u64,
    latency: Histogram,
    routes: HashMap<String, (u64, Histogram)>,
    /// Why there are no requests to be told of, if ever none was seen.
    no_access_log: Option<String>,
}

impl Reader {
    /// Reads as `source` says.
    ///
    /// # Errors
    /// What is wrong with the pattern.
    pub(super) fn new(source: &LogSource) -> Result<Self, String> {
        Ok(Self::with(ErrorPattern::new(&source.error)?, source.access, source.latency_unit))
    }

    /// The same with a pattern that is compiled already.
    pub(super) fn with(errors: ErrorPattern, access: AccessLog, unit: LatencyUnit) -> Self {
        Self { errors, access: AccessReader::new(access, unit), tally: Drained::default() }
    }

    /// Takes one line; `cut` if it was longer.
    pub(super) fn read(&mut self, line: &str, cut: bool) {
        if self.tally.lines == LINES_MAX {
            self.tally.unread += 1;
            return;
        }
        self.tally.lines += 1;
        let text = without_colours(line);
        let fields = Fields::of(&text, cut);
        let certain = !self.access.saw_fractions();
        if let Some(request) = self.access.read(&text, fields.as_ref()) {
            if certain && self.access.saw_fractions() {
                self.tally.forget_latencies();
            }
            self.tally.count(&request);
        }
        let level = fields.as_ref().and_then(Fields::level);
        let is_request = || match &fields {
            Some(fields) => fields.tells_of_a_request(),
            None => looks_like_a_request(&text),
        };
        if self.errors.tells_of_an_error(&text, level, is_request) {
            self.tally.errors += 1;
            self.tally.last.clear();
            self.tally.last.push_str(&text);
        }
    }

    /// What was counted since the last time.
    pub(super) fn drain(&mut self) -> Drained {
        let mut tally = std::mem::take(&mut self.tally);
        tally.no_access_log = self.access.end_window();
        // The busiest routes go on being told apart, however many others come first.
        let mut busiest: Vec<_> = tally.routes.iter().map(|(route, (total, _))| (*total, route)).collect();
        busiest.sort_unstable_by(|a, b| b.cmp(a));
        let known = busiest.iter().take(Requests::PARTS_MAX);
        self.tally.routes = known.map(|(_, route)| ((*route).clone(), Default::default())).collect();
        tally
    }
}

impl Drained {
    /// As measurements over `window`; with `access` the requests too.
    pub(super) fn tell(self, window: Duration, access: bool) -> Vec<(Signal, Measurement)> {
        let mut last = excerpt(&self.last);
        if self.unread > 0 {
            last.push_str(&format!(" (and {} lines more were not looked at: too many)", self.unread));
        }
        let mut all = vec![(Signal::Logs, Measurement::Count { count: self.errors, window, last })];
        if access {
            let requests = match self.no_access_log {
                Some(why) => Measurement::NotApplicable { why },
                None => Measurement::Requests(Requests {
                    window,
                    total: self.requests,
                    errors: self.failed,
                    latency: self.latency.tell(),
                    parts: parts(self.routes),
                    ..Requests::default()
                }),
            };
            all.push((Signal::Requests, requests));
        }
        all
    }

    /// They were read with a unit that the log has just turned out not to have.
    fn forget_latencies(&mut self) {
        self.latency = Histogram::default();
        for (_, latency) in self.routes.values_mut() {
            *latency = Histogram::default();
        }
    }

    fn count(&mut self, request: &Request<'_>) {
        self.requests += 1;
        if request.failed() {
            self.failed += 1;
        }
        self.latency.count(request.seconds);
        // What is not there is no route, and whoever scans for holes invents thousands of them.
        if request.status == 404 {
            return;
        }
        let route = request.route();
        let room = self.routes.len() < ROUTES_MAX;
        let slot = match self.routes.get_mut(&route) {
            Some(slot) => slot,
            None if room => self.routes.entry(route).or_default(),
            None => return,
        };
        slot.0 += 1;
        slot.1.count(request.seconds);
    }
}

/// The busiest routes, the busiest first.
fn parts(routes: HashMap<String, (u64, Histogram)>) -> Vec<Part> {
    let mut parts: Vec<_> = routes.into_iter().filter(|(_, (total, _))| *total > 0).collect();
    parts.sort_unstable_by(|(a, (m, _)), (b, (n, _))| n.cmp(m).then_with(|| a.cmp(b)));
    parts.truncate(Requests::PARTS_MAX);
    parts
        .into_iter()
        .map(|(route, (total, latency))| Part { route, total, latency: latency.tell(), ..Part::default() })
        .collect()
}

/// Latencies, bucket by bucket.
#[derive(Debug, Default)]
struct Histogram(Option<Box<[u64; BOUNDS.len() + 1]>>);

impl Histogram {
    fn count(&mut self, seconds: Option<f64>) {
        let Some(seconds) = seconds else { return };
        let buckets = self.0.get_or_insert_with(|| Box::new([0; BOUNDS.len() + 1]));
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = buckets.get_mut(bucket) {
            *count += 1;
        }
    }

    /// Cumulative, as everybody reads it; empty if no request said how long it took.
    fn tell(&self) -> Latencies {
        let Some(buckets) = &self.0 else { return Latencies::default() };
        let counts = buckets.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        Latencies { bounds: BOUNDS.to_vec(), counts: counts.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(access: AccessLog) -> Reader {
        Reader::new(&LogSource { access, ..LogSource::default() }).unwrap()
    }

    fn requests(tally: Drained) -> Requests {
        match tally.tell(Duration::from_secs(10), true).pop() {
            Some((Signal::Requests, Measurement::Requests(requests))) => requests,
            other => panic!("{other:?}"),
        }
    }

    /// Whole numbers are taken for milliseconds, but not in a log in which others are seconds, or milliseconds.
    #[test]
    fn a_fraction_anywhere_leaves_the_unit_of_the_whole_log_open() {
        for line in
            [r#"{"status":200,"path":"/","duration":DURATION}"#, "status=200 path=/ duration=DURATION"]
        {
            let mut reader = reader(AccessLog::Auto);
            let mut window = |durations: &[&str]| {
                for duration in durations {
                    reader.read(&line.replace("DURATION", duration), false);
                }
                let found = requests(reader.drain());
                let of_route = found.parts.first().map(|part| part.latency.is_empty());
                assert_eq!(of_route, Some(found.latency.is_empty()));
                (found.total, found.latency.counts.last().copied())
            };
            assert_eq!(window(&["12", "13"]), (2, Some(2)));
            assert_eq!(window(&["12", "12.5", "13"]), (3, None), "what came before it is forgotten");
            assert_eq!(window(&["12", "1"]), (2, None), "and what comes after it is not believed");
            assert_eq!(window(&["12", "\"9ms\""]), (2, Some(1)), "what is written holds");
        }
        let mut told = Reader::new(&LogSource {
            access: AccessLog::Auto,
            latency_unit: LatencyUnit::Seconds,
            ..LogSource::default()
        })
        .unwrap();
        for duration in ["1", "0.5"] {
            told.read(&format!("status=200 path=/ duration={duration}"), false);
        }
        assert_eq!(requests(told.drain()).latency.counts.last(), Some(&2));
    }

    #[test]
    fn bounds_are_ascending_and_about_one_and_a_half_apart() {
        assert!(BOUNDS.len() <= Latencies::BOUNDS_MAX);
        for (a, b) in BOUNDS.iter().zip(&BOUNDS[1..]) {
            assert!((1.48..1.53).contains(&(b / a)), "{a} to {b}");
        }
    }

    #[test]
    fn a_latency_is_counted_in_the_first_bucket_that_is_not_below_it() {
        let mut histogram = Histogram::default();
        assert!(histogram.tell().is_empty(), "nobody said how long it took");
        for seconds in [0.0, 0.0001, 0.00011, 1.12, 1000.0] {
            histogram.count(Some(seconds));
        }
        histogram.count(None);
        let latencies = histogram.tell();
        assert_eq!(latencies.counts.len(), latencies.bounds.len() + 1);
        assert_eq!(latencies.counts[..3], [2, 3, 3]);
        let second = BOUNDS.iter().position(|b| *b == 1.12).unwrap();
        assert_eq!(latencies.counts[second - 1..=second], [3, 4]);
        assert_eq!(latencies.counts.last(), Some(&5));
    }

    #[test]
    fn the_busiest_routes_are_told_even_if_a_scan_comes_first() {
        let mut reader = reader(AccessLog::Common);
        let line = |path: &str, status: u16| format!("10.0.0.1 - - [x] \"GET {path} HTTP/1.1\" {status} 5");
        for _ in 0..3 {
            reader.read(&line("/buy", 200), false);
        }
        assert_eq!(requests(reader.drain()).parts[0].route, "GET /buy");
        let letters = |n: u8| char::from(b'a' + n);
        for n in 0..20 {
            for m in 0..20 {
                reader.read(&line(&format!("/.hidden-{}{}", letters(n), letters(m)), 404), false);
                reader.read(&line(&format!("/once-{}{}", letters(n), letters(m)), 200), false);
            }
        }
        for _ in 0..3 {
            reader.read(&line("/buy", 500), false);
        }
        let told = requests(reader.drain());
        assert_eq!((told.total, told.errors), (803, 3));
        assert_eq!(told.parts.len(), Requests::PARTS_MAX);
        assert_eq!((told.parts[0].route.as_str(), told.parts[0].total), ("GET /buy", 3));
        assert!(told.parts.iter().all(|part| !part.route.contains("hidden")));
    }

    #[test]
    fn a_flood_is_not_read_to_its_end_and_that_is_said() {
        let mut reader = reader(AccessLog::Off);
        for _ in 0..LINES_MAX + 7 {
            reader.read("ERROR again", false);
        }
        let told = reader.drain().tell(Duration::from_secs(10), false);
        let (Signal::Logs, Measurement::Count { count, last, .. }) = &told[0] else { panic!("{told:?}") };
        assert_eq!(*count, LINES_MAX);
        assert_eq!(last, "ERROR again (and 7 lines more were not looked at: too many)");
        reader.read("ERROR anew", false);
        assert_eq!(reader.drain().errors, 1, "the next window begins from nothing");
    }
}
