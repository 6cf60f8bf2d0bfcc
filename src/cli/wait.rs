//! `backstop wait SERVICE`: the gate of a deployment. It waits until a release is known-good or rolled back, and says which
//! by its exit code.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::failure::{Code, Failure};
use super::table::{release, span};
use super::{Output, write_out};
use crate::api::views::{LedgerView, ReleaseView, RollbackView, RollbacksView, ServiceView};

/// A deployment that was typed just now is seen within a second; until then, what had its tag before is what runs.
const SETTLES: Duration = Duration::from_secs(5);
/// How often the daemon is asked: a second more or less is nothing to a pipeline, and an answer costs it a millisecond.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const AFTER_HELP: &str = "\
Exit codes:
  0  the release is known-good: it passed its trial, and runs
  1  it was rolled back; why is printed
  2  nothing was decided in time, or a person has to decide
  3  it cannot be told: the daemon does not answer, the release never appeared, another one took its place, or the
     command line is wrong";

/// What it is called on the command line.
pub(super) const NAME: &str = "wait";

/// A pipeline that reads exit codes must not take a mistake in the command line for a verdict.
pub(super) const WRONG: Code = Code::CannotTell;

/// The same of a mistake that is found before there is anybody to ask.
pub(super) fn wrong(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Failure>() {
        Ok(failure) => Failure { code: WRONG, ..failure }.into(),
        Err(error) => error,
    }
}

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct WaitArgs {
    /// The service
    service: String,
    /// Which release: its reference, its tag, its version label, its digest or its id [default: what runs now].
    /// Of a tag that moves (`latest`), the newest deployment is meant; a digest leaves no doubt
    #[arg(long, value_name = "RELEASE")]
    release: Option<String>,
    /// How long to wait at most
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "15m")]
    timeout: Duration,
}

/// What is known of the release so far.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    KnownGood(String),
    RolledBack(String),
    /// Nothing will be decided without a person.
    Stuck(String),
    /// Another release runs in its place, and nobody rolled it back.
    Replaced(String),
    /// It is being judged; with what is said of it.
    Judged(String),
    NotSeen(String),
}

pub(super) async fn run(args: WaitArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let (mut waited, mut told, mut wanted) = (Duration::ZERO, String::new(), args.release.clone());
    let mut missed = false;
    loop {
        let standing = look(client, &args.service, &mut wanted).await;
        let last = match standing {
            Ok(Standing::KnownGood(why)) if waited < SETTLES.min(args.timeout) => {
                Last { text: why, judged: true }
            }
            Ok(Standing::KnownGood(why)) => return ended(&args, wanted, out, None, "known_good", &why),
            Ok(Standing::RolledBack(why)) => {
                return ended(&args, wanted, out, Some(Code::Failure), "rolled_back", &why);
            }
            Ok(Standing::Stuck(why)) => {
                return ended(&args, wanted, out, Some(Code::Undecided), "undecided", &why);
            }
            // Between two containers of a deployment the old one may be the last that is seen.
            Ok(Standing::Replaced(why)) if missed => {
                return ended(&args, wanted, out, Some(Code::CannotTell), "cannot_tell", &why);
            }
            Ok(Standing::Replaced(why)) => {
                missed = true;
                Last { text: why, judged: false }
            }
            Ok(Standing::Judged(why)) => Last { text: why, judged: true },
            Ok(Standing::NotSeen(why)) => Last { text: why, judged: false },
            // Its command line was wrong, or the daemon said no: that does not change by waiting.
            Err(error) if !is_silence(&error) => {
                let why = error.to_string();
                return ended(&args, wanted, out, Some(Code::CannotTell), "cannot_tell", &why);
            }
            Err(error) => Last { text: error.to_string(), judged: false },
        };
        // A countdown is no news.
        let news: String = last.text.chars().filter(|c| !c.is_ascii_digit()).collect();
        if news != told {
            anstream::eprintln!("{:>6}  {}", span(waited.as_secs_f64()), last.text);
            told = news;
        }
        if waited >= args.timeout {
            let (code, verdict) =
                if last.judged { (Code::Undecided, "undecided") } else { (Code::CannotTell, "cannot_tell") };
            let limit = span(args.timeout.as_secs_f64());
            return ended(&args, wanted, out, Some(code), verdict, &format!("after {limit}: {}", last.text));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        waited += LOOK_EVERY;
    }
}

struct Last {
    text: String,
    judged: bool,
}

/// One look. What runs at the first one is what is waited for if nothing was named.
async fn look(client: &Client, service: &str, wanted: &mut Option<String>) -> anyhow::Result<Standing> {
    let view = match client.get::<ServiceView>(&["api", "v1", "services", service], &[]).await {
        Ok(answer) => answer.view,
        // It may be on its way.
        Err(error) if is_unknown(&error) => {
            return Ok(Standing::NotSeen(format!("there is no service {service} yet")));
        }
        Err(error) => return Err(error),
    };
    if wanted.is_none() {
        *wanted = view.summary.current.as_ref().map(|current| current.id.clone());
    }
    let Some(name) = wanted.as_deref() else {
        return Ok(Standing::NotSeen(format!("nothing of {service} runs yet")));
    };
    // From here on it is this one, whatever else is called so: a tag that moved may be put back.
    let meant = view.releases.iter().find(|entry| is(&entry.release, name));
    let new = meant.filter(|entry| entry.current && entry.standing != "known_good");
    let name = new.map_or_else(|| name.to_owned(), |entry| entry.release.id.clone());
    // Made anew with something set, as a mitigation, it is still what was deployed.
    let anew = view
        .releases
        .iter()
        .find(|entry| meant.is_some_and(|meant| !meant.current && entry.earlier.contains(&meant.release.id)));
    let name = anew.map_or(name, |entry| entry.release.id.clone());
    *wanted = Some(name.clone());
    let query = [("service", service), ("limit", "20")];
    let rollbacks = client.get::<RollbacksView>(&["api", "v1", "rollbacks"], &query).await?.view.rollbacks;
    Ok(standing(&view, &rollbacks, &name))
}

/// What the daemon's answers say of a release. Newest deployments and rollbacks come first.
fn standing(view: &ServiceView, rollbacks: &[RollbackView], wanted: &str) -> Standing {
    let Some(entry) = view.releases.iter().find(|entry| is(&entry.release, wanted)) else {
        return Standing::NotSeen(format!("{} has not run {wanted} yet", view.summary.name));
    };
    let (name, state) = (release(&entry.release), view.summary.state.as_str());
    let of =
        |rollback: &&RollbackView| rollback.from.as_ref().is_some_and(|from| from.id == entry.release.id);
    let rolled_back = rollbacks.iter().find(of).filter(|r| r.started >= entry.deployed);
    if !entry.current {
        return match rolled_back {
            Some(rollback) if rollback.over => after(view, entry, rollback),
            Some(rollback) => Standing::Judged(format!("{name} is being rolled back: {}", rollback.text)),
            None => Standing::Replaced(replaced(view, entry)),
        };
    }
    match (entry.standing.as_str(), state) {
        ("known_good", "steady" | "cooling_down") => Standing::KnownGood(format!("{name} is known-good")),
        (_, "stuck") => Standing::Stuck(view.summary.sentence.clone()),
        _ => Standing::Judged(format!("{state}: {}", view.summary.sentence)),
    }
}

/// What a rollback that is over means for the release that it was to take away, and that does not run any more.
fn after(view: &ServiceView, entry: &LedgerView, rollback: &RollbackView) -> Standing {
    let (name, to, why) = (release(&entry.release), release(&rollback.to), &rollback.text);
    let ended = rollback.outcome.replace('_', " ");
    match rollback.outcome.as_str() {
        "void" => Standing::Replaced(format!(
            "{}; its rollback to {to} did not begin: {}",
            runs_instead(view, entry),
            rollback.detail
        )),
        "unwound" => Standing::Replaced(format!(
            "{}; its rollback to {to} failed and was taken back: {}",
            runs_instead(view, entry),
            rollback.detail
        )),
        "stuck" => Standing::Stuck(format!(
            "the rollback of {name} to {to} got stuck, and a person is needed: {}",
            rollback.detail
        )),
        _ => Standing::RolledBack(format!("{name} was rolled back to {to} ({ended}): {why}")),
    }
}

fn replaced(view: &ServiceView, entry: &LedgerView) -> String {
    format!("{}, and nobody rolled it back", runs_instead(view, entry))
}

fn runs_instead(view: &ServiceView, entry: &LedgerView) -> String {
    let by = view.summary.current.as_ref().map_or_else(|| "nothing".to_owned(), release);
    format!("{} runs {by} instead of {}", view.summary.name, release(&entry.release))
}

/// Whether a release is meant: by id, reference, tag, version label, digest or the image's id.
fn is(release: &ReleaseView, wanted: &str) -> bool {
    let tag = release.reference.rsplit_once('/').map_or(release.reference.as_str(), |(_, name)| name);
    let tag = tag.rsplit_once(':').map(|(_, tag)| tag);
    let digest =
        |text: &String| text == wanted || text.rsplit_once('@').is_some_and(|(_, digest)| digest == wanted);
    release.id == wanted
        || release.reference == wanted
        || tag == Some(wanted)
        || release.version.as_deref() == Some(wanted)
        || release.image == wanted
        || release.digests.iter().any(digest)
}

fn is_silence(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_none_or(|failure| failure.code == Code::Unreachable)
}

fn is_unknown(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.message.starts_with("there is no service"))
}

fn ended(
    args: &WaitArgs,
    release: Option<String>,
    out: &Output,
    code: Option<Code>,
    verdict: &str,
    why: &str,
) -> anyhow::Result<()> {
    let json = json!({"service": args.service, "release": release, "verdict": verdict, "reason": why});
    let Some(code) = code else { return out.show(&json, |_| format!("{why}\n")) };
    if out.json {
        write_out(&format!("{}\n", serde_json::to_string_pretty(&json)?))?;
    }
    let hint = format!("backstop explain {}", args.service);
    Err(Failure::new(code, format!("{}: {why}", verdict.replace('_', " "))).hint(hint).into())
}
