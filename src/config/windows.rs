//! Windows: `[windows.NAME]`, times in which Backstop leaves services alone or asks before it acts.
//!
//! A window is a stretch of the calendar (`from` and `to` with dates), or comes back on days of the week (`from` and `to`
//! with times of day). It is written in local time, because that is how people agree on one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Zoned};
use serde::Deserialize;

use super::file::{self, Service, short_name};
use super::locate::Places;
use super::problem::{Problem, Wrong};
use super::schema::{Findings, Named, Setting, Shape};
use super::tree::{Node, Value, dotted};
use super::values::{Parse, listed, quoted, text_settings};
use crate::core::Timestamp;
use crate::core::release::ServiceName;
use crate::core::settings::{OpenWindow, WindowKind};

/// A window as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    name: String,
    kind: WindowKind,
    services: Vec<ServiceName>,
    when: When,
    zone: TimeZone,
    why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum When {
    Once { from: DateTime, to: DateTime },
    Weekly { days: BTreeSet<i8>, from: Time, to: Time },
}

impl Window {
    /// The window if it is open at `now`.
    pub fn open(&self, now: Timestamp) -> Option<OpenWindow> {
        let at =
            i64::try_from(now.as_millis()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())?;
        let here = at.to_zoned(self.zone.clone());
        let until = self.spans(&here).find(|(from, to)| *from <= here && here < *to).map(|(_, to)| to)?;
        let until = u64::try_from(until.timestamp().as_millisecond()).ok()?;
        Some(OpenWindow {
            name: self.name.clone(),
            kind: self.kind,
            services: self.services.clone(),
            until: Timestamp::from_millis(until),
            why: self.why.clone(),
        })
    }

    /// The stretches that could be open: those that began today or yesterday. A time that a clock change skips is the
    /// next one that exists.
    fn spans(&self, here: &Zoned) -> impl Iterator<Item = (Zoned, Zoned)> {
        let at = |when: DateTime| when.to_zoned(self.zone.clone()).ok();
        let stretches: Vec<(DateTime, DateTime)> = match &self.when {
            When::Once { from, to } => vec![(*from, *to)],
            When::Weekly { days, from, to } => {
                let today = here.date();
                let began = |date: Date| {
                    let ends = if to > from { date } else { date.saturating_add(Span::new().days(1)) };
                    (date.to_datetime(*from), ends.to_datetime(*to))
                };
                [today, today.saturating_sub(Span::new().days(1))]
                    .into_iter()
                    .filter(|date| days.contains(&date.weekday().to_monday_zero_offset()))
                    .map(began)
                    .collect()
            }
        };
        stretches
            .into_iter()
            .filter_map(move |(from, to)| Some((at(from)?, at(to)?)))
            .collect::<Vec<_>>()
            .into_iter()
    }
}

/// A time of day, or one with its date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Day(Time),
    Dated(DateTime),
}

impl Parse for Moment {
    const RIGHT: &'static str = "a time of day in quotes would be right, as in \"22:00\", or one with its date, as in \"2026-12-24 18:00\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let text = text.trim();
        if let Ok(time) = Time::strptime("%H:%M", text) {
            return Ok(Self::Day(time));
        }
        match DateTime::strptime("%Y-%m-%d %H:%M", text) {
            Ok(when) => Ok(Self::Dated(when)),
            Err(_) => Err(Wrong::new(format!("{} is not a time", quoted(text)), Self::RIGHT)),
        }
    }
}

/// The name of a time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Zone(TimeZone);

impl Parse for Zone {
    const RIGHT: &'static str =
        "a name of the time zone database would be right, as in \"Europe/Berlin\" or \"UTC\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        TimeZone::get(text)
            .map(Self)
            .map_err(|_| Wrong::new(format!("this machine knows no time zone {}", quoted(text)), Self::RIGHT))
    }
}

text_settings! {
    [] Moment;
    [] Zone;
}

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// Days of the week.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Days(Vec<String>);

impl Setting for Days {
    const SHAPE: &'static Shape = &Shape::Leaf { read: read_days, secret: false };
}

fn read_days(node: &Node) -> Result<Value, Wrong> {
    const RIGHT: &str = "days would be right, as in [\"fri\", \"sat\"]";
    let days = listed(node, RIGHT)?;
    let known = |day: &&String| !DAYS.iter().any(|(name, _)| name == day);
    if let Some(unknown) = days.iter().find(known) {
        return Err(Wrong::new(format!("{} is no day of the week", quoted(unknown)), RIGHT));
    }
    texts(node, days, RIGHT)
}

/// Names of services.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct ServiceNames(Vec<String>);

impl Setting for ServiceNames {
    const SHAPE: &'static Shape = &Shape::Leaf { read: read_services, secret: false };
}

fn read_services(node: &Node) -> Result<Value, Wrong> {
    const RIGHT: &str =
        "names of services would be right, as in [\"api\", \"jobs\"]; without the key, it is for all";
    let names = listed(node, RIGHT)?;
    if let Some(bad) = names.iter().find(|name| Service::check(name).is_err()) {
        return Err(Wrong::new(format!("{} cannot be the name of a service", quoted(bad)), RIGHT));
    }
    texts(node, names, RIGHT)
}

fn texts(node: &Node, texts: Vec<String>, right: &'static str) -> Result<Value, Wrong> {
    if texts.is_empty() {
        return Err(Wrong::new("is empty", right));
    }
    let item = |text| Node { place: node.place.clone(), value: Value::Text(text) };
    Ok(Value::List(texts.into_iter().map(item).collect()))
}

impl Named for file::Window {
    const NAME: &'static str = "WINDOW";

    fn check(name: &str) -> Result<(), Wrong> {
        short_name(name, "a window", "black_friday")
    }
}

/// The windows that make sense; what is wrong with the others goes to the findings.
pub(super) fn made(
    typed: &BTreeMap<String, file::Window>,
    places: &Places,
    findings: &mut Findings,
) -> Vec<Window> {
    let mut windows = Vec::new();
    for (name, window) in typed {
        match when(window) {
            Ok(when) => windows.push(Window {
                name: name.clone(),
                kind: window.kind.unwrap_or(WindowKind::Maintenance),
                services: window.services.iter().flat_map(|names| &names.0).map(ServiceName::new).collect(),
                when,
                zone: window.timezone.as_ref().map_or_else(TimeZone::system, |zone| zone.0.clone()),
                why: window.why.as_ref().map(|why| why.0.clone()).unwrap_or_default(),
            }),
            Err((key, what)) => {
                let path = ["windows", name, key].map(str::to_owned);
                // One of its keys may have been taken out for a mistake that was told already.
                if findings.removed.iter().any(|removed| removed.starts_with(&path[..2])) {
                    continue;
                }
                let above = places.of(&path).or_else(|| places.of(&path[..2]));
                let place = above.map_or_else(String::new, ToString::to_string);
                findings.problems.push(Problem::new(place, dotted(&path), what));
            }
        }
    }
    windows
}

fn when(window: &file::Window) -> Result<When, (&'static str, Wrong)> {
    let right = "from = \"22:00\" and to = \"06:00\" would be right, or both with dates";
    let missing = |key| (key, Wrong::new("is missing", right));
    let from = window.from.ok_or_else(|| missing("from"))?;
    let to = window.to.ok_or_else(|| missing("to"))?;
    match (from, to) {
        (Moment::Dated(_), Moment::Dated(_)) if window.days.is_some() => Err((
            "days",
            Wrong::new("belongs to times of day, and these have dates", "without it, or without the dates"),
        )),
        (Moment::Dated(from), Moment::Dated(to)) if to <= from => {
            Err(("to", Wrong::new(format!("{to} is not after {from}"), "a later one would be right")))
        }
        (Moment::Dated(from), Moment::Dated(to)) => Ok(When::Once { from, to }),
        (Moment::Day(from), Moment::Day(to)) => {
            let named = window.days.as_ref().map(|days| days.0.clone());
            let on = |name: &str| named.as_ref().is_none_or(|days| days.iter().any(|day| day == name));
            let days = DAYS.iter().filter(|(name, _)| on(name));
            Ok(When::Weekly { days: days.map(|(_, day)| day.to_monday_zero_offset()).collect(), from, to })
        }
        (Moment::Day(_), Moment::Dated(_)) | (Moment::Dated(_), Moment::Day(_)) => {
            Err(("to", Wrong::new("one of the two has a date, and the other has none", right)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: Option<&[&str]>, from: &str, to: &str) -> Result<Window, String> {
        let typed = file::Window {
            from: Some(Moment::parse(from).map_err(|wrong| wrong.to_string())?),
            to: Some(Moment::parse(to).map_err(|wrong| wrong.to_string())?),
            days: days.map(|days| Days(days.iter().map(|day| (*day).to_owned()).collect())),
            ..file::Window::default()
        };
        Ok(Window {
            name: "w".into(),
            kind: WindowKind::Freeze,
            services: Vec::new(),
            when: when(&typed).map_err(|(key, what)| format!("{key}: {what}"))?,
            zone: TimeZone::get("Europe/Berlin").map_err(|e| e.to_string())?,
            why: String::new(),
        })
    }

    /// Until when it is open at this moment, in UTC.
    fn open(window: &Window, at: &str) -> Option<String> {
        let at: jiff::Timestamp = at.parse().unwrap();
        let now = Timestamp::from_millis(u64::try_from(at.as_millisecond()).unwrap());
        let until = window.open(now)?.until.as_millis();
        Some(jiff::Timestamp::from_millisecond(i64::try_from(until).unwrap()).unwrap().to_string())
    }

    #[test]
    fn a_stretch_of_the_calendar_is_open_once() {
        let w = window(None, "2026-12-24 18:00", "2026-12-27 06:00").unwrap();
        assert_eq!(open(&w, "2026-12-24T16:59:59Z"), None);
        assert_eq!(open(&w, "2026-12-24T17:00:00Z").as_deref(), Some("2026-12-27T05:00:00Z"));
        assert_eq!(open(&w, "2026-12-27T05:00:00Z"), None);
    }

    #[test]
    fn a_night_of_the_week_ends_the_next_morning() {
        let w = window(Some(&["fri"]), "22:00", "06:00").unwrap();
        // 2026-11-27 is a Friday; Berlin is an hour ahead.
        assert_eq!(open(&w, "2026-11-27T20:59:00Z"), None);
        assert_eq!(open(&w, "2026-11-27T21:00:00Z").as_deref(), Some("2026-11-28T05:00:00Z"));
        assert_eq!(open(&w, "2026-11-28T04:59:00Z").as_deref(), Some("2026-11-28T05:00:00Z"));
        assert_eq!(open(&w, "2026-11-28T05:00:00Z"), None);
        assert_eq!(open(&w, "2026-11-28T21:30:00Z"), None, "Saturday night is not Friday's");
        let daily = window(None, "12:00", "13:00").unwrap();
        assert_eq!(open(&daily, "2026-11-28T11:30:00Z").as_deref(), Some("2026-11-28T12:00:00Z"));
    }

    #[test]
    fn clock_changes_neither_lose_nor_repeat_a_window() {
        // On 2026-03-29 the hour from 2 to 3 does not exist in Berlin, on 2026-10-25 it comes twice.
        let w = window(Some(&["sun"]), "02:30", "04:00").unwrap();
        assert_eq!(open(&w, "2026-03-29T01:45:00Z").as_deref(), Some("2026-03-29T02:00:00Z"));
        assert_eq!(open(&w, "2026-10-25T00:45:00Z").as_deref(), Some("2026-10-25T03:00:00Z"));
        assert_eq!(open(&w, "2026-10-25T02:30:00Z").as_deref(), Some("2026-10-25T03:00:00Z"));
    }

    #[test]
    fn what_makes_no_window_says_what_would() {
        for (days, from, to, said) in [
            (None, "22", "06:00", "\"22\" is not a time"),
            (None, "2026-13-01 00:00", "06:00", "is not a time"),
            (None, "22:00", "2026-12-01 06:00", "one of the two has a date"),
            (None, "2026-12-02 00:00", "2026-12-01 06:00", "is not after"),
            (Some(&["fri"][..]), "2026-12-01 00:00", "2026-12-02 06:00", "belongs to times of day"),
        ] {
            let error = window(days, from, to).unwrap_err();
            assert!(error.contains(said), "{from} {to}: {error}");
        }
    }
}
