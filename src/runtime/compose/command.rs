//! The `docker compose` command: what is asked of it, and what it says. It is run as a person in the project's folder
//! would run it, except that nothing of our own environment reaches the project's files.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::core::plan::ComposeProject;
use crate::runtime::engine::cut;

/// The ways to call it: as a plugin of the docker command, and by itself.
const WAYS: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
/// It asks nobody for its version.
const AT_ONCE: Duration = Duration::from_secs(20);
/// What it says when it fails ends with what matters.
const QUOTED_MAX: usize = 400;
/// What of our environment it needs: where programs are, and who is logged in where.
const KEPT: [&str; 4] = ["PATH", "HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"];

/// Finds the command: the words that it is called by.
///
/// # Errors
/// There is none that can be run, or only the first version, which makes other containers than the second.
pub async fn find(host: &str) -> Result<Vec<String>, String> {
    let mut problems = Vec::new();
    for way in WAYS {
        let words: Vec<String> = way.iter().map(|word| (*word).to_owned()).collect();
        match say(&words, host, &["version", "--short"], AT_ONCE).await {
            Ok(version) if version.trim_start_matches('v').starts_with("1.") => {
                problems.push(format!("`{}` is version {}, and 2 is needed", way.join(" "), version.trim()));
            }
            Ok(_) => return Ok(words),
            Err(why) => problems.push(why),
        }
    }
    Err(format!("no `docker compose` can be run: {}", problems.join("; ")))
}

/// What Compose makes of the files, for each of these services: what it compares to tell whether a container is of them.
///
/// # Errors
/// What it said instead.
pub async fn hashes(
    command: &[String],
    host: &str,
    project: &ComposeProject,
    services: &[String],
) -> Result<Vec<(String, String)>, String> {
    let list = services.join(",");
    let said = run(command, host, project, &["config", "--hash", &list], AT_ONCE).await?;
    let pair =
        |line: &str| line.split_once(' ').map(|(service, hash)| (service.to_owned(), hash.trim().to_owned()));
    Ok(said.lines().filter_map(pair).collect())
}

/// Runs it for a project, by its files, and gives what it printed.
///
/// # Errors
/// How it ended, with its last words.
pub async fn run(
    command: &[String],
    host: &str,
    project: &ComposeProject,
    words: &[&str],
    within: Duration,
) -> Result<String, String> {
    let options = options(project);
    let all: Vec<&str> = options.iter().map(String::as_str).chain(words.iter().copied()).collect();
    say(command, host, &all, within).await
}

/// What says which project is meant, whoever is asked where.
fn options(project: &ComposeProject) -> Vec<String> {
    let mut all = vec!["--project-name".to_owned(), project.name.clone()];
    all.extend(["--project-directory".to_owned(), project.directory.display().to_string()]);
    let mut files: Vec<_> = super::project::files_of(project).cloned().collect();
    if let Ok(place) = super::project::read(project).and_then(|files| files.place)
        && !place.services.is_empty()
        && !files.contains(&place.file)
    {
        files.push(place.file);
    }
    all.extend(files.iter().flat_map(|path| ["--file".to_owned(), path.display().to_string()]));
    all.extend(
        project.environment.iter().flat_map(|path| ["--env-file".to_owned(), path.display().to_string()]),
    );
    // Whoever is named may be of any profile.
    all.extend(["--profile".to_owned(), "*".to_owned()]);
    all
}

async fn say(command: &[String], host: &str, words: &[&str], within: Duration) -> Result<String, String> {
    let [program, first @ ..] = command else { return Err("there is no command".to_owned()) };
    let called = format!("`{} {}`", command.join(" "), words.join(" "));
    let kept = KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let mut process = Command::new(program);
    process.args(first).args(words).env_clear().envs(kept).env("DOCKER_HOST", host);
    process.stdin(Stdio::null()).kill_on_drop(true);
    let ended = match tokio::time::timeout(within, process.output()).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(format!("there is no `{program}` in the PATH that Backstop runs with"));
        }
        Ok(Err(e)) => return Err(format!("{called} cannot be run: {e}")),
        Err(_) => return Err(format!("{called} took longer than {} s", within.as_secs())),
    };
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let last: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = last[last.len().saturating_sub(3)..].join(" | ");
    Err(format!("{called} failed ({}): {}", ended.status, cut(&last, QUOTED_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_named_by_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("compose.yaml"), "services: {api: {image: 'shop:v2'}}").unwrap();
        let project = ComposeProject {
            name: "shop".into(),
            service: "api".into(),
            directory: folder.path().to_owned(),
            files: vec![path("compose.yaml"), path("compose.override.yaml")],
            environment: vec![path("prod.env")],
        };
        let said = options(&project).join(" ").replace(&folder.path().display().to_string(), "DIR");
        let wanted = "--project-name shop --project-directory DIR --file DIR/compose.yaml --env-file DIR/prod.env --profile *";
        assert_eq!(said, wanted, "an override file that is gone is not asked for");
    }

    #[tokio::test]
    async fn what_it_says_when_it_fails_is_quoted_from_its_end() {
        let shell = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let say = |script: &str| {
            let command = shell(script);
            async move { say(&command, "unix:///x", &[], Duration::from_secs(5)).await }
        };
        assert_eq!(say("echo $DOCKER_HOST").await, Ok("unix:///x\n".to_owned()));
        assert_eq!(
            say("echo ${CARGO_MANIFEST_DIR:-none}").await,
            Ok("none\n".to_owned()),
            "no variables of ours"
        );
        let why = say("for i in 1 2 3 4; do echo line $i >&2; done; exit 14").await.unwrap_err();
        assert!(why.ends_with("(exit status: 14): line 2 | line 3 | line 4"), "{why}");
        let none = super::say(&["no-such-program-here".to_owned()], "x", &[], AT_ONCE).await.unwrap_err();
        assert!(none.contains("no `no-such-program-here` in the PATH"), "{none}");
    }
}
