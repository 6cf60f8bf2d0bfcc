//! Services as they are in the world: traffic, latency, health, memory, and what goes wrong with them.
//!
//! A service is described as it is when nothing happens; overlays say what happens, from when to when. Nothing here
//! knows what a judge would make of it.

use super::rng::Rng;
use super::stats::normal_cdf;

/// How the latencies of one version of a service are distributed.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// Lognormal with this sigma: what most services look like.
    Lognormal(f64),
    /// Gamma with this whole shape number: narrow, no tail to speak of.
    Gamma(u32),
    /// Burr XII with these exponents: a heavy tail.
    Burr(f64, f64),
    /// A cache: this share of requests is served `faster` times as fast by it; both lognormal.
    Cached { hits: f64, faster: f64, sigma: f64 },
}

impl Shape {
    /// The share of requests not slower than `x` times the scale.
    fn below(&self, x: f64) -> f64 {
        if x <= 0.0 {
            return 0.0;
        }
        match self {
            Self::Lognormal(sigma) => normal_cdf(x.ln() / sigma),
            Self::Gamma(k) => {
                let rate = x * f64::from(*k);
                let (mut term, mut sum) = (1.0, 1.0);
                for i in 1..*k {
                    term *= rate / f64::from(i);
                    sum += term;
                }
                1.0 - sum * (-rate).exp()
            }
            Self::Burr(c, k) => 1.0 - (1.0 + x.powf(*c)).powf(-k),
            Self::Cached { hits, faster, sigma } => {
                let miss = normal_cdf(x.ln() / sigma);
                hits.mul_add(normal_cdf((x * faster).ln() / sigma), (1.0 - hits) * miss)
            }
        }
    }

    /// The p99, in units of the scale.
    pub(super) fn p99(&self) -> f64 {
        let (mut low, mut high) = (1e-4_f64, 1e4_f64);
        for _ in 0..80 {
            let middle = (low * high).sqrt();
            if self.below(middle) < 0.99 { low = middle } else { high = middle }
        }
        high
    }
}

/// The bucket bounds of a histogram, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Layout {
    Prometheus,
    OpenTelemetry,
    /// Each bound is half as large again as the one before.
    Fine,
    Coarse,
}

impl Layout {
    pub(super) fn bounds(self) -> Vec<f64> {
        match self {
            Self::Prometheus => {
                vec![
                    5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0,
                    1e4,
                ]
            }
            Self::OpenTelemetry => {
                vec![5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 1e4]
            }
            Self::Fine => (0..26).map(|i| (1.5_f64.powi(i) * 100.0).round() / 100.0).collect(),
            Self::Coarse => vec![50.0, 200.0, 500.0, 1000.0, 3000.0, 1e4],
        }
    }
}

/// What happens to a service for a while.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    /// So many of the requests fail that would not have failed.
    Errors(f64),
    /// All requests take so many times as long.
    Slow(f64),
    /// A share of the requests takes so many times as long.
    Tail(f64, f64),
    /// So many times the traffic.
    Traffic(f64),
    /// A probe fails with this probability.
    Sick(f64),
    /// Probes fail in this order, again and again.
    Pattern(&'static [bool]),
    /// Requests are not reported.
    NoRequests,
    /// Probes are not reported.
    NoHealth,
    /// Memory is not reported.
    NoMemory,
    /// Latencies are reported in other buckets.
    Buckets(Layout),
    /// Memory use, as a share of the limit.
    Memory(Use),
}

/// How memory is used over time, as shares of the limit; times are since the overlay began.
#[derive(Debug, Clone)]
pub(super) enum Use {
    Level(f64),
    /// From the first to the second with this time constant: a cache that warms up.
    WarmUp(f64, f64, f64),
    /// Up and down between two levels with this period: a garbage collector.
    Sawtooth(f64, f64, f64),
    /// From the first level on, so much more each second; a kill at 100 % begins it again.
    Leak(f64, f64),
    /// A leak, and on top of it up to so much more, up and down with this period.
    LeakingSaw(f64, f64, f64, f64),
}

impl Use {
    fn at(&self, age: f64) -> f64 {
        match self {
            Self::Level(level) => *level,
            Self::WarmUp(from, to, constant) => to - (to - from) * (-age / constant).exp(),
            Self::Sawtooth(low, high, period) => low + (high - low) * (age / period).fract(),
            Self::Leak(from, slope) => {
                let life = (1.0 - from) / slope;
                from + slope * (age % life)
            }
            Self::LeakingSaw(from, slope, swing, period) => {
                (from + slope * age).min(0.99 - swing) + swing * (age / period).fract()
            }
        }
    }
}

/// Something that happens, from when to when.
#[derive(Debug, Clone)]
pub(super) struct Overlay {
    pub(super) from: f64,
    pub(super) to: f64,
    /// How long it takes to come to its full strength; it ends at once.
    pub(super) ramp: f64,
    pub(super) effect: Effect,
}

/// Something that a service says it depends on, asked at intervals.
#[derive(Debug, Clone)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) interval: f64,
    /// When it was down.
    pub(super) down: Vec<(f64, f64)>,
    /// Single failures by chance.
    pub(super) blips: f64,
}

/// A line of the trace that is there because something happened, not because something was measured.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Deploy(String),
    Exit { code: i32, oom: bool },
    Report(String),
}

/// A service, its surroundings and its fate.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) name: String,
    /// Requests a second; 0: it serves none and reports none.
    pub(super) rate: f64,
    /// How many seconds a report of requests covers.
    pub(super) window: f64,
    pub(super) errors: f64,
    pub(super) shape: Shape,
    /// The scale of the latencies in milliseconds.
    pub(super) scale: f64,
    pub(super) layout: Layout,
    /// Whether latencies are reported.
    pub(super) timed: bool,
    /// How much rate and latency wander by themselves: standard deviations of their logarithms.
    pub(super) wander: (f64, f64),
    /// How much more traffic there is for each hour that passes, as a share.
    pub(super) slope: f64,
    /// Seconds between probes; 0: none.
    pub(super) probes: f64,
    /// The chance of a single failure of a healthy service's probe.
    pub(super) probe_blips: f64,
    /// Seconds between measurements of memory; 0: none.
    pub(super) memory_every: f64,
    pub(super) memory_limit: f64,
    pub(super) memory_noise: f64,
    pub(super) overlays: Vec<Overlay>,
    pub(super) events: Vec<(f64, Event)>,
    pub(super) dependencies: Vec<Dependency>,
}

/// What the overlays make of a service at one time.
struct State {
    errors: f64,
    slow: f64,
    tails: Vec<(f64, f64)>,
    traffic: f64,
    sick: f64,
    pattern: Option<&'static [bool]>,
    layout: Layout,
    memory: f64,
    requests: bool,
    health: bool,
    memory_seen: bool,
}

impl Service {
    pub(super) fn happens(&mut self, from: f64, to: f64, effect: Effect) -> &mut Self {
        self.grows(from, to, 0.0, effect)
    }

    pub(super) fn grows(&mut self, from: f64, to: f64, ramp: f64, effect: Effect) -> &mut Self {
        self.overlays.push(Overlay { from, to, ramp, effect });
        self
    }

    pub(super) fn event(&mut self, at: f64, event: Event) -> &mut Self {
        self.events.push((at, event));
        self
    }

    /// The share of requests slower than `line` times the p99, once all are `factor` times as slow.
    pub(super) fn slower_than(&self, line: f64, factor: f64) -> f64 {
        1.0 - self.shape.below(line * self.shape.p99() / factor)
    }

    fn state(&self, at: f64) -> State {
        let mut state = State {
            errors: self.errors,
            slow: 1.0,
            tails: Vec::new(),
            traffic: 1.0 + self.slope * at / 3600.0,
            sick: 0.0,
            pattern: None,
            layout: self.layout,
            memory: 0.5,
            requests: self.rate > 0.0,
            health: true,
            memory_seen: true,
        };
        for overlay in self.overlays.iter().filter(|o| o.from <= at && at < o.to) {
            let age = at - overlay.from;
            let strength = if overlay.ramp > 0.0 { (age / overlay.ramp).min(1.0) } else { 1.0 };
            state.apply(&overlay.effect, age, strength);
        }
        state
    }

    /// Where something begins or ends within a window: the parts before and after are drawn apart.
    fn pieces(&self, from: f64, to: f64) -> Vec<(f64, f64)> {
        let mut cuts = vec![from, to];
        for overlay in &self.overlays {
            cuts.extend([overlay.from, overlay.to].into_iter().filter(|t| from < *t && *t < to));
        }
        cuts.sort_by(f64::total_cmp);
        cuts.windows(2).map(|w| (w[0], w[1])).collect()
    }

    /// The cumulative counts of `n` requests' latencies.
    fn latencies(&self, rng: &mut Rng, state: &State, n: u64, bounds: &[f64], wander: f64) -> Vec<u64> {
        let below = |bound: f64| {
            let x = bound / (self.scale * state.slow * wander);
            let rest: f64 = 1.0 - state.tails.iter().map(|t| t.0).sum::<f64>();
            state.tails.iter().fold(rest * self.shape.below(x), |sum, (share, factor)| {
                share.mul_add(self.shape.below(x / factor), sum)
            })
        };
        let (mut left, mut passed, mut counted) = (n, 0.0, 0);
        let mut counts: Vec<u64> = bounds
            .iter()
            .map(|bound| {
                let upto = below(*bound).clamp(passed, 1.0);
                let share = if passed < 1.0 { (upto - passed) / (1.0 - passed) } else { 0.0 };
                let here = rng.binomial(left, share);
                left -= here;
                counted += here;
                passed = upto;
                counted
            })
            .collect();
        counts.push(n);
        counts
    }
}

impl State {
    fn apply(&mut self, effect: &Effect, age: f64, strength: f64) {
        match effect {
            Effect::Errors(p) => self.errors = 1.0 - (1.0 - self.errors) * (1.0 - p * strength),
            Effect::Slow(factor) => self.slow *= 1.0 + (factor - 1.0) * strength,
            Effect::Tail(share, factor) => self.tails.push((share * strength, *factor)),
            Effect::Traffic(factor) => self.traffic *= 1.0 + (factor - 1.0) * strength,
            Effect::Sick(p) => self.sick = self.sick.max(p * strength),
            Effect::Pattern(pattern) => self.pattern = Some(pattern),
            Effect::NoRequests => self.requests = false,
            Effect::NoHealth => self.health = false,
            Effect::NoMemory => self.memory_seen = false,
            Effect::Buckets(layout) => self.layout = *layout,
            Effect::Memory(usage) => self.memory = usage.at(age),
        }
    }
}

/// Noise that remembers: each step keeps part of the one before.
struct Wander {
    value: f64,
    deviation: f64,
}

impl Wander {
    fn new(rng: &mut Rng, deviation: f64) -> Self {
        Self { value: rng.normal() * deviation, deviation }
    }

    /// A factor around 1, `seconds` after the last one. It forgets within about a minute.
    fn step(&mut self, rng: &mut Rng, seconds: f64) -> f64 {
        let kept = (-seconds / 60.0).exp();
        self.value = kept * self.value + (1.0 - kept * kept).sqrt() * self.deviation * rng.normal();
        self.value.exp()
    }
}

/// One line of a trace: its time, and the rest of the object.
pub(super) type Line = (f64, String);

impl Service {
    /// Everything that is seen of it, unordered.
    pub(super) fn lines(&self, rng: &mut Rng, until: f64, scrambled: bool, missing: f64) -> Vec<Line> {
        let mut lines = Vec::new();
        self.request_lines(rng, until, scrambled, missing, &mut lines);
        self.probe_lines(rng, until, &mut lines);
        self.memory_lines(rng, until, &mut lines);
        for dependency in &self.dependencies {
            self.dependency_lines(rng, until, dependency, &mut lines);
        }
        for (at, event) in &self.events {
            let text = match event {
                Event::Deploy(version) => format!(r#""kind":"deploy","version":"{version}""#),
                Event::Exit { code, oom } => format!(r#""kind":"exit","code":{code},"oom":{oom}"#),
                Event::Report(reporter) => format!(r#""kind":"report","reporter":"{reporter}""#),
            };
            lines.push((*at, text));
        }
        lines.retain(|(t, _)| *t <= until);
        lines
    }

    fn request_lines(&self, rng: &mut Rng, until: f64, scrambled: bool, missing: f64, lines: &mut Vec<Line>) {
        let (mut rates, mut times) = (Wander::new(rng, self.wander.0), Wander::new(rng, self.wander.1));
        let mut at = rng.between(0.0, self.window).floor();
        while at + self.window <= until && self.rate > 0.0 {
            let end = at + self.window;
            let (rate, time) = (rates.step(rng, self.window), times.step(rng, self.window));
            let bounds = self.state(end - 0.001).layout.bounds();
            let (mut total, mut errors, mut counts) = (0, 0, vec![0; bounds.len() + 1]);
            let mut seen = true;
            for (from, to) in self.pieces(at, end) {
                let state = self.state(f64::midpoint(from, to));
                let n = rng.poisson(self.rate * rate * state.traffic * (to - from));
                seen &= state.requests;
                total += n;
                errors += rng.binomial(n, state.errors);
                let latencies = self.latencies(rng, &state, n, &bounds, time);
                counts.iter_mut().zip(latencies).for_each(|(sum, c)| *sum += c);
            }
            if seen && !rng.chance(missing) {
                let head = format!(
                    r#""kind":"requests","window_s":{},"total":{total},"errors":{errors}"#,
                    self.window
                );
                let buckets = if self.timed { buckets(&bounds, &counts, scrambled) } else { String::new() };
                lines.push((end, head + &buckets));
            }
            at = end;
        }
    }

    fn probe_lines(&self, rng: &mut Rng, until: f64, lines: &mut Vec<Line>) {
        let mut at = rng.between(0.0, self.probes);
        let (mut turn, mut blip) = (0, false);
        while at <= until && self.probes > 0.0 {
            let state = self.state(at);
            let failed = match state.pattern {
                Some(pattern) => {
                    turn += 1;
                    pattern[turn % pattern.len()]
                }
                // Chance alone never makes two in a row: that would be a fault.
                None => {
                    blip = !blip && rng.chance(self.probe_blips);
                    rng.chance(state.sick) || blip
                }
            };
            if state.health {
                let latency = if failed { rng.between(1.0, 2000.0) } else { rng.log_between(1.0, 40.0) };
                lines.push((at, format!(r#""kind":"health","ok":{},"latency_ms":{latency:.1}"#, !failed)));
            }
            at += self.probes;
        }
    }

    fn memory_lines(&self, rng: &mut Rng, until: f64, lines: &mut Vec<Line>) {
        let mut at = rng.between(0.0, self.memory_every);
        while at <= until && self.memory_every > 0.0 {
            let state = self.state(at);
            let share = (state.memory + self.memory_noise * rng.normal()).clamp(0.01, 1.0);
            if state.memory_seen {
                let limit = self.memory_limit;
                // Without a limit something is used all the same.
                let used = share * if limit > 0.0 { limit } else { 5e8 };
                lines.push((
                    at,
                    format!(r#""kind":"memory","used_bytes":{used:.0},"limit_bytes":{limit:.0}"#),
                ));
            }
            at += self.memory_every;
        }
    }

    fn dependency_lines(&self, rng: &mut Rng, until: f64, dependency: &Dependency, lines: &mut Vec<Line>) {
        let mut at = rng.between(0.0, dependency.interval);
        while at <= until {
            let down = dependency.down.iter().any(|(from, to)| *from <= at && at < *to);
            let ok = !down && !rng.chance(dependency.blips);
            lines.push((at, format!(r#""kind":"dependency","name":"{}","ok":{ok}"#, dependency.name)));
            at += dependency.interval;
        }
    }
}

/// Buckets as an object; its keys may come in the order of their letters, as some writers sort them.
fn buckets(bounds: &[f64], counts: &[u64], scrambled: bool) -> String {
    let mut pairs: Vec<(String, u64)> =
        bounds.iter().map(f64::to_string).zip(counts.iter().copied()).collect();
    pairs.push(("+Inf".into(), counts[counts.len() - 1]));
    if scrambled {
        pairs.sort();
    }
    let inner: Vec<String> = pairs.iter().map(|(bound, count)| format!(r#""{bound}":{count}"#)).collect();
    format!(r#","latency_buckets_ms":{{{}}}"#, inner.join(","))
}
