//! Hooks and migrations as typed to those that hold.

use std::time::Duration;

use super::checks::{kept, request, several, used};
use super::file::{DONE, Migrations, RunOnce, Service, Step, Work};
use super::problem::Wrong;
use super::requests::CommandLine;
use super::resolve::Resolving;
use super::values::{Parse, quoted};
use crate::core::settings::{
    self as core, HOOK_VALUES, HookKind, HookPhase, OnFailure, RunImage, SchemaQuery, Text,
};

/// Whoever reads it has a whole rollback to wait for; a downgrade that takes longer is one that a person should watch.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Backups of what fits on one host.
const BACKUP: Duration = Duration::from_secs(30 * 60);
/// Often enough that it is known what a deployment did before anybody judges it.
const INTERVAL: Duration = Duration::from_secs(30);
/// More hooks than this are a workflow.
const HOOKS_MAX: usize = 16;

super::values::text_settings! {
    [] Sql;
    [] ImageWord;
}

/// A query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sql(pub(super) String);

impl Parse for Sql {
    const RIGHT: &'static str =
        "one query would be right, as in \"SELECT max(version) FROM schema_migrations\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let text = text.trim().trim_end_matches(';');
        if (1..=4096).contains(&text.len()) && !text.contains('\0') {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(format!("has {} bytes", text.len()), Self::RIGHT))
    }
}

/// The image of a one-off container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageWord(pub(super) RunImage);

impl Parse for ImageWord {
    const RIGHT: &'static str = "\"bad\" (of the release that is rolled back), \"good\" (of the target) or an image would be right, as in \"postgres:16\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "bad" => Ok(Self(RunImage::Bad)),
            "good" => Ok(Self(RunImage::Good)),
            _ if (1..=512).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic()) => {
                Ok(Self(RunImage::Other(text.to_owned())))
            }
            _ => Err(Wrong::new(format!("{} is no image", quoted(text)), Self::RIGHT)),
        }
    }
}

/// What a hook or a step of a downgrade was typed as.
struct Typed<'a> {
    command: Option<&'a CommandLine>,
    run: Option<&'a RunOnce>,
    http: Option<&'a Step>,
    steps: Option<&'a Vec<Step>>,
    sql_file: Option<&'a str>,
}

/// The hooks of a service, by name.
pub(super) fn hooks(
    typed: &Service,
    layers: &[&Service],
    base: &[core::Hook],
    resolving: &mut Resolving<'_>,
) -> Vec<core::Hook> {
    let mut found: Vec<core::Hook> = base.to_vec();
    for (name, hook) in typed.hooks.iter().flatten() {
        let at = format!("hooks.{name}");
        for layer in layers.iter().filter_map(|layer| layer.hooks.as_ref()?.get(name)) {
            one_way(&at, |key| layer.has(key), "command, run, http or steps", resolving);
        }
        found.retain(|known| known.name != *name);
        if hook.enabled == Some(false) {
            continue;
        }
        let given = Typed {
            command: hook.command.as_ref(),
            run: hook.run.as_ref(),
            http: hook.http.as_ref(),
            steps: hook.steps.as_ref(),
            sql_file: None,
        };
        let kind = kind(&at, &given, None, resolving);
        let Some(phase) = hook.phase else {
            resolving.clash(
                &[&at, &format!("{at}.phase")],
                "does not say when it is its turn",
                "phase = \"before_rollback\", \"after_stop\", \"before_verify\", \"after_rollback\", \"on_failure\" or \"mitigation\" would be right",
            );
            continue;
        };
        found.extend(kind.map(|kind| core::Hook {
            name: name.clone(),
            phase,
            kind,
            timeout: hook.timeout.map_or(TIMEOUT, |span| span.0),
            on_failure: hook.on_failure.unwrap_or(OnFailure::Stop),
            repeatable: hook.repeatable.unwrap_or(false),
        }));
    }
    if found.len() > HOOKS_MAX {
        let right = format!("at most {HOOKS_MAX} would be right");
        resolving.clash(&["hooks"], format!("there are {} of them", found.len()), right);
    }
    found.sort_by(|a, b| a.phase.cmp(&b.phase).then_with(|| a.name.cmp(&b.name)));
    found
}

/// What is known of a service's migrations.
pub(super) fn migrations(
    typed: &Service,
    layers: &[&Service],
    base: &core::Migrations,
    resolving: &mut Resolving<'_>,
) -> core::Migrations {
    let Some(given) = &typed.migrations else { return base.clone() };
    let context = resolving.context;
    let database = given
        .url_file
        .as_ref()
        .and_then(|file| kept("migrations.url_file", file, context, resolving))
        .map(Text::File);
    let query = match (&given.query, &database) {
        (Some(query), Some(database)) => Some(SchemaQuery {
            database: database.clone(),
            query: query.0.trim().trim_end_matches(';').to_owned(),
            interval: given.interval.map_or(INTERVAL, |span| span.0),
        }),
        // In [defaults] alone that is a half for others to complete.
        (Some(_), None) if layers.len() > 1 && given.url_file.is_none() => {
            resolving.clash(
                &["migrations.query"],
                "there is no database to ask",
                "set migrations.url_file too: the file with the database's URL",
            );
            None
        }
        (Some(_) | None, _) => None,
    };
    let of_layers = |of: fn(&Migrations) -> Option<&Work>, at: &str, resolving: &mut Resolving<'_>| {
        for layer in layers.iter().filter_map(|layer| of(layer.migrations.as_ref()?)) {
            one_way(at, |key| layer.has(key), "command, run, http, steps or sql_file", resolving);
        }
    };
    of_layers(|m| m.backup.as_ref(), "migrations.backup", resolving);
    of_layers(|m| m.downgrade.as_ref(), "migrations.downgrade", resolving);
    let backup = work(given.backup.as_ref(), HookPhase::Backup, database.as_ref(), resolving);
    let downgrade = work(given.downgrade.as_ref(), HookPhase::Downgrade, database.as_ref(), resolving);
    core::Migrations {
        query: query.or_else(|| base.query.clone()),
        changed: given.changed.or(base.changed),
        manual: given.manual.as_ref().map(|text| text.0.clone()).or_else(|| base.manual.clone()),
        backup: backup.or_else(|| base.backup.clone()),
        downgrade: downgrade.or_else(|| base.downgrade.clone()),
    }
}

fn work(
    typed: Option<&Work>,
    phase: HookPhase,
    database: Option<&Text>,
    resolving: &mut Resolving<'_>,
) -> Option<core::Hook> {
    let typed = typed.filter(|typed| typed.enabled != Some(false))?;
    let given = Typed {
        command: typed.command.as_ref(),
        run: typed.run.as_ref(),
        http: typed.http.as_ref(),
        steps: typed.steps.as_ref(),
        sql_file: typed.sql_file.as_ref().map(|file| file.0.as_str()),
    };
    let usual = if phase == HookPhase::Backup { BACKUP } else { TIMEOUT };
    let kind = kind(&format!("migrations.{}", phase.name()), &given, database, resolving)?;
    Some(core::Hook {
        name: phase.name().to_owned(),
        phase,
        kind,
        timeout: typed.timeout.map_or(usual, |span| span.0),
        on_failure: OnFailure::Stop,
        repeatable: typed.repeatable.unwrap_or(false),
    })
}

/// Two things to do in one layer.
fn one_way(at: &str, has: impl Fn(&str) -> bool, right: &str, resolving: &mut Resolving<'_>) {
    let mut chosen = DONE.iter().flat_map(|way| way.leads).filter(|key| has(key));
    if let (Some(first), Some(second)) = (chosen.next(), chosen.next()) {
        let (first, second) = (format!("{at}.{first}"), format!("{at}.{second}"));
        resolving.clash(
            &[&first, &second],
            format!("{second} is set too"),
            format!("one of these would be right: {right}; two things are two hooks"),
        );
    }
}

fn kind(
    at: &str,
    typed: &Typed<'_>,
    database: Option<&Text>,
    resolving: &mut Resolving<'_>,
) -> Option<HookKind> {
    let names = |key: &str, words: &[String], resolving: &mut Resolving<'_>| {
        for word in words {
            known(&format!("{at}.{key}"), word, resolving);
        }
    };
    if let Some(command) = typed.command {
        names("command", &command.0, resolving);
        return Some(HookKind::Command(command.0.clone()));
    }
    if let Some(run) = typed.run {
        let (Some(image), Some(command)) = (&run.image, &run.command) else {
            let right =
                "run = { image = \"bad\", command = [\"alembic\", \"downgrade\", \"-1\"] } would be right";
            resolving.clash(&[&format!("{at}.run")], "lacks its image or its command", right);
            return None;
        };
        names("run", &command.0, resolving);
        return Some(HookKind::Run { image: image.0.clone(), command: command.0.clone() });
    }
    if let Some(http) = typed.http {
        return one_request(&format!("{at}.http"), http, resolving).map(|step| HookKind::Http(vec![step]));
    }
    if let Some(steps) = typed.steps {
        if steps.iter().any(|step| step.url.is_none()) {
            return no_replica(&format!("{at}.steps"), resolving);
        }
        return several(at, steps, &HOOK_VALUES, resolving).map(HookKind::Http);
    }
    if let Some(file) = typed.sql_file {
        names("sql_file", &[file.to_owned()], resolving);
        let Some(database) = database else {
            resolving.clash(
                &[&format!("{at}.sql_file")],
                "there is no database to run it in",
                "set migrations.url_file too: the file with the database's URL",
            );
            return None;
        };
        return Some(HookKind::Sql { file: file.to_owned(), database: database.clone() });
    }
    // One of them may be there, and wrong by itself.
    let keys = ["", ".command", ".run", ".http", ".steps", ".sql_file"].map(|key| format!("{at}{key}"));
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    resolving.clash(&keys, "does not say what to do", "command, run, http or steps would be right");
    None
}

fn one_request(at: &str, http: &Step, resolving: &mut Resolving<'_>) -> Option<core::HttpStep> {
    if http.url.is_none() {
        return no_replica(at, resolving);
    }
    for name in used(http).into_iter().filter(|name| !HOOK_VALUES.contains(&name.as_str())) {
        unknown(at, &name, resolving);
    }
    let context = resolving.context;
    request(at, http, context, resolving)
}

/// Requests of hooks are not made of replicas, of which there may be none just then.
fn no_replica<T>(at: &str, resolving: &mut Resolving<'_>) -> Option<T> {
    resolving.clash(
        &[at],
        "does not say where it goes",
        "a url would be right: hooks are not made of replicas",
    );
    None
}

/// Values that nobody has are written wrongly.
fn known(at: &str, text: &str, resolving: &mut Resolving<'_>) {
    let places = text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    for (name, _) in places.filter(|(name, _)| is_name(name)) {
        if !HOOK_VALUES.contains(&name) {
            unknown(at, name, resolving);
        }
    }
}

fn unknown(at: &str, name: &str, resolving: &mut Resolving<'_>) {
    let all = HOOK_VALUES.map(|name| format!("{{{{{name}}}}}"));
    resolving.clash(
        &[at],
        format!("uses {{{{{name}}}}}, which stands for nothing"),
        format!("one of these would be right: {}", all.join(", ")),
    );
}
