//! A Compose project as the labels of its containers tell of it: which files it was started with.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::disk;
use super::file::ComposeFile;
use super::pin::Files;
use crate::core::plan::ComposeProject;

/// The label that names a container's service within its project.
pub const SERVICE: &str = "com.docker.compose.service";
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
        service: label(SERVICE)?.to_owned(),
        files: list(label(FILES)?),
        environment: label(ENVIRONMENT).map(list).unwrap_or_default(),
        directory: directory.clone(),
    })
}

/// Reads a project's files.
///
/// # Errors
/// What cannot be read, and why.
pub(super) fn read(project: &ComposeProject) -> Result<Files, String> {
    let mut compose = Vec::new();
    for path in &project.files {
        let text = disk::read(path)?.ok_or_else(|| absent(path))?;
        let file = ComposeFile::read(&text).map_err(|why| format!("{}: {why}", path.display()))?;
        compose.push((path.clone(), file));
    }
    let environment = if project.environment.is_empty() {
        let path = project.directory.join(".env");
        let text = disk::read(&path)?.unwrap_or_default();
        vec![(path, text)]
    } else {
        let read = |path: &PathBuf| Ok((path.clone(), disk::read(path)?.ok_or_else(|| absent(path))?));
        project.environment.iter().map(read).collect::<Result<_, String>>()?
    };
    Ok(Files { compose, environment })
}

fn absent(path: &Path) -> String {
    format!("{} is not there, or not where Backstop runs", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
