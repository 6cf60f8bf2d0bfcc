//! Reminders of what a checklist leaves to people: when one is due, and what it says. Both follow from the report and the
//! clock, so nothing has to be remembered between two of them but which were said.

use std::time::Duration;

use super::checklist::Item;
use super::{Incident, moment};
use crate::core::Timestamp;
use crate::core::announcement::{Announcement, AnnouncementKind};
use crate::core::release::{RollbackId, ServiceName};
use crate::core::settings::Severity;
use crate::core::time::human;

/// When people are reminded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reminders {
    /// Whether they are at all.
    pub enabled: bool,
    /// Not sooner than so long after the end of the rollback.
    pub after: Duration,
    /// So long apart.
    pub every: Duration,
    /// Not later than so long after the end: what nobody does in that time nobody will.
    pub until: Duration,
}

impl Default for Reminders {
    /// After a day, every day, for two weeks.
    fn default() -> Self {
        let days = |n: u64| Duration::from_secs(n * 24 * 3600);
        Self { enabled: true, after: days(1), every: days(1), until: days(14) }
    }
}

impl Reminders {
    /// Which reminder of a rollback that ended at `ended` it is time for: one is for each period, and those of periods that
    /// passed while nobody looked are not made up for.
    pub fn period(&self, ended: Timestamp, now: Timestamp) -> Option<u64> {
        if !self.enabled || now < ended + self.after || now > ended + self.until {
            return None;
        }
        let passed = now.since(ended + self.after).as_millis();
        u64::try_from(passed / self.every.as_millis().max(1)).ok()
    }
}

/// What a reminder is known by, so that it is said once.
pub fn key(rollback: &RollbackId, period: u64) -> String {
    format!("reminder/{rollback}/{period}")
}

/// What is said; nothing while nothing is overdue.
pub fn announcement(incident: &Incident, period: u64, now: Timestamp) -> Option<Announcement> {
    let open: Vec<&Item> = incident.checklist.iter().filter(|item| !item.done).collect();
    let overdue = open.iter().filter(|item| item.is_overdue(now)).count();
    let first = open.iter().find(|item| item.is_overdue(now))?;
    let rollback = RollbackId::new(incident.id.clone());
    let title = format!("STILL TO DO AFTER A ROLLBACK: {}", incident.service);
    let key = key(&rollback, period);
    let mut a = Announcement::new(key, now, AnnouncementKind::Reminder, &incident.environment, title);
    a.service = Some(ServiceName::new(&incident.service));
    a.severity = Some(Severity::Low);
    a.fields.push(("Rollback".into(), format!("{} of {}", incident.id, moment(incident.decided))));
    a.fields.push(("Reason".into(), incident.reason.clone()));
    a.fields
        .push(("Open".into(), format!("{} of {}, {overdue} overdue", open.len(), incident.checklist.len())));
    a.fields.extend(open.iter().map(|item| (item.id.to_string(), words(item, now))));
    a.fields.extend(incident.ticket.iter().map(|url| ("Ticket".to_owned(), url.clone())));
    a.next = Some(format!("backstop incident tick {} {} --note \"...\"", incident.id, first.id));
    a.rollback = Some(rollback);
    Some(a)
}

/// `Root cause found: service owner, overdue by 20h (since 2026-11-29 14:02:15 UTC)`.
fn words(item: &Item, now: Timestamp) -> String {
    let owner = item.owner.as_deref().unwrap_or("nobody");
    let due = item.until.map_or_else(String::new, |until| {
        let at = moment(until);
        if until <= now {
            format!(", overdue by {} (since {at})", human(now.since(until)))
        } else {
            format!(", by {at}")
        }
    });
    format!("{}: {owner}{due}", item.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: Timestamp = Timestamp::from_secs(1_000_000);

    fn after(hours: u64) -> Timestamp {
        ENDED + Duration::from_secs(hours * 3600)
    }

    #[test]
    fn there_is_one_for_every_period_and_none_before_the_first_or_after_the_last() {
        let daily = Reminders::default();
        let periods: Vec<Option<u64>> =
            [0, 23, 24, 47, 48, 14 * 24, 14 * 24 + 1].map(|hours| daily.period(ENDED, after(hours))).into();
        assert_eq!(periods, [None, None, Some(0), Some(0), Some(1), Some(13), None]);
        let off = Reminders { enabled: false, ..Reminders::default() };
        assert_eq!(off.period(ENDED, after(30)), None);
        // A clock that went back has seen no end yet.
        assert_eq!(daily.period(after(30), ENDED), None);
    }

    #[test]
    fn periods_are_as_long_as_they_are_said_to_be() {
        let weekly = Reminders {
            after: Duration::from_secs(3600),
            every: Duration::from_secs(7 * 24 * 3600),
            ..Reminders::default()
        };
        let periods = [1, 100, 168, 169, 300].map(|hours| weekly.period(ENDED, after(hours)));
        assert_eq!(periods, [Some(0), Some(0), Some(0), Some(1), Some(1)]);
        let never = Reminders { until: Duration::ZERO, ..Reminders::default() };
        assert_eq!(never.period(ENDED, after(30)), None);
    }
}
