//! Pinning on disk, and taking it back.

use std::fs;

use super::*;

/// A folder with a Compose file whose service `api` has this image line.
fn project(image: &str) -> (tempfile::TempDir, ComposeProject) {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_owned();
    let file = directory.join("compose.yaml");
    fs::write(&file, format!("services:\n  api:\n    image: {image}\n  jobs:\n    image: jobs:v2\n"))
        .unwrap();
    let (name, service) = ("shop".to_owned(), "api".to_owned());
    (folder, ComposeProject { name, service, directory, files: vec![file], environment: Vec::new() })
}

fn pinned(project: &ComposeProject, bad: &str, good: &str) -> (Option<Pin>, String) {
    pinned_with(project, bad, good, None)
}

fn pinned_with(
    project: &ComposeProject,
    bad: &str,
    good: &str,
    good_environment: Option<&BTreeMap<String, String>>,
) -> (Option<Pin>, String) {
    match pin(project, "shop-api", bad, good, &Running::default(), good_environment) {
        StepOutput::Pinned { pin, notes } => (pin, notes.join("; ")),
        other => panic!("{other:?}"),
    }
}

/// The image is all that can be pinned: a bad value in `.env` comes back with the next `up`, and that is said, not the opposite.
#[test]
fn a_bad_configuration_that_would_come_back_is_said() {
    let (folder, mut project) = project("shop:${TAG:-v1}");
    let env = folder.path().join(".env");
    fs::write(&env, "TAG=v1\nGREETING=oops\nSAME=x\nELSEWHERE=1\n").unwrap();
    project.environment = vec![env.clone()];
    let good = [("GREETING", "hello"), ("SAME", "x"), ("OTHER", "y")];
    let good: BTreeMap<String, String> =
        good.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let (pin, note) = pinned_with(&project, "shop:v1", "shop:v1", Some(&good));
    assert_eq!(pin, None);
    assert!(!note.contains("nothing to pin"), "{note}");
    let said = format!("brings the bad one back: put right GREETING in {}", env.display());
    assert!(note.contains("the next `docker compose up -d api` ") && note.ends_with(&said), "{note}");
    assert!(!note.contains("oops") && !note.contains("hello"), "a value is told: {note}");
    let alike = pinned(&project, "shop:v1", "shop:v1").1;
    assert_eq!(alike, "nothing to pin: both releases are called shop:v1: the tag shows the good one here");

    // The image as well: it is pinned, and not said to be all.
    fs::write(&env, "TAG=v2\nGREETING=oops\n").unwrap();
    let (pin, note) = pinned_with(&project, "shop:v2", "shop:v1", Some(&good));
    assert!(pin.is_some(), "{note}");
    assert!(!note.contains("keeps") && note.contains("takes the image shop:v1"), "{note}");
    assert!(note.ends_with(&said), "{note}");
    let (_, note) = pinned_with(&project, "shop:v1", "shop:v1", Some(&BTreeMap::new()));
    assert!(note.ends_with("and no variable of its environment files"), "{note}");
}

/// `.env` says the good release since an earlier rollback, and whoever deployed the bad one again set TAG elsewhere.
#[test]
fn the_pin_of_an_earlier_rollback_is_not_taken_for_this_ones() {
    let (folder, mut project) = project("shop:${TAG}");
    let env = folder.path().join(".env");
    fs::write(&env, "TAG=v2\n").unwrap();
    project.environment = vec![env.clone()];
    let (pin, note) = pinned(&project, "shop:v2", "shop:v1");
    assert!(pin.is_some(), "{note}");
    // After a crash in the middle of that rollback: what runs was made before the files were changed.
    assert_eq!(pinned(&project, "shop:v2", "shop:v1"), (pin.clone(), note));
    assert_eq!(pinned_by(&project, "shop-api", "shop:v2", "shop:v1", &Running::default()), pin);

    let later = Running { since: u64::MAX, ..Running::default() };
    let StepOutput::Pinned { pin, notes } =
        super::pin(&project, "shop-api", "shop:v2", "shop:v1", &later, None)
    else {
        panic!("it is not pinned")
    };
    assert_eq!(pin, None);
    assert!(notes.join("").contains("set a variable outside of them"), "{notes:?}");
    assert_eq!(pinned_by(&project, "shop-api", "shop:v2", "shop:v1", &later), None, "nothing to take back");
}

#[test]
fn an_override_file_is_written_once_and_taken_back_once() {
    let (folder, project) = project("shop:v2");
    let file = folder.path().join("compose.override.yaml");
    let (pin, note) = pinned(&project, "shop:v2", "shop:v1");
    assert!(note.contains("taken back within half a minute (at once: `backstop unpin shop-api`)"), "{note}");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("image: \"shop:v1\" # instead of shop:v2"), "{text}");

    // After a crash, the same again.
    assert_eq!(pinned(&project, "shop:v2", "shop:v1"), (pin.clone(), note));
    assert_eq!(fs::read_to_string(&file).unwrap(), text);

    let pin = pin.unwrap();
    assert!(unpin(&pin).unwrap().contains("is gone: the next"));
    assert!(!file.exists());
    assert!(unpin(&pin).unwrap().contains("gone by now"));
}

#[test]
fn an_override_file_does_not_hold_against_what_a_person_writes() {
    let (folder, project) = project("shop:v2");
    let (file, main) = (folder.path().join("compose.override.yaml"), &project.files[0]);
    assert_eq!(withdraw(&project), None, "there is none");
    pinned(&project, "shop:v2", "shop:v1");
    // By now Compose has told the containers of it.
    let mut known = project.clone();
    known.files.push(file.clone());
    for project in [&project, &known] {
        assert_eq!(withdraw(project), None, "the bad one is what it is there for");
    }
    let text = fs::read_to_string(main).unwrap();
    fs::write(main, text.replace("shop:v2", "shop:v3")).unwrap();
    let said = withdraw(&known).unwrap().unwrap();
    assert!(said.starts_with("the project's files say shop:v3 for api by now; "), "{said}");
    assert!(!file.exists());
    assert_eq!(withdraw(&known), None, "once");

    // What was deployed meanwhile is labelled with the file that is gone now, and can be pinned all the same.
    fs::write(main, text).unwrap();
    assert!(pinned(&known, "shop:v2", "shop:v1").0.is_some());
}

#[test]
fn services_of_one_project_share_an_override_file() {
    let (folder, api) = project("shop:v2");
    let jobs = ComposeProject { service: "jobs".into(), ..api.clone() };
    let file = folder.path().join("compose.override.yaml");
    let first = pinned(&api, "shop:v2", "shop:v1").0.unwrap();
    let second = pinned(&jobs, "jobs:v2", "jobs:v1").0.unwrap();
    assert!(unpin(&first).unwrap().contains("api is not in"));
    let rest = fs::read_to_string(&file).unwrap();
    assert!(rest.contains("jobs:v1") && !rest.contains("shop:v1"), "{rest}");
    unpin(&second).unwrap();
    assert!(!file.exists());
}

#[test]
fn what_somebody_made_of_an_override_file_is_left_alone() {
    let (folder, project) = project("shop:v2");
    let file = folder.path().join("compose.override.yaml");
    let pin = pinned(&project, "shop:v2", "shop:v1").0.unwrap();
    let changed = fs::read_to_string(&file).unwrap() + "    ports: [\"80:80\"]\n";
    fs::write(&file, &changed).unwrap();
    assert!(unpin(&pin).unwrap().contains("somebody changed"));
    assert_eq!(fs::read_to_string(&file).unwrap(), changed);
    let (none, why) = pinned(&project, "shop:v2", "shop:v1");
    assert_eq!(none, None);
    assert!(why.contains("not Backstop's") && why.contains("to shop:v1"), "{why}");
}

#[test]
fn a_project_with_an_override_file_of_its_own_was_not_started_with_f() {
    let (folder, mut project) = project("shop:v2");
    let theirs = folder.path().join("compose.override.yaml");
    fs::write(&theirs, "services: {api: {ports: ['80:80']}}").unwrap();
    project.files.push(theirs);
    let (none, why) = pinned(&project, "shop:v2", "shop:v1");
    assert_eq!(none, None);
    assert!(why.contains("compose.override.yaml is there already") && !why.contains("`-f`"), "{why}");
    project.files[1] = folder.path().join("prod.yaml");
    fs::write(&project.files[1], "services: {}").unwrap();
    let (_, why) = pinned(&project, "shop:v2", "shop:v1");
    assert!(why.contains("started with `-f`"), "{why}");
}

#[test]
fn files_that_moved_or_do_not_parse_are_said() {
    let (_folder, project) = project("shop:v2");
    fs::write(&project.files[0], "services: [").unwrap();
    let (none, why) = pinned(&project, "shop:v2", "shop:v1");
    assert!(
        none.is_none() && why.contains("compose.yaml: ") && why.contains("make its image shop:v1"),
        "{why}"
    );
    fs::write(&project.files[0], "services: {jobs: {image: 'jobs:v2'}}").unwrap();
    let (none, why) = pinned(&project, "shop:v2", "shop:v1");
    assert!(none.is_none() && why.contains("have no image line for it"), "{why}");
    fs::remove_file(&project.files[0]).unwrap();
    let (none, why) = pinned(&project, "shop:v2", "shop:v1");
    assert!(none.is_none() && why.contains("is not there, or not where Backstop runs"), "{why}");
}

#[test]
fn a_pin_of_an_earlier_version_is_read() {
    let old = r#"{"file":"/srv/.env","variable":"TAG","was":"v2","is":"v1"}"#;
    let pin: Pin = serde_json::from_str(old).unwrap();
    assert!(matches!(&pin, Pin::Variable { variable, .. } if variable == "TAG"));
    assert_eq!(serde_json::to_string(&pin).unwrap(), old);
    let kept = Pin::Override { file: "/srv/o.yaml".into(), service: "api".into(), image: "shop:v1".into() };
    assert_eq!(serde_json::from_str::<Pin>(&serde_json::to_string(&kept).unwrap()).unwrap(), kept);
}
