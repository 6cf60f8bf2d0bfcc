//! systemd: says when we are ready, what is going on, and that the core still turns.
//!
//! Outside of systemd (`NOTIFY_SOCKET` not set) every call does nothing. The watchdog is fed only from a turn of the
//! core: a daemon whose loop hangs must be restarted, whatever its other threads still do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

use crate::clock::Clock;
use crate::core::Timestamp;
use crate::core::snapshot::{FleetSnapshot, State};

/// A handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Systemd {
    clock: Clock,
    /// Half of what the unit allows, as sd_watchdog_enabled(3) recommends.
    watchdog: Option<Duration>,
    said: Arc<Mutex<Said>>,
}

#[derive(Debug, Default)]
struct Said {
    status: String,
    fed: Timestamp,
}

impl Systemd {
    /// What the environment says about who started us.
    pub fn from_environment(clock: Clock) -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { clock, watchdog, said: Arc::default() }
    }

    /// Started, or done with a reload.
    pub fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    /// A reload began.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(e) => debug!("systemd cannot be told of the reload: {e}"),
        }
    }

    /// The end began, and may take up to `longest`.
    pub fn stopping(&self, longest: Duration) {
        let micros = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
        notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// The core turned.
    pub fn alive(&self) {
        let Some(pause) = self.watchdog else { return };
        let now = self.clock.now();
        let mut said = self.said();
        if now.since(said.fed) >= pause / 2 {
            said.fed = now;
            notify(&[NotifyState::Watchdog]);
        }
    }

    /// Puts one sentence about the fleet into `systemctl status`, if it changed.
    pub fn status(&self, fleet: &FleetSnapshot) {
        let status = sentence(fleet);
        let mut said = self.said();
        if said.status != status {
            notify(&[NotifyState::Status(&status)]);
            said.status = status;
        }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        // What was said last is as good after a panic elsewhere as before.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fleet in one sentence: what needs a person first, then what is going on, then what is well.
fn sentence(fleet: &FleetSnapshot) -> String {
    if let Some(why) = &fleet.store_error {
        return format!("The store failed, nothing is rolled back: {why}");
    }
    if fleet.engine.is_none() {
        return "Waiting for the engine".into();
    }
    let names = |state| -> Vec<&str> {
        fleet.services.iter().filter(|s| s.state == state).map(|s| s.name.as_str()).collect()
    };
    for (state, words) in [
        (State::Stuck, "A person is needed for"),
        (State::RollingBack, "Rolling back"),
        (State::Verifying, "Verifying the rollback of"),
        (State::Suspect, "Suspecting"),
        (State::Blind, "Cannot measure"),
    ] {
        let names = names(state);
        if !names.is_empty() {
            return format!("{words} {}; watching {} services", names.join(", "), fleet.services.len());
        }
    }
    let trial = names(State::Trial).len();
    format!("Watching {} services, {trial} of them on trial", fleet.services.len())
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        debug!("systemd cannot be told: {e}");
    }
}
