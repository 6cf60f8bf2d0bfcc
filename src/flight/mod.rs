//! The flight record: everything that the core was told, with its time, in a bounded ring on disk, so that what it
//! decided can be gone through again, and must come out the same.
//!
//! The ring is a directory of segments (`000000000042.flight`). Each begins with a checkpoint of the whole core, so
//! that it can be replayed although those before it are gone. A segment is a line of text that says what it is, and
//! then blocks: length, checksum, and [`Entry`]s as MessagePack with names, compressed by LZ4. A block that was cut
//! off by a crash or a full disk is recognised and ends its segment.
//!
//! Nothing here is allowed to hold the core up, or to harm it: a thread of its own does the work, behind a queue with
//! a bound. What does not fit is lost, counted, and followed by a new checkpoint; a disk that is full is said once.
//! Nothing is synced: a crash of the program costs at most a second of the record, one of the machine some more.

mod block;
pub mod reader;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::writer::Writer;
use crate::core::decision::Decision;
use crate::core::io::{Effect, Input};
use crate::core::observation::{Refusal, Replica, just_now};
use crate::core::release::ServiceName;
use crate::core::settings::ServiceSettings;
use crate::core::{Fleet, Timestamp};

/// The directory of the record within the state directory.
pub const DIRECTORY: &str = "flight";
/// What segments' names end in.
pub const EXTENSION: &str = "flight";
/// Turns that may wait for the disk: some seconds of a thousand services.
const QUEUE_MAX: usize = 8192;
/// After a loss, a checkpoint is made when the queue is as empty as this: one that does not fit is work for nothing.
const QUEUE_CALM: usize = QUEUE_MAX / 4;
/// How long the end of the program waits for the last block to be written.
const LAST_BLOCK: Duration = Duration::from_secs(2);

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on disk, over all segments.
    pub max_bytes: u64,
    /// Segments whose last entry is older than this are dropped.
    pub max_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // Days of a host with some dozens of services, and hours of one with a thousand; little beside its images.
        Self { max_bytes: 64 << 20, max_age: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// What stands in a segment.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The whole core, as it was after everything before. The first entry of every segment.
    Checkpoint {
        /// When.
        at: Timestamp,
        /// Which version of the program wrote the segment.
        version: String,
        /// Whether it follows on what the segment before ends with, with nothing in between.
        follows: bool,
        /// How many turns were lost before it.
        lost: u64,
        /// The core.
        fleet: Box<Fleet>,
    },
    /// Settings of services, which later entries of the segment name by number: they are long, and rarely change.
    Settings {
        /// The number.
        id: u32,
        /// The settings.
        settings: Box<ServiceSettings>,
    },
    /// One turn of the core.
    Turn {
        /// Its time.
        at: Timestamp,
        /// What the core was told.
        input: Box<Told>,
        /// What it decided.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        decided: Vec<Decision>,
    },
}

/// An input as it is written: services' settings by number.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// [`Input::Looked`].
    Looked {
        /// When it was begun.
        #[serde(default = "just_now")]
        asked: Timestamp,
        /// The engine that was looked at; empty for the default one.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        engine: String,
        /// The services.
        services: Vec<Seen>,
        /// Those that were refused.
        refused: Vec<Refusal>,
        /// Events may have been lost before.
        after_gap: bool,
    },
    /// [`Input::Observed`].
    Observed(Seen),
    /// Any other.
    Input(Input),
}

/// An observation as it is written.
#[derive(Debug, Serialize, Deserialize)]
pub struct Seen {
    /// The service.
    pub service: ServiceName,
    /// The number of its settings.
    pub settings: u32,
    /// When the look at it was begun.
    #[serde(default = "just_now")]
    pub asked: Timestamp,
    /// Its replicas.
    pub replicas: Vec<Replica>,
}

/// What goes to the thread that writes.
#[derive(Debug)]
enum Note {
    Turn { at: Timestamp, input: Box<Input>, decided: Vec<Decision> },
    Checkpoint { at: Timestamp, fleet: Box<Fleet>, lost: u64 },
    Close(SyncSender<()>),
}

/// What the two sides tell each other besides.
#[derive(Debug, Default)]
struct Shared {
    /// The writer wants a checkpoint: its segment is full, or it can write again.
    wants: AtomicBool,
    /// Notes that wait.
    waiting: AtomicUsize,
    /// Turns that were not recorded.
    lost: AtomicU64,
}

/// The driver's side: takes a copy of each turn, and never waits.
#[derive(Debug)]
pub struct Recorder {
    notes: SyncSender<Note>,
    shared: Arc<Shared>,
    /// Turns lost since the last checkpoint: what comes after a loss is of no use before there is a new one.
    lost: u64,
}

impl Recorder {
    /// Begins a segment in `directory`, which is made if it is missing, with the core as it is now.
    ///
    /// # Errors
    /// If no thread can be had. A disk that cannot be written to is no error: it is logged, and tried again.
    pub fn start(directory: PathBuf, limits: Limits, at: Timestamp, fleet: &Fleet) -> std::io::Result<Self> {
        let (mut recorder, inbox) = Self::with_queue(QUEUE_MAX);
        let writer = Writer::new(directory, limits, Arc::clone(&recorder.shared));
        std::thread::Builder::new().name("flight-record".into()).spawn(move || writer.run(&inbox))?;
        recorder.checkpoint(at, fleet);
        Ok(recorder)
    }

    fn with_queue(max: usize) -> (Self, Receiver<Note>) {
        let (notes, inbox) = mpsc::sync_channel(max);
        (Self { notes, shared: Arc::default(), lost: 0 }, inbox)
    }

    /// Records a turn: what the core was told, and what followed; `fleet` is the core after it.
    pub fn turned(&mut self, at: Timestamp, input: Input, effects: &[Effect], fleet: &Fleet) {
        let decided = effects.iter().filter_map(|effect| match effect {
            Effect::Decided(decision) => Some(Decision::clone(decision)),
            _ => None,
        });
        let decided = decided.collect();
        if self.lost > 0 || !self.send(Note::Turn { at, input: Box::new(input), decided }) {
            self.lost += 1;
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
        let wanted = self.lost > 0 || self.shared.wants.load(Ordering::Acquire);
        if wanted && self.shared.waiting.load(Ordering::Acquire) <= QUEUE_CALM {
            self.checkpoint(at, fleet);
        }
    }

    /// Turns that were not recorded since the start: the queue was full, or the disk could not be written to.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Turns that wait to be written.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Writes what is left and ends.
    pub fn close(self) {
        let (done, ended) = mpsc::sync_channel(1);
        if self.send(Note::Close(done)) {
            // Nobody is kept from stopping by a disk that does not answer.
            let _ = ended.recv_timeout(LAST_BLOCK);
        }
    }

    fn checkpoint(&mut self, at: Timestamp, fleet: &Fleet) {
        self.shared.wants.store(false, Ordering::Release);
        if self.send(Note::Checkpoint { at, fleet: Box::new(fleet.clone()), lost: self.lost }) {
            self.lost = 0;
        }
    }

    fn send(&self, note: Note) -> bool {
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        match self.notes.try_send(note) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ledger::Remembered;
    use crate::core::settings::FleetSettings;

    #[test]
    fn a_queue_that_was_full_leaves_a_gap_that_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let start = Timestamp::from_secs(86_400);
        let mut fleet = Fleet::restore(start, FleetSettings::default(), Remembered::default());
        let (mut recorder, inbox) = Recorder::with_queue(4);
        recorder.checkpoint(start, &fleet);
        let mut turn = |recorder: &mut Recorder| {
            let effects = fleet.handle(start, Input::Tick);
            recorder.turned(start, Input::Tick, &effects, &fleet);
        };
        // A disk that takes nothing: three turns fit beside the checkpoint.
        (0..10).for_each(|_| turn(&mut recorder));
        assert_eq!(recorder.lost(), 7);
        let writer = Writer::new(directory.path().into(), Limits::default(), Arc::clone(&recorder.shared));
        let writing = std::thread::spawn(move || writer.run(&inbox));
        while recorder.waiting() > 0 {
            std::thread::yield_now();
        }
        // The first one after it is lost as well, but brings the checkpoint from which it goes on.
        turn(&mut recorder);
        while recorder.waiting() > 0 {
            std::thread::yield_now();
        }
        (0..2).for_each(|_| turn(&mut recorder));
        recorder.close();
        writing.join().unwrap();
        let account = crate::replay::record::replay(directory.path()).unwrap();
        assert_eq!((account.turns, account.difference), (5, None));
        assert_eq!(account.remarks.len(), 1, "{:?}", account.remarks);
        assert!(account.remarks[0].contains("8 turns were not recorded"), "{:?}", account.remarks);
    }
}
