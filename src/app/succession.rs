//! What another Backstop leaves to us, and what we leave to the next: good releases, and pauses. A Swarm moves
//! Backstop to another manager, whose state directory knows nothing of them, or knows of a time long ago.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::core::Timestamp;
use crate::core::ledger::{LedgerChange, LedgerEntry, Remembered, Standing};
use crate::core::release::ServiceName;
use crate::runtime::{Recorded, Runtime, Word};
use crate::store::Store;

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

/// Good releases of services that our own store knows nothing of: ours is the better memory.
async fn take_releases(store: &Store, remembered: &mut Remembered, recorded: Vec<Recorded>) {
    let mut taken: BTreeMap<ServiceName, Vec<LedgerEntry>> = BTreeMap::new();
    for one in recorded {
        if remembered.ledgers.iter().any(|(service, _)| *service == one.service) {
            continue;
        }
        let standing = Standing::KnownGood { since: one.since };
        let entry = LedgerEntry {
            release: one.release,
            first_seen: one.since,
            deployed: one.since,
            standing,
            note: None,
            gone: None,
            schema: Default::default(),
        };
        let service = one.service.clone();
        let change = LedgerChange::Entry { service: service.clone(), entry: entry.clone() };
        let kept = match store.save_snapshots(&service, &entry.release.id, &one.snapshots).await {
            Ok(()) => store.remember(vec![change]).await,
            Err(e) => Err(e),
        };
        match kept {
            Ok(()) => {
                info!(%service, release = %entry.release, "known-good, as another Backstop recorded it");
                taken.entry(service).or_default().push(entry);
            }
            Err(e) => warn!(%service, "what another Backstop recorded cannot be kept: {e}"),
        }
    }
    remembered.ledgers.extend(taken);
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

/// Tells the next one what people say here of pauses. It is our own store that counts while we run, so nobody waits for this.
#[derive(Debug, Clone, Default)]
pub(super) struct Words(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// The newest of each service; of the fleet, without a name.
    newest: Mutex<BTreeMap<Option<ServiceName>, Word>>,
    more: Notify,
}

impl Words {
    /// Tells what of `changes` people said.
    pub(super) fn tell(&self, now: Timestamp, changes: &[LedgerChange]) {
        for change in changes {
            if let LedgerChange::Flags { service, flags } = change {
                self.newest().insert(service.clone(), Word { at: now, paused: flags.paused.clone() });
                self.0.more.notify_one();
            }
        }
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
        again
    }
}
