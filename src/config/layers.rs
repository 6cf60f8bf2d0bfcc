//! The layers and their order: shipped defaults, the file, `conf.d`, the environment, flags. Reads files and
//! nothing else; whether what they say is right is judged by others.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::file::File as Settings;
use super::nearest::nearest;
use super::problem::{Problem, Wrong};
use super::schema::{Setting, Shape};
use super::syntax::{self, Format};
use super::tree::{self, Node, Place};

/// Where the file is if nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/backstop/backstop.toml";

/// The shipped defaults: the commented file itself, so that what it says is what holds.
pub(super) const SHIPPED: &str = include_str!("../../config/backstop.toml");

/// How the shipped defaults are called where a file's path would stand.
pub(super) const SHIPPED_NAME: &str = "<shipped defaults>";

/// What every variable begins with.
const PREFIX: &str = "BACKSTOP_";

/// A configuration is typed by people; a larger file is the wrong file.
const LARGEST: u64 = 1 << 20;

/// More drop-ins than this are the wrong directory.
const DROP_INS: usize = 256;

/// Where settings come from. Whatever else is in `environment` is left alone.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file that was named; if none was, [`DEFAULT_FILE`] is read if it exists.
    pub file: Option<PathBuf>,
    /// The process's environment: `BACKSTOP_*`, `CREDENTIALS_DIRECTORY`, where systemd puts credentials,
    /// `DOCKER_HOST`, where the engine is if no setting says it, and `DOCKER_CONFIG` and `HOME`, where credentials for
    /// registries are.
    pub environment: Vec<(String, String)>,
    /// Keys and values of `--set KEY=VALUE`, in their order.
    pub overrides: Vec<(String, String)>,
    /// No file is read but the one that was named.
    pub only_named: bool,
}

impl Sources {
    /// The named file and flags, with this process's environment.
    pub fn of_process(file: Option<PathBuf>, overrides: Vec<(String, String)>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file, environment, overrides, only_named: false }
    }

    /// Docker's `config.json`, where the docker command of the same user looks for it.
    pub(super) fn docker_config(&self) -> Option<PathBuf> {
        let set = |name: &str| {
            let mut variables = self.environment.iter().rev();
            let found = variables.find(|(known, _)| known == name);
            found.map(|(_, value)| value).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        let directory = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")));
        directory.map(|directory| directory.join("config.json"))
    }

    /// Where systemd put this service's credentials.
    pub(super) fn credentials(&self) -> Option<&Path> {
        let mut variables = self.environment.iter().rev();
        let found = variables.find(|(name, _)| name == "CREDENTIALS_DIRECTORY");
        found.map(|(_, value)| Path::new(value))
    }
}

/// All layers that could be read, the lowest first.
pub(super) struct Layers {
    /// The first is what is shipped.
    pub(super) nodes: Vec<Node>,
    /// The files among them.
    pub(super) files: Vec<PathBuf>,
    /// A layer is missing because it could not be read, so nothing can be said about the whole.
    pub(super) incomplete: bool,
}

/// Reads every layer; what cannot be read is a problem.
pub(super) fn read(sources: &Sources, problems: &mut Vec<Problem>) -> Layers {
    let mut layers = Layers { nodes: Vec::new(), files: Vec::new(), incomplete: false };
    layers.add(syntax::parse(Format::Toml, SHIPPED_NAME, SHIPPED), problems);
    let file = sources.file.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let by_default = !sources.only_named;
    if sources.file.is_some() || (by_default && file.exists()) {
        layers.add_file(file.clone(), problems);
    }
    if sources.file.is_some() || by_default {
        for drop_in in drop_ins(&file, problems) {
            layers.add_file(drop_in, problems);
        }
    }
    layers.nodes.push(environment(&sources.environment, problems));
    layers.nodes.push(flags(&sources.overrides, problems));
    // Above what is shipped, and below everything that was meant for Backstop.
    if let Some(engine) = engine(sources, &layers.nodes) {
        layers.nodes.insert(1.min(layers.nodes.len()), engine);
    }
    layers
}

/// The variable that all of Docker's own tools find the engine by.
const DOCKER_HOST: &str = "DOCKER_HOST";

/// What a variable is set to; none if that is nothing.
fn set<'a>(sources: &'a Sources, name: &str) -> Option<&'a str> {
    let mut variables = sources.environment.iter().rev();
    variables.find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
}

/// The engine that `DOCKER_HOST` names, where no setting does.
fn engine(sources: &Sources, nodes: &[Node]) -> Option<Node> {
    let path = ["engine".to_owned(), "host".to_owned()];
    let mut said = false;
    // The first is what is shipped.
    for node in nodes.iter().skip(1) {
        node.each_key(&mut Vec::new(), &mut |key, _| said |= *key == path);
    }
    let mut variables = sources.environment.iter().rev();
    let (name, host) = variables.find(|(name, host)| name == DOCKER_HOST && !host.is_empty())?;
    let mut root = Node::table(Place::Variable(name.clone()));
    root.insert(&path, Place::Variable(name.clone()), host.clone()).ok().filter(|()| !said)?;
    if host.starts_with("tcp://") && set(sources, "DOCKER_TLS_VERIFY").is_some() {
        let home = || set(sources, "HOME").map(|home| format!("{home}/.docker"));
        let directory = set(sources, "DOCKER_CERT_PATH").map(str::to_owned).or_else(home)?;
        let path = ["engine".to_owned(), "cert_path".to_owned()];
        root.insert(&path, Place::Variable("DOCKER_CERT_PATH".to_owned()), directory).ok()?;
    }
    Some(root)
}

impl Layers {
    fn add(&mut self, layer: Result<Node, Vec<Problem>>, problems: &mut Vec<Problem>) {
        match layer {
            Ok(node) => self.nodes.push(node),
            Err(mut wrong) => {
                problems.append(&mut wrong);
                self.incomplete = true;
            }
        }
    }

    fn add_file(&mut self, path: PathBuf, problems: &mut Vec<Problem>) {
        let name = path.display().to_string();
        let layer = match Format::of(&path) {
            None => Err(Wrong::new(
                "has an extension that says nothing about its format",
                ".toml, .yaml or .yml would be right",
            )),
            Some(format) => read_text(&path, LARGEST).map(|text| (format, text)),
        };
        let layer = match layer {
            Err(what) => Err(vec![Problem::new(&name, "", what)]),
            Ok((format, text)) => syntax::parse(format, &name, &text),
        };
        self.add(layer, problems);
        self.files.push(path);
    }
}

/// The drop-ins next to the file, by name.
fn drop_ins(file: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let directory = file.parent().unwrap_or(Path::new("")).join("conf.d");
    let mut cannot = |error: &std::io::Error| {
        let what = Wrong::new(format!("cannot be listed: {error}"), "let its reader list it, or remove it");
        problems.push(Problem::new(directory.display(), "", what));
    };
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                cannot(&error);
            }
            return Vec::new();
        }
    };
    let mut paths = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => paths.push(entry.path()),
            Err(error) => cannot(&error),
        }
    }
    // Editors and package managers leave other files there, and hidden ones.
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    paths.retain(|path| Format::of(path).is_some() && !hidden(path));
    paths.sort();
    if paths.len() > DROP_INS {
        let wrong = format!("has {} files", paths.len());
        let what = Wrong::new(wrong, format!("at most {DROP_INS} would be right"));
        problems.push(Problem::new(directory.display(), "", what));
        paths.truncate(DROP_INS);
    }
    paths
}

/// A whole file of at most `largest` bytes.
pub(super) fn read_text(path: &Path, largest: u64) -> Result<String, Wrong> {
    let cannot = |error: std::io::Error| {
        let right = match error.kind() {
            ErrorKind::NotFound => "create it, or correct its name".to_owned(),
            ErrorKind::PermissionDenied => "let the user that Backstop runs as read it".to_owned(),
            _ => "it must be a file that can be read".to_owned(),
        };
        Wrong::new(format!("cannot be read: {error}"), right)
    };
    // A pipe or a device would not end.
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(Wrong::new("is not a file", "the name of a file would be right"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(largest + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > largest {
        let right = format!("at most {largest} bytes would be right");
        return Err(Wrong::new("is too large", right));
    }
    String::from_utf8(bytes).map_err(|_| Wrong::new("is not text", "it must be UTF-8"))
}

/// The variable that sets the key at `path`.
pub(super) fn variable(path: &[String]) -> String {
    format!("{PREFIX}{}", path.join("__").to_uppercase())
}

/// `BACKSTOP_API__LISTEN` sets `api.listen`.
fn environment(variables: &[(String, String)], problems: &mut Vec<Problem>) -> Node {
    let mut root = Node::table(Place::Variable(format!("{PREFIX}*")));
    let mut variables: Vec<_> = variables.iter().collect();
    variables.sort();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let path = split(rest);
        let place = Place::Variable(name.clone());
        if path[0] == "services" {
            let what = Wrong::new(
                "services cannot be set by variables, which do not tell upper case from lower",
                "set them in a file, as in conf.d/NAME.toml, or by labels",
            );
            problems.push(Problem::new(&place, "", what));
        } else if path.len() > 1 || is_top(&path[0]) {
            if root.insert(&path, place.clone(), value.clone()).is_err() {
                problems.push(Problem::new(&place, "", in_the_way()));
            }
        } else if let Some(right) = meant(&path[0]) {
            let what = Wrong::new("sets nothing", format!("did you mean {right}?"));
            problems.push(Problem::new(&place, "", what));
        }
        // Others are not ours: container links, the orchestrator's service variables, the command line's own.
    }
    root
}

fn split(rest: &str) -> Vec<String> {
    rest.to_lowercase().split("__").map(str::to_owned).collect()
}

/// The path that a variable sets.
pub(super) fn path_of(variable: &str) -> Option<Vec<String>> {
    variable.strip_prefix(PREFIX).map(split)
}

fn top() -> &'static [super::schema::Key] {
    match Settings::SHAPE {
        Shape::Table { keys, .. } => keys,
        Shape::Leaf { .. } | Shape::List { .. } | Shape::Map { .. } => &[],
    }
}

fn is_top(name: &str) -> bool {
    top().iter().any(|key| key.name == name)
}

/// The variable that was meant by one that is almost a setting.
fn meant(name: &str) -> Option<String> {
    // With one underscore between section and key, where two must be.
    let with_one = top().iter().find_map(|section| {
        let key = name.strip_prefix(section.name)?.strip_prefix('_')?;
        let Shape::Table { keys, .. } = section.shape else {
            return None;
        };
        let key = keys.iter().find(|inner| inner.name == key)?;
        Some(variable(&[section.name.to_owned(), key.name.to_owned()]))
    });
    let slip = || {
        let values = top().iter().filter(|key| matches!(key.shape, Shape::Leaf { .. }));
        let near = nearest(name, values.map(|key| key.name))?;
        Some(variable(&[near.to_owned()]))
    };
    with_one.or_else(slip)
}

/// `--set services."web.prod".trial=5m`
fn flags(overrides: &[(String, String)], problems: &mut Vec<Problem>) -> Node {
    let mut root = Node::table(Place::Flag("KEY=VALUE".into()));
    for (key, value) in overrides {
        let place = Place::Flag(key.clone());
        match tree::split(key) {
            None => {
                let what = Wrong::new(
                    "is not a key",
                    "names with dots between them would be right, as in api.listen or services.\"web.prod\".trial",
                );
                problems.push(Problem::new(&place, "", what));
            }
            Some(path) => {
                if root.insert(&path, place.clone(), value.clone()).is_err() {
                    problems.push(Problem::new(&place, "", in_the_way()));
                }
            }
        }
    }
    root
}

/// Two settings of one layer cannot both be.
pub(super) fn in_the_way() -> Wrong {
    Wrong::new("one setting makes this a section and another a value", "remove one of them")
}
