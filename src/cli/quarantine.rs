//! `backstop quarantine`: what was rolled back, and letting it go.

use clap::{Args, Subcommand};

use super::client::{Answer, Client};
use super::table::{Screen, release};
use super::{Output, whoami};
use crate::api::views::{AnswerView, QuarantineView, QuarantinedView, ReleaseQuarantineBody};

#[derive(Debug, Args)]
pub(super) struct QuarantineArgs {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List what is in quarantine (the default)
    List,
    /// Let a release be judged like any other when it is deployed again
    Release {
        /// The service
        service: String,
        /// The release: its id or its reference
        release: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
}

pub(super) async fn run(args: QuarantineArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    match args.what.unwrap_or(What::List) {
        What::List => {
            let answer: Answer<QuarantineView> = client.get(&["api", "v1", "quarantine"], &[]).await?;
            out.show(&answer.json, |screen| render(&answer.view, screen))
        }
        What::Release { service, release, why } => {
            let body = ReleaseQuarantineBody { release, why, by: Some(whoami()) };
            let path = ["api", "v1", "services", &service, "unquarantine"];
            let answer = client.post::<AnswerView>(&path, &body).await?;
            out.show(&answer.json, |_| format!("{}\n", answer.view.answer))
        }
    }
}

fn render(view: &QuarantineView, screen: &Screen) -> String {
    if view.releases.is_empty() {
        return "Nothing is in quarantine: no release that is remembered was rolled back.\n".to_owned();
    }
    let row = |entry: &QuarantinedView| {
        let runs = if entry.current { "yes" } else { "" };
        let since = screen.moment(entry.since);
        let cells = [entry.service.clone(), release(&entry.release), since, runs.to_owned()];
        (cells, entry.why.clone())
    };
    let rows = view.releases.iter().map(row).collect();
    let shown = screen.noted(["SERVICE", "RELEASE", "SINCE", "RUNS"], rows);
    format!("{shown}\nTo let one go: backstop quarantine release SERVICE RELEASE\n")
}
