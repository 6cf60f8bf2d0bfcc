//! One service: what the core knows of it, and how it is moved from state to state.
//!
//! What it notices is in [`super::sighting`], what it concludes in [`super::judgement`], and what it does about a
//! rollback in flight in [`super::pursuit`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::announcement::{Announcement, AnnouncementKind};
use super::assess::{Finding, Scene, assess};
use super::availability::Checked;
use super::baseline::{History, Norm, Norms};
use super::decision::{Decision, GateAnswer};
use super::gate::{Question, Symptom, ask};
use super::group::Complaint;
use super::io::{Effect, RollbackRequest};
use super::ledger::{Flags, LedgerChange, LedgerEntry, RollbackRecord, Standing, targets};
use super::migration::Schema;
use super::observation::{ContainerHealth, Phase, Replica};
use super::release::{MitigationId, Release, ReleaseId, ReplicaId, RollbackId, ServiceName};
use super::sample::{Measurement, Signal};
use super::settings::{FleetSettings, Mode, Rule, ServiceSettings, Severity};
use super::snapshot::{RowAnswer, SampleCounts};
use super::spells::Spells;
use super::state::{Event, State};
use super::streak::ERRORS_IN_A_ROW;
use super::surroundings::{
    Ailing, LINGERS, Neighbour, Reliance, Stopped, Surroundings, Usual, relies_on, symptoms,
};
use super::time::Timestamp;
use super::traffic::Bad;
use super::window::{Before, Evidence, count};

/// Who decides when nobody was asked; anybody else is an operator.
pub(crate) const BACKSTOP: &str = "backstop";
/// Successes in a row that a check needs before its service counts as proved (Gatus' `success-threshold`).
const PROOF_SUCCESSES: u32 = 2;
/// Releases remembered besides the known-good ones: enough to recognise a bad release that comes back.
const LEDGER_MAX: usize = 24;

/// A service of which nothing is left is remembered for so long if no release of it proved itself: with
/// `enroll = "all"`, every job that runs once is one ...
const KEPT_UNPROVED: Duration = Duration::from_secs(60 * 60);
/// ... and for so long if one did.
const KEPT_PROVED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// One service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) settings: Arc<ServiceSettings>,
    pub(crate) state: State,
    pub(crate) since: Timestamp,
    /// A look has found it since the daemon started.
    pub(crate) seen: bool,
    /// When the newest look at it that came in was begun; or, if it was later, when the executor was done with it. What
    /// was asked before shows how it was.
    #[serde(default)]
    pub(crate) asked: Timestamp,
    pub(crate) replicas: Vec<Replica>,
    /// Its replicas in the order in which they were first seen; those seen at once, in the order of their creation.
    #[serde(default)]
    pub(crate) arrived: Vec<Arrival>,
    pub(crate) current: Option<Release>,
    pub(crate) deployed: Timestamp,
    pub(crate) trial_ends: Timestamp,
    /// Replicas of several releases run since then.
    pub(crate) mixed: Option<Timestamp>,
    /// Newest deployment first.
    pub(crate) ledger: Vec<LedgerEntry>,
    /// What is known of the images of its targets.
    #[serde(default)]
    pub(crate) checked: BTreeMap<ReleaseId, Checked>,
    pub(crate) evidence: Evidence,
    pub(crate) before: Before,
    /// What it was like on earlier days.
    pub(crate) history: History,
    /// What it is like when it is well.
    pub(crate) usual: Usual,
    /// What an earlier process found normal, until we know it ourselves.
    pub(crate) kept_norm: Option<Norm>,
    /// When it last had its turn.
    pub(crate) last_turn: Timestamp,
    /// What is wrong with it, as the others see it.
    pub(crate) ailing: Option<Ailing>,
    /// Somebody stopped or removed it, as the others see it.
    #[serde(default)]
    pub(crate) stopped: Option<Stopped>,
    /// When each row that is crossed now was crossed first: a trouble that lasts does not begin later and later.
    pub(crate) onsets: BTreeMap<String, Timestamp>,
    /// What was crossed and is so no more.
    #[serde(default)]
    pub(crate) spells: Spells,
    /// What it depends on, by name.
    pub(crate) reliances: BTreeMap<String, Reliance>,
    pub(crate) counts: BTreeMap<Signal, SampleCounts>,
    pub(crate) exits: Exits,
    pub(crate) flags: Flags,
    /// The replacement asked for on suspicion. Whether it was made is the executor's to know.
    pub(crate) prepared: Option<RollbackRequest>,
    pub(crate) rollback: Option<RollbackRecord>,
    /// The last rollback that changed a project's files, unless that was taken back.
    pub(crate) pinned: Option<Box<RollbackRecord>>,
    /// Targets that did not start or did not pass since the last deployment.
    pub(crate) failed_targets: BTreeSet<ReleaseId>,
    /// When automatic rollbacks began, within the attempts' window.
    pub(crate) attempts: Vec<Timestamp>,
    pub(crate) last_ended: Option<Timestamp>,
    pub(crate) last_decision: Option<Decision>,
    /// In dry-run mode: when the current release would have been rolled back. Nothing more is decided about it.
    pub(crate) undone: Option<Timestamp>,
    /// What is being done instead of a rollback, until we hear how that went.
    #[serde(default)]
    pub(crate) mitigating: Option<MitigationId>,
    /// It was restarted by us, and gets its grace as after a deployment.
    #[serde(default)]
    pub(crate) quiet_until: Option<Timestamp>,
    /// When what it depends on was last seen not to be well while a rollback is verified.
    #[serde(default)]
    pub(crate) without: Option<Timestamp>,
    /// What was said already in this episode.
    pub(crate) told: BTreeSet<String>,
    /// When people were last asked about a row that only asks.
    pub(crate) advised: BTreeMap<String, Timestamp>,
    /// A breach was put down to the surroundings: its evidence is void when they are well again.
    pub(crate) held_by_surroundings: bool,
    /// A quarantined release came back under the policy `refuse`: why it was rolled back then.
    pub(crate) refused: Option<String>,
    /// What is wrong with it although it was not deployed: told to those that it is one release with.
    #[serde(default)]
    pub(crate) complaint: Option<Complaint>,
    /// When the specification was last asked to be kept, or that was answered.
    pub(crate) protect: Option<Timestamp>,
    /// Its containers were changed in place since then.
    #[serde(default)]
    pub(crate) respecified: bool,
    /// Looks find nothing of it since then.
    pub(crate) gone: Option<Timestamp>,
    /// The executor changed the world: nothing is concluded before the next look at it.
    pub(crate) awaits_look: bool,
    /// A person said that a rollback may leave the schema as it is.
    #[serde(default)]
    pub(crate) schema_accepted: bool,
    /// When the version of the schema was last asked for.
    #[serde(default)]
    pub(crate) schema_asked: Option<Timestamp>,
    /// Why it is not known, if it is not.
    #[serde(default)]
    pub(crate) schema_unknown: Option<String>,
}

/// A replica, when it says that it was started, and when we saw that first: the engine's clock may have been set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Arrival {
    pub(crate) replica: ReplicaId,
    pub(crate) started: Option<Timestamp>,
    pub(crate) seen: Timestamp,
}

/// What is known of exits, replica by replica.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Exits {
    /// Stopped because somebody asked for it.
    pub(crate) requested: BTreeSet<ReplicaId>,
    /// Ended by themselves, with a code other than zero, since when and how.
    pub(crate) crashed: BTreeMap<ReplicaId, (Timestamp, String)>,
    /// The engine's restart count that exits already counted explain.
    pub(crate) accounted: BTreeMap<ReplicaId, u64>,
}

/// What a turn works with: the time, the fleet's settings, and where effects go.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) now: Timestamp,
    pub(crate) fleet: &'a FleetSettings,
    pub(crate) effects: &'a mut Vec<Effect>,
    /// Counts what was made in this process, so that ids made in one millisecond differ.
    pub(crate) sequence: &'a mut u32,
}

impl Turn<'_> {
    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn remember(&mut self, change: LedgerChange) {
        self.effects.push(Effect::Remember(change));
    }

    /// An id that sorts by time: eleven hexadecimal digits of milliseconds, then two of a counter.
    pub(crate) fn rollback_id(&mut self) -> RollbackId {
        *self.sequence = self.sequence.wrapping_add(1);
        RollbackId::new(format!("{:011x}{:02x}", self.now.as_millis(), *self.sequence % 256))
    }
}

impl Service {
    pub(crate) fn new(name: ServiceName, now: Timestamp) -> Self {
        Self {
            name,
            settings: Arc::default(),
            state: State::Trial,
            since: now,
            seen: false,
            asked: Timestamp::default(),
            replicas: Vec::new(),
            arrived: Vec::new(),
            current: None,
            deployed: now,
            trial_ends: now,
            mixed: None,
            ledger: Vec::new(),
            checked: BTreeMap::new(),
            evidence: Evidence::default(),
            before: Before::default(),
            history: History::default(),
            usual: Usual::default(),
            kept_norm: None,
            last_turn: now,
            ailing: None,
            stopped: None,
            onsets: BTreeMap::new(),
            spells: Spells::default(),
            reliances: BTreeMap::new(),
            counts: BTreeMap::new(),
            exits: Exits::default(),
            flags: Flags::default(),
            prepared: None,
            rollback: None,
            pinned: None,
            failed_targets: BTreeSet::new(),
            attempts: Vec::new(),
            last_ended: None,
            last_decision: None,
            undone: None,
            mitigating: None,
            quiet_until: None,
            without: None,
            told: BTreeSet::new(),
            advised: BTreeMap::new(),
            held_by_surroundings: false,
            refused: None,
            complaint: None,
            protect: None,
            respecified: false,
            gone: None,
            awaits_look: false,
            schema_accepted: false,
            schema_asked: None,
            schema_unknown: None,
        }
    }

    /// Takes up what an earlier process knew: its newest deployment is what runs until a look says otherwise.
    pub(crate) fn restore_ledger(&mut self, mut ledger: Vec<LedgerEntry>) {
        ledger.sort_by_key(|e| std::cmp::Reverse(e.deployed));
        if let Some(newest) = ledger.first() {
            self.current = Some(newest.release.clone());
            self.deployed = newest.deployed;
            self.trial_ends = newest.deployed + self.settings.trial;
            if matches!(newest.standing, Standing::KnownGood { .. }) {
                self.state = State::Steady;
            }
        }
        self.ledger = ledger;
    }

    pub(crate) fn restore_flags(&mut self, flags: Flags) {
        if flags.paused.is_some() {
            self.state = State::Paused;
        } else if flags.stuck.is_some() {
            self.state = State::Stuck;
        }
        self.flags = flags;
        // What an earlier process was at when it ended: what became of it is awaited.
        let begun = self.mitigated().filter(|taken| taken.result.is_none()).last();
        let begun = begun.map(|taken| taken.id.clone());
        self.mitigating = begun;
    }

    /// Takes up a rollback of an earlier process: attempts and cooldown count on, an open one is in flight again.
    pub(crate) fn restore_rollback(&mut self, record: RollbackRecord) {
        if record.decided_by == BACKSTOP {
            self.attempts.push(record.started);
        }
        if record.outcome.is_over() {
            self.keep_pin(&record);
            self.last_ended = self.last_ended.max(record.ended);
        } else {
            self.state = State::RollingBack;
            self.rollback = Some(record);
        }
    }

    /// Makes a move. A move that the table does not have is a fault of this program: a person is called.
    pub(crate) fn go(&mut self, turn: &Turn<'_>, event: Event) {
        let to = self.state.after(event);
        debug_assert!(to.is_some(), "{:?} has no move for {event:?}", self.state);
        let to = to.unwrap_or(State::Stuck);
        if to != self.state || event == Event::Deployed {
            self.since = turn.now;
        }
        self.state = to;
    }

    /// Back to watching: where to depends on whether the release proved itself.
    pub(crate) fn go_watching(&mut self, turn: &Turn<'_>) {
        let event = if self.current_is_known_good() { Event::Cleared } else { Event::ClearedOnTrial };
        self.go(turn, event);
    }

    pub(crate) fn entry(&self, id: &ReleaseId) -> Option<&LedgerEntry> {
        self.ledger.iter().find(|e| e.release.id == *id)
    }

    pub(crate) fn current_entry(&self) -> Option<&LedgerEntry> {
        self.current.as_ref().and_then(|c| self.entry(&c.id))
    }

    pub(crate) fn current_is_known_good(&self) -> bool {
        self.current_entry().is_some_and(|e| matches!(e.standing, Standing::KnownGood { .. }))
    }

    pub(crate) fn current_is_quarantined(&self) -> bool {
        self.current_entry().is_some_and(|e| matches!(e.standing, Standing::Quarantined { .. }))
    }

    /// Changes or adds the entry of `release`, and remembers it.
    pub(crate) fn enter(
        &mut self,
        turn: &mut Turn<'_>,
        release: &Release,
        change: impl FnOnce(&mut LedgerEntry),
    ) {
        let now = turn.now;
        let at = self.ledger.iter().position(|e| e.release.id == release.id).unwrap_or_else(|| {
            let fresh = LedgerEntry {
                release: release.clone(),
                first_seen: now,
                deployed: now,
                standing: Standing::Trial,
                note: None,
                gone: None,
                schema: Schema::default(),
            };
            self.ledger.push(fresh);
            self.ledger.len() - 1
        });
        if let Some(entry) = self.ledger.get_mut(at) {
            // The reference may have been retagged since: what was typed last is what people know it by.
            entry.release = release.clone();
            change(entry);
            turn.remember(LedgerChange::Entry { service: self.name.clone(), entry: entry.clone() });
        }
        self.ledger.sort_by_key(|e| std::cmp::Reverse(e.deployed));
        self.trim(turn);
    }

    /// Lets go of known-good releases beyond `keep`, and of the oldest others.
    fn trim(&mut self, turn: &mut Turn<'_>) {
        let keep = usize::try_from(self.settings.keep).unwrap_or(usize::MAX);
        let current = self.current.as_ref().map(|c| c.id.clone());
        let mut good = 0;
        let mut others = 0;
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.ledger).into_iter().partition(|e| {
            let (n, max) = match e.standing {
                Standing::KnownGood { .. } => (&mut good, keep),
                Standing::Trial | Standing::Quarantined { .. } => (&mut others, LEDGER_MAX),
            };
            *n += 1;
            *n <= max || Some(&e.release.id) == current.as_ref()
        });
        self.ledger = kept;
        for entry in gone {
            self.forget(turn, entry);
        }
    }

    /// Whether it has been gone for so long that nobody will ask for it again. What proved itself is kept for whoever
    /// removed it for a while, and what a person has to see until that person has seen it.
    pub(crate) fn is_past(&self, now: Timestamp) -> bool {
        let proved = self.ledger.iter().any(|e| matches!(e.standing, Standing::KnownGood { .. }));
        let kept = if proved { KEPT_PROVED } else { KEPT_UNPROVED };
        self.gone.is_some_and(|since| now.since(since) >= kept)
            && self.replicas.is_empty()
            && self.evidence.down.is_empty()
            && !self.state.in_flight()
            && self.flags.paused.is_none()
            && self.flags.stuck.is_none()
    }

    /// Lets go of everything that is kept of it.
    pub(crate) fn let_go(&mut self, turn: &mut Turn<'_>) {
        self.drop_prepared(turn);
        self.current = None;
        turn.remember(LedgerChange::Norms { service: self.name.clone(), norms: Box::default() });
        for entry in std::mem::take(&mut self.ledger) {
            self.forget(turn, entry);
        }
    }

    fn forget(&self, turn: &mut Turn<'_>, entry: LedgerEntry) {
        let (service, release) = (self.name.clone(), entry.release.id.clone());
        turn.remember(LedgerChange::Forget { service: service.clone(), release });
        if matches!(entry.standing, Standing::KnownGood { .. }) {
            turn.effect(Effect::Unprotect { service, release: entry.release });
        }
    }

    /// Known-good releases other than the current one, newest first: where a rollback may go.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Release> {
        targets(&self.ledger, self.current.as_ref().map(|c| &c.id))
    }

    /// Where a rollback would go now, or why nowhere.
    pub(crate) fn target(&self) -> Result<&Release, &str> {
        if let Some(why) = &self.settings.hindrance {
            return Err(why);
        }
        let gone = |t: &Release| self.entry(&t.id).is_some_and(|e| e.gone.is_some());
        self.targets().find(|t| !self.failed_targets.contains(&t.id) && !gone(t)).ok_or_else(|| {
            if self.targets().any(gone) {
                "every other known-good release was tried, or its image is gone, here and in its registry"
            } else if self.failed_targets.is_empty() {
                "no other release has passed its trial yet: there is nothing to roll back to"
            } else {
                "no known-good release is left that was not tried"
            }
        })
    }

    /// Every row of its matrix, judged now. The rows are handed in, so that what is found outlives a change of the service.
    pub(crate) fn findings<'a>(&self, rules: &'a [Rule], now: Timestamp) -> Vec<Finding<'a>> {
        self.since_first(assess(rules, self.scene(now)))
    }

    /// Rows that were crossed before have been since then. A moment that is a little later now is the better estimate:
    /// a few failures by chance may have come before. One that is much later has lost sight of the beginning.
    pub(crate) fn since_first<'a>(&self, mut findings: Vec<Finding<'a>>) -> Vec<Finding<'a>> {
        const BETTER: Duration = Duration::from_secs(60);
        for finding in findings.iter_mut().filter(|f| f.crossed()) {
            let first = self.onsets.get(&finding.rule.name).copied();
            if let (Some(now), Some(first)) = (finding.since, first)
                && now > first + BETTER
            {
                finding.since = Some(first);
            }
        }
        findings
    }

    /// Remembers since when rows are crossed, and what passed.
    pub(crate) fn keep_onsets(&mut self, now: Timestamp, findings: &[Finding<'_>]) {
        let crossed = findings.iter().filter(|f| f.crossed());
        crossed.clone().for_each(|f| self.spells.goes_on(&f.rule.name, f.share));
        // What cannot be measured any more did not pass.
        let passed = findings.iter().filter(|f| f.answer == RowAnswer::Ok);
        for (row, began) in passed.filter_map(|f| self.onsets.get_key_value(&f.rule.name)) {
            self.spells.ended(now, row, *began);
        }
        let first = |f: &Finding<'_>| {
            let known = self.onsets.get(&f.rule.name).copied();
            Some((f.rule.name.clone(), f.since.map(|since| known.map_or(since, |known| known.min(since)))?))
        };
        self.onsets = crossed.filter_map(first).collect();
        self.spells.keep_only(&self.onsets);
    }

    /// What the rows are judged by.
    pub(crate) fn scene(&self, now: Timestamp) -> Scene<'_> {
        Scene {
            now,
            settings: &self.settings,
            evidence: &self.evidence,
            before: &self.before,
            history: &self.history,
            replicas: &self.replicas,
            deployed: self.deployed,
            aloud: false,
        }
    }

    /// Asks every gate about a breach, or about a rollback in general. How urgent it is says who has to be asked; none if
    /// nobody has to be.
    pub(crate) fn ask(
        &self,
        now: Timestamp,
        symptom: Option<Symptom<'_>>,
        severity: Option<Severity>,
        around: Surroundings<'_>,
    ) -> Vec<GateAnswer> {
        let window = self.settings.attempts_window;
        let schema = self.target().map_or_else(
            |_| Ok("there is nothing to compare with".into()),
            |target| self.schema_gate(target),
        );
        let question = Question {
            now,
            service: &self.name,
            release: self.current.as_ref().map(|release| &release.id),
            severity,
            settings: &self.settings,
            symptom,
            last_spell: symptom.and_then(|of| self.spells.last(of.rule, self.deployed, of.onset?)),
            error_rate: self.error_rate(),
            reliances: &self.reliances,
            deployed: self.deployed,
            before: &self.before,
            flags: &self.flags,
            target: self.target(),
            schema: &schema,
            quarantined: self.current_is_quarantined(),
            last_ended: self.last_ended,
            attempts: count(self.attempts.iter().filter(|at| now.since(**at) < window).count()),
        };
        ask(question, around)
    }

    /// Whether every required signal has enough good samples to vouch for the release; else what is missing.
    pub(crate) fn proof(&self, now: Timestamp) -> Result<(), String> {
        if self.replicas.is_empty() {
            return Err("nothing runs".into());
        }
        if let Some(other) = self.replicas.iter().find(|r| r.phase != Phase::Running) {
            return Err(format!("{} is not running", other.name));
        }
        if self.settings.checks.values().any(|check| check.required) {
            let asked = self.evidence.checks.iter();
            let checks: Vec<_> =
                asked.filter(|((name, _), _)| self.settings.requires(name)).map(|(_, s)| s).collect();
            if let Some(why) = checks.iter().find_map(|s| s.unavailable.as_ref()) {
                return Err(format!("the health check cannot be measured: {}", why.2));
            }
            let proved = checks.iter().filter(|s| s.successes >= PROOF_SUCCESSES).count();
            if proved == 0 || proved < checks.len() {
                return Err(format!("the health check has not passed {PROOF_SUCCESSES} times in a row yet"));
            }
        }
        if let Some((n, _, why)) = self.evidence.unmeasured.get(&Signal::Requests)
            && *n >= ERRORS_IN_A_ROW
            && self.evidence.traffic.is_stale(now)
        {
            return Err(format!("its requests cannot be measured: {why}"));
        }
        match self.replicas.iter().find(|r| !matches!(r.health, None | Some(ContainerHealth::Healthy))) {
            Some(replica) => Err(format!("the HEALTHCHECK of {} is not healthy yet", replica.name)),
            None => Ok(()),
        }
    }

    /// Whether decisions about it are carried out.
    pub(crate) fn acts(&self) -> bool {
        self.settings.mode == Mode::Act
    }

    /// An announcement about this service, to be filled with fields.
    pub(crate) fn announcement(&self, turn: &Turn<'_>, kind: AnnouncementKind, title: &str) -> Announcement {
        let key = format!("{}/{}/{}", self.name, kind.name(), turn.now.as_millis());
        let title = format!("{title}: {}", self.name);
        let announcement = Announcement::new(key, turn.now, kind, &turn.fleet.environment, title);
        Announcement { service: Some(self.name.clone()), ..announcement }
    }

    /// Sets or clears the flags, and remembers them.
    pub(crate) fn flag(&mut self, turn: &mut Turn<'_>, change: impl FnOnce(&mut Flags)) {
        let mut flags = self.flags.clone();
        change(&mut flags);
        if flags != self.flags {
            self.flags = flags.clone();
            turn.remember(LedgerChange::Flags { service: Some(self.name.clone()), flags });
        }
    }

    /// The share of requests that failed in the last minute.
    fn error_rate(&self) -> f64 {
        let traffic = &self.evidence.traffic;
        let end = traffic.end().unwrap_or_default();
        traffic.share(Bad::Failed, end.before(Duration::from_secs(60).max(traffic.usual)), end).rate()
    }

    /// Takes stock of what the others should know of it. Before each turn.
    pub(crate) fn take_stock(&mut self, now: Timestamp) {
        self.stopped = Stopped::after(self.stopped, self.was_stopped_by_hand(), now);
        let gone = self.replicas.is_empty() && self.evidence.down.is_empty();
        let judged = !gone && self.state != State::RollingBack;
        let ill = judged
            .then(|| symptoms(now, self.deployed, &self.settings, &self.evidence, &self.usual))
            .flatten();
        self.ailing = match (ill, self.ailing.take()) {
            // It is the same illness as long as it does not end for good.
            (Some(new), Some(old)) if old.faint || new.faint => {
                Some(if new.faint && !old.faint { old } else { new })
            }
            (Some(new), Some(old)) => Some(Ailing { since: old.since.min(new.since), ..new }),
            (Some(new), None) => Some(new),
            (None, Some(old)) => {
                let until = old.until.unwrap_or(now);
                (!gone && !old.faint && now.since(until) < LINGERS)
                    .then_some(Ailing { until: Some(until), ..old })
            }
            (None, None) => {
                self.usual.renew(now, &self.evidence, &self.before, self.settings.baseline);
                None
            }
        };
    }

    /// What the others know of it.
    pub(crate) fn neighbour(&self) -> Neighbour {
        let traffic = &self.evidence.traffic;
        let counted = traffic.last.map(|at| (at, traffic.usual));
        // The source that was heard longest ago: what it has to say is not known yet.
        let heard = [counted, self.evidence.last_checked()].into_iter().flatten().min();
        Neighbour {
            present: self.seen && self.current.is_some(),
            deployed: self.deployed,
            ailing: self.ailing.clone(),
            stopped: self.stopped,
            heard: heard.map(|(at, _)| at),
            every: heard.map(|(_, every)| every).unwrap_or_default(),
            relies_on: relies_on(&self.settings),
            in_flight: self.state.in_flight(),
            verifying: self.state == State::Verifying,
            ended: self.last_ended.filter(|_| !self.state.in_flight()).max(self.undone),
            undone: self.undone.is_some() || self.put_back(),
            attempts: self.attempts.clone(),
            companion: self.companion(),
        }
    }

    /// What runs now runs because a rollback put it there.
    fn put_back(&self) -> bool {
        self.last_ended.is_some_and(|ended| ended >= self.deployed)
    }

    /// What is kept of its baseline across restarts.
    pub(crate) fn norms(&self, now: Timestamp) -> Norms {
        let within = self.settings.baseline;
        let log_errors =
            self.evidence.log_errors_per_minute(now.before(within), now).map(|(per_minute, _)| per_minute);
        // After a restart it takes a while until more is known than before it.
        let like_now = self.evidence.norm(now, within).or(self.kept_norm.clone());
        Norms {
            before: self.before.clone(),
            now: Norm { log_errors, ..like_now },
            history: self.history.clone(),
            spells: self.spells.clone(),
        }
    }

    /// Keeps that.
    pub(crate) fn keep_norms(&self, turn: &mut Turn<'_>) {
        let norms = Box::new(self.norms(turn.now));
        turn.remember(LedgerChange::Norms { service: self.name.clone(), norms });
    }

    /// When the core should look at this service again although nothing came in.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        let last = self.last_turn;
        // While something is going on, a second is short against every window; else this is only a heartbeat.
        let span = match self.state {
            State::Suspect | State::AwaitingApproval | State::Verifying | State::RollingBack => {
                Duration::from_secs(1)
            }
            State::Trial | State::Blind | State::CoolingDown => Duration::from_secs(2),
            State::Steady | State::Paused | State::Stuck => Duration::from_secs(5),
        };
        let trial = (self.state == State::Trial && self.trial_ends > last).then_some(self.trial_ends);
        trial.map_or(last + span, |ends| ends.min(last + span))
    }

    /// Takes in a sample.
    pub(crate) fn sampled(
        &mut self,
        now: Timestamp,
        replica: Option<ReplicaId>,
        signal: Signal,
        name: String,
        measurement: Measurement,
    ) {
        if let (Measurement::Requests(requests), State::Steady) = (&measurement, self.state) {
            self.history.add(now, requests);
        }
        let counted = self.evidence.record(now, replica, signal, name, measurement);
        self.counts.entry(signal).or_default().add(counted);
    }

    /// Takes up the baseline of an earlier process.
    pub(crate) fn restore_norms(&mut self, now: Timestamp, norms: Norms) {
        self.history = norms.history;
        self.before = norms.before;
        self.usual.reset(now, norms.now.clone().or(Some(self.before.norm.clone())));
        self.kept_norm = Some(norms.now.or(Some(self.before.norm.clone())));
        self.spells = norms.spells;
        // What went on then is not known to have ended by itself, nor is what a clock that was ahead says is yet to come.
        self.spells.forget_since(now);
    }
}
