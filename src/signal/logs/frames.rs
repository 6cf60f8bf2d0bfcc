//! An engine's answer with a log, taken apart into lines.
//!
//! Without a terminal the answer is a series of frames, each with a header of eight bytes (stream, three zeros, length);
//! with one it is the plain bytes. Either way each message begins with the engine's own time, and a line of more than
//! 16 KiB comes as several messages, each with a time of its own. Nothing of a line beyond [`LINE_MAX`] is ever kept,
//! whatever the container writes.

use std::collections::VecDeque;

use super::{EngineTime, LINE_MAX, LogLine};

/// The engine's time has at most 35 characters (`2006-01-02T15:04:05.999999999+07:00`); what is longer is none.
const STAMP_MAX: usize = 40;

/// Takes the engine's answer apart, however the bytes were cut on the way.
#[derive(Debug)]
pub struct Decoder {
    place: Place,
    /// Standard output, or all of it with a terminal.
    out: Line,
    err: Line,
    /// What the engine itself has to say.
    system: Line,
}

/// Where in the answer it is.
#[derive(Debug)]
enum Place {
    /// There are no frames.
    Plain,
    /// So many bytes of a frame's header are known.
    Header([u8; 8], usize),
    /// So many bytes of a frame are still to come.
    Body(Source, u32),
    /// This is no log. The rest is not read.
    Lost,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Out,
    Err,
    System,
}

impl Decoder {
    /// For the log of a container with or without a terminal.
    pub fn new(tty: bool) -> Self {
        let place = if tty { Place::Plain } else { Place::Header([0; 8], 0) };
        let mut decoder = Self { place, out: Line::default(), err: Line::default(), system: Line::default() };
        decoder.out.begin_message();
        decoder
    }

    /// Takes the next bytes; the lines that end in them go to `ready`. An `Err` is what the engine itself has to say, or
    /// that this is no log.
    pub fn feed(&mut self, mut bytes: &[u8], ready: &mut VecDeque<Result<LogLine, String>>) {
        while let Some((&first, rest)) = bytes.split_first() {
            match &mut self.place {
                Place::Lost => return,
                Place::Plain => {
                    self.out.push(bytes, &mut |line| ready.push_back(Ok(line)));
                    return;
                }
                Place::Header(header, have) => {
                    if let Some(slot) = header.get_mut(*have) {
                        *slot = first;
                    }
                    *have += 1;
                    bytes = rest;
                    if *have == header.len() {
                        let header = *header;
                        self.place = self.begin(header, ready);
                    }
                }
                Place::Body(source, left) => {
                    let (source, take) = (*source, bytes.len().min(*left as usize));
                    let (now, later) = bytes.split_at(take);
                    bytes = later;
                    *left -= u32::try_from(take).unwrap_or(*left);
                    if *left == 0 {
                        self.place = Place::Header([0; 8], 0);
                    }
                    self.push(source, now, ready);
                }
            }
        }
    }

    /// The answer ended: what is there of a line is a line.
    pub fn finish(&mut self, ready: &mut VecDeque<Result<LogLine, String>>) {
        self.out.end(&mut |line| ready.push_back(Ok(line)));
        self.err.end(&mut |line| ready.push_back(Ok(line)));
        self.system.end(&mut |line| ready.push_back(Err(line.text)));
    }

    fn begin(&mut self, header: [u8; 8], ready: &mut VecDeque<Result<LogLine, String>>) -> Place {
        let [stream, 0, 0, 0, a, b, c, d] = header else {
            ready.push_back(Err("what the engine sent is no log: a frame of it makes no sense".into()));
            return Place::Lost;
        };
        let (source, line) = match stream {
            0 | 1 => (Source::Out, &mut self.out),
            2 => (Source::Err, &mut self.err),
            3 => (Source::System, &mut self.system),
            _ => {
                ready.push_back(Err(format!("what the engine sent is no log: it has a stream {stream}")));
                return Place::Lost;
            }
        };
        match u32::from_be_bytes([a, b, c, d]) {
            0 => Place::Header([0; 8], 0),
            length => {
                line.begin_message();
                Place::Body(source, length)
            }
        }
    }

    fn push(&mut self, source: Source, bytes: &[u8], ready: &mut VecDeque<Result<LogLine, String>>) {
        match source {
            Source::Out => self.out.push(bytes, &mut |line| ready.push_back(Ok(line))),
            Source::Err => self.err.push(bytes, &mut |line| ready.push_back(Ok(line))),
            Source::System => self.system.push(bytes, &mut |line| ready.push_back(Err(line.text))),
        }
    }
}

/// A line of one stream as far as it is known.
#[derive(Debug, Default)]
struct Line {
    /// What comes may be the engine's time.
    stamping: bool,
    /// As much of it as came.
    stamp: Vec<u8>,
    at: Option<EngineTime>,
    text: Vec<u8>,
    /// More came than was kept.
    cut: bool,
    /// Something of this line came.
    begun: bool,
}

impl Line {
    /// What comes next begins with the engine's time, in the middle of a long line too.
    fn begin_message(&mut self) {
        self.settle_stamp(false);
        self.stamping = true;
    }

    fn push(&mut self, mut bytes: &[u8], emit: &mut impl FnMut(LogLine)) {
        while let Some((&first, rest)) = bytes.split_first() {
            self.begun = true;
            if self.stamping {
                match first {
                    b' ' => {
                        bytes = rest;
                        self.settle_stamp(true);
                        continue;
                    }
                    b'\n' => self.settle_stamp(false),
                    _ if self.stamp.len() < STAMP_MAX => {
                        bytes = rest;
                        self.stamp.push(first);
                        continue;
                    }
                    _ => self.settle_stamp(false),
                }
            }
            let end = bytes.iter().position(|b| *b == b'\n');
            let (now, later) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.keep(now);
            bytes = later.get(1..).unwrap_or_default();
            if end.is_some() {
                self.end(emit);
                self.stamping = true;
            }
        }
    }

    /// What was held back as the engine's time is that, or text like any other.
    fn settle_stamp(&mut self, space: bool) {
        if !std::mem::take(&mut self.stamping) {
            return;
        }
        let stamp = std::mem::take(&mut self.stamp);
        let parsed = std::str::from_utf8(&stamp).ok().and_then(EngineTime::parse);
        if let Some(at) = parsed {
            // A long line has the time at which it began.
            self.at.get_or_insert(at);
        } else {
            self.keep(&stamp);
            if space {
                self.keep(b" ");
            }
        }
        self.stamp = stamp;
        self.stamp.clear();
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_MAX.saturating_sub(self.text.len());
        self.cut |= bytes.len() > room;
        self.text.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn end(&mut self, emit: &mut impl FnMut(LogLine)) {
        self.settle_stamp(false);
        if !std::mem::take(&mut self.begun) {
            return;
        }
        let mut text = String::from_utf8_lossy(&self.text).into_owned();
        // A terminal ends its lines with both.
        if text.ends_with('\r') {
            text.pop();
        }
        self.text.clear();
        emit(LogLine { at: self.at.take(), text, cut: std::mem::take(&mut self.cut) });
    }
}
