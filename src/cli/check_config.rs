//! `backstop check-config`: is the configuration right, and what would be in force?

use clap::Args;
use serde_json::{Value, json};

use super::run::{SourceArgs, wrong};
use super::table::bold;
use super::{Output, write_out};
use crate::config::{Problems, Settings};
use crate::core::settings::Mode;

#[derive(Debug, Args)]
pub(super) struct CheckConfigArgs {
    #[command(flatten)]
    sources: SourceArgs,
}

pub(super) fn run(args: CheckConfigArgs, out: &Output) -> anyhow::Result<()> {
    match crate::config::load(&args.sources.sources()) {
        Ok(settings) => out.show(&right(&settings), |_| summary(&settings)),
        Err(problems) => {
            if out.json {
                write_out(&format!("{}\n", serde_json::to_string_pretty(&list(&problems))?))?;
            }
            Err(wrong(&problems).into())
        }
    }
}

fn right(settings: &Settings) -> Value {
    json!({
        "ok": true,
        "files": settings.files(),
        "services": settings.named().map(|name| name.to_string()).collect::<Vec<_>>(),
        "effective": settings.effective(),
    })
}

fn list(problems: &Problems) -> Value {
    let problems: Vec<Value> = problems
        .iter()
        .map(
            |problem| json!({"place": problem.place(), "key": problem.key(), "problem": problem.to_string()}),
        )
        .collect();
    json!({"ok": false, "problems": problems})
}

fn summary(settings: &Settings) -> String {
    let effective = settings.effective();
    let files: Vec<String> = settings.files().iter().map(|path| path.display().to_string()).collect();
    let named: Vec<String> = settings.named().map(|name| name.to_string()).collect();
    let watched = match effective["enroll"].as_str() {
        Some("all") => "every container, but Backstop's own and those labelled `backstop.enable=false`",
        _ => "containers labelled `backstop.enable=true`",
    };
    let also = if named.is_empty() { String::new() } else { format!("; and by name: {}", named.join(", ")) };
    let mode = match settings.mode {
        Mode::Act => "act: decides, announces and rolls back",
        Mode::DryRun => "dry-run: decides and announces, and never touches a service",
    };
    let token =
        if settings.api.token.is_some() { "with the token" } else { "switched off: no `api.token_file`" };
    let webhook = if settings.notify.webhook.is_some() {
        "to the webhook"
    } else {
        "nowhere but the log: no `notify.webhook`"
    };
    let mut text = String::from("The configuration is right.\n\n");
    for (name, value) in [
        ("files", if files.is_empty() { "none; the shipped defaults".to_owned() } else { files.join(", ") }),
        ("watches", format!("{watched}{also}")),
        ("mode", mode.to_owned()),
        ("environment", settings.fleet.environment.clone()),
        ("engine", settings.engine.host.clone()),
        ("state", settings.state_dir.display().to_string()),
        ("listens", settings.api.listen.to_string()),
        ("operators", token.to_owned()),
        ("announces", webhook.to_owned()),
    ] {
        text.push_str(&format!("{name:<12}{value}\n"));
    }
    text.push_str(&format!("\n{}\n", bold("SETTINGS IN FORCE")));
    flatten("", &effective, &mut text);
    text
}

/// One `key = value` a line, as `--set` takes them.
fn flatten(path: &str, value: &Value, text: &mut String) {
    match value {
        Value::Object(table) if !table.is_empty() => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, text);
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            text.push_str(&format!("{path} = {value}\n"));
        }
    }
}
