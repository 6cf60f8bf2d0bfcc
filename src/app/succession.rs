//! What another Backstop leaves to us, and what we leave to the next: releases, good and bad, and pauses. A Swarm moves
//! Backstop to another manager, whose state directory knows nothing of them, or knows of a time long ago.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::core::Timestamp;
use crate::core::ledger::{LedgerChange, LedgerEntry, Remembered, Standing};
use crate::core::release::{ReleaseId, ServiceName};
use crate::runtime::{Recorded, Runtime, Snapshot, Word};
use crate::store::{Store, StoreError};

/// How long is waited at start-up for what others recorded.
const TAKE_OVER: Duration = Duration::from_secs(5);
/// A Swarm without a majority of its managers takes nothing; it is told again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// What others left. An engine that does not answer now is no reason to wait: then it begins without.
pub(super) async fn take_over(
    runtime: &dyn Runtime,
    store: Option<&Store>,
    mut remembered: Remembered,
) -> Remembered {
    let Some(store) = store else { return remembered };
    let (recorded, words) = tokio::join!(
        tokio::time::timeout(TAKE_OVER, runtime.recorded()),
        tokio::time::timeout(TAKE_OVER, runtime.words())
    );
    match recorded {
        Ok(Ok(recorded)) => take_releases(store, &mut remembered, recorded).await,
        Ok(Err(e)) => info!("nobody can be asked now what others recorded of good releases: {e}"),
        Err(_) => info!("nobody answers in time what others recorded of good releases"),
    }
    match words {
        Ok(Ok(words)) => take_words(store, &mut remembered, words).await,
        Ok(Err(e)) => info!("nobody can be asked now what people told others: {e}"),
        Err(_) => info!("nobody answers in time what people told others"),
    }
    remembered
}

/// Releases that our own store knows nothing of, and those that another Backstop rolled back since ours were deployed.
async fn take_releases(store: &Store, remembered: &mut Remembered, recorded: Vec<Recorded>) {
    for one in recorded {
        let service = one.service.clone();
        let at = remembered.ledgers.iter().position(|(known, _)| *known == service);
        let known =
            at.and_then(|at| remembered.ledgers[at].1.iter().find(|e| e.release.id == one.release.id));
        let (snapshots, mut entry) = (one.snapshots.clone(), entry_of(one));
        match known {
            Some(known) if is_bad(known) || !is_bad(&entry) || known.deployed >= since(&entry) => continue,
            Some(known) => entry = LedgerEntry { standing: entry.standing, ..known.clone() },
            None => {}
        }
        if let Err(e) = keep(store, &service, &entry, &snapshots).await {
            warn!(%service, "what another Backstop recorded cannot be kept: {e}");
            continue;
        }
        let standing = entry.standing.name();
        info!(%service, release = %entry.release, "{standing}, as another Backstop recorded it");
        let at = at.unwrap_or_else(|| {
            remembered.ledgers.push((service, Vec::new()));
            remembered.ledgers.len() - 1
        });
        let ledger = &mut remembered.ledgers[at].1;
        ledger.retain(|known| known.release.id != entry.release.id);
        ledger.push(entry);
    }
}

async fn keep(
    store: &Store,
    service: &ServiceName,
    entry: &LedgerEntry,
    snapshots: &[Snapshot],
) -> Result<(), StoreError> {
    if !snapshots.is_empty() {
        store.save_snapshots(service, &entry.release.id, snapshots).await?;
    }
    let change = LedgerChange::Entry { service: service.clone(), entry: entry.clone() };
    store.remember(vec![change]).await
}

/// Since when it stands where it stands.
const fn since(entry: &LedgerEntry) -> Timestamp {
    match entry.standing {
        Standing::KnownGood { since } | Standing::Quarantined { since, .. } => since,
        Standing::Trial => entry.deployed,
    }
}

fn entry_of(Recorded { release, since, quarantined, .. }: Recorded) -> LedgerEntry {
    let (standing, deployed) = match quarantined {
        // What was rolled back does not run.
        Some(why) => (Standing::Quarantined { since, why }, Timestamp::default()),
        None => (Standing::KnownGood { since }, since),
    };
    LedgerEntry {
        release,
        first_seen: since,
        deployed,
        standing,
        note: None,
        gone: None,
        schema: Default::default(),
    }
}

/// Of what people said to us and to another Backstop, the last counts. When a pause ended is not among our flags: then the word
/// that there is one counts, for a pause is seen.
async fn take_words(store: &Store, remembered: &mut Remembered, words: Vec<(Option<ServiceName>, Word)>) {
    for (service, word) in words {
        let of = service.as_ref().map_or("the fleet", ServiceName::as_str);
        let at = remembered.flags.iter().position(|(known, _)| *known == service);
        let mut flags = at.map(|at| remembered.flags[at].1.clone()).unwrap_or_default();
        let known = flags.paused.as_ref().map(|pause| pause.since);
        if flags.paused == word.paused || known.is_some_and(|since| since >= word.at) {
            continue;
        }
        match &word.paused {
            Some(pause) => info!(service = of, "{pause}, as another Backstop was told"),
            None => info!(service = of, "not paused any more, as another Backstop was told"),
        }
        flags.paused = word.paused;
        let change = LedgerChange::Flags { service: service.clone(), flags: flags.clone() };
        if let Err(e) = store.remember(vec![change]).await {
            warn!(service = of, "what people told another Backstop cannot be kept: {e}");
        }
        match at {
            Some(at) => remembered.flags[at].1 = flags,
            None => remembered.flags.push((service, flags)),
        }
    }
}

const fn is_bad(entry: &LedgerEntry) -> bool {
    matches!(entry.standing, Standing::Quarantined { .. })
}

/// Tells the next one what people say here of pauses, and which releases were rolled back. It is our own store that counts while
/// we run, so nobody waits for this.
#[derive(Debug, Clone, Default)]
pub(super) struct Words(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// The newest of each service; of the fleet, without a name.
    newest: Mutex<BTreeMap<Option<ServiceName>, Word>>,
    /// Where each release stands of which that is to be told.
    releases: Mutex<BTreeMap<(ServiceName, ReleaseId), LedgerEntry>>,
    /// Those that were rolled back: of others there is nothing to tell.
    bad: Mutex<BTreeSet<(ServiceName, ReleaseId)>>,
    more: Notify,
}

impl Words {
    /// Tells what of `changes` is for the next one.
    pub(super) fn tell(&self, now: Timestamp, changes: &[LedgerChange]) {
        for change in changes {
            if let LedgerChange::Flags { service, flags } = change {
                self.newest().insert(service.clone(), Word { at: now, paused: flags.paused.clone() });
                self.0.more.notify_one();
            }
            if let LedgerChange::Entry { service, entry } = change {
                self.tell_of(service, entry);
            }
        }
    }

    fn tell_of(&self, service: &ServiceName, entry: &LedgerEntry) {
        let key = (service.clone(), entry.release.id.clone());
        let news = if is_bad(entry) { self.bad().insert(key.clone()) } else { self.bad().remove(&key) };
        if news {
            self.releases().insert(key, entry.clone());
            self.0.more.notify_one();
        }
    }

    /// Telling anew what is remembered: whoever told it may have been cut off.
    pub(super) fn after(remembered: &Remembered) -> Self {
        let words = Self::default();
        for (service, entries) in &remembered.ledgers {
            entries.iter().filter(|entry| is_bad(entry)).for_each(|entry| words.tell_of(service, entry));
        }
        words
    }

    fn bad(&self) -> MutexGuard<'_, BTreeSet<(ServiceName, ReleaseId)>> {
        // Nothing that panics is done under this lock.
        self.0.bad.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn releases(&self) -> MutexGuard<'_, BTreeMap<(ServiceName, ReleaseId), LedgerEntry>> {
        // Nothing that panics is done under this lock.
        self.0.releases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newest(&self) -> MutexGuard<'_, BTreeMap<Option<ServiceName>, Word>> {
        // Nothing that panics is done under this lock.
        self.0.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes on what is told until it is dropped.
    pub(super) async fn pass_on(self, runtime: Arc<dyn Runtime>) {
        loop {
            self.0.more.notified().await;
            while self.one_round(runtime.as_ref()).await {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Passes on all that waits. Whether something has to be told again.
    async fn one_round(&self, runtime: &dyn Runtime) -> bool {
        let round = std::mem::take(&mut *self.newest());
        let mut again = false;
        for (service, word) in round {
            if let Err(e) = runtime.keep_word(service.as_ref(), &word).await {
                debug!(?service, "what people said could not be kept where others read it: {e}");
                // Unless something newer was said meanwhile.
                self.newest().entry(service).or_insert(word);
                again = true;
            }
        }
        let round = std::mem::take(&mut *self.releases());
        for ((service, id), entry) in round {
            let why = match &entry.standing {
                Standing::Quarantined { why, .. } => Some(why.as_str()),
                Standing::Trial | Standing::KnownGood { .. } => None,
            };
            if let Err(e) = runtime.keep_quarantine(&service, &entry.release, why).await {
                debug!(%service, "where {} stands could not be kept where others read it: {e}", entry.release);
                self.releases().entry((service, id)).or_insert(entry);
                again = true;
            }
        }
        again
    }
}
