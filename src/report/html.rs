//! A report as one HTML file: no script, nothing from outside, and a policy that would not let anything in.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::plot::Mark;
use super::{Incident, moment};
use crate::core::Timestamp;

const PAGE: &str = include_str!("incident.html");
const STYLE: &str = include_str!("incident.css");

/// What the page may do: have this one style, and nothing else.
pub static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
});

/// What the page's template knows.
#[derive(Serialize)]
struct View<'a> {
    i: &'a Incident,
    css: &'a str,
    policy: &'a str,
    mood: &'a str,
    version: &'a str,
    decided: String,
    marks: Vec<(usize, &'a str, String)>,
    plots: Vec<Drawn<'a>>,
    timeline: Vec<Event<'a>>,
    told: Vec<Told<'a>>,
    checklist: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Drawn<'a> {
    title: &'a str,
    svg: String,
    said: String,
}

#[derive(Serialize)]
struct Event<'a> {
    at: String,
    after: &'a str,
    what: &'a str,
    turning_point: bool,
}

#[derive(Serialize)]
struct Told<'a> {
    title: &'a str,
    at: String,
    delivered: String,
}

#[derive(Serialize)]
struct Item<'a> {
    /// Its name, if people tick it.
    id: Option<&'a str>,
    what: &'a str,
    done: bool,
    proof: &'a str,
    owner: Option<&'a str>,
    due: Option<String>,
}

/// Writes it.
///
/// # Errors
/// If the page's own template has a mistake; a test shows that it has none.
pub fn write(incident: &Incident) -> Result<String, String> {
    let mut pages = Environment::new();
    pages.set_auto_escape_callback(|_| AutoEscape::Html);
    pages.add_template("incident.html", PAGE).map_err(|e| e.to_string())?;
    let page = pages.get_template("incident.html").map_err(|e| e.to_string())?;
    page.render(Serde(view(incident))).map_err(|e| e.to_string())
}

fn view(i: &Incident) -> View<'_> {
    View {
        i,
        css: STYLE,
        policy: &POLICY,
        mood: match i.outcome.as_str() {
            "verified" => "good",
            "stuck" | "not_verified" => "bad",
            _ => "",
        },
        version: env!("CARGO_PKG_VERSION"),
        decided: moment(i.decided),
        marks: i.marks.iter().map(|(n, what, at)| (*n, what.as_str(), time_of_day(*at))).collect(),
        plots: drawn(i),
        timeline: i
            .timeline
            .iter()
            .map(|event| Event {
                at: moment(event.at),
                after: &event.after,
                what: &event.what,
                turning_point: event.turning_point,
            })
            .collect(),
        told: i.told.iter().map(told).collect(),
        checklist: i.checklist.iter().map(item).collect(),
    }
}

fn told(told: &super::Told) -> Told<'_> {
    Told { title: &told.title, at: moment(told.at), delivered: told.reached() }
}

fn item(item: &super::checklist::Item) -> Item<'_> {
    let due = |until| match item.from {
        Some(from) => format!("between {} and {}", moment(from), moment(until)),
        None => format!("by {}", moment(until)),
    };
    Item {
        id: item.is_for_people().then(|| item.id.name()),
        what: &item.what,
        done: item.done,
        proof: &item.proof,
        owner: item.owner.as_deref(),
        due: item.until.map(due),
    }
}

/// The time without the day.
fn time_of_day(at: Timestamp) -> String {
    let whole = moment(at);
    whole.split_once(' ').map_or_else(|| whole.clone(), |(_, time)| time.trim_end_matches(" UTC").to_owned())
}

fn drawn(incident: &Incident) -> Vec<Drawn<'_>> {
    let Some(frame) = incident.frame else { return Vec::new() };
    let marks: Vec<Mark> = incident
        .marks
        .iter()
        .map(|(number, what, at)| Mark { at: super::secs(*at), number: *number, what: what.clone() })
        .collect();
    let drawn = incident.plots.iter().enumerate().map(|(id, plot)| Drawn {
        title: &plot.title,
        svg: plot.svg(id, &frame, &marks),
        said: {
            let said = plot.describe(frame.deployed, frame.back);
            let mut said = said.split_once(": ").map_or_else(String::new, |(_, said)| said.to_owned());
            if let Some(first) = said.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            said
        },
    });
    drawn.collect()
}
