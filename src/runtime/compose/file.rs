//! Compose files, as far as a pin needs them: the image line of a service, and who else uses a variable.

use std::collections::HashMap;

use yaml_rust2::parser::{Event, EventReceiver, Parser};
use yaml_rust2::yaml::Hash;
use yaml_rust2::{Yaml, YamlLoader};

use super::interpolation::Template;

/// A file is read up to this size: the largest that people write have a few thousand lines.
pub(super) const SIZE_MAX: u64 = 1 << 20;
/// Values in a file, each as often as it is referred to: a few lines that refer to each other can mean billions.
const VALUES_MAX: u64 = 100_000;
/// Nested merges (`<<`) at most.
const MERGES_MAX: u8 = 8;

/// A file that was read.
#[derive(Debug)]
pub(super) struct ComposeFile {
    root: Yaml,
}

impl ComposeFile {
    /// Reads its text.
    ///
    /// # Errors
    /// Where it cannot be read, and why.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut size = Size::default();
        Parser::new_from_str(text).load(&mut size, false).map_err(|e| e.to_string())?;
        if size.total > VALUES_MAX {
            return Err(format!("it means more than {VALUES_MAX} values"));
        }
        let documents = YamlLoader::load_from_str(text).map_err(|e| e.to_string())?;
        let root = documents.into_iter().next().unwrap_or(Yaml::Null);
        match root {
            Yaml::Hash(_) => Ok(Self { root }),
            _ => Err("it has no `services`".into()),
        }
    }

    /// The image line of a service, variables and all; none if this file has none for it.
    pub(super) fn image(&self, service: &str) -> Option<&str> {
        get(self.service(service)?, "image", 0)?.as_str()
    }

    /// What a service extends: the other file, as it is written there, none for this one; and the service in it.
    pub(super) fn extends<'a>(&'a self, service: &'a str) -> Option<(Option<&'a str>, &'a str)> {
        match get(self.service(service)?, "extends", 0)? {
            Yaml::String(other) => Some((None, other)),
            other => Some((other["file"].as_str(), other["service"].as_str().unwrap_or(service))),
        }
    }

    /// The services that extend one of the file that is written as `file`.
    pub(super) fn extending(&self, file: &str) -> Vec<String> {
        let names = self.services().filter_map(Yaml::as_str);
        names
            .filter(|name| self.extends(name).is_some_and(|(of, _)| of == Some(file)))
            .map(str::to_owned)
            .collect()
    }

    /// The files that it takes in, as they are written there, and their environment files.
    pub(super) fn includes(&self) -> Vec<Include<'_>> {
        let entries = self.root["include"].as_vec().into_iter().flatten();
        let all = entries.map(|entry| match entry {
            Yaml::String(file) => Include { files: vec![file], ..Include::default() },
            other => Include {
                files: texts(&other["path"]),
                environment: texts(&other["env_file"]),
                directory: other["project_directory"].as_str(),
            },
        });
        all.collect()
    }

    /// Who else uses a variable: names of services, or what stands beside them (`networks`).
    pub(super) fn others_with(&self, variable: &str, service: &str) -> Vec<String> {
        let mut found = Vec::new();
        let Some(root) = self.root.as_hash() else { return found };
        for (key, value) in root {
            let key = key.as_str().unwrap_or_default();
            // Anchors that services merge are seen where they are merged.
            if key.starts_with("x-") {
                continue;
            }
            match value.as_hash().filter(|_| key == "services") {
                Some(services) => {
                    let others = services.iter().filter_map(|(name, of)| Some((name.as_str()?, of)));
                    let using = others.filter(|(name, of)| *name != service && uses(of, variable));
                    found.extend(using.map(|(name, _)| name.to_owned()));
                }
                None if uses(value, variable) => found.push(key.to_owned()),
                None => {}
            }
        }
        found
    }

    fn services(&self) -> impl Iterator<Item = &Yaml> {
        self.root["services"].as_hash().into_iter().flat_map(Hash::keys)
    }

    fn service(&self, name: &str) -> Option<&Hash> {
        self.root["services"][name].as_hash()
    }
}

/// Files that another one takes in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Include<'a> {
    /// As they are laid over each other.
    pub(super) files: Vec<&'a str>,
    /// Their own environment files.
    pub(super) environment: Vec<&'a str>,
    /// Their own folder.
    pub(super) directory: Option<&'a str>,
}

/// Where configs and secrets are copied into the containers of a service: those whose content is no file on the host.
pub(super) fn copied(files: &[&ComposeFile], service: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, folder) in [("configs", "/"), ("secrets", "/run/secrets/")] {
        let is_copied = |name: &str| {
            let defined = files.iter().map(|file| &file.root[kind][name]);
            defined.into_iter().any(|one| !one["content"].is_badvalue() || !one["environment"].is_badvalue())
        };
        let used = files.iter().filter_map(|file| get(file.service(service)?, kind, 0)?.as_vec()).flatten();
        for one in used {
            let (name, target) = match one {
                Yaml::String(name) => (Some(name.as_str()), None),
                long => (long["source"].as_str(), long["target"].as_str()),
            };
            let Some(name) = name.filter(|name| is_copied(name)) else { continue };
            let target = target.unwrap_or(name);
            let path = if target.starts_with('/') { target.to_owned() } else { format!("{folder}{target}") };
            if !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found
}

/// One text, or a list of them.
fn texts(yaml: &Yaml) -> Vec<&str> {
    match yaml {
        Yaml::String(one) => vec![one],
        Yaml::Array(all) => all.iter().filter_map(Yaml::as_str).collect(),
        _ => Vec::new(),
    }
}

/// How many values a file means, before any of them is made.
#[derive(Debug, Default)]
struct Size {
    total: u64,
    /// Those that are open: by which number they can be referred to, and the total when they began.
    open: Vec<(usize, u64)>,
    anchored: HashMap<usize, u64>,
}

impl EventReceiver for Size {
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Alias(id) => {
                let meant = self.anchored.get(&id).copied().unwrap_or(1);
                self.total = self.total.saturating_add(meant);
            }
            Event::Scalar(_, _, id, _) => {
                self.total = self.total.saturating_add(1);
                self.anchored.insert(id, 1);
            }
            Event::SequenceStart(id, _) | Event::MappingStart(id, _) => {
                self.open.push((id, self.total));
                self.total = self.total.saturating_add(1);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((id, before)) = self.open.pop() {
                    self.anchored.insert(id, self.total.saturating_sub(before));
                }
            }
            _ => {}
        }
    }
}

/// A key of a mapping, or of what is merged into it.
fn get<'a>(of: &'a Hash, key: &str, depth: u8) -> Option<&'a Yaml> {
    if let Some(value) = of.get(&Yaml::String(key.to_owned())) {
        return Some(value);
    }
    if depth == MERGES_MAX {
        return None;
    }
    match of.get(&Yaml::String("<<".to_owned()))? {
        Yaml::Hash(merged) => get(merged, key, depth + 1),
        // The first of several counts.
        Yaml::Array(all) => all.iter().find_map(|one| get(one.as_hash()?, key, depth + 1)),
        _ => None,
    }
}

fn uses(yaml: &Yaml, variable: &str) -> bool {
    match yaml {
        Yaml::String(text) => match Template::read(text) {
            Ok(template) => template.names(variable),
            // What is not understood may use it.
            Err(_) => text.contains(variable),
        },
        Yaml::Array(all) => all.iter().any(|one| uses(one, variable)),
        Yaml::Hash(all) => all.iter().any(|(key, value)| uses(key, variable) || uses(value, variable)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = r#"
x-app: &app
  image: "ghcr.io/acme/shop:${TAG:-latest}"
  environment: { VERSION: "${TAG}" }
services:
  api:
    <<: *app
    environment:
      - VERSION=${TAG}
  jobs:
    <<: [ *app ]
  db:
    image: postgres:16
  cache:
    extends: { file: other.yaml, service: cache }
  proxy:
    image: proxy:${PROXY_TAG}
    command: ["--title", "of ${OTHER:-$TITLE}"]
networks:
  default: { name: "net-${NET}" }
"#;

    #[test]
    fn the_image_line_is_found_through_merges() {
        let file = ComposeFile::read(SHOP).unwrap();
        let image = "ghcr.io/acme/shop:${TAG:-latest}";
        let all = ["api", "jobs", "db", "cache", "none"].map(|service| file.image(service));
        assert_eq!(all, [Some(image), Some(image), Some("postgres:16"), None, None]);
    }

    #[test]
    fn where_else_a_service_may_be_is_known() {
        let file = ComposeFile::read(SHOP).unwrap();
        assert_eq!(file.extends("cache"), Some((Some("other.yaml"), "cache")));
        assert_eq!(file.extends("api"), None);
        assert_eq!(file.extending("other.yaml"), ["cache"]);
        assert_eq!(file.includes(), []);
        let text = "include: [a.yaml, {path: [b.yaml, c.yaml], env_file: b.env, project_directory: b}]\n\
                    services: {a: {extends: base}}";
        let file = ComposeFile::read(text).unwrap();
        assert_eq!(file.extends("a"), Some((None, "base")));
        let second =
            Include { files: vec!["b.yaml", "c.yaml"], environment: vec!["b.env"], directory: Some("b") };
        assert_eq!(file.includes(), [Include { files: vec!["a.yaml"], ..Include::default() }, second]);
    }

    #[test]
    fn who_else_uses_a_variable_is_known() {
        let file = ComposeFile::read(SHOP).unwrap();
        assert_eq!(file.others_with("TAG", "api"), ["jobs"]);
        assert_eq!(file.others_with("PROXY_TAG", "proxy"), Vec::<String>::new());
        assert_eq!(file.others_with("TITLE", "api"), ["proxy"]);
        assert_eq!(file.others_with("NET", "api"), ["networks"]);
    }

    #[test]
    fn what_compose_copies_is_told_from_what_it_mounts() {
        let first = "{services: {api: {configs: [a, {source: b, target: /etc/b.conf}, f, x], secrets: [s, {source: e, target: key}]}, \
                     db: {configs: [d]}}, configs: {a: {content: hello}, d: {content: x}, f: {file: ./f}, x: {external: true}}}";
        let second = "{services: {api: {configs: [a]}}, configs: {b: {environment: B}}, secrets: {s: {file: ./s}, e: {environment: E}}}";
        let files = [first, second].map(|text| ComposeFile::read(text).unwrap());
        let all: Vec<&ComposeFile> = files.iter().collect();
        assert_eq!(copied(&all, "api"), ["/a", "/etc/b.conf", "/run/secrets/key"]);
        assert!(copied(&all, "none").is_empty());
    }

    #[test]
    fn what_is_no_compose_file_is_refused() {
        for text in ["services: [", "", "- a", "services:\n\t- x"] {
            assert!(ComposeFile::read(text).is_err(), "{text:?}");
        }
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let refers = vec![format!("*a{}", n - 1); 10].join(", ");
            laughs.push_str(&format!("a{n}: &a{n} [{refers}]\n"));
        }
        assert!(ComposeFile::read(&laughs).unwrap_err().contains("values"));
    }
}
