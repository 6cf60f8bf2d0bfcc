//! The pin: a Compose project's files are made to say the release that runs, so that the next `docker compose up`, by a
//! person or by CI, does not bring back the one that was rolled back.
//!
//! One way only: the variable that the image line uses is set back in `.env` (or in the `--env-file` of the project). An
//! override file would hold as well, and would go on holding when the fix ships: whoever deploys that would see nothing
//! happen. What cannot be pinned is said, with the line to change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::env_file;
use super::file::ComposeFile;
use super::interpolation::Template;

/// What a project's files say, with where each was read.
#[derive(Debug)]
pub(super) struct Files {
    /// In the order in which they are laid over each other.
    pub(super) compose: Vec<(PathBuf, ComposeFile)>,
    /// `.env`, or the files of `--env-file`, in that order; empty text for one that is not there.
    pub(super) environment: Vec<(PathBuf, String)>,
}

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing: the files say what runs. With what is to be known about it.
    Holds(String),
    /// Set a variable.
    Set { file: PathBuf, variable: String, was: Option<String>, is: String, text: String },
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

/// Finds out how to make the image line of `service` say `good` where it says `bad`.
pub(super) fn change(files: &Files, service: &str, bad: &str, good: &str) -> Result<Change, Unpinned> {
    if bad == good {
        return Ok(Change::Holds(format!(
            "both releases are called {good}: the tag shows the good one here"
        )));
    }
    let (path, line) = image_line(files, service, good)?;
    let template = Template::read(line).map_err(|e| literal(&path, e.to_string(), good))?;
    let values = known(files);
    for name in template.variables() {
        if values.get(name).is_some_and(Option::is_none) {
            let why =
                format!("{name}, which the image line uses, is not a plain value in the environment file");
            return Err(Unpinned::new(why, format!("set it so that the image is {good}")));
        }
    }
    let value = |name: &str| values.get(name).cloned().flatten();
    let says = template.resolve(&value).map_err(|e| literal(&path, e.to_string(), good))?;
    if says == good {
        return Ok(Change::Holds(format!(
            "the project's files say {good}; if whoever deployed {bad} set a variable outside of them, that comes first"
        )));
    }
    if says != bad {
        let why = format!("the project's files say {says} by now, which somebody else wrote");
        return Err(Unpinned { why, change: None });
    }
    set(files, &template, (service, &path, good), &value)
}

/// The variable that can be set, and nobody else uses.
fn set(
    files: &Files,
    template: &Template,
    (service, path, good): (&str, &PathBuf, &str),
    value: &dyn Fn(&str) -> Option<String>,
) -> Result<Change, Unpinned> {
    let mut refused = None;
    for name in template.variables() {
        let Some(is) = template.solve(name, good, value) else { continue };
        let others: BTreeSet<String> =
            files.compose.iter().flat_map(|(_, file)| file.others_with(name, service)).collect();
        if others.is_empty() {
            return assign(files, name, is);
        }
        let others: Vec<String> = others.into_iter().collect();
        let why = format!("{name} is used by {} too", others.join(", "));
        refused
            .get_or_insert(Unpinned::new(why, format!("set {name}={is} if that is right for all of them")));
    }
    let none = || literal(path, "no variable of its image line makes the difference".into(), good);
    Err(refused.unwrap_or_else(none))
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

fn image_line<'a>(files: &'a Files, service: &str, good: &str) -> Result<(PathBuf, &'a str), Unpinned> {
    let mut lines =
        files.compose.iter().filter_map(|(path, file)| Some((path.clone(), file.image(service)?)));
    lines.next_back().ok_or_else(|| {
        let elsewhere = files.compose.iter().any(|(_, file)| file.includes() || file.extends(service));
        let why = if elsewhere {
            "its image line is in a file that others include or extend"
        } else {
            "the project's files have no image line for it"
        };
        Unpinned::new(why, format!("make its image {good}"))
    })
}

fn literal(path: &std::path::Path, why: String, good: &str) -> Unpinned {
    Unpinned::new(why, format!("change its `image:` in {} to {good}", path.display()))
}

/// What the environment files set; the later one comes first.
fn known(files: &Files) -> BTreeMap<String, Option<String>> {
    files.environment.iter().flat_map(|(_, text)| env_file::values(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(compose: &[&str], environment: &[&str]) -> Files {
        let path = |kind: &str, n: usize| PathBuf::from(format!("/shop/{kind}{n}"));
        let compose = compose.iter().enumerate();
        let environment = environment.iter().enumerate();
        Files {
            compose: compose
                .map(|(n, text)| (path("compose", n), ComposeFile::read(text).unwrap()))
                .collect(),
            environment: environment.map(|(n, text)| (path("env", n), (*text).to_owned())).collect(),
        }
    }

    fn said(compose: &[&str], environment: &[&str], bad: &str, good: &str) -> String {
        match change(&files(compose, environment), "api", bad, good) {
            Ok(Change::Holds(why)) => format!("holds: {why}"),
            Ok(Change::Set { file, variable, was, is, text }) => {
                format!("{}: {variable} {was:?} -> {is}: {text:?}", file.display())
            }
            Err(Unpinned { why, change }) => format!("no: {why}; {}", change.unwrap_or_default()),
        }
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
        assert!(shared.contains("TAG is used by jobs, web too; set TAG=v1 if"), "{shared}");
        let depends = no("services: {api: {image: 'shop:$TAG'}}", "TAG=${X}");
        assert!(depends.contains("not a plain value"), "{depends}");
        let included = no("{include: [other.yaml], services: {}}", "");
        assert!(included.contains("include or extend"), "{included}");
        assert!(no("services: {api: {build: .}}", "").contains("no image line"));
    }

    #[test]
    fn the_same_variable_elsewhere_in_the_same_service_is_right() {
        let file = "services: {api: {image: 'shop:$TAG', environment: {VERSION: $TAG}}}";
        assert!(said(&[file], &["TAG=v2"], "shop:v2", "shop:v1").contains("TAG Some(\"v2\") -> v1"));
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
