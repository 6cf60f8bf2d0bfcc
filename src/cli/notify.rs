//! `backstop notify test`: does what is configured reach people? Needs no daemon that runs.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Output;
use super::failure::{Code, Failure};
use super::run::{SourceArgs, read};
use super::table::bold;
use crate::clock::Clock;
use crate::core::announcement::AnnouncementKind;
use crate::notify::plan::{Channel, Plan};
use crate::notify::{Tried, show, try_channel};

#[derive(Debug, Args)]
pub(super) struct NotifyArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Send a message that says that it is a test, to one channel or to all, by the daemon's configuration
    Test(TestArgs),
}

#[derive(Debug, Args)]
struct TestArgs {
    /// The channel [default: all of them]
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
    let plan = &settings.notify.plan;
    let chosen = chosen(plan, args.channel.as_deref())?;
    let environment = settings.fleet.environment.as_str();
    if args.show {
        return shown(&chosen, environment, &kinds, out);
    }
    let clock = Clock::start();
    let mut tried = Vec::new();
    for channel in chosen {
        let result = try_channel(channel, environment, clock.now()).await;
        tried.push((channel, result));
    }
    told(&tried, out)
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

fn chosen<'a>(plan: &'a Plan, name: Option<&str>) -> anyhow::Result<Vec<&'a Channel>> {
    if plan.channels.is_empty() {
        let what = "no channel is configured, so announcements go nowhere but to the log";
        return Err(Failure::new(Code::Failure, what).hint("set one up in [notify.channels]").into());
    }
    let Some(name) = name else { return Ok(plan.channels.iter().collect()) };
    let found = plan.channel(name).map(|channel| vec![channel]);
    found.ok_or_else(|| {
        let names: Vec<&str> = plan.channels.iter().map(|channel| channel.name.as_str()).collect();
        let hint = format!("there are: {}", names.join(", "));
        Failure::new(Code::Failure, format!("no channel is called `{name}`")).hint(hint).into()
    })
}

fn shown(
    channels: &[&Channel],
    environment: &str,
    kinds: &[AnnouncementKind],
    out: &Output,
) -> anyhow::Result<()> {
    let now = Clock::start().now();
    let all: Vec<_> =
        channels.iter().map(|channel| (*channel, show(channel, environment, now, kinds))).collect();
    let value: Vec<Value> = all
        .iter()
        .flat_map(|(channel, shown)| {
            shown.iter().map(|one| {
                json!({"channel": channel.name, "type": channel.medium.name(), "kind": one.kind, "message": one.message})
            })
        })
        .collect();
    out.show(&value.into(), |_| {
        let mut text = String::new();
        for (channel, shown) in &all {
            for one in shown {
                let head = format!("{} ({}): {}", channel.name, channel.medium.name(), one.kind);
                text.push_str(&format!("{}\n{}\n\n", bold(&head), one.message));
            }
        }
        text
    })
}

fn told(tried: &[(&Channel, Tried)], out: &Output) -> anyhow::Result<()> {
    let line = |(channel, tried): &(&Channel, Tried)| {
        let (ok, why) = match tried {
            Tried::Delivered => (true, ""),
            Tried::Failed(why) => (false, why.as_str()),
        };
        json!({"channel": channel.name, "type": channel.medium.name(), "delivered": ok, "error": why})
    };
    let value: Vec<Value> = tried.iter().map(line).collect();
    out.show(&value.into(), |_| {
        let mut text = String::new();
        for (channel, tried) in tried {
            let what = match tried {
                Tried::Delivered => "delivered".to_owned(),
                Tried::Failed(why) => format!("not delivered: {why}"),
            };
            text.push_str(&format!("{} ({}): {what}\n", channel.name, channel.medium.name()));
        }
        text
    })?;
    let failed = tried.iter().filter(|(_, tried)| *tried != Tried::Delivered).count();
    if failed == 0 {
        return Ok(());
    }
    let what = format!("{failed} of {} channels did not take the test", tried.len());
    Err(Failure::new(Code::Failure, what).hint("correct [notify.channels], then try again").into())
}
