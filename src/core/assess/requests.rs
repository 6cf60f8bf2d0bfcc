//! Rows about requests: errors and latency go through one and the same test.
//!
//! "p99 above twice the baseline" says the same as "more than one in a hundred requests is slower than twice the
//! baseline's p99". So both rows count bad requests, and a count is something that a person can check by hand. A
//! window is breached if there are too many bad ones in all of it, in each of its quarters and at its end, and more
//! than chance would bring (decision.md, 4.1).

use std::borrow::Cow;
use std::time::Duration;

use super::super::baseline::Norm;
use super::super::chance::binomial_tail;
use super::super::decision::{Averaged, Compared, Reason, percent_of as percent, seconds};
use super::super::sample::Signal;
use super::super::settings::{Action, Against, Condition, Profile, Rule};
use super::super::snapshot::RowAnswer;
use super::super::spells::{Recurring, Spell};
use super::super::streak::ERRORS_IN_A_ROW;
use super::super::time::{Timestamp, human};
use super::super::traffic::{BIN, Bad, Counted, Share};
use super::super::window::Evidence;
use super::{Finding, Scene, pace};

/// No window is shorter, however short the row's time is set.
const SHORTEST: Duration = Duration::from_secs(15);
/// One request in a hundred may be slower than the p99: that is what it is.
const TAIL: f64 = 0.01;
/// Half of the measurements are above their median: that is what it is.
pub(super) const HALF: f64 = 0.5;
/// What was wrong just before the deployment explains what is wrong for so long after it.
const JUST_BEFORE_COUNTS: Duration = Duration::from_secs(10 * 60);
/// How much worse than the release before it a release must be, at least.
pub(super) const WORSE: f64 = 1.5;
/// Below so few requests, every part of a window must have seen some.
const FEW: u64 = 20;
/// A part of a window with so many requests needs two bad ones.
const MANY: u64 = 10;
/// What makes a row pending: this much in so short a time, or in what there is of it.
const PENDING: Tier =
    Tier { window: Duration::from_secs(30), times: 1.0, farther: 1.0, alpha: 1e-3, parts: 1, harder: false };

/// How much for how long: the worse it is, the shorter the window that suffices.
#[derive(Debug, Clone, Copy)]
struct Tier {
    window: Duration,
    /// The line, as a multiple of what is allowed.
    times: f64,
    /// How far beyond the line a slow one must be, as a multiple of it: averages are worse in that way.
    farther: f64,
    /// The probability of so many bad ones by chance must be below this.
    alpha: f64,
    /// The window is cut into so many parts.
    parts: u32,
    /// The shortest window: each part must be above the line itself, and twice as many bad ones are needed.
    harder: bool,
}

/// What kept a window from being breached; the later one is the nearer to a breach.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Guard {
    /// The share is not above the window's limit.
    Below(f64),
    /// The window is not filled since the deployment, or since the evidence was void.
    TooNew,
    /// Fewer bad ones than this.
    TooFew(u64),
    /// So many come by chance with this probability.
    Chance(f64),
    /// It was not bad in every part of it, from its beginning to its end.
    NotThroughout,
}

/// What the row counts, and how many of them are allowed.
pub(super) struct Line<'a> {
    pub(super) counted: Counted<'a>,
    pub(super) bad: Bad,
    /// The share that is allowed.
    pub(super) allowed: f64,
    pub(super) compared: Compared,
}

/// Windows as shares of the row's own time, ten minutes in the shipped matrix; wider for a source that speaks of `usual`
/// at a time.
fn tiers(rule: &Rule, profile: Profile, usual: Duration) -> Vec<Tier> {
    let tier = |share: f64, times, alpha| Tier {
        window: rule.sustained.mul_f64(share).max(SHORTEST),
        times,
        farther: 1.0,
        alpha,
        parts: 4,
        harder: false,
    };
    let error = rule.condition == Condition::ErrorRate;
    let all = match profile {
        Profile::Cautious => vec![tier(0.5, 1.0, if error { 1e-3 } else { 1e-2 })],
        Profile::Fast if error => vec![
            Tier { parts: 3, harder: true, ..tier(0.05, 10.0, 1e-4) },
            tier(0.1, 2.0, 1e-4),
            tier(0.3, 1.4, 1e-3),
            tier(1.0, 1.0, 5e-3),
        ],
        // Less than twice as slow is less urgent.
        Profile::Fast if rule.against == Against::Baseline && rule.threshold < 2.0 => {
            vec![tier(0.5, 2.0, 1e-2), tier(1.0, 1.3, 1e-2)]
        }
        Profile::Fast => vec![tier(0.3, 5.0, 1e-2), tier(0.5, 2.0, 1e-2), tier(1.0, 1.3, 1e-2)],
    };
    widened(all, usual)
}

/// Windows for averages: more than half of the measurements slow, all through it. The farther above the line, the
/// sooner; what our own checks tell is about one endpoint, and has to last.
fn tiers_of_averages(rule: &Rule, profile: Profile, of: Averaged, usual: Duration) -> Vec<Tier> {
    let tier = |share: f64, farther| Tier {
        window: rule.sustained.mul_f64(share).max(SHORTEST),
        times: 1.0,
        farther,
        alpha: 1e-2,
        parts: 4,
        harder: false,
    };
    let urgent = rule.against == Against::Absolute || rule.threshold >= 2.0;
    let all = match (of, profile) {
        (Averaged::Checks, _) => vec![tier(1.0, 1.0)],
        (Averaged::Requests, Profile::Cautious) => vec![tier(0.5, 1.0)],
        (Averaged::Requests, Profile::Fast) if urgent => {
            vec![tier(0.3, 2.0), tier(0.5, 1.35), tier(1.0, 1.0)]
        }
        (Averaged::Requests, Profile::Fast) => vec![tier(0.5, 1.35), tier(1.0, 1.0)],
    };
    widened(all, usual)
}

fn widened(all: Vec<Tier>, usual: Duration) -> Vec<Tier> {
    // Three measurements are the least of which one can say that each of them is bad; two, if most of each is, and each is as long as
    // what would suffice.
    let coarse = |tier: Tier| usual * tier.parts > tier.window;
    let wider = |tier: Tier| {
        let parts = tier.parts.min(if tier.harder && usual >= tier.window { 2 } else { 3 });
        Tier { window: tier.window.max(usual * parts), parts, ..tier }
    };
    all.into_iter().map(|tier| if coarse(tier) { wider(tier) } else { tier }).collect()
}

/// So much for so long is a breach, as people are told of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// How long.
    pub long: Duration,
    /// The share, as a multiple of what is allowed.
    times: f64,
}

impl Window {
    /// The share above which it is breached, if `allowed` is allowed.
    pub fn limit(self, allowed: f64) -> f64 {
        limit(self.times, allowed)
    }
}

/// The windows of a row, the longest first; none if it has but one time. A source that seldom speaks widens the short ones.
pub fn windows(rule: &Rule, profile: Profile) -> Vec<Window> {
    if !matches!(rule.condition, Condition::ErrorRate | Condition::Latency) {
        return Vec::new();
    }
    let all = tiers(rule, profile, Duration::ZERO).into_iter().rev();
    all.map(|tier| Window { long: tier.window, times: tier.times }).collect()
}

/// What is allowed already may be so much that a multiple of it would be more than everything.
fn limit(times: f64, allowed: f64) -> f64 {
    (times * allowed).min(f64::midpoint(1.0, allowed))
}

/// More than a share of the requests fail.
pub(super) fn error_rate<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    if let Some(missing) = unmeasured(rule, scene) {
        return missing;
    }
    let line = errors_allowed(rule, scene);
    // Errors need less warm-up than latency: half of the grace.
    judge(rule, scene, &line, scene.settings.grace / 2)
}

/// The share of failures that is allowed: the row's, or what the release before had, with a margin.
fn errors_allowed<'a>(rule: &Rule, scene: Scene<'a>) -> Line<'a> {
    let norm = &scene.before.norm;
    let usual = unusual(scene).map_or(0.0, |norm| norm.errors_at_most());
    let typed = match (rule.against, norm.error_rate()) {
        (Against::Absolute, _) => rule.threshold,
        (Against::Baseline, rate) => (rule.threshold * rate.unwrap_or(0.0)).max(rule.floor),
    };
    // One failure among a handful of requests is no rate.
    let just_before = norm.just_before.1 >= 2 && scene.now.since(scene.deployed) < JUST_BEFORE_COUNTS;
    let just_before = if just_before { norm.just_before_rate().min(norm.rate_at_last()) } else { 0.0 };
    let allowed = typed.max(WORSE * norm.errors_at_most().max(usual)).max(WORSE * just_before);
    let before = norm.error_rate().map(|rate| (rate, norm.span));
    Line {
        counted: Counted::Requests(&scene.evidence.traffic),
        bad: Bad::Failed,
        allowed: allowed.min(1.0),
        compared: Compared::Errors {
            threshold: typed,
            before: before.map(|b| b.0),
            span: before.map(|b| b.1),
        },
    }
}

/// More than one in a hundred requests is slower than the limit; where no histogram tells that, an average has the word.
pub(super) fn latency<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    let traffic = &scene.evidence.traffic;
    let from = traffic.end().unwrap_or(scene.now).before(rule.sustained);
    let told = traffic.timed(from, scene.now + SHORTEST, FEW);
    let said = if told == 0 { pace::requests(rule, scene) } else { None };
    let said = said.unwrap_or_else(|| by_histogram(rule, scene));
    let known = told.max(scene.evidence.pace.between(from, scene.now + SHORTEST).requests);
    let silent = matches!(said.answer, RowAnswer::Off | RowAnswer::NoData | RowAnswer::Ok) && known < FEW;
    if silent { pace::checks(rule, scene).unwrap_or(said) } else { said }
}

fn by_histogram<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    if let Some(missing) = unmeasured(rule, scene) {
        return missing;
    }
    let norm = &scene.before.norm;
    let other = unusual(scene);
    let limit = match rule.against {
        Against::Absolute => rule.threshold,
        Against::Baseline => {
            let Some(p99) = norm.p99 else {
                let known = norm.latency.total();
                let why = || {
                    format!(
                        "nothing to compare with: {known} requests with latencies in the {} before the deployment, 500 in 4m are needed",
                        human(scene.settings.baseline)
                    )
                };
                return rule.finding(RowAnswer::NoData, scene.say(why));
            };
            // While the traffic is not what it was, the more tolerant of the two has the word.
            let p99 = other.as_ref().and_then(|o| o.p99).map_or(p99, |o| o.max(p99));
            // A release with other buckets is compared where they are certain: within one of its buckets a request may be
            // anywhere, and the shape that fitted the old ones need not fit these.
            let limit = (rule.threshold * p99).max(rule.floor);
            let strange = scene.evidence.traffic.latest_latencies();
            let strange = strange.filter(|latest| !norm.latency.has_the_buckets_of(latest));
            strange.map_or(limit, |latest| latest.certain_from(limit))
        }
    };
    let traffic = &scene.evidence.traffic;
    let end = traffic.end().unwrap_or(scene.now);
    // Few sources tell routes apart, and without them there is no mix to add up.
    let mix = if norm.routes.is_empty() {
        0.0
    } else {
        norm.slower_by_mix(&traffic.between(end.before(rule.sustained), end), limit)
    };
    let usual = other.map_or(0.0, |norm| norm.slower_at_most(limit));
    let before = norm.slower_at_most(limit).max(usual).max(norm.slower_just_before(limit)).max(mix);
    let allowed = TAIL.max(WORSE * before).min(1.0);
    let times = match (rule.against, norm.p99) {
        (Against::Baseline, Some(p99)) if limit > rule.floor && p99 > 0.0 => {
            Some((limit / p99 * 10.0).round() / 10.0)
        }
        (Against::Baseline, _) => Some(rule.threshold),
        (Against::Absolute, _) => None,
    };
    let compared = Compared::Latency {
        limit_seconds: limit,
        times,
        before: norm.p99,
        span: norm.p99.map(|_| norm.span),
    };
    let counted = Counted::Requests(traffic);
    judge(rule, scene, &Line { counted, bad: Bad::Slower(limit), allowed, compared }, scene.settings.grace)
}

/// Times at which the release that is being replaced was slow by what is its own baseline: only now is that known.
pub(crate) fn slow_spells(
    rule: &Rule,
    evidence: &Evidence,
    norm: &Norm,
    now: Timestamp,
) -> Option<Recurring> {
    const STEP: Duration = Duration::from_secs(60);
    /// As far back as requests are kept.
    const STEPS: usize = 60;
    let limit = (rule.threshold * norm.p99.filter(|_| rule.against == Against::Baseline)?).max(rule.floor);
    let allowed = TAIL.max(WORSE * norm.slower_at_most(limit));
    let counted = Counted::Requests(&evidence.traffic);
    let step = STEP.max(counted.usual());
    let mut spells: Vec<Spell> = Vec::new();
    // Newest first.
    for (began, share) in counted.steps_back(Bad::Slower(limit), step).take(STEPS) {
        if share.rate() <= allowed || share.bad() < 2 {
            continue;
        }
        match spells.last_mut().filter(|spell| spell.began == began + step) {
            Some(spell) => {
                *spell = Spell { began, lasted: spell.lasted + step, worst: spell.worst.max(share.rate()) }
            }
            None => spells.push(Spell { began, lasted: step, worst: share.rate() }),
        }
    }
    Recurring::of(now, spells.iter().rev())
}

/// What this hour of earlier days was like, if today's traffic is not what it was before the deployment.
fn unusual(scene: Scene<'_>) -> Option<Norm> {
    if is_unusual(scene)? { scene.history.same_hour(scene.now) } else { None }
}

/// Whether today's traffic is not what it was before the deployment; none if nobody knows.
pub(super) fn is_unusual(scene: Scene<'_>) -> Option<bool> {
    const LATELY: Duration = Duration::from_secs(10 * 60);
    let traffic = &scene.evidence.traffic;
    let end = traffic.end()?;
    let from = traffic.begins(end.before(LATELY))?;
    let now = traffic.share(Bad::Failed, from, end);
    Some(scene.before.norm.total == 0 || !scene.before.norm.is_like(now.n, end.since(from)))
}

/// The answer if there is nothing to judge.
pub(super) fn unmeasured<'a>(rule: &'a Rule, scene: Scene<'_>) -> Option<Finding<'a>> {
    let traffic = &scene.evidence.traffic;
    if let Some((n, since, why)) = scene.evidence.unmeasured.get(&Signal::Requests)
        && *n >= ERRORS_IN_A_ROW
        && traffic.is_stale(scene.now)
    {
        return Some(rule.finding(RowAnswer::CannotMeasure, why.clone()).since(*since));
    }
    if traffic.last.is_none() {
        let why = scene.evidence.not_applicable.get(&Signal::Requests);
        let configured = scene.settings.counts_requests();
        let (answer, why) = match why {
            Some(why) => (RowAnswer::Off, why.clone()),
            None if configured => (RowAnswer::NoData, "not measured yet".into()),
            None => (RowAnswer::Off, "no source of requests configured".into()),
        };
        return Some(rule.finding(answer, why));
    }
    traffic.is_stale(scene.now).then(|| {
        let ago = traffic.last.map_or(Duration::ZERO, |last| scene.now.since(last));
        rule.finding(RowAnswer::NoData, scene.say(|| format!("no measurement for {}", human(ago))))
    })
}

/// Why requests are counted and nobody knows how long they take: what is missing from their source.
const fn without_latencies(scene: Scene<'_>) -> &'static str {
    if scene.settings.metrics.is_some() {
        "the metrics page has no histogram of latencies, nor a summary with a unit in its name"
    } else if scene.settings.prometheus.is_some() {
        "prometheus.latency asks for nothing, or gets nothing"
    } else {
        "the log does not tell how long requests take, or not in which unit (logs.latency_unit)"
    }
}

pub(super) fn judge<'a>(rule: &'a Rule, scene: Scene<'_>, line: &Line<'_>, grace: Duration) -> Finding<'a> {
    let counted = line.counted;
    let end = counted.end().unwrap_or(scene.now);
    let from = (scene.deployed + grace).max(scene.evidence.since);
    let lately = end.before(Duration::from_secs(60).max(2 * counted.usual()));
    let shown = counted.share(line.bad, lately, end);
    let told = |row: Finding<'a>| {
        let baseline = if scene.aloud { line.compared.baseline() } else { None };
        let samples = u32::try_from(shown.n).unwrap_or(u32::MAX);
        Finding { share: shown.rate(), ..row.baseline(baseline).samples(samples) }
    };
    let value = scene.say(|| line.value(shown, lately));
    if shown.n == 0 && matches!(line.bad, Bad::Slower(_)) && counted.share(Bad::Failed, from, end).n > 0 {
        return told(rule.finding(RowAnswer::NoData, without_latencies(scene)));
    }
    let least = u64::from(rule.min_samples);
    let tiers = line.tiers(rule, scene.settings.profile);
    let judged = |tier: &Tier| tier.breached(line, from, end, least);
    let met = tiers.iter().find_map(|tier| Some((tier, judged(tier).ok()?)));
    if let Some((tier, share)) = met {
        // Every part of the window is above the line: with few failures, single steps are below it by chance.
        let first = end.before(tier.window) + tier.window / tier.parts;
        let since = onset(scene, line, end).min(first.max(scene.deployed));
        if let Some(highest) = share.beyond {
            let value = line.value(shown, lately);
            let why = format!("{value}; its highest bucket ends at {}, below the limit", seconds(highest));
            return told(rule.finding(RowAnswer::CannotMeasure, why).since(since));
        }
        let reason = line.reason(tier, share, since.since(scene.deployed));
        return told(rule.crossed(true, value, since, reason));
    }
    let pending = line.pending(rule, end.since(from));
    if rule.action == Action::Rollback
        && let Some(share) = judged(&pending).ok().filter(|share| share.beyond.is_none())
    {
        let since = onset(scene, line, end);
        let reason = line.reason(&pending, share, since.since(scene.deployed));
        return told(rule.crossed(false, value, since, reason));
    }
    let warming = end.before(SHORTEST) < from;
    let (answer, value) = match (shown.n, warming) {
        (0, _) => (RowAnswer::NoData, "no requests".into()),
        (_, true) => (RowAnswer::NoData, scene.say(|| format!("warming up: {value}"))),
        (_, false) => {
            (RowAnswer::Ok, scene.say(|| line.held(value, shown, tiers.iter().map(|t| (t, judged(t))))))
        }
    };
    told(rule.finding(answer, value))
}

impl Tier {
    /// The window that ends at `end`, if it is breached; else what is missing to that.
    fn breached(&self, line: &Line<'_>, from: Timestamp, end: Timestamp, least: u64) -> Result<Share, Guard> {
        let (counted, bad) = (line.counted, line.bad.farther(self.farther));
        let start = counted.start_of(self.window).unwrap_or(end);
        if start < from {
            return Err(Guard::TooNew);
        }
        let span = end.since(start);
        let whole = counted.share(bad, start, end);
        let limit = self.limit(line.allowed);
        let enough = if self.harder { 2 * least } else { least };
        if whole.rate() <= limit {
            return Err(Guard::Below(limit));
        }
        if whole.bad() < enough {
            return Err(Guard::TooFew(enough));
        }
        let by_chance = binomial_tail(whole.bad(), whole.n, line.allowed);
        if by_chance >= self.alpha {
            return Err(Guard::Chance(by_chance));
        }
        let parts: Vec<Share> = (0..self.parts)
            .map(|i| {
                let cut = |i: u32| start + span * i / self.parts;
                counted.share(bad, cut(i), cut(i + 1))
            })
            .collect();
        let floor = if self.harder { limit } else { line.allowed };
        let above = |part: &Share| part.rate() > floor && (part.n < MANY || part.bad() >= 2);
        let busy = parts.iter().filter(|part| part.n > 0);
        let quorum = if whole.n < FEW { self.parts } else { self.parts.min(3) };
        let spread = self.parts == 1
            || (busy.clone().all(above)
                && parts.last().is_some_and(|part| part.n > 0)
                && u32::try_from(busy.count()).is_ok_and(|busy| busy >= quorum));
        // A blip that is shorter than the window reaches into its first part as well: it has to be bad right from the start.
        let edge = (self.window / 12).max(Duration::from_millis(BIN));
        let head = counted.share(bad, start, start + edge);
        let tail = counted.share(bad, end.before(SHORTEST.max(edge)), end);
        // Where it is over, a few failures by chance may be left; half as many as in all of it is no chance.
        let goes_on = tail.n == 0 || tail.rate() > line.allowed.max(whole.rate() / 2.0);
        let began = self.parts == 1 || head.n < MANY || head.rate() > line.allowed;
        let throughout = goes_on && began;
        let filled = spread && throughout && self.is_filled(counted, bad, (start, end), whole);
        filled.then_some(whole).ok_or(Guard::NotThroughout)
    }

    /// Whether it was about as bad at both ends of the window as within, where measurements are long against it: what
    /// lasted for less than the window, by up to one of them, reaches into the first and the last as well, but fills
    /// only a part of at least one.
    fn is_filled(
        &self,
        counted: Counted<'_>,
        bad: Bad,
        (start, end): (Timestamp, Timestamp),
        whole: Share,
    ) -> bool {
        /// Of four measurements three are bad, wherever they begin: one end has at most half of the rate within, which
        /// is two thirds of the whole.
        const FILLED: f64 = 0.7;
        /// Fewer requests say little about a share.
        const ENOUGH: u64 = 20;
        // What is counted more often than that is kept by the bin.
        let edge = counted.usual().max(Duration::from_millis(BIN));
        if self.parts == 1 || edge <= self.window / 12 {
            return true;
        }
        let ends = [(start, start + edge), (end.before(edge), end)];
        ends.into_iter()
            .map(|(from, to)| counted.share(bad, from, to))
            .all(|share| share.n < ENOUGH || share.rate() > FILLED * whole.rate())
    }

    /// The share above which this window is breached.
    fn limit(&self, allowed: f64) -> f64 {
        limit(self.times, allowed)
    }
}

/// When it began: back from the end, step by step, as long as each step is above the line. The first of them may be bad
/// only in part: as far as its share is below that of the one after it, it began later within it. What others suffer
/// from is compared with this to seconds.
fn onset(scene: Scene<'_>, line: &Line<'_>, end: Timestamp) -> Timestamp {
    const STEPS: usize = 120;
    /// Steps without a request that are passed over.
    const GAPS: u32 = 2;
    /// It may have stopped just now: a long window is still full of it.
    const JUST_NOW: Duration = Duration::from_secs(60);
    /// A step with less than this part of the mean is not yet part of it.
    const FAINT: f64 = 0.1;
    let step = match line.bad {
        Bad::Failed => Duration::from_secs(15),
        Bad::Slower(_) => Duration::from_secs(30),
    };
    let step = step.max(line.counted.usual());
    let mut steps: Vec<(Timestamp, f64)> = Vec::new();
    let mut gaps = 0;
    for (from, share) in line.counted.steps_back(line.bad, step).take(STEPS) {
        let is_well = share.n > 0 && share.rate() <= line.allowed;
        if is_well && steps.is_empty() && from >= end.before(JUST_NOW) {
            continue;
        }
        if from + step <= scene.deployed || gaps > GAPS || is_well {
            break;
        }
        if share.n == 0 {
            gaps += 1;
        } else {
            gaps = 0;
            steps.push((from, share.rate()));
        }
    }
    // Before it began there may have been a few more bad ones than usual, by chance.
    let mean = steps.iter().map(|(_, rate)| rate).sum::<f64>() / steps.len().max(1) as f64;
    while steps.last().is_some_and(|(_, rate)| *rate < FAINT * mean) {
        steps.pop();
    }
    let since = match steps.as_slice() {
        [.., (_, next), (from, rate)] if rate < next => *from + step.mul_f64(1.0 - rate / next),
        [.., (from, _)] => *from,
        [] => end,
    };
    since.min(end).max(scene.deployed)
}

impl Bad {
    fn farther(self, times: f64) -> Self {
        match self {
            Self::Failed => Self::Failed,
            Self::Slower(limit) => Self::Slower(limit * times),
        }
    }
}

impl Line<'_> {
    /// Of what the averages are, if it is about averages.
    fn averaged(&self) -> Option<Averaged> {
        match &self.compared {
            Compared::Average { of, .. } => Some(*of),
            Compared::Errors { .. } | Compared::Latency { .. } => None,
        }
    }

    fn tiers(&self, rule: &Rule, profile: Profile) -> Vec<Tier> {
        match self.averaged() {
            Some(of) => tiers_of_averages(rule, profile, of, self.counted.usual()),
            None => tiers(rule, profile, self.counted.usual()),
        }
    }

    /// What makes it pending, so long after it began to be judged. A dozen averages are the least that say anything.
    fn pending(&self, rule: &Rule, judged: Duration) -> Tier {
        if self.averaged().is_none() {
            return Tier { window: PENDING.window.min(judged).max(SHORTEST), ..PENDING };
        }
        let dozen = (12 * self.counted.usual()).clamp(SHORTEST, rule.sustained.max(SHORTEST));
        Tier { window: dozen.max(4 * SHORTEST), alpha: 1e-2, ..PENDING }
    }

    fn value(&self, share: Share, lately: Timestamp) -> String {
        if let (Counted::Pace { pace, .. }, Bad::Slower(limit), Some(of)) =
            (self.counted, self.bad, self.averaged())
        {
            let mean = seconds(pace.between(lately, Timestamp::MAX).mean());
            let (what, limit) = (of.measurements(), seconds(limit));
            return format!("mean {mean}; {} of {} {what} above {limit}", percent(share.rate()), share.n);
        }
        match self.bad {
            Bad::Failed => format!("{} of {} requests failed", percent(share.rate()), share.n),
            Bad::Slower(limit) => {
                format!("{} of {} requests above {}", percent(share.rate()), share.n, seconds(limit))
            }
        }
    }

    /// The value now, and, if it is above the line, why that is no breach: what kept the nearest window from one.
    fn held<'t>(
        &self,
        value: Cow<'static, str>,
        shown: Share,
        tiers: impl Iterator<Item = (&'t Tier, Result<Share, Guard>)>,
    ) -> String {
        let typed = match self.compared {
            Compared::Errors { threshold, .. } => threshold,
            Compared::Latency { .. } => TAIL,
            Compared::Average { .. } => HALF,
        };
        let guards = tiers.filter_map(|(tier, judged)| Some((judged.err()?, tier.window)));
        let nearest = guards.max_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        let Some((guard, window)) = nearest else { return value.into_owned() };
        let within = human(window);
        let why = match guard {
            Guard::Below(_) | Guard::TooNew if shown.rate() <= typed => return value.into_owned(),
            Guard::Below(_) | Guard::TooNew if shown.rate() <= self.allowed => {
                format!("up to {} may be, by what was usual before", percent(self.allowed))
            }
            Guard::Below(limit) => format!("not above {} in {within}", percent(limit)),
            Guard::TooNew => format!("not for {within} yet"),
            Guard::TooFew(enough) => format!("fewer than {enough} in {within}"),
            Guard::Chance(p) => format!("as many in {within} may be chance (p = {p:.1e})"),
            Guard::NotThroughout => format!("not all through {within}"),
        };
        format!("{value}: {why}")
    }

    fn reason(&self, tier: &Tier, share: Share, after: Duration) -> Reason {
        Reason::Requests {
            bad: share.bad(),
            total: share.n,
            window: tier.window,
            limit: tier.limit(self.allowed),
            allowed: self.allowed,
            by_chance: binomial_tail(share.bad(), share.n, self.allowed),
            after,
            compared: self.compared.farther(tier.farther),
        }
    }
}
