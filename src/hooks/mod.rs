//! Hooks carried out: programs on this host, one-off containers, HTTP requests, SQL.
//!
//! A hook is somebody else's program in the middle of a rollback. So nothing is trusted: not that it ends, not that it ends
//! with all that it started, not that it prints little. Nothing of our own environment reaches it, which may hold secrets.

mod command;
mod postgres;
mod rehearsal;
mod script;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::rehearsal::{image_of, looks_runnable};
use crate::clock::Clock;
use crate::core::settings::{HookKind, HookPhase, HttpStep, RunImage, SchemaQuery};
use crate::core::time::human;
use crate::rollback::hooks::{Failed, HookCall, HookRunner, Ran};
use crate::runtime::{OneOff, Runtime};
use crate::signal::check::request_once;

/// Between two attempts at a check of what was started a moment ago.
const AGAIN: Duration = Duration::from_secs(1);
/// The version of a schema is one row of an indexed table; a database that takes longer is not well.
const ASKED: Duration = Duration::from_secs(5);

/// Runs hooks.
#[derive(Debug)]
pub struct Runner {
    runtime: Arc<dyn Runtime>,
    clock: Clock,
}

impl Runner {
    /// Makes one-off containers by `runtime`.
    pub fn new(runtime: Arc<dyn Runtime>, clock: Clock) -> Self {
        Self { runtime, clock }
    }
}

/// The version of the schema of a database.
///
/// # Errors
/// Why it is not known.
pub async fn schema(query: &SchemaQuery) -> Result<String, String> {
    postgres::ask(&query.database, &query.query, ASKED).await
}

#[async_trait]
impl HookRunner for Runner {
    async fn run(&self, call: &HookCall<'_>) -> Result<Ran, Failed> {
        let began = self.clock.now();
        let (how, output) = match &call.hook.kind {
            HookKind::Command(words) => {
                let words: Vec<String> = words.iter().map(|word| call.fill(word)).collect();
                let ended = command::run(&words, &environment(call), &call.mark(), call.hook.timeout).await?;
                ("exit code 0".to_owned(), ended)
            }
            HookKind::Run { image, command } => match self.run_once(call, image, command, false).await? {
                Some(ran) => return Ok(ran),
                None => return Err(Failed::silently("it did not begin")),
            },
            HookKind::Http(steps) => {
                (self.request(call, steps).await.map_err(Failed::silently)?, String::new())
            }
            HookKind::Sql { file, database } => {
                let file = call.fill(file);
                let said = postgres::run_file(database, Path::new(&file), call.hook.timeout).await;
                (format!("{file}: committed"), said.map_err(Failed::silently)?)
            }
            HookKind::Schema(query) => return current(query, call.expected).await,
        };
        Ok(Ran { how: format!("{how} after {}", human(self.clock.now().since(began))), output })
    }

    async fn take_up(&self, call: &HookCall<'_>) -> Option<Result<Ran, Failed>> {
        match &call.hook.kind {
            HookKind::Run { image, command } => self.run_once(call, image, command, true).await.transpose(),
            // It asks, and changes nothing.
            HookKind::Schema(_) => Some(self.run(call).await),
            HookKind::Command(_) => {
                command::end_leftovers(&call.mark()).await;
                None
            }
            HookKind::Http(_) | HookKind::Sql { .. } => None,
        }
    }

    async fn forget(&self, call: &HookCall<'_>) {
        match &call.hook.kind {
            HookKind::Command(_) => command::end_leftovers(&call.mark()).await,
            HookKind::Run { .. } => {
                let name = once_name(call);
                if let Err(why) = self.runtime.drop_once(call.plan, &name).await {
                    tracing::warn!(rollback = %call.plan.id, "{name} could not be removed: {why}; by hand: docker rm -f {name}");
                }
            }
            HookKind::Http(_) | HookKind::Sql { .. } | HookKind::Schema(_) => {}
        }
    }
}

impl Runner {
    /// Requests with their expectations. What was started a moment ago is asked again until it answers well: a check of what
    /// users do ("smoke test") is no test of how fast it starts.
    async fn request(&self, call: &HookCall<'_>, steps: &[HttpStep]) -> Result<String, String> {
        let steps: Vec<HttpStep> = steps.iter().map(|step| expecting(call, step)).collect();
        let values: BTreeMap<String, String> =
            call.values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let began = self.clock.now();
        loop {
            let left = call.hook.timeout.saturating_sub(self.clock.now().since(began));
            let said = request_once(&steps, values.clone(), left, self.clock).await;
            let over = call.hook.phase != HookPhase::BeforeVerify
                || self.clock.now().since(began) + AGAIN >= call.hook.timeout;
            if said.is_ok() || over {
                return said;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn run_once(
        &self,
        call: &HookCall<'_>,
        image: &RunImage,
        command: &[String],
        begun: bool,
    ) -> Result<Option<Ran>, Failed> {
        let began = self.clock.now();
        let image = match image {
            RunImage::Other(reference) => RunImage::Other(call.fill(reference)),
            RunImage::Bad | RunImage::Good => image.clone(),
        };
        let once = OneOff {
            name: once_name(call),
            mark: call.mark(),
            image,
            command: command.iter().map(|word| call.fill(word)).collect(),
            environment: environment(call),
            like: call.like.to_vec(),
            specification: call.specification.cloned(),
            timeout: call.hook.timeout,
        };
        let ended = self.runtime.run_once(call.plan, &once, call.done, begun).await;
        let Some(ended) = ended.map_err(|e| Failed::silently(e.message))? else { return Ok(None) };
        let output = ended.output;
        let took = human(self.clock.now().since(began));
        match ended.code {
            Some(0) => Ok(Some(Ran { how: format!("exit code 0 after {took}"), output })),
            Some(code) => {
                let why = format!("exit code {code}{}", last_line(&output));
                Err(Failed { why, output })
            }
            None => {
                let why = format!("it did not end within {} and was killed", human(call.hook.timeout));
                Err(Failed { why, output })
            }
        }
    }
}

/// A request with values in the places that are named in what is expected of its answer: the target's version, for one.
fn expecting(call: &HookCall<'_>, step: &HttpStep) -> HttpStep {
    let json = step.json.iter().map(|(path, value)| (path.clone(), call.fill(value))).collect();
    HttpStep { contains: step.contains.as_ref().map(|text| call.fill(text)), json, ..step.clone() }
}

/// Whether the schema is the one that the target knew.
async fn current(query: &SchemaQuery, expected: Option<&str>) -> Result<Ran, Failed> {
    let is = schema(query).await.map_err(Failed::silently)?;
    match expected {
        Some(expected) if expected != is => Err(Failed::silently(format!(
            "the schema is at {is}, and the target ran on {expected}: the downgrade was another one than was needed"
        ))),
        Some(_) | None => Ok(Ran { how: format!("the schema is at {is}"), output: String::new() }),
    }
}

fn environment(call: &HookCall<'_>) -> Vec<(String, String)> {
    let name = |name: &str| format!("BACKSTOP_{}", name.to_uppercase());
    call.values.iter().map(|(value_of, value)| (name(value_of), value.clone())).collect()
}

/// The name of a one-off container: found again by it after a crash.
fn once_name(call: &HookCall<'_>) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let whole = format!("{}.rbhook-{}-{}", call.plan.service, call.plan.id, call.hook.name);
    whole.chars().map(|c| if fits(c) { c } else { '-' }).collect()
}

/// What somebody printed last, as the end of a sentence.
fn last_line(output: &str) -> String {
    const QUOTED: usize = 300;
    let last = output.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.map_or_else(String::new, |line| format!(": {}", crate::runtime::engine::cut(line, QUOTED)))
}
