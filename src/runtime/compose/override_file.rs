//! Override files that we write: what Compose reads by itself beside the file that a project was started with. What is in
//! one follows from which services it pins, so whatever else is in it, somebody else wrote.

use std::collections::BTreeMap;
use std::path::Path;

/// What Compose looks for, in its order; it reads the first that it finds.
pub(super) const NAMES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];
/// What it looks for without `-f`, in its order.
const DEFAULTS: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

const HEAD: &str = "\
# Written by Backstop: what is named here was rolled back, and `docker compose up` keeps the release that works.
# It comes before the other files of this project. Once they say another release, Backstop takes this back by itself within
# half a minute, and says so: then run `docker compose up` again. Or take it back with the command behind each image.
services:
";

/// One service that is kept at an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// The image that it is kept at.
    pub(super) image: String,
    /// The one that was rolled back.
    pub(super) bad: String,
    /// What Backstop calls the service.
    pub(super) owner: String,
}

/// The services of an override file of ours.
pub(super) type Services = BTreeMap<String, Kept>;

/// The names that come before `main` when Compose looks for files; none if it does not look for `main` at all.
pub(super) fn before(main: &str) -> Option<&'static [&'static str]> {
    let at = DEFAULTS.iter().position(|name| *name == main)?;
    DEFAULTS.get(..at)
}

/// Whether Compose reads `second` by itself after `main`, which it finds by itself: then nobody passed `-f`.
pub(super) fn goes_with(main: &Path, second: &Path) -> bool {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let by_itself = before(&name(main)).is_some() && NAMES.contains(&name(second).as_str());
    by_itself && main.parent() == second.parent()
}

/// The one that goes with `main`: Compose v1 knows only names like its own.
pub(super) fn beside(main: &str) -> &'static str {
    if main.starts_with("docker-") { "docker-compose.override.yml" } else { "compose.override.yaml" }
}

/// The text of one; none if a name in it would need more than quotes.
pub(super) fn render(services: &Services) -> Option<String> {
    let mut text = HEAD.to_owned();
    for (service, kept) in services {
        let Kept { image, bad, owner } = kept;
        if ![service, image, bad, owner].iter().all(|part| is_plain(part)) {
            return None;
        }
        text += &format!(
            "  \"{service}\":\n    image: \"{image}\" # instead of {bad}; to take it back: backstop unpin {owner}\n"
        );
    }
    Some(text)
}

/// Reads one of ours; none if it is not, or if anybody changed it.
pub(super) fn read(text: &str) -> Option<Services> {
    let mut services = Services::new();
    let mut lines = text.strip_prefix(HEAD)?.lines();
    while let Some(name) = lines.next() {
        let name = name.strip_prefix("  \"")?.strip_suffix("\":")?;
        let (image, rest) = lines.next()?.strip_prefix("    image: \"")?.split_once("\" # instead of ")?;
        let (bad, owner) = rest.split_once("; to take it back: backstop unpin ")?;
        let kept = Kept { image: image.to_owned(), bad: bad.to_owned(), owner: owner.to_owned() };
        services.insert(name.to_owned(), kept);
    }
    (render(&services).as_deref() == Some(text)).then_some(services)
}

/// What names of images and services consist of: nothing that means something to YAML or to Compose within quotes.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@' | '+');
    !text.is_empty() && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(image: &str) -> Kept {
        Kept { image: image.into(), bad: "shop:v2".into(), owner: "shop-api".into() }
    }

    #[test]
    fn what_we_write_we_know_again() {
        let services: Services =
            [("api".to_owned(), kept("ghcr.io/acme/shop:v1")), ("no".to_owned(), kept("jobs@sha256:0a"))]
                .into();
        let text = render(&services).unwrap();
        assert_eq!(read(&text), Some(services));
        let file = super::super::file::ComposeFile::read(&text).unwrap();
        assert_eq!(
            (file.image("api"), file.image("no")),
            (Some("ghcr.io/acme/shop:v1"), Some("jobs@sha256:0a"))
        );
        assert!(text.contains("backstop unpin shop-api"), "{text}");
    }

    #[test]
    fn what_somebody_else_wrote_is_not_ours() {
        let text = render(&[("api".to_owned(), kept("shop:v1"))].into()).unwrap();
        for changed in [
            text.replace("shop:v1", "shop:$TAG"),
            text.replace("    image", "    ports: [\"80:80\"]\n    image"),
            format!("{text}  \"db\":\n    image: postgres:16\n"),
            text.replace("# Written by", "# By"),
            "services: {}\n".to_owned(),
            String::new(),
        ] {
            assert_eq!(read(&changed), None, "{changed}");
        }
        assert_eq!(render(&[("a b".to_owned(), kept("shop:v1"))].into()), None);
    }

    #[test]
    fn compose_looks_for_files_in_its_own_order() {
        assert_eq!(before("compose.yaml"), Some(&[][..]));
        assert_eq!(before("docker-compose.yml"), Some(&["compose.yaml", "compose.yml"][..]));
        assert_eq!(before("prod.yaml"), None);
        assert_eq!(beside("docker-compose.yaml"), "docker-compose.override.yml");
        assert!(NAMES.contains(&beside("compose.yml")) && NAMES.contains(&beside("docker-compose.yml")));
    }
}
