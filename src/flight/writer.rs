//! The thread that writes the record.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, UNIX_EPOCH};

use tracing::{error, info, warn};

use super::block::{self, MAGIC};
use super::reader::{number, segments};
use super::{EXTENSION, Entry, Limits, Note, Seen, Shared, Told};
use crate::core::io::Input;
use crate::core::observation::{Look, Observation};
use crate::core::release::ServiceName;
use crate::core::settings::ServiceSettings;
use crate::core::{Fleet, Timestamp};

/// A block is closed when it is as long as this, before compression ...
const BLOCK: usize = 256 << 10;
/// ... or this old: what a crash costs at most.
const FLUSH: Duration = Duration::from_secs(1);
/// The ring is made of so many segments, if the checkpoints leave room for it.
const SEGMENTS: u32 = 16;
/// A segment is at least so many times as long as its checkpoint.
const CHECKPOINTS: u64 = 4;
/// How often a disk that could not be written to is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    directory: PathBuf,
    limits: Limits,
    shared: Arc<Shared>,
    segment: Option<Segment>,
    /// The disk could not be written to: when that was last tried.
    failed: Option<Timestamp>,
    /// Turns that were not written since the last checkpoint that was.
    lost: u64,
    /// How long the next segment is expected to get.
    expected: u64,
}

/// The segment that is being written.
#[derive(Debug)]
struct Segment {
    file: File,
    /// Bytes in the file.
    written: u64,
    /// How many of them the checkpoint took.
    checkpoint: u64,
    began: Timestamp,
    /// Entries that are not in the file yet, and the time of the first of them.
    block: Vec<u8>,
    block_began: Timestamp,
    /// The settings that each service had last: nearly always it still has them.
    last: HashMap<ServiceName, (Arc<ServiceSettings>, u32)>,
    /// All settings that were written, as they were.
    settings: HashMap<Vec<u8>, u32>,
}

impl Writer {
    pub(super) fn new(directory: PathBuf, limits: Limits, shared: Arc<Shared>) -> Self {
        let expected = limits.max_bytes / u64::from(SEGMENTS);
        Self { directory, limits, shared, segment: None, failed: None, lost: 0, expected }
    }

    /// Writes until the other side goes away.
    pub(super) fn run(mut self, notes: &Receiver<Note>) {
        loop {
            let note = match notes.recv_timeout(FLUSH) {
                Ok(note) => note,
                Err(RecvTimeoutError::Timeout) => {
                    self.flush();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            };
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            match note {
                Note::Turn { at, input, decided } => self.turn(at, *input, decided),
                Note::Checkpoint { at, fleet, lost } => self.begin(at, fleet, lost),
                Note::Close(done) => {
                    self.flush();
                    // Whoever waited may have given up.
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    fn turn(&mut self, at: Timestamp, input: Input, decided: Vec<crate::core::decision::Decision>) {
        let Some(segment) = &mut self.segment else {
            self.lost += 1;
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            if self.failed.is_none_or(|since| at.since(since) >= RETRY) {
                self.failed = Some(at);
                self.shared.wants.store(true, Ordering::Release);
            }
            return;
        };
        let urgent = !decided.is_empty();
        let result = segment.turn(at, input, decided).and_then(|()| {
            let due = urgent || segment.block.len() >= BLOCK || at.since(segment.block_began) >= FLUSH;
            if due { segment.flush() } else { Ok(()) }
        });
        let full = segment.is_full(at, self.limits);
        // The checkpoint that was asked for does not come: the bound holds all the same.
        let over = segment.written >= segment.most(self.limits).saturating_mul(2);
        match result {
            Ok(()) if over => self.segment = None,
            Ok(()) if full => self.shared.wants.store(true, Ordering::Release),
            Ok(()) => {}
            Err(e) => self.broke(at, &e),
        }
    }

    /// A new segment, with a checkpoint.
    fn begin(&mut self, at: Timestamp, fleet: Box<Fleet>, lost: u64) {
        self.flush();
        let follows = self.segment.take().is_some() && lost == 0;
        let lost = lost + self.lost;
        let begun =
            self.trim(at).and_then(|next| Segment::begin(&self.directory, next, at, fleet, follows, lost));
        match begun {
            Ok((path, segment)) if segment.checkpoint > self.limits.max_bytes / 2 => {
                // What it takes to keep is more than may be kept.
                let needed = segment.checkpoint;
                drop(segment);
                let _ = std::fs::remove_file(path);
                let why = format!(
                    "one checkpoint takes {needed} bytes; `flight.size` must be at least {}",
                    needed * 8
                );
                self.broke(at, &io::Error::other(why));
            }
            Ok((_, segment)) => {
                if self.failed.take().is_some() {
                    info!(lost, "the flight record is written again");
                }
                self.lost = 0;
                self.expected = segment.most(self.limits);
                self.segment = Some(segment);
            }
            Err(e) => self.broke(at, &e),
        }
    }

    fn flush(&mut self) {
        let Some(segment) = &mut self.segment else { return };
        let at = segment.block_began;
        if let Err(e) = segment.flush() {
            self.broke(at, &e);
        }
    }

    /// Recording stops for a while. Said once: the daemon's work goes on without it.
    fn broke(&mut self, at: Timestamp, why: &io::Error) {
        self.segment = None;
        if self.failed.is_none() {
            let directory = self.directory.display();
            error!(%directory, "the flight record cannot be written, it is tried again every minute; all else goes on: {why}");
        }
        self.failed = Some(at);
    }

    /// Drops segments that are too old or too many. Returns the number of the next one.
    fn trim(&self, now: Timestamp) -> io::Result<u64> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let mut there = Vec::new();
        for path in segments(&self.directory)? {
            let about = std::fs::metadata(&path)?;
            let written = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            there.push((path, about.len(), Timestamp::default() + written));
        }
        let next = there.last().and_then(|(path, ..)| number(path)).map_or(1, |n| n + 1);
        // Room for the segment that is about to begin.
        let room = self.limits.max_bytes.saturating_sub(self.expected);
        let mut total: u64 = there.iter().map(|(_, size, _)| size).sum();
        for (path, size, written) in there {
            let old = now.since(written) > self.limits.max_age;
            if total <= room && !old {
                break;
            }
            match std::fs::remove_file(&path) {
                Ok(()) => total -= size,
                Err(e) => {
                    warn!(segment = %path.display(), "an old part of the flight record cannot be dropped: {e}")
                }
            }
        }
        Ok(next)
    }
}

impl Segment {
    fn begin(
        directory: &Path,
        number: u64,
        at: Timestamp,
        fleet: Box<Fleet>,
        follows: bool,
        lost: u64,
    ) -> io::Result<(PathBuf, Self)> {
        let path = directory.join(format!("{number:012}.{EXTENSION}"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(MAGIC)?;
        let mut segment = Self {
            file,
            written: MAGIC.len() as u64,
            checkpoint: 0,
            began: at,
            block: Vec::new(),
            block_began: at,
            last: HashMap::new(),
            settings: HashMap::new(),
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        segment.add(&Entry::Checkpoint { at, version, follows, lost, fleet })?;
        segment.flush()?;
        segment.checkpoint = segment.written;
        Ok((path, segment))
    }

    fn turn(
        &mut self,
        at: Timestamp,
        input: Input,
        decided: Vec<crate::core::decision::Decision>,
    ) -> io::Result<()> {
        if self.block.is_empty() {
            self.block_began = at;
        }
        let told = match input {
            Input::Looked(Look { asked, engine, services, refused, after_gap }) => {
                let services = services.into_iter().map(|seen| self.seen(seen)).collect::<io::Result<_>>()?;
                Told::Looked { asked, engine, services, refused, after_gap }
            }
            Input::Observed(seen) => Told::Observed(self.seen(seen)?),
            other => Told::Input(other),
        };
        self.add(&Entry::Turn { at, input: Box::new(told), decided })
    }

    /// An observation with its settings by number; settings that are new here are written first.
    fn seen(&mut self, seen: Observation) -> io::Result<Seen> {
        let Observation { service, settings, asked, replicas } = seen;
        let known =
            self.last.get(&service).filter(|(last, _)| Arc::ptr_eq(last, &settings) || *last == settings);
        if let Some((_, id)) = known {
            return Ok(Seen { settings: *id, service, asked, replicas });
        }
        let text = rmp_serde::to_vec_named(&*settings).map_err(io::Error::other)?;
        let id = match self.settings.get(&text) {
            Some(id) => *id,
            None => {
                let id = u32::try_from(self.settings.len()).map_err(io::Error::other)?;
                self.add(&Entry::Settings { id, settings: Box::new((*settings).clone()) })?;
                self.settings.insert(text, id);
                id
            }
        };
        self.last.insert(service.clone(), (settings, id));
        Ok(Seen { service, settings: id, asked, replicas })
    }

    fn add(&mut self, entry: &Entry) -> io::Result<()> {
        block::add(&mut self.block, entry).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let sealed = block::seal(&self.block);
        self.block.clear();
        self.file.write_all(&sealed)?;
        // Segments age by the time that is recorded in them, and not by a wall clock that is set meanwhile.
        self.file.set_modified(UNIX_EPOCH + Duration::from_millis(self.block_began.as_millis()))?;
        self.written += sealed.len() as u64;
        Ok(())
    }

    /// How long it may get.
    fn most(&self, limits: Limits) -> u64 {
        let share = limits.max_bytes / u64::from(SEGMENTS);
        share.max(self.checkpoint * CHECKPOINTS).min(limits.max_bytes / 2)
    }

    fn is_full(&self, now: Timestamp, limits: Limits) -> bool {
        self.written >= self.most(limits) || now.since(self.began) >= limits.max_age / SEGMENTS
    }
}
