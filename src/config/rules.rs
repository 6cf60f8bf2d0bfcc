//! The decision matrix: the shipped rows with the numbers that people put over them, and rows that they added.

use std::time::Duration;

use super::file::{HEALTH, RuleRow, Service};
use super::nearest::nearest;
use super::numbers::Amount;
use super::resolve::Resolving;
use super::values::{quoted, time};
use crate::core::settings::{Action, Against, Condition, Hook, Rule, Severity};

/// More rows than this are looked at by nobody.
const ROWS_MAX: usize = 64;

/// The windows of a row are fractions of `sustained`, down to a twentieth: below a minute that would be single
/// requests.
const SHORTEST: Duration = Duration::from_secs(60);
/// Requests are remembered for an hour ...
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// ... and single samples of memory, CPU and logs for half of one.
const LONGEST_OF_SAMPLES: Duration = Duration::from_secs(30 * 60);

/// A latency above this is a slip: milliseconds where seconds are meant.
const SECONDS_MAX: f64 = 600.0;

/// All rows of a service: `rows` with what was typed over them. What they try first may be one of `hooks`.
pub(super) fn rules(
    mut rows: Vec<Rule>,
    hooks: &[Hook],
    typed: &Service,
    resolving: &mut Resolving<'_>,
) -> Vec<Rule> {
    for (name, typed_row) in typed.rules.iter().flatten() {
        let shipped = rows.iter().position(|row| row.name == *name);
        let row = match shipped {
            Some(index) => override_row(&rows[index], hooks, typed_row, resolving),
            None => match added(name, typed_row, &rows, hooks, resolving) {
                Some(row) => row,
                None => continue,
            },
        };
        judge(&row, typed_row, typed, resolving);
        match shipped {
            Some(index) => rows[index] = row,
            None => rows.push(row),
        }
    }
    if rows.len() > ROWS_MAX {
        let wrong = format!("the matrix has {} rows", rows.len());
        resolving.clash(&["rules"], wrong, format!("at most {ROWS_MAX} would be right"));
    }
    rows
}

/// A row with what people said over it.
fn override_row(row: &Rule, hooks: &[Hook], typed: &RuleRow, resolving: &mut Resolving<'_>) -> Rule {
    let name = &row.name;
    if let Some(other) = typed.condition.filter(|condition| *condition != row.condition) {
        resolving.clash(
            &[&format!("rules.{name}.condition")],
            format!("the shipped row {name} judges {}", row.condition.name()),
            format!("remove it, or give a row that judges {} a name of its own", other.name()),
        );
    }
    let against = typed.against.unwrap_or(row.against);
    if against != row.against && typed.threshold.is_none() {
        let (was, example) = match against {
            Against::Absolute => ("a multiple of what was before", "0.8, or for a latency \"800ms\""),
            Against::Baseline => ("no multiple of what was before", "2 for twice as much"),
        };
        resolving.clash(
            &[&format!("rules.{name}.against"), &format!("rules.{name}.threshold")],
            format!("the row's threshold, {}, is {was}", row.threshold),
            format!("set rules.{name}.threshold too, as in {example}"),
        );
    }
    Rule {
        threshold: typed.threshold.map_or(row.threshold, |threshold| threshold.0.number()),
        against,
        floor: match against {
            Against::Absolute => 0.0,
            Against::Baseline => typed.floor.map_or(row.floor, |floor| floor.0.number()),
        },
        only: typed.only.as_ref().map(|name| name.0.clone()),
        within: typed.within.map_or(row.within, |span| span.0),
        sustained: typed.sustained.map_or(row.sustained, |span| span.0),
        min_samples: typed.min_samples.map_or(row.min_samples, |count| count.0),
        severity: typed.severity.unwrap_or(row.severity),
        mitigations: match &typed.mitigations {
            Some(ladder) => ladder.made(&format!("rules.{name}.mitigations"), hooks, resolving),
            None => row.mitigations.clone(),
        },
        action: typed.action.unwrap_or(row.action),
        ..row.clone()
    }
}

/// A row that the shipped matrix does not have. What is not said is as in the first shipped row of its condition; but
/// it asks a person, unless it says otherwise: nobody has tried it yet.
fn added(
    name: &str,
    typed: &RuleRow,
    rows: &[Rule],
    hooks: &[Hook],
    resolving: &mut Resolving<'_>,
) -> Option<Rule> {
    let at = format!("rules.{name}");
    let Some(condition) = typed.condition else {
        let names = || rows.iter().map(|row| row.name.as_str());
        let conditions: Vec<&str> = Condition::ALL.iter().map(|condition| condition.name()).collect();
        let add = format!("a row of your own needs a `condition`: {}", conditions.join(", "));
        let right = match nearest(name, names()) {
            Some(near) => format!("did you mean {near}? If not, {add}"),
            None => format!("the rows are {}; {add}", names().collect::<Vec<_>>().join(", ")),
        };
        let its_condition = format!("{at}.condition");
        resolving.clash(&[&at, &its_condition], "there is no such row in the decision matrix", right);
        return None;
    };
    let Some(threshold) = typed.threshold else {
        resolving.clash(
            &[&at, &format!("{at}.threshold")],
            format!("the row {name} has no threshold"),
            format!(
                "set {at}.threshold: {}",
                Unit::of(condition, typed.against.unwrap_or(Against::Absolute)).right()
            ),
        );
        return None;
    };
    let like = rows.iter().find(|row| row.condition == condition)?;
    let over = RuleRow {
        threshold: Some(threshold),
        against: Some(typed.against.unwrap_or(Against::Absolute)),
        severity: Some(typed.severity.unwrap_or(Severity::High)),
        action: Some(typed.action.unwrap_or(Action::Evaluate)),
        ..typed.clone()
    };
    let like = Rule { name: name.to_owned(), floor: 0.0, ..like.clone() };
    Some(override_row(&like, hooks, &over, resolving))
}

/// What a row's threshold is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// A share of this.
    Share(&'static str),
    Seconds,
    Multiple,
    /// At most so many, because no more are remembered.
    Count(u32),
    PerMinute,
}

impl Unit {
    const fn of(condition: Condition, against: Against) -> Self {
        match (condition, against) {
            (Condition::ErrorRate | Condition::Latency | Condition::LogErrors, Against::Baseline) => {
                Self::Multiple
            }
            (Condition::Latency, Against::Absolute) => Self::Seconds,
            (Condition::LogErrors, Against::Absolute) => Self::PerMinute,
            (Condition::ErrorRate, Against::Absolute) => Self::Share("all requests"),
            (Condition::Memory | Condition::MemoryLeak, _) => Self::Share("the whole memory"),
            (Condition::CpuThrottling, _) => Self::Share("the whole time"),
            (Condition::UserReports, _) => Self::Count(200),
            (
                Condition::Health
                | Condition::HealthFlapping
                | Condition::AdvisoryHealth
                | Condition::ContainerHealth
                | Condition::Exits
                | Condition::Down
                | Condition::OomKills
                | Condition::Alerts,
                _,
            ) => Self::Count(50),
        }
    }

    /// What would be right.
    const fn right(self) -> &'static str {
        match self {
            Self::Share(_) => "a number up to 1 would be right, as in 0.9 for 90 %",
            Self::Seconds => "a time or seconds would be right, as in \"800ms\" or 0.8",
            Self::Multiple => {
                "a number above 1 would be right, as in 2 for twice what was before the deployment"
            }
            Self::Count(_) => "a whole number from 1 would be right: this row counts",
            Self::PerMinute => "a number of lines a minute would be right, as in 100",
        }
    }

    /// What is wrong with a number of this unit, and what would be right.
    fn judge(self, number: f64) -> Option<(String, String)> {
        let right = || self.right().to_owned();
        match self {
            Self::Share(whole) if number > 1.0 => {
                let percent =
                    (number <= 100.0).then(|| format!("{} would be right for {number} %", number / 100.0));
                Some((format!("{number} is more than {whole}"), percent.unwrap_or_else(right)))
            }
            Self::Seconds if number > SECONDS_MAX => {
                let right = format!("for milliseconds \"{number}ms\" would be right");
                Some((format!("{number} s is longer than any request should take"), right))
            }
            Self::Multiple if number <= 1.0 => {
                Some((format!("{number} times what was before the deployment is no rise"), right()))
            }
            Self::Count(most) if number > f64::from(most) => Some((
                format!("{number} is more than is remembered"),
                format!("at most {most} would be right"),
            )),
            Self::Count(_) if number.fract() != 0.0 || number < 1.0 => {
                Some((format!("{number} is not a count"), right()))
            }
            Self::Share(_) | Self::Seconds | Self::Multiple | Self::Count(_) | Self::PerMinute => None,
        }
    }
}

fn judge(row: &Rule, typed: &RuleRow, service: &Service, resolving: &mut Resolving<'_>) {
    let key = |key: &str| format!("rules.{}.{key}", row.name);
    if row.against == Against::Baseline && !row.condition.compares() {
        let wrong = format!("{} is not compared with what was before the deployment", row.condition.name());
        resolving.clash(&[&key("against")], wrong, "\"absolute\" would be right, or no `against` at all");
        return;
    }
    amounts(row, typed, resolving);
    if typed.within.is_some() && !row.condition.counts() {
        resolving.clash(
            &[&key("within")],
            "this row does not count events in a time",
            "remove it; `sustained` is how long the line must be crossed",
        );
    }
    let longest = match row.condition {
        Condition::ErrorRate | Condition::Latency => Some(LONGEST),
        Condition::MemoryLeak | Condition::CpuThrottling | Condition::LogErrors => Some(LONGEST_OF_SAMPLES),
        Condition::Health
        | Condition::HealthFlapping
        | Condition::AdvisoryHealth
        | Condition::ContainerHealth
        | Condition::Exits
        | Condition::Down
        | Condition::OomKills
        | Condition::Memory
        | Condition::UserReports
        | Condition::Alerts => None,
    };
    if let Some(longest) = longest.filter(|longest| !(SHORTEST..=*longest).contains(&row.sustained)) {
        let what = if row.sustained < SHORTEST { "short" } else { "long" };
        resolving.clash(
            &[&key("sustained")],
            format!("{} is too {what} for {}", time(row.sustained), row.condition.name()),
            format!("from {} to {} would be right", time(SHORTEST), time(longest)),
        );
    }
    only(row, service, resolving);
}

/// Threshold and floor, each in its unit.
fn amounts(row: &Rule, typed: &RuleRow, resolving: &mut Resolving<'_>) {
    let key = |key: &str| format!("rules.{}.{key}", row.name);
    let unit = Unit::of(row.condition, row.against);
    // A floor is what the threshold would be if it were not a multiple.
    let floor_unit = Unit::of(row.condition, Against::Absolute);
    let mut judge = |name: &str, amount: Amount, unit: Unit| {
        let what = match amount {
            Amount::Time(_) if unit != Unit::Seconds => {
                Some((format!("{amount} is a time"), unit.right().to_owned()))
            }
            Amount::Time(_) | Amount::Number(_) => unit.judge(amount.number()),
        };
        if let Some((wrong, right)) = what {
            resolving.clash(&[&key(name)], wrong, right);
        }
    };
    if let Some(threshold) = typed.threshold {
        judge("threshold", threshold.0, unit);
    }
    if let Some(floor) = typed.floor.filter(|_| row.against == Against::Baseline) {
        judge("floor", floor.0, floor_unit);
    }
    if typed.floor.is_some() && row.against == Against::Absolute {
        resolving.clash(
            &[&key("floor")],
            "only a row against the baseline has a floor",
            "remove it, or set against = \"baseline\"",
        );
    }
}

/// A row for one check must name one that there is.
fn only(row: &Rule, service: &Service, resolving: &mut Resolving<'_>) {
    let Some(name) = &row.only else {
        return;
    };
    let key = format!("rules.{}.only", row.name);
    match row.condition {
        // Others name alerts.
        Condition::Alerts => {}
        Condition::Health | Condition::HealthFlapping | Condition::AdvisoryHealth => {
            let mut known = super::checks::names(service);
            known.extend(resolving.context.checks.iter().cloned());
            if known.contains(name) {
                return;
            }
            let right = match nearest(name, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None if known.is_empty() => format!(
                    "there are no checks yet: [defaults.{HEALTH}] or [defaults.checks.{name}] would make one"
                ),
                None => format!("the checks are {}", known.into_iter().collect::<Vec<_>>().join(", ")),
            };
            resolving.clash(&[&key], format!("there is no check called {}", quoted(name)), right);
        }
        Condition::ContainerHealth
        | Condition::Exits
        | Condition::Down
        | Condition::OomKills
        | Condition::Memory
        | Condition::MemoryLeak
        | Condition::CpuThrottling
        | Condition::ErrorRate
        | Condition::Latency
        | Condition::LogErrors
        | Condition::UserReports => resolving.clash(
            &[&key],
            format!("{} is not told apart by names", row.condition.name()),
            "remove it: only rows of health checks and of alerts can be about one of them",
        ),
    }
}
