//! The pin: a Compose project's files are made to say the release that runs, so that the next `docker compose up`, by a
//! person or by CI, does not bring back the one that was rolled back.
//!
//! The variable that the image line uses is set back in `.env` (or in the `--env-file` of the project). Where there is none,
//! or other services use it too, an override file says the image; that is the second choice, because it goes on holding
//! when the fix ships: whoever deploys that without `backstop unpin` would see nothing happen. What cannot be pinned is
//! said, with the line to change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::env_file;
use super::file::ComposeFile;
use super::interpolation::Template;
use super::override_file::{self, Kept, Services};

/// What a project's files say, with where each was read.
#[derive(Debug)]
pub(super) struct Files {
    /// In the order in which they are laid over each other, with those that they include.
    pub(super) compose: Vec<(PathBuf, ComposeFile)>,
    /// The image lines of the service, in that order.
    pub(super) lines: Vec<Line>,
    /// Files that these refer to and that could not be read, and why.
    pub(super) unread: Vec<String>,
    /// `.env`, or the files of `--env-file`, in that order; empty text for one that is not there.
    pub(super) environment: Vec<(PathBuf, String)>,
    /// Environment files of included files: what those of the project do not set.
    pub(super) beneath: Vec<String>,
    /// Where an override file would be read; or why none would.
    pub(super) place: Result<Place, String>,
}

impl Default for Files {
    fn default() -> Self {
        let place = Err("no override file would be read".to_owned());
        let (compose, lines, unread) = (Vec::new(), Vec::new(), Vec::new());
        Self { compose, lines, unread, environment: Vec::new(), beneath: Vec::new(), place }
    }
}

/// An image line of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The file that it is in.
    pub(super) path: PathBuf,
    /// What it says, variables and all.
    pub(super) image: String,
    /// Other services that get theirs from that file too.
    pub(super) sharing: Vec<String>,
}

/// Where Compose looks for an override file by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    /// The file that it goes with.
    pub(super) main: PathBuf,
    /// What we keep there already.
    pub(super) services: Services,
}

/// Who is to say what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The service, as the files call it.
    pub(super) service: &'a str,
    /// What Backstop calls it.
    pub(super) owner: &'a str,
    pub(super) bad: &'a str,
    pub(super) good: &'a str,
    /// The references that the project's services run, by what the files call them.
    pub(super) runs: &'a BTreeMap<String, String>,
}

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing: the files say what runs. With what is to be known about it.
    Holds(String),
    /// Set a variable.
    Set { file: PathBuf, variable: String, was: Option<String>, is: String, text: String },
    /// Write an override file: the one at this place, with this text.
    Keep { place: Place, text: String },
}

/// Why it cannot be pinned, and what a person would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unpinned {
    pub(super) why: String,
    pub(super) change: Option<String>,
}

impl Unpinned {
    fn new(why: impl Into<String>, change: impl Into<String>) -> Self {
        Self { why: why.into(), change: Some(change.into()) }
    }
}

/// Finds out how to make the image line of a service say `good` where it says `bad`.
pub(super) fn change(files: &Files, wanted: Wanted<'_>) -> Result<Change, Unpinned> {
    let Wanted { service, bad, good, .. } = wanted;
    if bad == good {
        return Ok(Change::Holds(format!(
            "both releases are called {good}: the tag shows the good one here"
        )));
    }
    if let Some(kept) = files.place.as_ref().ok().and_then(|place| place.services.get(service)) {
        return kept_already(files, kept, wanted);
    }
    let line = image_line(files, good)?;
    let says = says(files, line, good)?;
    if says == good {
        return Ok(Change::Holds(format!(
            "the project's files say {good}; if whoever deployed {bad} set a variable outside of them, that comes first"
        )));
    }
    if says != bad {
        let why = format!("the project's files say {says} by now, which somebody else wrote");
        return Err(Unpinned { why, change: None });
    }
    set(files, line, wanted).or_else(|no| keep(files, wanted, no))
}

/// What an image line says now.
fn says(files: &Files, line: &Line, good: &str) -> Result<String, Unpinned> {
    let template = Template::read(&line.image).map_err(|e| literal(&line.path, e.to_string(), good))?;
    let values = known(files);
    for name in template.variables() {
        if values.get(name).is_some_and(Option::is_none) {
            let why =
                format!("{name}, which the image line uses, is not a plain value in the environment file");
            return Err(Unpinned::new(why, format!("set it so that the image is {good}")));
        }
    }
    let value = |name: &str| values.get(name).cloned().flatten();
    template.resolve(&value).map_err(|e| literal(&line.path, e.to_string(), good))
}

/// What the files say beneath an override file; none if that cannot be told.
pub(super) fn said_beneath(files: &Files, over: &Path) -> Option<String> {
    let line = files.lines.iter().rfind(|line| line.path != over)?;
    says(files, line, "").ok()
}

/// The variable that can be set, and that nobody else uses, or only those that run already what it makes of them: the next
/// `up` does nothing to them. That is so when services that are one release went back together.
fn set(files: &Files, line: &Line, wanted: Wanted<'_>) -> Result<Change, Unpinned> {
    let Wanted { service, good, runs, .. } = wanted;
    let template = Template::read(&line.image).map_err(|e| literal(&line.path, e.to_string(), good))?;
    let values = known(files);
    let value = |name: &str| values.get(name).cloned().flatten();
    let mut refused = None;
    for name in template.variables() {
        let Some(is) = template.solve(name, good, &value) else { continue };
        let using = files.compose.iter().flat_map(|(_, file)| file.others_with(name, service));
        let others: BTreeSet<String> = using.chain(line.sharing.iter().cloned()).collect();
        let with = |asked: &str| if asked == name { Some(is.clone()) } else { value(asked) };
        let others: Vec<String> =
            others.into_iter().filter(|other| !would_stay(files, other, &with, runs)).collect();
        if others.is_empty() {
            return assign(files, name, is);
        }
        let why = format!("{name} is used by {} too", others.join(", "));
        refused
            .get_or_insert(Unpinned::new(why, format!("set {name}={is} if that is right for all of them")));
    }
    let none = || literal(&line.path, "no variable of its image line makes the difference".into(), good);
    Err(refused.unwrap_or_else(none))
}

/// Whether a service runs what its image line says with these values.
fn would_stay(
    files: &Files,
    service: &str,
    value: &dyn Fn(&str) -> Option<String>,
    runs: &BTreeMap<String, String>,
) -> bool {
    let line = files.compose.iter().rev().find_map(|(_, file)| file.image(service));
    let says = line.and_then(|line| Template::read(line).ok()?.resolve(value).ok());
    says.is_some() && says.as_ref() == runs.get(service)
}

/// The override file that says it instead; where none can, why neither.
fn keep(files: &Files, wanted: Wanted<'_>, no: Unpinned) -> Result<Change, Unpinned> {
    let neither = |why: &str| Unpinned { why: format!("{}, and {why}", no.why), change: no.change.clone() };
    let place = files.place.as_ref().map_err(|why| neither(why))?;
    let Wanted { service, owner, bad, good, .. } = wanted;
    let kept = Kept { image: good.to_owned(), bad: bad.to_owned(), owner: owner.to_owned() };
    let mut services = place.services.clone();
    services.insert(service.to_owned(), kept);
    let text = override_file::render(&services)
        .ok_or_else(|| neither("one of the names would have to be quoted"))?;
    Ok(Change::Keep { place: place.clone(), text })
}

/// An override file of ours says something for it already: written before a crash, or left from an earlier rollback.
fn kept_already(files: &Files, kept: &Kept, wanted: Wanted<'_>) -> Result<Change, Unpinned> {
    let Wanted { service, bad, good, .. } = wanted;
    let file = files.place.as_ref().map(|place| place.file.display().to_string()).unwrap_or_default();
    if kept.image == good {
        return Ok(Change::Holds(format!("{file} says {good}")));
    }
    let why = format!("{file} says {} since an earlier rollback", kept.image);
    let no = Unpinned::new(why, format!("change it to {good} there"));
    let Some(place) = files.place.as_ref().ok().filter(|_| kept.image == bad) else { return Err(no) };
    // What it is compared with stays what the files beneath it say.
    let mut services = place.services.clone();
    services.insert(service.to_owned(), Kept { image: good.to_owned(), ..kept.clone() });
    let text = override_file::render(&services).ok_or(no)?;
    Ok(Change::Keep { place: place.clone(), text })
}

/// In the file that sets it last, else at the end of the last one.
fn assign(files: &Files, variable: &str, is: String) -> Result<Change, Unpinned> {
    let sets = |(_, text): &&(PathBuf, String)| env_file::values(text).contains_key(variable);
    let Some((file, text)) = files.environment.iter().rfind(sets).or(files.environment.last()) else {
        return Err(Unpinned::new("the project has no environment file", format!("set {variable}={is}")));
    };
    let was = env_file::values(text).remove(variable).flatten();
    let text = env_file::with(text, variable, &is).map_err(|why| {
        Unpinned::new(format!("{}: {why}", file.display()), format!("set {variable}={is} there"))
    })?;
    Ok(Change::Set { file: file.clone(), variable: variable.to_owned(), was, is, text })
}

/// A variable that an environment file sets already, set to something else there.
pub(super) fn assign_known(files: &Files, variable: &str, is: &str) -> Result<Change, String> {
    let known = files.environment.iter().any(|(_, text)| env_file::values(text).contains_key(variable));
    if !known {
        return Err(format!("{variable} is in none of the project's environment files"));
    }
    match assign(files, variable, is.to_owned()).map_err(|no| no.why)? {
        Change::Set { was: Some(was), file, .. } if was == is => {
            Ok(Change::Holds(format!("{} says {variable}={is} already", file.display())))
        }
        change => Ok(change),
    }
}

/// The last one counts.
fn image_line<'a>(files: &'a Files, good: &str) -> Result<&'a Line, Unpinned> {
    files.lines.last().ok_or_else(|| {
        let why = match files.unread.first() {
            Some(why) => format!("its image line is in none of the files that can be read ({why})"),
            None => "the project's files have no image line for it".to_owned(),
        };
        Unpinned::new(why, format!("make its image {good} in the file that has it"))
    })
}

fn literal(path: &Path, why: String, good: &str) -> Unpinned {
    Unpinned::new(why, format!("change its `image:` in {} to {good}", path.display()))
}

/// What the environment files set; the later one comes first.
fn known(files: &Files) -> BTreeMap<String, Option<String>> {
    let own = files.environment.iter().map(|(_, text)| text);
    files.beneath.iter().chain(own).flat_map(|text| env_file::values(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(compose: &[&str], environment: &[&str]) -> Files {
        let path = |kind: &str, n: usize| PathBuf::from(format!("/shop/{kind}{n}"));
        let compose = compose.iter().enumerate();
        let compose: Vec<_> =
            compose.map(|(n, text)| (path("compose", n), ComposeFile::read(text).unwrap())).collect();
        let line = |(path, file): &(PathBuf, ComposeFile)| {
            let image = file.image("api")?.to_owned();
            Some(Line { path: path.clone(), image, sharing: Vec::new() })
        };
        let lines = compose.iter().filter_map(line).collect();
        let environment = environment.iter().enumerate();
        let environment = environment.map(|(n, text)| (path("env", n), (*text).to_owned())).collect();
        Files { compose, lines, environment, ..Files::default() }
    }

    static NOBODY: BTreeMap<String, String> = BTreeMap::new();

    fn wanted<'a>(bad: &'a str, good: &'a str) -> Wanted<'a> {
        Wanted { service: "api", owner: "shop-api", bad, good, runs: &NOBODY }
    }

    fn tell(said: Result<Change, Unpinned>) -> String {
        match said {
            Ok(Change::Holds(why)) => format!("holds: {why}"),
            Ok(Change::Set { file, variable, was, is, text }) => {
                format!("{}: {variable} {was:?} -> {is}: {text:?}", file.display())
            }
            Ok(Change::Keep { place, text }) => format!("{}: {text}", place.file.display()),
            Err(Unpinned { why, change }) => format!("no: {why}; {}", change.unwrap_or_default()),
        }
    }

    fn said(compose: &[&str], environment: &[&str], bad: &str, good: &str) -> String {
        tell(change(&files(compose, environment), wanted(bad, good)))
    }

    const API: &str = "services: {api: {image: 'shop:${TAG:-v2}'}}";

    #[test]
    fn the_variable_is_set_where_it_was_set() {
        let tag = |env: &[&str]| said(&[API], env, "shop:v2", "shop:v1");
        assert_eq!(tag(&["# x\nTAG=v2\n"]), r##"/shop/env0: TAG Some("v2") -> v1: "# x\nTAG=v1\n""##);
        assert_eq!(tag(&[""]), r#"/shop/env0: TAG None -> v1: "TAG=v1\n""#);
        assert_eq!(tag(&["TAG=v3\n", "TAG=v2\n"]), r#"/shop/env1: TAG Some("v2") -> v1: "TAG=v1\n""#);
        assert_eq!(tag(&["TAG=v2\n", "A=1\n"]), r#"/shop/env0: TAG Some("v2") -> v1: "TAG=v1\n""#);
    }

    #[test]
    fn the_last_file_with_an_image_line_counts() {
        let over = "services: {api: {image: 'shop:$OVER'}}";
        let none = "services: {api: {ports: ['80:80']}}";
        assert_eq!(
            said(&[API, over, none], &["OVER=v2"], "shop:v2", "shop:v1"),
            r#"/shop/env0: OVER Some("v2") -> v1: "OVER=v1""#
        );
    }

    #[test]
    fn what_a_person_wrote_meanwhile_is_not_touched() {
        let said_by_now = said(&[API], &["TAG=v3"], "shop:v2", "shop:v1");
        assert!(said_by_now.contains("say shop:v3 by now"), "{said_by_now}");
        let back = said(&[API], &["TAG=v1"], "shop:v2", "shop:v1");
        assert!(back.starts_with("holds: the project's files say shop:v1;"), "{back}");
        assert!(said(&[API], &["TAG=latest"], "shop:latest", "shop:latest").starts_with("holds: both"));
    }

    #[test]
    fn what_cannot_be_pinned_is_said_with_what_to_change() {
        let no = |compose: &str, env: &str| said(&[compose], &[env], "shop:v2", "shop:v1");
        let literal = no("services: {api: {image: 'shop:v2'}}", "");
        assert!(literal.contains("change its `image:` in /shop/compose0 to shop:v1"), "{literal}");
        let shared = no(
            "services: {api: {image: 'shop:$TAG'}, jobs: {image: 'jobs:$TAG'}, web: {image: 'web:$TAG'}}",
            "TAG=v2",
        );
        assert!(
            shared.contains("TAG is used by jobs, web too, and no override file")
                && shared.contains("set TAG=v1 if"),
            "{shared}"
        );
        let depends = no("services: {api: {image: 'shop:$TAG'}}", "TAG=${X}");
        assert!(depends.contains("not a plain value"), "{depends}");
        let mut included = files(&["{include: [other.yaml], services: {}}"], &[]);
        included.unread.push("/shop/other.yaml is not there".into());
        let included = tell(change(&included, wanted("shop:v2", "shop:v1")));
        assert!(
            included.contains("can be read (/shop/other.yaml is not there); make its image shop:v1"),
            "{included}"
        );
        assert!(no("services: {api: {build: .}}", "").contains("no image line"));
    }

    #[test]
    fn where_no_variable_can_be_set_an_override_file_says_it() {
        let place = |services: Services| {
            let (file, main) = ("/shop/compose.override.yaml".into(), "/shop/compose0".into());
            Ok(Place { file, main, services })
        };
        let kept = |image: &str| Kept { image: image.into(), bad: "x:v2".into(), owner: "x".into() };
        let said = |compose: &str, services: Services, bad: &str| {
            let files = Files { place: place(services), ..files(&[compose], &["TAG=v2"]) };
            tell(change(&files, wanted(bad, "shop:v1")))
        };
        let literal = "services: {api: {image: 'shop:v2'}}";
        let shared = "services: {api: {image: 'shop:$TAG'}, jobs: {image: 'jobs:$TAG'}}";
        for compose in [literal, shared] {
            let written = said(compose, Services::new(), "shop:v2");
            assert!(written.starts_with("/shop/compose.override.yaml: # Written by Backstop"), "{written}");
            assert!(written.contains("\"api\":\n    image: \"shop:v1\" # instead of shop:v2"), "{written}");
        }
        let jobs: Services = [("jobs".to_owned(), kept("jobs:v1"))].into();
        let both = said(literal, jobs, "shop:v2");
        assert!(both.contains("\"api\"") && both.contains("\"jobs\""), "{both}");
        let api = |image: &str| -> Services { [("api".to_owned(), kept(image))].into() };
        assert_eq!(
            said(literal, api("shop:v1"), "shop:v2"),
            "holds: /shop/compose.override.yaml says shop:v1"
        );
        assert!(
            said(literal, api("shop:v0"), "shop:v2")
                .contains("since an earlier rollback; change it to shop:v1")
        );
        let again = said(literal, api("shop:v2"), "shop:v2");
        assert!(again.contains("image: \"shop:v1\" # instead of x:v2"), "the next one back: {again}");
        assert!(
            said(literal, Services::new(), "shop:v3").contains("by now"),
            "what a person wrote comes first"
        );
        let nowhere = tell(change(&files(&[literal], &[]), wanted("shop:v2", "shop:v1")));
        assert!(nowhere.contains("makes the difference, and no override file"), "{nowhere}");
    }

    #[test]
    fn what_an_included_file_brings_along_is_overruled_in_the_projects_own() {
        let files = Files { beneath: vec!["TAG=v2".into()], ..files(&[API], &["A=1\n"]) };
        let said = tell(change(&files, wanted("shop:v2", "shop:v1")));
        assert_eq!(said, r#"/shop/env0: TAG None -> v1: "A=1\nTAG=v1\n""#);
    }

    #[test]
    fn the_same_variable_elsewhere_in_the_same_service_is_right() {
        let file = "services: {api: {image: 'shop:$TAG', environment: {VERSION: $TAG}}}";
        assert!(said(&[file], &["TAG=v2"], "shop:v2", "shop:v1").contains("TAG Some(\"v2\") -> v1"));
    }

    #[test]
    fn a_variable_that_others_use_is_set_if_they_run_that_already() {
        let compose = "services: {api: {image: 'shop:${TAG}'}, jobs: {image: 'jobs:${TAG}'}}";
        let files = files(&[compose], &["TAG=v2\n"]);
        let pinned = |jobs: &str| {
            let runs = BTreeMap::from([("jobs".to_owned(), jobs.to_owned())]);
            tell(change(&files, Wanted { runs: &runs, ..wanted("shop:v2", "shop:v1") }))
        };
        assert_eq!(pinned("jobs:v1"), "/shop/env0: TAG Some(\"v2\") -> v1: \"TAG=v1\\n\"");
        assert!(pinned("jobs:v2").contains("TAG is used by jobs too"), "{}", pinned("jobs:v2"));
    }

    #[test]
    fn of_several_variables_the_one_that_makes_the_difference_is_set() {
        let file = "services: {api: {image: '$REGISTRY/shop:$TAG'}}";
        let env = "REGISTRY=quay.io\nTAG=v2\n";
        let tag = said(&[file], &[env], "quay.io/shop:v2", "quay.io/shop:v1");
        assert!(tag.contains("TAG Some(\"v2\") -> v1"), "{tag}");
        let both = said(&[file], &[env], "quay.io/shop:v2", "ghcr.io/shop:v1");
        assert!(both.contains("no variable of its image line makes the difference"), "{both}");
    }
}
