//! Tells the core which windows are open. It decides by them, and reads no calendar.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::config::Settings;
use crate::core::Input;
use crate::core::settings::OpenWindow;

/// Windows begin and end on the minute; a few seconds later is soon enough.
const LOOK: Duration = Duration::from_secs(5);

/// The windows that are open now.
pub(super) fn open(settings: &Settings, clock: Clock) -> Vec<OpenWindow> {
    settings.windows.iter().filter_map(|window| window.open(clock.now())).collect()
}

/// Says whenever a window opens or closes, as it was `told` last.
pub(super) async fn watch(
    inputs: mpsc::Sender<Input>,
    mut settings: watch::Receiver<Arc<Settings>>,
    clock: Clock,
    mut told: Vec<OpenWindow>,
) {
    loop {
        tokio::select! {
            changed = settings.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = open(&settings.borrow_and_update(), clock);
        if now != told {
            told.clone_from(&now);
            if inputs.send(Input::Windows(now)).await.is_err() {
                return;
            }
        }
    }
}
