//! `backstop notify test`: does what is configured reach people, and could a ticket be opened? Needs no daemon that runs.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Output;
use super::failure::{Code, Failure};
use super::run::{SourceArgs, read};
use super::table::bold;
use crate::clock::Clock;
use crate::core::Timestamp;
use crate::core::announcement::AnnouncementKind;
use crate::notify::plan::{Channel, Plan};
use crate::notify::{TRACKER, Tracker, Tried, show, show_tracker, try_channel, try_tracker};

#[derive(Debug, Args)]
pub(super) struct NotifyArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Send a message that says that it is a test, to one channel or to all, by the daemon's configuration; and ask where
    /// tickets are opened whether they could be
    Test(TestArgs),
}

#[derive(Debug, Args)]
struct TestArgs {
    /// The channel, or `report.github` for where tickets are opened [default: all of them]
    channel: Option<String>,
    /// Show what would be sent, without what is secret, and send nothing
    #[arg(long)]
    show: bool,
    /// Show what announcements of this kind look like, `rollback_in_progress` or `all`; may be repeated
    #[arg(long = "kind", value_name = "KIND", requires = "show")]
    kinds: Vec<String>,
    #[command(flatten)]
    sources: SourceArgs,
}

pub(super) async fn run(args: NotifyArgs, out: &Output) -> anyhow::Result<()> {
    let What::Test(args) = args.what;
    let kinds = kinds(&args.kinds)?;
    let settings = read(&args.sources.sources())?;
    let tracker = settings.report.github.as_ref();
    let all = chosen(&settings.notify.plan, tracker, args.channel.as_deref())?;
    let environment = settings.fleet.environment.as_str();
    let now = Clock::start();
    if args.show {
        return shown(&all, environment, &kinds, now.now(), out);
    }
    let mut tried = Vec::new();
    for place in all {
        let result = match place {
            Place::Channel(channel) => try_channel(channel, environment, now.now()).await,
            Place::Tracker(tracker) => try_tracker(tracker, now.now()).await,
        };
        tried.push((place, result));
    }
    told(&tried, out)
}

/// What is tried.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Channel(&'a Channel),
    /// Where tickets are opened.
    Tracker(&'a Tracker),
}

impl<'a> Place<'a> {
    fn name(self) -> &'a str {
        match self {
            Self::Channel(channel) => &channel.name,
            Self::Tracker(_) => TRACKER,
        }
    }

    const fn medium(self) -> &'static str {
        match self {
            Self::Channel(channel) => channel.medium.name(),
            Self::Tracker(_) => "github",
        }
    }
}

fn kinds(given: &[String]) -> anyhow::Result<Vec<AnnouncementKind>> {
    if given.iter().any(|name| name == "all") {
        return Ok(AnnouncementKind::ALL.to_vec());
    }
    let of = |name: &String| {
        AnnouncementKind::ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| {
            let names: Vec<&str> = AnnouncementKind::ALL.iter().map(|kind| kind.name()).collect();
            let hint = format!("one of these, or `all`: {}", names.join(", "));
            Failure::new(Code::Usage, format!("there is no kind of announcement `{name}`")).hint(hint).into()
        })
    };
    given.iter().map(of).collect()
}

fn chosen<'a>(
    plan: &'a Plan,
    tracker: Option<&'a Tracker>,
    name: Option<&str>,
) -> anyhow::Result<Vec<Place<'a>>> {
    let all: Vec<Place<'a>> =
        plan.channels.iter().map(Place::Channel).chain(tracker.map(Place::Tracker)).collect();
    if all.is_empty() {
        let what = "no channel is configured, so announcements go nowhere but to the log";
        return Err(Failure::new(Code::Failure, what).hint("set one up in [notify.channels]").into());
    }
    let Some(name) = name else { return Ok(all) };
    let found = all.iter().find(|place| place.name() == name).map(|place| vec![*place]);
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|place| place.name()).collect();
        let hint = format!("there are: {}", names.join(", "));
        Failure::new(Code::Failure, format!("no channel is called `{name}`")).hint(hint).into()
    })
}

fn shown(
    places: &[Place<'_>],
    environment: &str,
    kinds: &[AnnouncementKind],
    now: Timestamp,
    out: &Output,
) -> anyhow::Result<()> {
    let of = |place: &Place<'_>| match place {
        Place::Channel(channel) => show(channel, environment, now, kinds),
        // Tickets are no announcements.
        Place::Tracker(_) if !kinds.is_empty() => Vec::new(),
        Place::Tracker(tracker) => vec![show_tracker(tracker, environment)],
    };
    let all: Vec<_> = places.iter().map(|place| (place, of(place))).collect();
    let value: Vec<Value> = all
        .iter()
        .flat_map(|(place, shown)| {
            shown.iter().map(|one| {
                json!({"channel": place.name(), "type": place.medium(), "kind": one.kind, "message": one.message})
            })
        })
        .collect();
    out.show(&value.into(), |_| {
        let mut text = String::new();
        for (place, shown) in &all {
            for one in shown {
                let head = format!("{} ({}): {}", place.name(), place.medium(), one.kind);
                text.push_str(&format!("{}\n{}\n\n", bold(&head), one.message));
            }
        }
        text
    })
}

fn told(tried: &[(Place<'_>, Tried)], out: &Output) -> anyhow::Result<()> {
    let line = |(place, tried): &(Place<'_>, Tried)| {
        let (ok, why) = match tried {
            Tried::Delivered => (true, ""),
            Tried::Failed(why) => (false, why.as_str()),
        };
        json!({"channel": place.name(), "type": place.medium(), "delivered": ok, "error": why})
    };
    let value: Vec<Value> = tried.iter().map(line).collect();
    out.show(&value.into(), |_| {
        let mut text = String::new();
        for (place, tried) in tried {
            let what = match (place, tried) {
                (Place::Channel(_), Tried::Delivered) => "delivered".to_owned(),
                (Place::Channel(_), Tried::Failed(why)) => format!("not delivered: {why}"),
                (Place::Tracker(tracker), Tried::Delivered) => {
                    format!("{} answers and takes issues; none was opened", tracker.repository)
                }
                (Place::Tracker(tracker), Tried::Failed(why)) => {
                    format!("no ticket could be opened in {}: {why}", tracker.repository)
                }
            };
            text.push_str(&format!("{} ({}): {what}\n", place.name(), place.medium()));
        }
        text
    })?;
    let failed = tried.iter().filter(|(_, tried)| *tried != Tried::Delivered).count();
    if failed == 0 {
        return Ok(());
    }
    let what = format!("{failed} of {} channels did not take the test", tried.len());
    let section = if tried
        .iter()
        .any(|(place, tried)| *tried != Tried::Delivered && matches!(place, Place::Channel(_)))
    {
        "[notify.channels]"
    } else {
        "[report.github]"
    };
    Err(Failure::new(Code::Failure, what).hint(format!("correct {section}, then try again")).into())
}
