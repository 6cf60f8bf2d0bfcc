//! A Compose project as the labels of its containers tell of it: which files it was started with.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::disk;
use super::file::ComposeFile;
use super::override_file::{self, Services};
use super::pin::{Files, Line, Place};
use crate::core::plan::ComposeProject;

/// The label that names a container's service within its project.
pub const SERVICE: &str = "com.docker.compose.service";
const PROJECT: &str = "com.docker.compose.project";
const DIRECTORY: &str = "com.docker.compose.project.working_dir";
const FILES: &str = "com.docker.compose.project.config_files";
/// Only there if the project was started with `--env-file`.
const ENVIRONMENT: &str = "com.docker.compose.project.environment_file";

/// The project and the service that labels tell of; none if Compose did not make the container, or not from files.
pub fn project_of(labels: &Value) -> Option<ComposeProject> {
    let label = |name: &str| labels[name].as_str().filter(|value| !value.is_empty());
    let directory = PathBuf::from(label(DIRECTORY)?);
    // Compose v1 wrote them relative to the folder.
    let list = |names: &str| names.split(',').map(|name| directory.join(name.trim())).collect();
    Some(ComposeProject {
        name: label(PROJECT).unwrap_or_default().to_owned(),
        service: label(SERVICE)?.to_owned(),
        files: list(label(FILES)?),
        environment: label(ENVIRONMENT).map(list).unwrap_or_default(),
        directory: directory.clone(),
    })
}

/// Files that are included or extended, at most: projects have a few.
const MORE_MAX: usize = 64;

/// Reads a project's files.
///
/// # Errors
/// What cannot be read, and why.
pub(super) fn read(project: &ComposeProject) -> Result<Files, String> {
    let mut compose = Vec::new();
    for path in files_of(project) {
        compose.push((path.clone(), load(path)?));
    }
    let environment = if project.environment.is_empty() {
        let path = project.directory.join(".env");
        let text = disk::read(&path)?.unwrap_or_default();
        vec![(path, text)]
    } else {
        let read = |path: &PathBuf| Ok((path.clone(), disk::read(path)?.ok_or_else(|| absent(path))?));
        project.environment.iter().map(read).collect::<Result<_, String>>()?
    };
    let mut files = Files { place: place(project, &environment), compose, environment, ..Files::default() };
    include(&mut files, project);
    lines(&mut files, &project.service);
    Ok(files)
}

/// The project's files, without an override file that is not there any more: ours come and go, and what was deployed
/// meanwhile is labelled with them.
pub(super) fn files_of(project: &ComposeProject) -> impl Iterator<Item = &PathBuf> {
    let comes_and_goes = |path: &Path| {
        path.file_name().is_some_and(|name| override_file::NAMES.iter().any(|known| name == *known))
    };
    project.files.iter().filter(move |path| !comes_and_goes(path) || path.exists())
}

fn load(path: &Path) -> Result<ComposeFile, String> {
    let text = disk::read(path)?.ok_or_else(|| absent(path))?;
    ComposeFile::read(&text).map_err(|why| format!("{}: {why}", path.display()))
}

/// Reads the files that are taken in by others, and puts them under those. What cannot be read is noted.
fn include(files: &mut Files, project: &ComposeProject) {
    let mut waiting: Vec<(PathBuf, PathBuf, Option<PathBuf>)> = Vec::new();
    let wanted = |from: &Path, file: &ComposeFile| {
        let base = from.parent().unwrap_or(&project.directory).to_owned();
        let mut all = Vec::new();
        for taken in file.includes() {
            let first = taken.files.first().map(|path| base.join(path));
            let own = first.as_deref().and_then(Path::parent).unwrap_or(&base).to_owned();
            let own = taken.directory.map_or(own, |directory| base.join(directory));
            let named: Vec<PathBuf> = taken.environment.iter().map(|path| base.join(path)).collect();
            let environment = if named.is_empty() { vec![own.join(".env")] } else { named };
            for path in taken.files {
                all.push((base.join(path), own.clone(), environment.last().cloned()));
            }
        }
        all
    };
    for (path, file) in &files.compose {
        waiting.extend(wanted(path, file));
    }
    let mut seen: Vec<PathBuf> = files.compose.iter().map(|(path, _)| path.clone()).collect();
    while let Some((path, _, environment)) = waiting.pop() {
        if seen.contains(&path) || seen.len() > MORE_MAX {
            continue;
        }
        seen.push(path.clone());
        match load(&path) {
            Ok(file) => {
                waiting.extend(wanted(&path, &file));
                files.compose.insert(0, (path, file));
            }
            Err(why) => files.unread.push(why),
        }
        let text = environment.and_then(|path| disk::read(&path).ok().flatten());
        files.beneath.extend(text);
    }
}

/// Finds the image lines of a service, also where it extends others.
fn lines(files: &mut Files, service: &str) {
    let mut extended: Vec<(PathBuf, ComposeFile)> = Vec::new();
    for (path, file) in &files.compose {
        match line(path, file, service, &mut extended) {
            Ok(Some(line)) => files.lines.push(line),
            Ok(None) => {}
            Err(why) => files.unread.push(why),
        }
    }
}

/// The image line of a service in one file.
fn line(
    path: &Path,
    file: &ComposeFile,
    service: &str,
    extended: &mut Vec<(PathBuf, ComposeFile)>,
) -> Result<Option<Line>, String> {
    let (mut at, mut service, mut sharing) = (None, service.to_owned(), Vec::new());
    for _ in 0..MORE_MAX {
        let (path, file) = match at {
            None => (path, file),
            Some(at) => {
                extended.get(at).map_or((path, file), |(path, file): &(PathBuf, _)| (path.as_path(), file))
            }
        };
        if let Some(image) = file.image(&service) {
            return Ok(Some(Line { path: path.to_owned(), image: image.to_owned(), sharing }));
        }
        let Some((other, of)) = file.extends(&service) else { return Ok(None) };
        let of = of.to_owned();
        if let Some(other) = other {
            sharing.extend(file.extending(other).into_iter().filter(|name| *name != service));
            let other = path.parent().unwrap_or(path).join(other);
            at = Some(match extended.iter().position(|(path, _)| *path == other) {
                Some(known) => known,
                None => {
                    let read = load(&other)?;
                    extended.push((other, read));
                    extended.len() - 1
                }
            });
        }
        service = of;
    }
    Err(format!("{}: services extend each other without end", path.display()))
}

/// Where an override file of ours would be, or is, if Compose reads one at all.
fn place(project: &ComposeProject, environment: &[(PathBuf, String)]) -> Result<Place, String> {
    let ours = |path: &Path| disk::read(path).ok().flatten().and_then(|text| override_file::read(&text));
    let theirs: Vec<&PathBuf> = files_of(project).filter(|path| ours(path).is_none()).collect();
    let with_f = || "the project was started with `-f`, and then Compose reads no override file".to_owned();
    if let [main, second] = theirs.as_slice()
        && override_file::goes_with(main, second)
    {
        return Err(format!("{} is there already, and is not Backstop's", second.display()));
    }
    let [main] = theirs.as_slice() else { return Err(with_f()) };
    let name = main.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let folder = main.parent().unwrap_or(&project.directory);
    let earlier = override_file::before(name).filter(|_| folder == project.directory);
    if earlier.is_none_or(|earlier| earlier.iter().any(|name| folder.join(name).exists())) {
        return Err(with_f());
    }
    if environment.iter().any(|(_, text)| super::env_file::values(text).contains_key("COMPOSE_FILE")) {
        return Err("COMPOSE_FILE is set, and then Compose reads no override file".into());
    }
    let there = override_file::NAMES
        .map(|name| folder.join(name))
        .into_iter()
        .find(|path| path.symlink_metadata().is_ok());
    let (file, services) = match there {
        None => (folder.join(override_file::beside(name)), Services::new()),
        Some(file) => {
            let services = ours(&file)
                .ok_or_else(|| format!("{} is there already, and is not Backstop's", file.display()))?;
            (file, services)
        }
    };
    Ok(Place { file, main: (*main).clone(), services })
}

fn absent(path: &Path) -> String {
    format!("{} is not there, or not where Backstop runs", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A folder with these files, and the project of its service `api`.
    fn project(files: &[(&str, &str)], listed: &[&str]) -> (tempfile::TempDir, ComposeProject) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let directory = folder.path().to_owned();
        let files = listed.iter().map(|name| directory.join(name)).collect();
        (
            folder,
            ComposeProject {
                name: "shop".into(),
                service: "api".into(),
                directory,
                files,
                environment: Vec::new(),
            },
        )
    }

    #[test]
    fn the_image_line_is_found_in_files_that_are_included_or_extended() {
        let (folder, project) = project(
            &[
                ("compose.yaml", "{include: [more/other.yaml, gone.yaml], services: {db: {image: d}}}"),
                (
                    "more/other.yaml",
                    "services: {api: {extends: {file: base.yaml, service: app}}, jobs: {extends: {file: base.yaml, service: app}}}",
                ),
                ("more/base.yaml", "services: {app: {extends: root}, root: {image: 'shop:$TAG'}}"),
                ("more/.env", "TAG=v2"),
            ],
            &["compose.yaml"],
        );
        let files = read(&project).unwrap();
        let line = files.lines.last().unwrap();
        assert_eq!(
            (line.path.clone(), line.image.as_str()),
            (folder.path().join("more/base.yaml"), "shop:$TAG")
        );
        assert_eq!(line.sharing, ["jobs"]);
        assert_eq!(files.beneath, ["TAG=v2"]);
        assert!(files.unread[0].contains("gone.yaml"), "{:?}", files.unread);
    }

    #[test]
    fn files_that_refer_to_each_other_come_to_an_end() {
        let (_folder, project) = project(
            &[
                (
                    "compose.yaml",
                    "{include: [b.yaml], services: {api: {extends: {file: b.yaml, service: api}}}}",
                ),
                (
                    "b.yaml",
                    "{include: [compose.yaml], services: {api: {extends: {file: compose.yaml, service: api}}}}",
                ),
            ],
            &["compose.yaml"],
        );
        let files = read(&project).unwrap();
        assert!(files.lines.is_empty());
        assert!(files.unread[0].contains("without end"), "{:?}", files.unread);
    }

    #[test]
    fn an_override_file_has_its_place_only_where_compose_reads_one() {
        let said = |files: &[(&str, &str)], listed: &[&str]| {
            let (_folder, project) = project(files, listed);
            let place = read(&project).unwrap().place;
            place.map(|place| place.file.file_name().unwrap().to_string_lossy().into_owned())
        };
        let api = "services: {api: {image: 'shop:v2'}}";
        let (new, old, env) =
            (("compose.yaml", api), ("docker-compose.yml", api), (".env", "COMPOSE_FILE=x"));
        assert_eq!(said(&[new], &["compose.yaml"]), Ok("compose.override.yaml".into()));
        assert_eq!(said(&[old], &["docker-compose.yml"]), Ok("docker-compose.override.yml".into()));
        assert!(
            said(&[old, new], &["docker-compose.yml"]).unwrap_err().contains("`-f`"),
            "another one comes first"
        );
        assert!(said(&[("prod.yaml", api)], &["prod.yaml"]).unwrap_err().contains("`-f`"));
        assert!(
            said(&[new, ("prod.yaml", api)], &["compose.yaml", "prod.yaml"]).unwrap_err().contains("`-f`")
        );
        assert!(said(&[new, env], &["compose.yaml"]).unwrap_err().contains("COMPOSE_FILE"));
        let theirs = ("docker-compose.override.yaml", "services: {api: {ports: ['80:80']}}");
        assert!(said(&[new, theirs], &["compose.yaml"]).unwrap_err().contains("not Backstop's"));
        let kept = override_file::Kept { image: "j:v1".into(), bad: "j:v2".into(), owner: "j".into() };
        let text = override_file::render(&[("jobs".to_owned(), kept)].into()).unwrap();
        let ours = ("compose.override.yaml", text.as_str());
        let both = ["compose.yaml", "compose.override.yaml"];
        assert_eq!(said(&[new, ours], &both), Ok("compose.override.yaml".into()));
    }

    #[test]
    fn files_are_found_by_labels_of_both_versions() {
        let v2 = project_of(&json!({
            SERVICE: "api", DIRECTORY: "/srv/shop",
            FILES: "/srv/shop/compose.yaml,/srv/shop/prod.yaml", ENVIRONMENT: "/srv/prod.env",
        }));
        let v2 = v2.unwrap();
        assert_eq!(v2.files, [Path::new("/srv/shop/compose.yaml"), Path::new("/srv/shop/prod.yaml")]);
        assert_eq!(v2.environment, [Path::new("/srv/prod.env")]);
        let v1 = project_of(&json!({SERVICE: "api", DIRECTORY: "/srv/shop", FILES: "docker-compose.yml"}));
        let v1 = v1.unwrap();
        assert_eq!(v1.files, [Path::new("/srv/shop/docker-compose.yml")]);
        assert!(v1.environment.is_empty());
        assert_eq!(project_of(&json!({SERVICE: "api", FILES: "-"})), None);
    }
}
