//! The latency row where no histogram tells how many requests were slow: by averages.
//!
//! A summary tells the sum and the count, so that each measurement has a mean; each of our own checks took some time.
//! The row's line is the same multiple, of the median of those before the deployment, and half of them may be above it.
//! Percentiles of a summary are of no use: over a sliding window they keep a bad minute alive long after it.

use std::time::Duration;

use super::super::decision::{Averaged, Compared};
use super::super::pace::Rhythm;
use super::super::settings::{Against, CheckLatency, Rule};
use super::super::snapshot::RowAnswer;
use super::super::time::human;
use super::super::traffic::{Bad, Counted};
use super::requests::{HALF, Line, WORSE, is_unusual, judge, unmeasured};
use super::{Finding, Scene};

/// A check is made from here: a few milliseconds more are as likely ours. Five times what the shipped row takes for
/// nothing in an application's own measurements.
const CHECK_FLOOR: f64 = 0.050;

/// By the sums and counts of a summary; none if there are none.
pub(super) fn requests<'a>(rule: &'a Rule, scene: Scene<'_>) -> Option<Finding<'a>> {
    let pace = &scene.evidence.pace;
    pace.end()?;
    if let Some(missing) = unmeasured(rule, scene) {
        return Some(missing);
    }
    let norm = &scene.before.norm;
    let rhythm = norm.pace.as_ref();
    if rhythm.is_none() && rule.against == Against::Baseline {
        let why = || {
            let span = human(scene.settings.baseline);
            format!(
                "nothing to compare with: too few means (20 in 4m are needed) in the {span} before the deployment"
            )
        };
        return Some(rule.finding(RowAnswer::NoData, scene.say(why)));
    }
    let traffic = &scene.evidence.traffic;
    let mut usual = rhythm.map_or(0.0, Rhythm::median);
    if let Some(rhythm) = rhythm {
        // While the traffic is not what it was, the more tolerant of the two has the word.
        if is_unusual(scene) == Some(true) {
            usual = usual.max(scene.history.mean_at(scene.now).unwrap_or(0.0));
        }
        let end = traffic.end().unwrap_or(scene.now);
        let now = traffic.between(end.before(rule.sustained), end);
        usual = usual.max(rhythm.by_mix(&now.routes, rule.threshold * usual).unwrap_or(0.0));
    }
    let counted = Counted::Pace { pace, usual: traffic.usual };
    let line = line(rule, rhythm, usual, rule.floor, counted, Averaged::Requests);
    Some(judge(rule, scene, &line, scene.settings.grace))
}

/// By the time that our own required HTTP checks take; none if they have no say: they are not to be asked, too little
/// is known of how long they took before, or they have not been made since.
pub(super) fn checks<'a>(rule: &'a Rule, scene: Scene<'_>) -> Option<Finding<'a>> {
    if rule.against != Against::Baseline || scene.settings.check_latency == CheckLatency::Off {
        return None;
    }
    let asked = scene.settings.checks.iter().filter(|(_, check)| check.required && check.is_http());
    let judged = asked.filter_map(|(name, check)| {
        let rhythm = scene.before.norm.checks.get(name)?;
        let pace = scene.evidence.checks_took.get(name)?;
        if scene.now.since(pace.end()?) > 2 * check.interval.max(SILENT) {
            return None;
        }
        let counted = Counted::Pace { pace, usual: check.interval };
        let floor = rule.floor.max(CHECK_FLOOR);
        let line = line(rule, Some(rhythm), rhythm.median(), floor, counted, Averaged::Checks);
        let found = judge(rule, scene, &line, scene.settings.grace);
        (found.answer != RowAnswer::NoData).then_some(found)
    });
    judged.max_by_key(|found| match found.answer {
        RowAnswer::Breached => 2,
        RowAnswer::Pending => 1,
        RowAnswer::Ok | RowAnswer::NoData | RowAnswer::CannotMeasure | RowAnswer::Off => 0,
    })
}

/// Who has not been heard for twice as long says nothing about now.
const SILENT: Duration = Duration::from_secs(20);

fn line<'a>(
    rule: &Rule,
    rhythm: Option<&Rhythm>,
    usual: f64,
    floor: f64,
    counted: Counted<'a>,
    of: Averaged,
) -> Line<'a> {
    let (limit, times) = match rule.against {
        Against::Absolute => (rule.threshold, None),
        Against::Baseline => {
            let limit = (rule.threshold * usual).max(floor);
            (limit, (usual > 0.0).then(|| (limit / usual * 10.0).round() / 10.0))
        }
    };
    let above = rhythm.map_or(0.0, |rhythm| rhythm.above_at_most(limit));
    let allowed = HALF.max(WORSE * above).min(1.0);
    let (before, span) = (rhythm.map(|_| usual), rhythm.map(|rhythm| rhythm.span));
    let compared = Compared::Average { of, limit_seconds: limit, times, before, span };
    Line { counted, bad: Bad::Slower(limit), allowed, compared }
}
