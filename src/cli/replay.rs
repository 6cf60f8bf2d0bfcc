//! `backstop replay`: what would have been decided, and whether it is what was decided.
//!
//! Every file is a world of its own; several are worked on side by side, and their decisions are printed in the order
//! in which the files were named, whoever is ready first.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::failure::{Code, Failure};
use super::run::{SourceArgs, read};
use super::table::Screen;
use super::{Output, write_out};
use crate::config::Settings;
use crate::core::Timestamp;
use crate::core::release::ServiceName;
use crate::core::settings::{FleetSettings, ServiceSettings};
use crate::flight::DIRECTORY;
use crate::flight::reader::{is_segment, segments};
use crate::replay::anew::{Anew, replay_anew};
use crate::replay::record::{self, Account};
use crate::replay::{Line, Trace, run_trace};

/// Only these files are taken from a directory of traces.
const TRACE_EXTENSION: &str = "jsonl";
/// Standard input.
const STDIN: &str = "-";

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Traces as JSON Lines (the README's "Plain traces" has the format), directories of them (`*.jsonl`), `-` for
    /// standard input, or the daemon's own record (`/var/lib/backstop/flight`), which has its settings in it and is
    /// compared with what the daemon did; with `--config` or `--set` it is judged anew, by what they say in place of
    /// what was recorded. Of several files, decisions tell theirs by its name without the extension, or by its path as
    /// it was given where two have the same name
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    sources: SourceArgs,
    /// How many files are worked on at a time [default: one a processor]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

/// What became of one file: its decisions and what else there is to say, or why it could not be used.
type Played = Result<(Vec<Line>, Option<Account>), String>;

pub(super) fn run(args: ReplayArgs, out: &Output) -> anyhow::Result<()> {
    let anew = args.sources.given().map(|given| read(&given)).transpose()?;
    // What does not hold by itself may hold with the file; then a slip goes unsaid.
    let set = read(&args.sources.set_alone()).ok();
    let mut sources = args.sources.sources();
    // No engine is asked here: where it is need not be right.
    sources.environment.retain(|(name, _)| name != "DOCKER_HOST");
    let settings = read(&sources)?;
    let files = spread(args.files)?;
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let names = names(&files);
    let mut failed = 0;
    let given = Given { settings, anew, known: Mutex::default() };
    play(&files, &given, jobs, |path, played| match played {
        Ok((lines, account)) => {
            print(out, names.get(path).cloned(), &lines, account.is_some())?;
            failed += usize::from(account.is_some_and(|account| !tell(path, &account, &out.screen)));
            Ok(())
        }
        Err(why) => {
            failed += 1;
            say_wrong(path, &why);
            Ok(())
        }
    })?;
    // Records have remarks of their own.
    let set = set.filter(|_| !files.iter().any(|path| path.is_dir() || is_segment(path)));
    warn_of_unknown(set.as_ref(), given.known.into_inner().unwrap_or_else(PoisonError::into_inner));
    match failed {
        0 => Ok(()),
        n => {
            let what = format!("{n} of {} could not be replayed, or went otherwise", files.len());
            Err(Failure::new(Code::Failure, what).hint("what is wrong with each is said above").into())
        }
    }
}

/// What is judged by.
struct Given {
    /// Everything that is configured here, for plain traces.
    settings: Settings,
    /// What the command line says of it, to be put over what the daemon recorded.
    anew: Option<Settings>,
    /// The services of the plain traces so far.
    known: Mutex<BTreeSet<ServiceName>>,
}

/// The settings of the command line over those of a record.
struct Over<'a> {
    settings: &'a Settings,
    /// The services that are in it.
    known: RefCell<BTreeSet<ServiceName>>,
}

impl Anew for Over<'_> {
    fn service(&self, name: &ServiceName, then: &ServiceSettings) -> Result<ServiceSettings, Vec<String>> {
        self.known.borrow_mut().insert(name.clone());
        self.settings.over(name, then)
    }

    fn fleet(&self, then: &FleetSettings) -> FleetSettings {
        self.settings.fleet_over(then)
    }
}

fn say_wrong(path: &Path, why: &str) {
    anstream::eprintln!("\x1b[1;31merror:\x1b[0m {}: {}", path.display(), why.replace('\n', "\n  "));
}

/// A service that the command line sets and that is in no trace is a slip. That a file is for others too is not.
fn warn_of_unknown(set: Option<&Settings>, known: BTreeSet<ServiceName>) {
    for name in set.into_iter().flat_map(Settings::named).filter(|name| !known.contains(name)) {
        let all: Vec<&str> = known.iter().map(ServiceName::as_str).take(10).collect();
        anstream::eprintln!(
            "\x1b[1;33mwarning:\x1b[0m `services.{name}` is set, and no {name} is in what was replayed; what is: {}{}",
            all.join(", "),
            if known.len() > all.len() { ", ..." } else { "" }
        );
    }
}

/// Says how the daemon's own record compares with what it did; whether it is the same.
fn tell(path: &Path, account: &Account, screen: &Screen) -> bool {
    for remark in &account.remarks {
        anstream::eprintln!("\x1b[1;33mwarning:\x1b[0m {}: {remark}", path.display());
    }
    let Some((from, until)) = account.span else {
        say_wrong(path, "there is nothing in it that could be replayed");
        return false;
    };
    let (from, until) = (screen.moment(crate::api::time(from)), screen.moment(crate::api::time(until)));
    let versions = account.versions.join(", ");
    let what = format!("{} inputs from {from} to {until}, recorded by backstop {versions}", account.turns);
    match &account.difference {
        _ if account.anew => {
            let (now, then) = (account.lines.len(), account.recorded);
            anstream::eprintln!(
                "judged anew by --config and --set, as in dry-run mode: {now} decisions, where the daemon made {then}; {what}"
            );
            true
        }
        None => {
            anstream::eprintln!("identical to what it did: {} decisions; {what}", account.recorded);
            true
        }
        Some(difference) => {
            let ours = env!("CARGO_PKG_VERSION");
            say_wrong(path, &format!("not what it did: {difference}\n{what}; this is backstop {ours}"));
            false
        }
    }
}

/// The files meant: a directory stands for the traces in it.
fn spread(given: Vec<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        // The daemon's own record is one file to us.
        if !path.is_dir() || segments(&path).is_ok_and(|segments| !segments.is_empty()) {
            files.push(path);
            continue;
        }
        let unreadable = |e| Failure::new(Code::Failure, format!("{} cannot be listed: {e}", path.display()));
        let entries = std::fs::read_dir(&path).map_err(unreadable)?;
        let mut within: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| file.extension().is_some_and(|e| e == TRACE_EXTENSION))
            .collect();
        if within.is_empty() {
            let what = format!("{} has no trace in it: no file ends in .{TRACE_EXTENSION}", path.display());
            let record = path.join(DIRECTORY);
            let failure = Failure::new(Code::Failure, what);
            return Err(if segments(&record).is_ok_and(|segments| !segments.is_empty()) {
                failure
                    .hint(format!("the daemon's own record is in it: backstop replay {}", record.display()))
            } else {
                failure
            }
            .into());
        }
        within.sort();
        files.append(&mut within);
    }
    Ok(files)
}

/// Plays every file, `jobs` at a time, and hands the results on in the files' order.
fn play(
    files: &[PathBuf],
    given: &Given,
    jobs: usize,
    mut ready: impl FnMut(&Path, Played) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let next = Mutex::new((0..files.len()).collect::<VecDeque<_>>());
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        let (done, results) = mpsc::channel();
        for _ in 0..jobs.min(files.len()) {
            let (done, take) = (done.clone(), &take);
            scope.spawn(move || {
                while let Some((i, path)) = take().and_then(|i| Some((i, files.get(i)?))) {
                    if done.send((i, one(path, given))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done);
        let mut early = BTreeMap::new();
        let mut due = 0;
        for (i, played) in results {
            early.insert(i, played);
            while let Some((path, played)) = files.get(due).zip(early.remove(&due)) {
                ready(path, played)?;
                due += 1;
            }
        }
        Ok(())
    })
}

fn one(path: &Path, given: &Given) -> Played {
    if path.is_dir() || is_segment(path) {
        let account = match &given.anew {
            None => record::replay(path),
            Some(settings) => anew(path, settings),
        };
        let mut account = account.map_err(|e| match e.kind() {
            // Not of the file: the settings do not hold.
            std::io::ErrorKind::Other => e.to_string(),
            _ => format!("it cannot be read: {e}"),
        })?;
        return Ok((std::mem::take(&mut account.lines), Some(account)));
    }
    let from: Box<dyn Read> = if path.as_os_str() == STDIN {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(|e| format!("it cannot be opened: {e}"))?)
    };
    let mut from = BufReader::new(from);
    // What cannot be read is told by whoever reads on.
    if let Some(why) = from.fill_buf().ok().and_then(|begins| compressed(path, begins)) {
        return Err(why);
    }
    let trace = Trace::read(from).map_err(|wrong| format!("it is not a trace:\n{wrong}"))?;
    // A pipeline that wrote nothing must not look like one in which nothing was wrong.
    if trace.services.is_empty() {
        return Err("it is empty: there is nothing in it that could be replayed".into());
    }
    given.known.lock().unwrap_or_else(PoisonError::into_inner).extend(trace.services.keys().cloned());
    let settings = &given.settings;
    let known = configured(settings, trace.services.keys())?;
    let known = |name: &ServiceName| known.get(name).cloned().unwrap_or_default();
    Ok((run_trace(&trace, &known, settings.fleet.clone()), None))
}

/// The record by other settings. A service that is set and is not in it is a slip.
fn anew(path: &Path, settings: &Settings) -> std::io::Result<Account> {
    let over = Over { settings, known: RefCell::default() };
    let mut account = replay_anew(path, &over)?;
    let known = over.known.into_inner();
    let unknown = settings.named().filter(|name| !known.contains(name));
    account
        .remarks
        .extend(unknown.map(|name| format!("`services.{name}` is set, and no {name} is in the record")));
    Ok(account)
}

/// The configured settings of each service.
fn configured<'a>(
    settings: &Settings,
    names: impl Iterator<Item = &'a ServiceName>,
) -> Result<BTreeMap<ServiceName, ServiceSettings>, String> {
    names
        .map(|name| match settings.service(name, &BTreeMap::new()) {
            Ok(found) => Ok((name.clone(), found)),
            Err(problems) => Err(format!("the settings of {name} do not hold: {}", problems.join("; "))),
        })
        .collect()
}

/// The names by which decisions tell their files, if there are several: those that share one are told by their paths.
fn names(files: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    if files.len() < 2 {
        return BTreeMap::new();
    }
    let mut sharing: BTreeMap<String, BTreeSet<&PathBuf>> = BTreeMap::new();
    for path in files {
        sharing.entry(stem(path)).or_default().insert(path);
    }
    let named = sharing.into_iter().flat_map(|(stem, paths)| {
        let alone = paths.len() == 1;
        paths
            .into_iter()
            .map(move |path| (path.clone(), if alone { stem.clone() } else { path.display().to_string() }))
    });
    named.collect()
}

/// How a compressed file begins, what made it so, and what shows it as it was.
const COMPRESSED: [(&[u8], &str, &str); 4] = [
    (b"\x1f\x8b", "gzip", "zcat"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstdcat"),
    (b"\xfd7zXZ\0", "xz", "xzcat"),
    (b"BZh", "bzip2", "bzcat"),
];

/// Why a file that is compressed is not read, and what to type; nothing if it is not.
fn compressed(path: &Path, begins: &[u8]) -> Option<String> {
    let (_, how, show) = COMPRESSED.iter().find(|(mark, ..)| begins.starts_with(mark))?;
    let file = if path.as_os_str() == STDIN { "FILE".into() } else { path.display().to_string() };
    Some(format!("it is compressed with {how}; type: {show} {file} | backstop replay -"))
}

/// A file's name without its extension.
fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.to_string_lossy().into_owned())
}

fn print(out: &Output, trace: Option<String>, lines: &[Line], unix: bool) -> anyhow::Result<()> {
    /// A decision that names its file.
    #[derive(Serialize)]
    struct Named<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        trace: Option<&'a str>,
        #[serde(flatten)]
        line: &'a Line,
    }
    if !out.json {
        return write_out(&table(&out.screen, trace.as_deref(), lines, unix));
    }
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(&Named { trace: trace.as_deref(), line })?);
        text.push('\n');
    }
    write_out(&text)
}

/// `unix`: the times are Unix time, and people read calendars.
fn table(screen: &Screen, trace: Option<&str>, lines: &[Line], unix: bool) -> String {
    let mut text = trace.map_or_else(String::new, |trace| format!("{}\n", super::table::bold(trace)));
    if lines.is_empty() {
        text.push_str("Nothing was decided.\n");
    } else {
        let rows = lines.iter().map(|line| {
            let at = if unix { moment(screen, line.t) } else { format!("{}s", line.t) };
            let row = [at, line.service.clone(), line.decision.to_owned(), line.signal.clone()];
            (row, line.reason.clone())
        });
        text.push_str(&screen.noted(["T", "SERVICE", "DECISION", "SIGNAL"], rows.collect()));
    }
    if trace.is_some() {
        text.push('\n');
    }
    text
}

fn moment(screen: &Screen, t: f64) -> String {
    let since = Duration::try_from_secs_f64(t).unwrap_or_default();
    screen.moment(crate::api::time(Timestamp::default() + since))
}
