//! Reads segments back, as far as they are whole.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::block::{self, HEAD, MAGIC};
use super::{EXTENSION, Entry};

/// The segments in a directory, oldest first.
///
/// # Errors
/// If the directory cannot be listed.
pub fn segments(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if number(&path).is_some() {
            found.push(path);
        }
    }
    found.sort_by_key(|path| number(path));
    Ok(found)
}

/// A segment's place in the ring.
pub(super) fn number(path: &Path) -> Option<u64> {
    let named = path.extension().is_some_and(|e| e == EXTENSION);
    named.then(|| path.file_stem()?.to_str()?.parse().ok()).flatten()
}

/// Whether the file is a segment, by how it begins.
pub fn is_segment(path: &Path) -> bool {
    let mut start = Vec::with_capacity(MAGIC.len());
    File::open(path)
        .is_ok_and(|file| file.take(MAGIC.len() as u64).read_to_end(&mut start).is_ok() && start == MAGIC)
}

/// A segment that is being read, block by block.
#[derive(Debug)]
pub struct Segment {
    from: BufReader<File>,
    /// Bytes that are left.
    left: u64,
    size: u64,
    entries: VecDeque<Entry>,
    ended: Option<Damage>,
}

/// Why a segment ends before its file does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// How many bytes are of no use.
    pub bytes: u64,
    /// The first of them.
    pub at: u64,
    /// What is wrong with them.
    pub what: String,
}

impl Segment {
    /// Opens a segment.
    ///
    /// # Errors
    /// If it cannot be read. One that is damaged from its first byte on is a segment without entries.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut segment =
            Self { from: BufReader::new(file), left: size, size, entries: VecDeque::new(), ended: None };
        let magic = segment.take(MAGIC.len())?;
        if magic.as_deref() != Some(MAGIC) {
            segment.end(size, "it does not begin as a flight record does");
        }
        Ok(segment)
    }

    /// What kept it from being read to its end, once it is.
    pub fn damage(&self) -> Option<&Damage> {
        self.ended.as_ref()
    }

    /// The next entry.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn entry(&mut self) -> io::Result<Option<Entry>> {
        while self.entries.is_empty() && self.left > 0 && self.ended.is_none() {
            self.block()?;
        }
        Ok(self.entries.pop_front())
    }

    fn block(&mut self) -> io::Result<()> {
        let useless = self.left;
        let Some(head) = self.take(HEAD)?.and_then(|head| head.try_into().ok()) else {
            self.end(useless, "a block was cut off");
            return Ok(());
        };
        let (length, checksum) = block::head(head);
        let Some(packed) = self.take(length)? else {
            self.end(useless, "a block was cut off");
            return Ok(());
        };
        let Some(entries) = block::open(&packed, checksum) else {
            self.end(useless, "a block does not have the checksum that it was written with");
            return Ok(());
        };
        let mut from = entries.as_slice();
        while !from.is_empty() {
            match rmp_serde::decode::from_read(&mut from) {
                Ok(entry) => self.entries.push_back(entry),
                Err(e) => {
                    let what = format!(
                        "an entry is not what this version of backstop ({}) writes: {e}",
                        env!("CARGO_PKG_VERSION")
                    );
                    self.end(useless, &what);
                    break;
                }
            }
        }
        Ok(())
    }

    /// So many bytes, if there are as many.
    fn take(&mut self, n: usize) -> io::Result<Option<Vec<u8>>> {
        let n = n as u64;
        if n > self.left {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.from.by_ref().take(n).read_to_end(&mut bytes)?;
        self.left -= n;
        // The file may have become shorter since.
        Ok((bytes.len() as u64 == n).then_some(bytes))
    }

    fn end(&mut self, bytes: u64, what: &str) {
        self.ended = Some(Damage { bytes, at: self.size - bytes, what: what.to_owned() });
    }
}
