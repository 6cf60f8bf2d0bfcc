//! Environment files of Compose projects that Backstop must not write, or that are somewhere else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use crate::compose::{Project, read, rolled_back, up_changes_nothing};
use crate::support::story::{images, rollback_over};
use crate::support::{Bed, Daemon, Image, Webhook, seconds};

/// As an operator hardens a project: whatever protects its files from others protects them from Backstop.
struct ReadOnly(PathBuf);

impl ReadOnly {
    #[track_caller]
    fn mount(path: PathBuf) -> Self {
        mount(&["--bind", path.to_str().unwrap(), path.to_str().unwrap()]);
        let mounted = Self(path);
        mount(&["-o", "remount,bind,ro", mounted.0.to_str().unwrap()]);
        mounted
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[track_caller]
fn mount(arguments: &[&str]) {
    assert!(Command::new("mount").args(arguments).status().unwrap().success(), "mount {arguments:?}");
}

/// Everything in the project's folder that is not its own: copies and files that were begun.
fn left_over(project: &Project<'_>) -> Vec<String> {
    let names = fs::read_dir(project.path(".")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("backstop") || name.contains("override")).collect()
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn environment_file_that_cannot_be_written_is_rolled_back_all_the_same_and_said() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let project = Project::new(&bed, "web:${TAG}", "TAG=v1\n");
    let env = project.path(".env");
    let folder = env.parent().unwrap().to_owned();
    type Way<'a> = (&'a str, Box<dyn Fn() -> Option<ReadOnly> + 'a>);
    let mode = |mode| fs::set_permissions(&env, fs::Permissions::from_mode(mode)).unwrap();
    let ways: [Way<'_>; 3] = [
        (
            "is read-only",
            Box::new(|| {
                mode(0o444);
                None
            }),
        ),
        ("ReadWritePaths=", Box::new(|| Some(ReadOnly::mount(folder.clone())))),
        ("is mounted by itself, so it cannot be replaced", Box::new(|| Some(ReadOnly::mount(env.clone())))),
    ];
    for (words, protect) in ways {
        let webhook = Webhook::start();
        let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
        project.environment("TAG=v1\n");
        project.compose(&["up", "-d"]);
        daemon.proved("shop-web");

        project.environment("TAG=v2\n");
        let protection = protect();
        rolled_back(&project, &daemon);

        let file = env.display().to_string();
        let said = webhook.announced(seconds(60), &["not pinned", words, &format!("set TAG=v1 in {file}")]);
        assert!(said.to_string().contains("deploys what those files say"), "{said:#}");
        drop(protection);
        mode(0o644);
        assert_eq!(read(&env), "TAG=v2\n");
        assert_eq!(left_over(&project), Vec::<String>::new(), "{words}");
    }
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn environment_file_that_is_a_link_out_of_the_project_is_pinned_where_it_is() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let project = Project::new(&bed, "web:${TAG}", "");
    let (elsewhere, link) = (tempfile::tempdir().unwrap(), project.path(".env"));
    let file = elsewhere.path().join("production.env");
    fs::write(&file, "TAG=v1\n").unwrap();
    fs::remove_file(&link).unwrap();
    symlink(&file, &link).unwrap();
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");

    fs::write(&file, "TAG=v2\n").unwrap();
    let runs = rolled_back(&project, &daemon);

    webhook.announced(seconds(60), &["pinned: TAG=v1"]);
    assert!(link.is_symlink(), "a link stays a link");
    assert_eq!(read(&file), "TAG=v1\n");
    up_changes_nothing(&project, &runs);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn environment_file_by_another_name_is_pinned_where_several_files_make_the_project() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let project = Project::new(&bed, "web:${TAG:?}", "TAG=unused\n");
    fs::write(project.path("more.yaml"), "services:\n  web:\n    environment: {GREETING: hello}\n").unwrap();
    let file = project.path("production.env");
    let up = ["-f", "compose.yaml", "-f", "more.yaml", "--env-file", "production.env", "up", "-d"];
    fs::write(&file, "TAG=v1\n").unwrap();
    project.compose(&up);
    daemon.proved("shop-web");

    fs::write(&file, "TAG=v2\n").unwrap();
    project.compose(&up);
    let record = rollback_over(&daemon, "shop-web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    webhook.announced(seconds(60), &["pinned: TAG=v1", &file.display().to_string()]);
    assert_eq!(read(&file), "TAG=v1\n");
    assert_eq!(read(&project.path(".env")), "TAG=unused\n", "it is not this project's");

    let runs = project.container();
    project.compose(&up);
    assert_eq!(project.container()["Id"], runs["Id"], "`up` replaced what runs");
    bed.serves(seconds(60), "shop-web-1", "v1");
}

/// A project whose files are somewhere else by then, or say nothing that Compose would take.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn project_without_its_files_is_rolled_back_all_the_same_and_said() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    let project = Project::new(&bed, "web:${TAG}", "TAG=v1\n");
    let file = project.path("compose.yaml");
    let good = read(&file);
    type Way<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let ways: [Way<'_>; 2] = [
        ("is not there, or not where Backstop runs", Box::new(|| fs::remove_file(&file).unwrap())),
        ("compose.yaml: ", Box::new(|| fs::write(&file, "services: [").unwrap())),
    ];
    for (words, spoil) in ways {
        let webhook = Webhook::start();
        let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
        fs::write(&file, &good).unwrap();
        project.environment("TAG=v1\n");
        project.compose(&["up", "-d"]);
        daemon.proved("shop-web");
        project.environment("TAG=v2\n");
        project.compose(&["up", "-d"]);
        bed.serves(seconds(60), "shop-web-1", "v2");
        spoil();
        bed.turn("shop-web-1", "health", "error");

        let record = rollback_over(&daemon, "shop-web");
        assert_eq!(record["outcome"], "verified", "{record:#}");
        bed.serves(seconds(60), "shop-web-1", "v1");
        webhook.announced(seconds(60), &["not pinned", words, "make its image web:v1"]);
    }
}
