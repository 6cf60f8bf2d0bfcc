//! `backstop replay`: what would have been decided, and whether it is what was decided.
//!
//! Every file is a world of its own; several are worked on side by side, and their decisions are printed in the order
//! in which the files were named, whoever is ready first.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufReader, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};

use clap::Args;
use serde::Serialize;

use super::failure::{Code, Failure};
use super::run::{SourceArgs, read};
use super::table::Screen;
use super::{Output, write_out};
use crate::config::Settings;
use crate::core::release::ServiceName;
use crate::core::settings::ServiceSettings;
use crate::replay::{Line, Trace, run_trace};

/// Only these files are taken from a directory of traces.
const TRACE_EXTENSION: &str = "jsonl";
/// Standard input.
const STDIN: &str = "-";

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Traces as JSON Lines, directories of them (`*.jsonl`), or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    sources: SourceArgs,
    /// How many files are worked on at a time [default: one a processor]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

/// What became of one file: its decisions, or why it could not be used.
type Played = Result<Vec<Line>, String>;

pub(super) fn run(args: ReplayArgs, out: &Output) -> anyhow::Result<()> {
    let settings = read(&args.sources.sources())?;
    let files = spread(args.files)?;
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let mut failed = 0;
    play(&files, &settings, jobs, |path, played| match played {
        Ok(lines) => print(out, (files.len() > 1).then(|| stem(path)), &lines),
        Err(why) => {
            failed += 1;
            anstream::eprintln!("\x1b[1;31merror:\x1b[0m {}: {}", path.display(), why.replace('\n', "\n  "));
            Ok(())
        }
    })?;
    match failed {
        0 => Ok(()),
        n => Err(Failure::new(Code::Failure, format!("{n} of {} files could not be replayed", files.len()))
            .hint("correct the lines that are named above; the format is in `backstop replay --help`")
            .into()),
    }
}

/// The files meant: a directory stands for the traces in it.
fn spread(given: Vec<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
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
            return Err(Failure::new(Code::Failure, what).into());
        }
        within.sort();
        files.append(&mut within);
    }
    Ok(files)
}

/// Plays every file, `jobs` at a time, and hands the results on in the files' order.
fn play(
    files: &[PathBuf],
    settings: &Settings,
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
                    if done.send((i, one(path, settings))).is_err() {
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

fn one(path: &Path, settings: &Settings) -> Played {
    let from: Box<dyn Read> = if path.as_os_str() == STDIN {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(|e| format!("it cannot be opened: {e}"))?)
    };
    let trace = Trace::read(BufReader::new(from)).map_err(|wrong| format!("it is not a trace:\n{wrong}"))?;
    let known = configured(settings, trace.services.keys())?;
    Ok(run_trace(&trace, &|name| known.get(name).cloned().unwrap_or_default(), settings.fleet.clone()))
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

/// The name by which decisions tell their file.
fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.to_string_lossy().into_owned())
}

fn print(out: &Output, trace: Option<String>, lines: &[Line]) -> anyhow::Result<()> {
    /// A decision that names its file.
    #[derive(Serialize)]
    struct Named<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        trace: Option<&'a str>,
        #[serde(flatten)]
        line: &'a Line,
    }
    if !out.json {
        return write_out(&table(&out.screen, trace.as_deref(), lines));
    }
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(&Named { trace: trace.as_deref(), line })?);
        text.push('\n');
    }
    write_out(&text)
}

fn table(screen: &Screen, trace: Option<&str>, lines: &[Line]) -> String {
    let mut text = trace.map_or_else(String::new, |trace| format!("{}\n", super::table::bold(trace)));
    if lines.is_empty() {
        text.push_str("Nothing was decided.\n");
    } else {
        let rows = lines.iter().map(|line| {
            let at = format!("{}s", line.t);
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
