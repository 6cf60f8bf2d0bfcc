//! What is tried before a rollback, as typed to what holds: `restart`, `set NAME=VALUE`, `scale 3`, `hook NAME`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::problem::Wrong;
use super::resolve::Resolving;
use super::schema::{Setting, Shape};
use super::tree::{Node, Value};
use super::values::{listed, quoted};
use crate::core::settings::{Hook, HookPhase, Mitigation, Remedy};

/// So often something is tried that did not help before.
const RUNGS_MAX: usize = 5;
/// More replicas than this are no mitigation on the machines that one Backstop looks after.
const REPLICAS_MAX: u32 = 100;
/// What comes after it names the hook that confirms a rung.
const CONFIRM: &str = ", confirm ";
const RIGHT: &str = "steps in the order in which they are tried would be right: \"restart\", \"set EXPORT_MODE=off\", \"scale 3\", \"hook NAME\", each \
     with \", confirm NAME\" after it if a hook can tell whether it took effect; [] for none";

/// A ladder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Mitigations(Vec<String>);

impl Setting for Mitigations {
    const SHAPE: &'static Shape = &Shape::Leaf { read, secret: false };
}

impl Mitigations {
    /// The ladder of the row at `at`; its hooks are among `hooks`.
    pub(super) fn made(&self, at: &str, hooks: &[Hook], resolving: &mut Resolving<'_>) -> Vec<Mitigation> {
        let words = self.0.iter().filter_map(|text| Word::read(text).ok());
        words.filter_map(|word| made(&word, at, hooks, resolving)).collect()
    }
}

/// A rung as typed.
struct Word {
    what: What,
    confirm: Option<String>,
}

enum What {
    Restart,
    Set(BTreeMap<String, String>),
    Scale(u32),
    Hook(String),
}

impl Word {
    fn read(text: &str) -> Result<Self, Wrong> {
        let (what, confirm) = match text.split_once(CONFIRM) {
            Some((what, confirm)) => (what, Some(confirm.trim())),
            None => (text, None),
        };
        if let Some(confirm) = confirm.filter(|name| !is_name(name)) {
            return Err(Wrong::new(format!("{} is no hook's name", quoted(confirm)), RIGHT));
        }
        let (verb, rest) = what.trim().split_once(' ').unwrap_or((what.trim(), ""));
        let rest = rest.trim();
        let what = match verb {
            "restart" if rest.is_empty() => What::Restart,
            "set" => What::Set(assignments(rest)?),
            "scale" => What::Scale(replicas(rest)?),
            "hook" if is_name(rest) => What::Hook(rest.to_owned()),
            _ => {
                let wrong = format!("{} is nothing that can be tried before a rollback", quoted(text));
                return Err(Wrong::new(wrong, RIGHT));
            }
        };
        Ok(Self { what, confirm: confirm.map(str::to_owned) })
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

fn assignments(text: &str) -> Result<BTreeMap<String, String>, Wrong> {
    const RIGHT: &str = "variables with their values would be right, as in \"set EXPORT_MODE=off REPORTS=0\"";
    let is_variable = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let mut all = BTreeMap::new();
    for word in text.split_whitespace() {
        match word.split_once('=').filter(|(name, _)| is_variable(name)) {
            Some((name, value)) => _ = all.insert(name.to_owned(), value.to_owned()),
            None => return Err(Wrong::new(format!("{} sets nothing", quoted(word)), RIGHT)),
        }
    }
    if all.is_empty() { Err(Wrong::new("sets nothing", RIGHT)) } else { Ok(all) }
}

fn replicas(text: &str) -> Result<u32, Wrong> {
    let number = text.parse().ok().filter(|n| (1..=REPLICAS_MAX).contains(n));
    number.ok_or_else(|| {
        let right = format!("as many as there are to be, 1 to {REPLICAS_MAX}, as in \"scale 3\"");
        Wrong::new(format!("{} is no number of replicas", quoted(text)), right)
    })
}

fn read(node: &Node) -> Result<Value, Wrong> {
    let steps = listed(node, RIGHT)?;
    if let Some(wrong) = steps.iter().find_map(|step| Word::read(step).err()) {
        return Err(wrong);
    }
    if steps.len() > RUNGS_MAX {
        return Err(Wrong::new(
            format!("has {} steps", steps.len()),
            format!("at most {RUNGS_MAX} would be right"),
        ));
    }
    let item = |text| Node { place: node.place.clone(), value: Value::Text(text) };
    Ok(Value::List(steps.into_iter().map(item).collect()))
}

fn made(word: &Word, at: &str, hooks: &[Hook], resolving: &mut Resolving<'_>) -> Option<Mitigation> {
    let mut named = |name: &str| {
        let found = hooks.iter().find(|hook| hook.name == name && hook.phase == HookPhase::Mitigation);
        if found.is_none() {
            let right = match hooks.iter().find(|hook| hook.name == name) {
                Some(other) => {
                    format!(
                        "hooks.{name}.phase = \"mitigation\" would be right; it is {:?}",
                        other.phase.name()
                    )
                }
                None => format!("set hooks.{name}, with phase = \"mitigation\""),
            };
            resolving.clash(&[at], format!("no hook {name} waits for it"), right);
        }
        found.cloned().map(Box::new)
    };
    let remedy = match &word.what {
        What::Restart => Remedy::Restart,
        What::Set(all) => Remedy::Set(all.clone()),
        What::Scale(replicas) => Remedy::Scale(*replicas),
        What::Hook(name) => Remedy::Hook(named(name)?),
    };
    let confirm = match &word.confirm {
        Some(name) => Some(named(name)?),
        None => None,
    };
    Some(Mitigation { remedy, confirm })
}
