//! Files as docker writes them, and as it does not; helpers that answer, refuse, hang and babble.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A directory with a config.json.
fn written(text: &str) -> (TempDir, Credentials) {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.json");
    std::fs::write(&file, text).unwrap();
    (home, Credentials { file: Some(file), named: true })
}

/// `alice` with a password, for a registry.
pub(in crate::runtime::registry) async fn login(registry: &str) -> Login {
    let (_home, credentials) =
        written(&json!({"auths": {registry: {"auth": STANDARD.encode("alice:pass")}}}).to_string());
    credentials.login(registry).await.unwrap().unwrap()
}

/// What the engine would read.
fn shown(login: &Login) -> Value {
    let header = login.header();
    assert!(header.is_sensitive());
    serde_json::from_slice(&URL_SAFE.decode(header.as_bytes()).unwrap()).unwrap()
}

async fn of(text: &Value, registry: &str) -> Result<Option<Value>, String> {
    let (_home, credentials) = written(&text.to_string());
    credentials.login(registry).await.map(|login| login.as_ref().map(shown))
}

#[tokio::test]
async fn what_docker_login_wrote_is_shown_to_its_registry_and_to_no_other() {
    // Its base64 has both letters that differ between the alphabets.
    let secret = "\u{bf}\u{bf}>:\u{fb}?";
    let file = json!({
        "auths": {
            "ghcr.io": {"auth": STANDARD.encode(format!("alice:{secret}"))},
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("bob:hub\0\0")},
            "https://old.example.com/v1/": {"username": "carol", "password": "plain"},
            "azure.example.com": {"auth": STANDARD.encode("00000000:"), "identitytoken": "a.b.c"},
            "empty.example.com": {},
        },
        "HttpHeaders": {"User-Agent": "Docker-Client/20.10"},
    });
    let user = |name: &str, password: &str, server: &str| {
        Some(json!({"username": name, "password": password, "serveraddress": server}))
    };
    assert_eq!(of(&file, "ghcr.io").await.unwrap(), user("alice", secret, "ghcr.io"));
    assert_eq!(of(&file, "docker.io").await.unwrap(), user("bob", "hub", "https://index.docker.io/v1/"));
    assert_eq!(of(&file, "old.example.com").await.unwrap(), user("carol", "plain", "old.example.com"));
    let token = json!({"identitytoken": "a.b.c", "serveraddress": "azure.example.com"});
    assert_eq!(of(&file, "azure.example.com").await.unwrap(), Some(token));
    assert_eq!(of(&file, "empty.example.com").await.unwrap(), None);
    assert_eq!(of(&file, "quay.io").await.unwrap(), None);
    assert_eq!(of(&json!({}), "ghcr.io").await.unwrap(), None);
}

#[tokio::test]
async fn a_file_that_is_not_as_docker_writes_it_is_named_and_not_quoted() {
    let broken = |text: &'static str| async move {
        let (home, credentials) = written(text);
        let why = credentials.login("ghcr.io").await.unwrap_err();
        assert!(why.contains(&home.path().join("config.json").display().to_string()), "{why}");
        assert!(why.ends_with("next: docker login ghcr.io"), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
        why
    };
    assert!(broken("{\"auths\": hunter2").await.contains("line 1"));
    broken("{\"auths\": {\"ghcr.io\": \"hunter2\"}}").await;
    broken("{\"auths\": {\"ghcr.io\": {\"auth\": \"hunter2!\"}}}").await;
    broken("{\"auths\": {\"ghcr.io\": {\"auth\": \"bm9jb2xvbg==\"}}}").await;

    let nowhere = |named| Credentials { file: Some("/nowhere/config.json".into()), named };
    assert!(nowhere(false).login("ghcr.io").await.unwrap().is_none(), "nobody has to log in");
    let why = nowhere(true).login("ghcr.io").await.unwrap_err();
    assert!(why.contains("/nowhere/config.json") && why.contains("registry.docker_config"), "{why}");
    let (_home, credentials) = written(&" ".repeat(1 + (1 << 20)));
    assert!(credentials.login("ghcr.io").await.unwrap_err().contains("larger"));
}

#[tokio::test]
async fn it_is_read_again_each_time() {
    let (home, credentials) = written("{}");
    assert!(credentials.login("ghcr.io").await.unwrap().is_none());
    let text = json!({"auths": {"ghcr.io": {"auth": STANDARD.encode("alice:new")}}}).to_string();
    std::fs::write(home.path().join("config.json"), text).unwrap();
    assert_eq!(shown(&credentials.login("ghcr.io").await.unwrap().unwrap())["password"], "new");
}

#[tokio::test]
async fn nothing_of_a_secret_is_printed() {
    let login = login("ghcr.io").await;
    let printed = format!("{login:?} {:?}", login.header());
    assert!(!printed.contains("pass") && !printed.contains(&STANDARD.encode("alice:pass")), "{printed}");
}

/// A helper in a directory of its own. Called by its path, since a test must not change the PATH of all the others.
fn helper(script: &str) -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("docker-credential-test");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (home, program)
}

async fn told(script: &str) -> Result<Option<(String, String)>, String> {
    let (_home, program) = helper(script);
    let found = helper::ask_program(&program, "ghcr.io", Duration::from_millis(800)).await?;
    Ok(found.map(|found| (found.username, found.secret.expose_secret().to_owned())))
}

#[tokio::test]
async fn a_helper_is_told_the_registry_and_gives_what_it_has() {
    let answers =
        r#"read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"$1-$server\",\"Secret\":\"s\"}""#;
    assert_eq!(told(answers).await, Ok(Some(("get-ghcr.io".into(), "s".into()))));
    let nothing = "echo 'credentials not found in native keychain'; exit 1";
    assert_eq!(told(nothing).await, Ok(None));
}

#[tokio::test]
async fn a_helper_that_fails_hangs_or_babbles_is_said_so_and_given_up() {
    let why = told("echo 'no AWS credentials; run aws sso login'; exit 1").await.unwrap_err();
    assert_eq!(why, "failed: no AWS credentials; run aws sso login");
    let why = told("echo '{\"Secret\":\"hunter2\"}'; exit 1").await.unwrap_err();
    assert!(!why.contains("hunter2"), "{why}");
    let why = told("echo '{\"Username\":\"hunter2\",\"Secret\":7}'").await.unwrap_err();
    assert!(why.contains("answered what no helper does") && !why.contains("hunter2"), "{why}");
    assert!(told("sleep 30").await.unwrap_err().contains("did not answer"));
    let babbles = told("while :; do echo hunter2hunter2hunter2; done");
    assert!(tokio::time::timeout(Duration::from_secs(10), babbles).await.unwrap().is_err());
    let file = json!({"credsStore": "of-the-tests-that-is-not-there"});
    let why = of(&file, "ghcr.io").await.unwrap_err();
    assert!(
        why.contains("docker-credential-of-the-tests-that-is-not-there") && why.contains("not installed"),
        "{why}"
    );
    assert!(
        of(&json!({"credHelpers": {"ghcr.io": "../../bin/sh"}}), "ghcr.io")
            .await
            .unwrap_err()
            .contains("no name")
    );
}

#[tokio::test]
async fn a_registrys_own_helper_comes_before_the_store_and_the_store_before_the_file() {
    let auth = json!({"auth": STANDARD.encode("alice:file")});
    let mut file = json!({
        "auths": {"ghcr.io": auth, "quay.io": auth}, "credHelpers": {"ghcr.io": "no-such-own"}, "credsStore": "no-such-store",
    });
    assert!(of(&file, "ghcr.io").await.unwrap_err().contains("docker-credential-no-such-own"));
    assert!(of(&file, "quay.io").await.unwrap_err().contains("docker-credential-no-such-store"));
    file["credsStore"] = json!("");
    assert_eq!(of(&file, "quay.io").await.unwrap().unwrap()["password"], "file");
}
