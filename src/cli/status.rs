//! `backstop status`: the fleet on one screen, ending with what needs a person first.

use super::Output;
use super::client::Client;
use super::drill::ready_to;
use super::table::{Screen, bold, release, span};
use crate::api::views::{AttentionView, EngineView, ReleaseView, StatusView};

pub(super) async fn run(client: &Client, out: &Output) -> anyhow::Result<()> {
    let answer = client.get::<StatusView>(&["api", "v1", "status"], &[]).await?;
    out.show(&answer.json, |screen| render(&answer.view, screen))
}

fn render(status: &StatusView, screen: &Screen) -> String {
    let mut text = head(status, screen);
    text.push('\n');
    if status.services.is_empty() {
        text.push_str("No service is watched yet.\n");
    } else {
        text.push_str(&services(status, screen));
        text.push_str(&sentences(status, screen));
    }
    text.push('\n');
    if status.attention.is_empty() && !status.ready {
        text.push_str("Whether anything needs a person is not known: Backstop is not ready, see above.\n");
    } else {
        text.push_str(&needs(&status.attention, screen));
    }
    text
}

fn words(engine: &EngineView) -> String {
    match (engine.reachable, &engine.error) {
        (Some(true), _) => "answers".to_owned(),
        (Some(false), Some(why)) => why.clone(),
        (Some(false), None) => "does not answer".to_owned(),
        (None, _) => "not heard of yet".to_owned(),
    }
}

fn head(status: &StatusView, screen: &Screen) -> String {
    let engine = words(&status.engine);
    let ready = match (status.ready, status.engine.error.is_some() || status.store.error.is_some()) {
        (true, _) => "yes".to_owned(),
        // The lines below say why.
        (false, true) => "no".to_owned(),
        (false, false) => format!("no: {}", status.not_ready.join("; ")),
    };
    let store = status
        .store
        .error
        .as_ref()
        .map_or_else(|| "takes writes".to_owned(), |why| format!("takes no writes: {why}"));
    let config = match (status.config.last_reload_ok, &status.config.error) {
        (true, _) => format!("loaded {}", screen.moment(status.config.loaded_at)),
        (false, why) => format!(
            "that of {} is in force; the newer one is wrong: {}",
            screen.moment(status.config.loaded_at),
            why.as_deref().unwrap_or("no reason was given")
        ),
    };
    let mut text = format!("{}\n", bold(&format!("Backstop {}, {}", status.version, status.environment)));
    let mut line =
        |name: &str, value: &str| text.push_str(&screen.wrapped(value, &format!("{name:<9}"), "         "));
    line("ready", &ready);
    line("engine", &engine);
    for (name, view) in &status.engines {
        line("", &format!("{name}: {}", words(view)));
    }
    line("store", &store);
    line("config", &config);
    if let Some(pause) = &status.fleet.paused {
        let until = pause
            .until
            .map_or_else(|| "until resumed".to_owned(), |until| format!("until {}", screen.moment(until)));
        let why = if pause.why.is_empty() { String::new() } else { format!(": {}", pause.why) };
        line("paused", &format!("the whole fleet, {until}, by {}{why}", pause.by));
    }
    if let Some(why) = &status.fleet.stuck {
        line("breaker", why);
    }
    text
}

fn services(status: &StatusView, screen: &Screen) -> String {
    let rows = status
        .services
        .iter()
        .map(|service| {
            let name = if service.mode == "act" {
                service.name.clone()
            } else {
                format!("{} ({})", service.name, service.mode)
            };
            // Identities only where the references do not tell the two apart; `explain` has them all.
            let (current, target) = (service.current.as_ref(), service.target.as_ref());
            let alike = current.zip(target).is_some_and(|(a, b)| a.reference == b.reference);
            let short = |found: Option<&ReleaseView>, otherwise: &str| match found {
                Some(found) if alike => release(found),
                Some(found) => found.reference.clone(),
                None => otherwise.to_owned(),
            };
            [
                name,
                screen.mark(&service.state),
                span(service.for_seconds.trunc()),
                short(current, "nothing"),
                short(target, "none"),
                service.drill.as_ref().map_or_else(|| "never".to_owned(), |drill| ready_to(drill.score)),
            ]
        })
        .collect();
    screen.table(["SERVICE", "STATE", "FOR", "RUNS", "WOULD GO BACK TO", "DRILL"], &[3, 4], rows)
}

/// What goes on, for the services where something does.
fn sentences(status: &StatusView, screen: &Screen) -> String {
    let mut text = String::new();
    for service in
        status.services.iter().filter(|s| s.state != "steady" || s.sentence.starts_with("nothing runs"))
    {
        if text.is_empty() {
            text.push('\n');
        }
        text.push_str(&screen.wrapped(&service.sentence, &format!("{}: ", service.name), "  "));
    }
    text
}

fn needs(attention: &[AttentionView], screen: &Screen) -> String {
    if attention.is_empty() {
        return "Nothing needs a person.\n".to_owned();
    }
    let mut text = format!("{}\n", bold("NEEDS A PERSON, the most urgent first"));
    for (index, item) in attention.iter().enumerate() {
        let number = format!("{:>2}. ", index + 1);
        let about = item.service.as_ref().map_or_else(String::new, |service| format!("{service}: "));
        text.push_str(&screen.wrapped(&format!("{about}{}", item.what), &number, "    "));
        if let Some(next) = &item.next {
            // A command is never wrapped: it is there to be copied.
            text.push_str(&format!("    next: {next}\n"));
        }
    }
    text
}
