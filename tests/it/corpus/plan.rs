//! A trace in the making: the fleet, the deployment, what will happen, and what a judge must make of it.

use std::fmt::Write as _;

use super::model::{Effect, Event, Layout, Line, Service, Shape, Use};
use super::rng::Rng;
use super::stats::Expectation;

pub(super) const MINUTE: f64 = 60.0;

/// What must become of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    RollBack,
    Keep,
    /// A fair judge may do either: it is too close, or the evidence too thin.
    Either,
}

/// Whether a person should be asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ask {
    /// Nobody needs to look at it.
    Never,
    May,
    /// Between these times.
    Must(f64, f64),
}

/// The truth about one deployment.
#[derive(Debug, Clone)]
pub(super) struct Label {
    pub(super) service: String,
    pub(super) deployed: f64,
    pub(super) expect: Expect,
    /// When it began to be bad.
    pub(super) onset: f64,
    /// A rollback before this is false.
    pub(super) earliest: f64,
    /// Seconds after the onset: what decision.md expects, and what is too late.
    pub(super) wait: Expectation,
    /// The signals that may be named for it; empty: any.
    pub(super) signals: &'static [&'static str],
    pub(super) ask: Ask,
    /// A symptom is there and not the deployment's fault: a judge that says so does better than a silent one.
    pub(super) hold: bool,
}

/// A trace in the making.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) rng: Rng,
    /// Which trace of its family it is: families walk through their variants by it.
    pub(super) number: usize,
    /// For the quick form: fewer services, shorter.
    pub(super) small: bool,
    /// The subject is the first.
    pub(super) services: Vec<Service>,
    /// When the subject is deployed.
    pub(super) deployed: f64,
    /// When the trace ends.
    pub(super) until: f64,
    pub(super) labels: Vec<Label>,
    /// The share of request reports that are lost.
    pub(super) missing: f64,
    /// The keys of the bucket objects are sorted as text.
    scrambled: bool,
    /// The time of the trace's beginning: zero, or seconds since 1970.
    origin: f64,
}

pub(super) const NAMES: [&str; 12] = [
    "api", "web", "auth", "cart", "search", "orders", "billing", "mail", "gateway", "worker", "catalog",
    "zones",
];

impl Plan {
    pub(super) fn new(mut rng: Rng, number: usize, small: bool) -> Self {
        let mut names = NAMES.to_vec();
        rng.shuffle(&mut names);
        let count = if small { rng.whole(1, 3) } else { rng.pick(&[1, 1, 2, 3, 3, 4, 5, 6]) };
        let deployed =
            if small { rng.between(31.0, 34.0) } else { rng.pick(&[31.0, 35.0, 45.0, 60.0, 90.0, 150.0]) };
        let deployed = (deployed * MINUTE).round();
        let after = if small { 22.0 } else { rng.between(62.0, 85.0) };
        let scrambled = rng.chance(0.15);
        let origin = if rng.chance(0.2) { 1_763_700_000.0 } else { 0.0 };
        let services: Vec<Service> = names.iter().take(count).map(|n| service(&mut rng, n, small)).collect();
        let until = after.mul_add(MINUTE, deployed);
        Self {
            rng,
            number,
            small,
            services,
            deployed,
            until,
            labels: Vec::new(),
            missing: 0.0,
            scrambled,
            origin,
        }
    }

    /// Which of the variants this trace shows.
    pub(super) fn turn<T: Clone>(&self, variants: &[T]) -> T {
        variants[self.number % variants.len()].clone()
    }

    pub(super) fn subject(&mut self) -> &mut Service {
        &mut self.services[0]
    }

    /// Exactly so many services.
    pub(super) fn fleet(&mut self, count: usize) -> &mut Self {
        while self.services.len() < count {
            let taken: Vec<&str> = self.services.iter().map(|s| s.name.as_str()).collect();
            let free: Vec<&str> = NAMES.iter().copied().filter(|n| !taken.contains(n)).collect();
            let name = self.rng.pick(&free);
            let made = service(&mut self.rng, name, self.small);
            self.services.push(made);
        }
        self.services.truncate(count);
        self
    }

    /// The subject serves requests: so many a second, seen in windows of these seconds.
    pub(super) fn serves(&mut self, low: f64, high: f64, windows: &[f64]) -> &mut Self {
        self.services[0].rate = self.rng.log_between(low, high);
        self.services[0].window = self.rng.pick(windows);
        self
    }

    /// A deployment of one service, with the end of its old container.
    pub(super) fn deploy(&mut self, service: usize, at: f64, version: &str) -> &mut Self {
        let (exit, after) = (self.rng.pick(&[143, 137, 0]), self.rng.between(0.2, 11.0));
        let seen = self.rng.chance(0.4);
        let deployed = &mut self.services[service];
        deployed.event(at, Event::Deploy(version.into()));
        if seen {
            deployed.event(at + after, Event::Exit { code: exit, oom: false });
        }
        self
    }

    /// A time after the deployment at which something begins: at once, or after some minutes.
    pub(super) fn onset(&mut self, minutes: &[f64]) -> f64 {
        let after = if self.small { self.rng.pick(&[0.0, 3.0, 8.0]) } else { self.turn(minutes) };
        if after == 0.0 {
            return self.deployed;
        }
        (after + self.rng.between(0.0, 1.5)).mul_add(MINUTE, self.deployed)
    }

    fn label(&mut self, service: usize, deployed: f64, expect: Expect) -> &mut Label {
        self.labels.push(Label {
            service: self.services[service].name.clone(),
            deployed,
            expect,
            onset: deployed,
            earliest: deployed,
            wait: Expectation { usual: 0.0, latest: 0.0 },
            signals: &[],
            ask: Ask::Never,
            hold: false,
        });
        let last = self.labels.len() - 1;
        &mut self.labels[last]
    }

    /// This deployment is good, whatever it looks like.
    pub(super) fn keep(&mut self, service: usize, deployed: f64) -> &mut Label {
        self.label(service, deployed, Expect::Keep)
    }

    /// The subject's deployment is good and looks good.
    pub(super) fn all_well(&mut self) {
        let at = self.deployed;
        self.deploy(0, at, "v2");
        self.keep(0, at);
    }

    /// This deployment is bad from `onset` on. Without an expectation a fair judge may do either.
    pub(super) fn bad(
        &mut self,
        service: usize,
        deployed: f64,
        onset: f64,
        wait: Option<Expectation>,
        signals: &'static [&'static str],
    ) {
        let expect = if wait.is_some() { Expect::RollBack } else { Expect::Either };
        let mut wait = wait.unwrap_or(Expectation { usual: 0.0, latest: 1200.0 });
        // Nothing is judged while a new version starts.
        let grace = (deployed + MINUTE - onset).max(0.0);
        wait.usual += grace;
        wait.latest += grace;
        let label = self.label(service, deployed, expect);
        (label.onset, label.earliest) = (onset, onset - 1.0);
        (label.wait, label.signals, label.ask) = (wait, signals, Ask::May);
        let end = onset + wait.latest + 2.0 * MINUTE;
        self.until = if self.small { end } else { self.until.max(end) };
    }

    /// The whole trace: one JSON object a line, ordered by time.
    pub(super) fn render(&mut self) -> String {
        let mut lines: Vec<(f64, usize, String)> = Vec::new();
        for (index, service) in self.services.iter().enumerate() {
            let of_it: Vec<Line> = service.lines(&mut self.rng, self.until, self.scrambled, self.missing);
            lines.extend(of_it.into_iter().map(|(t, text)| (t, index, text)));
        }
        lines.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut text = String::with_capacity(lines.len() * 160);
        for (t, index, rest) in lines {
            let (t, name) = (((t + self.origin) * 1000.0).round() / 1000.0, &self.services[index].name);
            let _ = writeln!(text, r#"{{"t":{t},"service":"{name}",{rest}}}"#);
        }
        text
    }

    /// The truth in the trace's own time.
    pub(super) fn truth(&self) -> Vec<Label> {
        let mut labels = self.labels.clone();
        for label in &mut labels {
            label.deployed += self.origin;
            label.onset += self.origin;
            label.earliest += self.origin;
            if let Ask::Must(from, to) = &mut label.ask {
                *from += self.origin;
                *to += self.origin;
            }
        }
        labels.sort_by(|a, b| a.deployed.total_cmp(&b.deployed));
        labels
    }
}

/// A service as there are many.
fn service(rng: &mut Rng, name: &str, small: bool) -> Service {
    let shape = match rng.whole(0, 5) {
        0..=2 => Shape::Lognormal(rng.between(0.4, 0.8)),
        3 => Shape::Gamma(rng.whole(2, 6) as u32),
        4 => Shape::Burr(rng.between(2.5, 4.0), rng.between(1.2, 2.0)),
        _ => Shape::Cached {
            hits: rng.between(0.7, 0.92),
            faster: rng.between(5.0, 20.0),
            sigma: rng.between(0.3, 0.5),
        },
    };
    let windows: &[f64] =
        if small { &[5.0, 10.0, 15.0, 30.0] } else { &[5.0, 5.0, 10.0, 10.0, 15.0, 30.0, 60.0] };
    let mut made = Service {
        name: name.into(),
        rate: rng.log_between(1.0, 120.0),
        window: rng.pick(windows),
        errors: rng.pick(&[0.0, 0.0, 0.001, 0.003, 0.01, 0.02]),
        scale: rng.log_between(40.0, 900.0) / shape.p99(),
        shape,
        layout: rng.pick(&[Layout::Prometheus, Layout::Prometheus, Layout::OpenTelemetry, Layout::Fine]),
        timed: true,
        wander: (rng.between(0.05, 0.3), rng.between(0.01, 0.07)),
        slope: rng.between(-0.1, 0.15),
        probes: rng.pick(&[0.0, 5.0, 10.0, 10.0, 15.0, 30.0]),
        probe_blips: rng.pick(&[0.0, 0.0, 0.002, 0.005]),
        memory_every: rng.pick(&[0.0, 5.0, 10.0, 10.0, 15.0, 30.0]),
        memory_limit: rng.pick(&[256.0, 512.0, 1024.0, 4096.0]) * 1_048_576.0,
        memory_noise: rng.between(0.002, 0.01),
        overlays: Vec::new(),
        events: Vec::new(),
        dependencies: Vec::new(),
    };
    let level = rng.between(0.25, 0.75);
    made.happens(f64::MIN, f64::MAX, Effect::Memory(Use::Level(level)));
    made
}
