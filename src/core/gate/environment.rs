//! Blame: a release is not rolled back for what happens to everybody, or to what it depends on (decision.md, 4.3).

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::release::ServiceName;
use super::super::sample::Signal;
use super::super::settings::{Condition, Dependency};
use super::super::surroundings::{BORNE, LINGERS, Neighbour, Outage, Reliance, Roster, Surroundings};
use super::super::time::{Timestamp, human};
use super::{Answer, Question, memory};

/// A service deployed this shortly before the onset is no witness: it may be bad by itself.
const WITNESS_AGE: Duration = Duration::from_secs(5 * 60);
/// Who has suffered for longer than this before the onset suffers from something else.
const CHRONIC: Duration = Duration::from_secs(10 * 60);
/// What is depended on fails at most so much later than those who depend on it: probes take their time.
const LATER: Duration = Duration::from_secs(20);
/// Errors this soon after the deployment, and ...
const CENTRE_AFTER: Duration = Duration::from_secs(2 * 60);
/// ... more of them than this share, and ...
const CENTRE_RATE: f64 = 0.2;
/// ... so many times as many as anybody else has, and the release is what the others suffer from.
const CENTRE_TIMES: f64 = 2.0;
/// What begins within this time began at the same moment, as well as probes can tell; what is deployed within it was
/// deployed together, in whatever order.
const AT_ONCE: Duration = Duration::from_secs(30);
/// Of those that were deployed together, who fails so many times as much is what the others suffer from.
const FAR_WORSE: f64 = 1.5;

/// Whether what is seen can be the release's own fault.
pub(super) fn environment(q: Question<'_>, around: Surroundings<'_>) -> Answer {
    if memory(q) {
        return Ok("memory is the container's own".into());
    }
    let onset = q.onset().unwrap_or(q.now);
    connectivity(around)?;
    let callers = callers(q.service, around.roster);
    deployed_closer(q, around, onset, &callers)?;
    let dependencies = depended_on(q, around, onset, &callers)?;
    let others = blast_radius(q, around, onset, &callers)?;
    pressure(q, around, onset)?;
    Ok(format!("{dependencies}{others}"))
}

fn connectivity(around: Surroundings<'_>) -> Result<(), String> {
    match &around.host.state.cut_off {
        Some(why) => Err(format!("nothing can be reached from here: {why}")),
        None => Ok(()),
    }
}

/// The machine itself is short of something: since shortly before the deployment, or others suffer from it too. What
/// the release before lived with for longer is no excuse, and what came later may be this release's own doing.
fn pressure(q: Question<'_>, around: Surroundings<'_>, onset: Timestamp) -> Result<(), String> {
    let (Some(what), Some(since)) = (&around.host.state.pressure, around.host.pressed) else {
        return Ok(());
    };
    let others =
        neighbours(q, around).any(|(_, n)| ails(n, q.now) && n.deployed <= onset.before(WITNESS_AGE));
    let fresh = since < q.deployed && since + BORNE >= q.deployed;
    if fresh || others {
        return Err(format!("the machine has been short of it for {}: {what}", human(q.now.since(since))));
    }
    Ok(())
}

fn neighbours<'a>(
    q: Question<'a>,
    around: Surroundings<'a>,
) -> impl Iterator<Item = (&'a str, &'a Neighbour)> {
    around
        .roster
        .iter()
        // Those that it is one release with are no witnesses: what ails them was deployed with it.
        .filter(move |(name, n)| *name != q.service && n.present && !around.goes_with(q.service, name, n))
        // What ails those whose engine is away is explained by that.
        .filter(move |(name, _)| !around.is_out_of_sight(name))
        .map(|(name, n)| (name.as_str(), n))
}

/// All who say that they rely on a service, through others too: what ails them may be its fault.
pub(crate) fn callers<'a>(service: &ServiceName, roster: &'a Roster) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    loop {
        let known = found.len();
        for (name, n) in roster.iter().filter(|(name, _)| *name != service) {
            if n.relies_on.iter().any(|on| on == service || found.contains(on.as_str())) {
                found.insert(name.as_str());
            }
        }
        if found.len() == known {
            return found;
        }
    }
}

/// Whether it is ill, or was until just now. Who is not heard of any more is that only to those who rely on it.
fn ails(n: &Neighbour, now: Timestamp) -> bool {
    ails_or_is_quiet(n, now) && suffers(n, now)
}

/// The same, or one check of it failed just now.
fn suffers(n: &Neighbour, now: Timestamp) -> bool {
    may_ail(n, now) && n.ailing.as_ref().is_some_and(|a| !a.quiet)
}

fn ails_or_is_quiet(n: &Neighbour, now: Timestamp) -> bool {
    may_ail(n, now) && n.ailing.as_ref().is_some_and(|a| !a.faint)
}

/// Whether two moments are no farther apart than that.
fn near(a: Timestamp, b: Timestamp, span: Duration) -> bool {
    a.since(b).max(b.since(a)) <= span
}

/// Whether it fell ill by then.
fn began_by(n: &Neighbour, by: Timestamp) -> bool {
    n.ailing.as_ref().is_some_and(|a| a.since <= by)
}

/// Whether it ails, or one check of it failed just now.
fn may_ail(n: &Neighbour, now: Timestamp) -> bool {
    n.ailing.as_ref().is_some_and(|a| a.until.is_none_or(|until| now.since(until) < LINGERS))
}

/// Another ailing service was deployed after this one and shortly before it began: it takes the blame. So does one that was
/// deployed together with it and fails far more.
fn deployed_closer(
    q: Question<'_>,
    around: Surroundings<'_>,
    onset: Timestamp,
    callers: &BTreeSet<&str>,
) -> Result<(), String> {
    // What is slow cannot be compared with what fails; what is ill in another way fails altogether.
    let own = match q.signal() {
        Some(Signal::Requests) if q.condition() != Some(Condition::ErrorRate) => None,
        Some(Signal::Requests) => Some(q.error_rate),
        _ => Some(1.0),
    };
    let together = |n: &Neighbour| own.is_some() && near(n.deployed, q.deployed, AT_ONCE);
    let worse = |n: &Neighbour| {
        let rate = n.ailing.as_ref().map_or(0.0, |a| a.error_rate);
        own.is_some_and(|own| rate > CENTRE_RATE && rate >= FAR_WORSE * own)
    };
    let closer = neighbours(q, around)
        .filter(|(_, n)| ails(n, q.now))
        .filter(|(_, n)| if together(n) { worse(n) } else { n.deployed > q.deployed })
        // Who relies on this one, or fell ill after it, may suffer from it.
        .filter(|(name, n)| !callers.contains(name) && began_by(n, onset + AT_ONCE))
        // Its rollback did not help this one, which was bad from the start: two bad releases at once.
        .filter(|(_, n)| !n.undone || onset.since(q.deployed) > CENTRE_AFTER)
        .filter(|(_, n)| n.deployed <= onset && onset.since(n.deployed) <= WITNESS_AGE)
        .max_by_key(|(_, n)| n.deployed);
    match closer {
        Some((name, n)) if together(n) => {
            Err(format!("{name} was deployed together with this release, and fails far more"))
        }
        Some((name, n)) => Err(format!(
            "{name} was deployed {} before this began, later than this release, and is degraded too",
            human(onset.since(n.deployed))
        )),
        None => Ok(()),
    }
}

/// Something that the service depends on is down, or was until just now.
fn depended_on(
    q: Question<'_>,
    around: Surroundings<'_>,
    onset: Timestamp,
    callers: &BTreeSet<&str>,
) -> Answer {
    let (mut well, mut unknown) = (Vec::new(), Vec::new());
    for (name, dependency) in &q.settings.dependencies {
        if let Some(reliance) = q.reliances.get(name) {
            // What is asked seldom can have begun long before it was seen; the release before has lived with what was seen.
            let soon = |o: Outage| o.began <= onset + LATER && o.seen + BORNE >= q.deployed;
            if reliance.is_down(q.now) && reliance.failing_now(q.now).is_some_and(soon) {
                let times = match reliance.failures {
                    1 => "once, and nothing was heard of it since".to_owned(),
                    times => format!("{times} times"),
                };
                return Err(format!("what it depends on is down: {name} failed {times}: {}", reliance.last));
            }
            if let Some(outage) = reliance.outage.filter(|outage| soon(*outage)) {
                let ago = q.now.since(outage.ended);
                if ago < LINGERS {
                    return Err(format!("what it depends on was down until {} ago: {name}", human(ago)));
                }
            }
        }
        if let Dependency::Service(service) = dependency
            && let Some(n) = around.roster.get(service).filter(|n| n.present && ails_or_is_quiet(n, q.now))
            && began_by(n, excused_by(q, callers.contains(service.as_str()), onset))
            && n.ailing.as_ref().is_some_and(|a| a.since + BORNE >= q.deployed)
        {
            return Err(format!("what it depends on is degraded: {service}"));
        }
        if let Dependency::Service(service) = dependency
            && let Some(stopped) = around.roster.get(service).and_then(|n| n.stopped)
            && stopped.since <= onset + LATER
            && stopped.since + BORNE >= q.deployed
        {
            return Err(match stopped.until {
                None => format!("what it depends on was stopped: {service}"),
                Some(until) => {
                    format!(
                        "what it depends on was stopped until {} ago: {service}",
                        human(q.now.since(until))
                    )
                }
            });
        }
        let known = match dependency {
            Dependency::Service(service) => around.roster.get(service).is_some_and(|n| n.present),
            Dependency::Check(_) => false,
        };
        let known = known || q.reliances.get(name).is_some_and(Reliance::is_known);
        if known { well.push(name.as_str()) } else { unknown.push(name.as_str()) }
    }
    let told = |names: &[&str], how| {
        if names.is_empty() { String::new() } else { format!("{} {how}; ", names.join(", ")) }
    };
    Ok(told(&well, "ok") + &told(&unknown, "not measured yet"))
}

/// Until when something must have fallen ill to be what a service suffers from. A release that fails from its very start
/// can have brought down what it depends on, so that it has to have begun at the same moment, as well as probes can tell.
fn excused_by(q: Question<'_>, relies_on_it: bool, onset: Timestamp) -> Timestamp {
    if relies_on_it {
        onset.before(AT_ONCE)
    } else if onset.since(q.deployed) <= CENTRE_AFTER {
        onset + LATER
    } else {
        onset + LINGERS
    }
}

/// Others, that nobody deployed, suffer at the same time.
fn blast_radius(
    q: Question<'_>,
    around: Surroundings<'_>,
    onset: Timestamp,
    callers: &BTreeSet<&str>,
) -> Answer {
    let settled_by = onset.before(WITNESS_AGE);
    let witnesses: Vec<(&str, &Neighbour)> = neighbours(q, around)
        .filter(|(name, n)| n.deployed <= settled_by && !callers.contains(name))
        .collect();
    let suffering: Vec<_> = witnesses
        .iter()
        .filter(|(_, n)| suffers(n, q.now))
        .filter(|(_, n)| n.ailing.as_ref().is_some_and(|a| onset.since(a.since) <= CHRONIC))
        .collect();
    let worst =
        suffering.iter().filter_map(|(_, n)| n.ailing.as_ref()).map(|a| a.error_rate).fold(0.0, f64::max);
    let centre = onset.since(q.deployed) <= CENTRE_AFTER
        && q.error_rate > CENTRE_RATE
        && q.error_rate >= CENTRE_TIMES * worst;
    let of = format!("{} of {} other services", suffering.len(), witnesses.len());
    if suffering.len() >= 2 && suffering.len() * 2 >= witnesses.len() && !centre {
        let names: Vec<&str> = suffering.iter().map(|(name, _)| *name).collect();
        return Err(format!("{of} that nobody deployed are degraded too ({})", names.join(", ")));
    }
    together(q, around, onset, callers)?;
    Ok(match witnesses.len() {
        0 => "no other service to compare with".into(),
        _ if centre && suffering.len() >= 2 => format!("{of} are degraded too, this one worst and first"),
        _ => format!("{of} are degraded"),
    })
}

/// Services that were deployed at about the same time, and were well for a while, fall ill at the same moment: that is
/// not the fault of each.
fn together(
    q: Question<'_>,
    around: Surroundings<'_>,
    onset: Timestamp,
    callers: &BTreeSet<&str>,
) -> Result<(), String> {
    if onset.since(q.deployed) <= CENTRE_AFTER {
        return Ok(());
    }
    let deployed: Vec<_> = neighbours(q, around)
        .filter(|(name, n)| near(n.deployed, q.deployed, WITNESS_AGE) && !callers.contains(name))
        .collect();
    let fell: Vec<&str> = deployed
        .iter()
        .filter(|(_, n)| suffers(n, q.now))
        .filter(|(_, n)| n.ailing.as_ref().is_some_and(|a| near(a.since, onset, AT_ONCE)))
        .map(|(name, _)| *name)
        .collect();
    if fell.len() >= 2 && fell.len() * 2 >= deployed.len() {
        let of = format!("{} of {}", fell.len(), deployed.len());
        return Err(format!(
            "{of} services deployed with it fell ill at the same moment ({})",
            fell.join(", ")
        ));
    }
    Ok(())
}
