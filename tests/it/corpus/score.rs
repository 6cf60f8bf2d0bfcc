//! What a judge made of the corpus, against the truth: false rollbacks, recall, delay and reasons, family by family.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::plan::{Ask, Expect, Label};

/// One decision, as `backstop replay --json` prints it.
#[derive(Debug, Clone)]
pub(super) struct Decision {
    pub(super) t: f64,
    pub(super) service: String,
    pub(super) decision: String,
    pub(super) signal: String,
    pub(super) reason: String,
}

/// How a family went.
#[derive(Debug, Default, Clone)]
pub(super) struct Score {
    pub(super) traces: usize,
    pub(super) must: usize,
    pub(super) found: usize,
    pub(super) late: usize,
    pub(super) missed: usize,
    pub(super) must_not: usize,
    pub(super) wrong: usize,
    /// Seconds from the onset to the rollback, and what decision.md lets expect for it.
    delays: Vec<(f64, f64)>,
    reason_right: usize,
    ask: usize,
    asked: usize,
    asked_needlessly: usize,
    hold: usize,
    held: usize,
    /// What went wrong, in words.
    pub(super) remarks: Vec<String>,
}

impl Score {
    /// Compares one trace's decisions with the truth about it.
    pub(super) fn add(&mut self, trace: &str, truth: &[Label], decisions: &[&Decision]) {
        self.traces += 1;
        for decision in decisions.iter().filter(|d| d.decision == "rollback") {
            let known = truth.iter().any(|l| l.service == decision.service && l.deployed <= decision.t);
            if !known {
                self.wrong += 1;
                self.remark(trace, "FALSE (nothing was deployed)", decision);
            }
        }
        for (index, label) in truth.iter().enumerate() {
            let until = truth[index + 1..]
                .iter()
                .find(|l| l.service == label.service)
                .map_or(f64::INFINITY, |next| next.deployed);
            let of_it: Vec<&Decision> = decisions
                .iter()
                .copied()
                .filter(|d| d.service == label.service && label.deployed <= d.t && d.t < until)
                .collect();
            self.add_rollback(trace, label, &of_it);
            self.add_words(trace, label, &of_it);
        }
    }

    fn add_rollback(&mut self, trace: &str, label: &Label, decisions: &[&Decision]) {
        let first = decisions.iter().find(|d| d.decision == "rollback");
        match label.expect {
            Expect::Either => {}
            Expect::Keep => {
                self.must_not += 1;
                if let Some(decision) = first {
                    self.wrong += 1;
                    self.remark(trace, "FALSE", decision);
                }
            }
            Expect::RollBack => {
                self.must += 1;
                let Some(decision) = first else {
                    self.missed += 1;
                    let last = decisions.last().map_or("nothing was said", |d| d.reason.as_str());
                    let (service, onset) = (&label.service, label.onset);
                    self.remarks.push(format!("{trace} {service}: MISSED, bad since {onset:.0}: {last}"));
                    return;
                };
                let delay = decision.t - label.onset;
                if decision.t < label.earliest {
                    self.wrong += 1;
                    self.remark(trace, &format!("EARLY by {:.0} s", label.earliest - decision.t), decision);
                } else if delay > label.wait.latest {
                    self.late += 1;
                    let words = format!("LATE, {delay:.0} s instead of at most {:.0}", label.wait.latest);
                    self.remark(trace, &words, decision);
                } else {
                    self.found += 1;
                }
                self.delays.push((delay, label.wait.usual));
                if label.signals.is_empty() || label.signals.contains(&decision.signal.as_str()) {
                    self.reason_right += 1;
                } else {
                    self.remark(trace, &format!("REASON, not {}", label.signals.join(" or ")), decision);
                }
            }
        }
    }

    fn add_words(&mut self, trace: &str, label: &Label, decisions: &[&Decision]) {
        if label.hold {
            self.hold += 1;
            self.held += usize::from(decisions.iter().any(|d| d.decision == "hold"));
        }
        let mut asked = decisions.iter().filter(|d| d.decision == "evaluate");
        match label.ask {
            Ask::May => {}
            Ask::Never => {
                if let Some(decision) = asked.next() {
                    self.asked_needlessly += 1;
                    self.remark(trace, "ASKED needlessly", decision);
                }
            }
            Ask::Must(from, to) => {
                self.ask += 1;
                if asked.any(|d| from <= d.t && d.t <= to) {
                    self.asked += 1;
                } else {
                    self.remarks.push(format!("{trace} {}: NOT ASKED until {to:.0}", label.service));
                }
            }
        }
    }

    fn remark(&mut self, trace: &str, what: &str, decision: &Decision) {
        let Decision { service, t, signal, reason, .. } = decision;
        self.remarks.push(format!("{trace} {service}: {what}: at {t:.0} by {signal}: {reason}"));
    }

    /// Deployments that a person should have been asked about, and was not.
    pub(super) const fn unanswered(&self) -> usize {
        self.ask - self.asked
    }

    pub(super) fn join(&mut self, other: Self) {
        self.traces += other.traces;
        self.must += other.must;
        self.found += other.found;
        self.late += other.late;
        self.missed += other.missed;
        self.must_not += other.must_not;
        self.wrong += other.wrong;
        self.delays.extend(other.delays);
        self.reason_right += other.reason_right;
        self.ask += other.ask;
        self.asked += other.asked;
        self.asked_needlessly += other.asked_needlessly;
        self.hold += other.hold;
        self.held += other.held;
        self.remarks.extend(other.remarks);
    }

    /// The delay that so many of the rollbacks did not exceed.
    fn delay(&self, share: f64) -> String {
        let mut delays: Vec<f64> = self.delays.iter().map(|d| d.0).collect();
        delays.sort_by(f64::total_cmp);
        let rank = ((delays.len() as f64 * share).ceil() as usize).max(1) - 1;
        delays.get(rank).map_or_else(|| "–".into(), |d| format!("{d:.0} s"))
    }

    fn row(&self, name: &str) -> String {
        let of =
            |part: usize, whole: usize| if whole == 0 { "–".into() } else { format!("{part} / {whole}") };
        let punctual = self.delays.iter().filter(|(delay, usual)| delay <= usual).count();
        format!(
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.traces,
            of(self.wrong, self.must_not + self.must),
            of(self.found, self.must),
            self.late,
            self.delay(0.5),
            self.delay(0.95),
            of(punctual, self.must),
            of(self.reason_right, self.must),
            of(self.asked, self.ask),
            of(self.held, self.hold),
        )
    }
}

const HEAD: &str = "\
| family | traces | false rollbacks | in time | late | median delay | p95 | as soon as expected | right reason | asked | hold said |
|---|---|---|---|---|---|---|---|---|---|---|
";

/// The table for people, in Markdown: groups of families, and all of it.
pub(super) fn table(scores: &BTreeMap<&'static str, Score>, detailed: bool) -> String {
    let mut text = HEAD.to_owned();
    let mut all = Score::default();
    for (prefix, group) in
        [("h_", "healthy"), ("m_", "marginal"), ("b_", "bad"), ("e_", "environmental"), ("v_", "evaluate")]
    {
        let mut sum = Score::default();
        for (name, score) in scores.iter().filter(|(name, _)| name.starts_with(prefix)) {
            sum.join(score.clone());
            if detailed {
                let _ = writeln!(text, "{}", score.row(&format!("`{name}`")));
            }
        }
        let _ = writeln!(text, "{}", sum.row(&format!("**{group}**")));
        all.join(sum);
    }
    let _ = writeln!(text, "{}", all.row("**all**"));
    let precision = all.found as f64 / (all.found + all.late + all.wrong).max(1) as f64;
    let _ = writeln!(
        text,
        "\nPrecision {precision:.3}, recall {:.3}; {} were asked about that nobody needed to look at.",
        all.found as f64 / all.must.max(1) as f64,
        all.asked_needlessly
    );
    text
}
