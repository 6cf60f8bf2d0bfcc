//! Whether a hook could be begun, looked at without running it: for drills.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use tokio::net::TcpStream;

use super::postgres;
use crate::core::settings::{Hook, HookKind, HttpStep, RunImage, Target};
use crate::rollback::hooks::fill;

/// Whoever is asked answers within milliseconds, or is far away; a drill is watched by a person.
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);

/// Whether what it needs is there: its program, its file, its database, whoever it asks. What it would do there is not tried.
/// `values` are what is known already of the rollback that it would belong to; what is known only then (a template in the
/// place of a program or host, a replica) is not looked at.
///
/// # Errors
/// What is missing, in words.
pub async fn looks_runnable(hook: &Hook, values: &[(&'static str, String)]) -> Result<(), String> {
    let found = match &hook.kind {
        HookKind::Command(words) => {
            words.first().map_or(Ok(()), |program| program_is_there(&fill(program, values)))
        }
        HookKind::Http(steps) => answers(steps).await,
        HookKind::Sql { file, database } => match file_is_there(&fill(file, values)) {
            Ok(()) => postgres::lets_in(database).await,
            missing => missing,
        },
        HookKind::Schema(query) => postgres::lets_in(&query.database).await,
        HookKind::Run { .. } => Ok(()),
    };
    found.map_err(|why| format!("{} ({}): {why}", hook.name, hook.phase.name()))
}

/// The image that it is to be run in, if it is neither release's and is known already.
pub fn image_of(hook: &Hook, values: &[(&'static str, String)]) -> Option<String> {
    match &hook.kind {
        HookKind::Run { image: RunImage::Other(reference), .. } => {
            Some(fill(reference, values)).filter(|image| !image.contains("{{"))
        }
        HookKind::Run { image: RunImage::Bad | RunImage::Good, .. }
        | HookKind::Command(_)
        | HookKind::Http(_)
        | HookKind::Sql { .. }
        | HookKind::Schema(_) => None,
    }
}

/// Opened, and not only looked for: it may be there and not for us to read.
fn file_is_there(file: &str) -> Result<(), String> {
    if file.contains("{{") {
        return Ok(());
    }
    std::fs::File::open(file).map(drop).map_err(|e| format!("its file {file} cannot be read: {e}"))
}

fn program_is_there(program: &str) -> Result<(), String> {
    if program.contains("{{") {
        return Ok(());
    }
    let places: Vec<PathBuf> = if program.contains('/') {
        vec![PathBuf::from(program)]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|directory| directory.join(program)).collect()
    };
    if places.iter().any(|place| is_program(place)) {
        Ok(())
    } else {
        Err(format!("there is no program {program} here"))
    }
}

fn is_program(place: &Path) -> bool {
    place.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Somebody listens where the first request goes; the others may need what it brings about.
async fn answers(steps: &[HttpStep]) -> Result<(), String> {
    let Some(Target::Url(url)) = steps.first().map(|step| &step.target) else { return Ok(()) };
    let Some(uri) = url.parse::<Uri>().ok().filter(|_| !url.contains("{{")) else { return Ok(()) };
    let Some(host) = uri.host() else { return Ok(()) };
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    // An IPv6 address stands in brackets in a URL, and nowhere else.
    let whom = (host.trim_matches(['[', ']']), port);
    match tokio::time::timeout(CONNECTED_WITHIN, TcpStream::connect(whom)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(format!("{host} does not answer at port {port}: {e}")),
        Err(_) => {
            Err(format!("{host} does not answer at port {port} within {} s", CONNECTED_WITHIN.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::{HookPhase, OnFailure};

    fn hook(kind: HookKind) -> Hook {
        Hook {
            name: "smoke".into(),
            phase: HookPhase::BeforeVerify,
            kind,
            timeout: Duration::from_secs(5),
            on_failure: OnFailure::Stop,
            repeatable: true,
        }
    }

    #[tokio::test]
    async fn what_a_hook_needs_is_looked_for() {
        let command = |program: &str| hook(HookKind::Command(vec![program.to_owned(), "-x".to_owned()]));
        for there in ["sh", "/bin/sh", "{{to_tag}}-tool"] {
            assert_eq!(looks_runnable(&command(there), &[]).await, Ok(()), "{there}");
        }
        for missing in ["/nonexistent/smoke", "no-such-program-anywhere", "/etc/passwd", "/tmp"] {
            let why = looks_runnable(&command(missing), &[]).await.unwrap_err();
            assert_eq!(why, format!("smoke (before_verify): there is no program {missing} here"));
        }

        let listens = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let request = |place: String| hook(HookKind::Http(vec![HttpStep::get(Target::Url(place))]));
        let url = format!("http://{}/_up", listens.local_addr().unwrap());
        assert_eq!(looks_runnable(&request(url.clone()), &[]).await, Ok(()));
        drop(listens);
        assert!(
            looks_runnable(&request(url), &[])
                .await
                .unwrap_err()
                .contains("127.0.0.1 does not answer at port")
        );

        let text = crate::core::settings::Text::Plain("postgres://shop@127.0.0.1:1/shop".to_owned());
        let sql = |file: &str| hook(HookKind::Sql { file: file.to_owned(), database: text.clone() });
        let missing = looks_runnable(&sql("/nonexistent/down.sql"), &[]).await.unwrap_err();
        assert!(missing.contains("its file /nonexistent/down.sql cannot be read"), "{missing}");
        // Its name is what it will be at a rollback from the schema that the database has.
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("0015_rollback.sql"), "SELECT 1;").unwrap();
        let named = sql(&format!("{}/{{{{from_schema}}}}_rollback.sql", dir.path().display()));
        let at = |version: &str| [("from_schema", version.to_owned())];
        let missing = looks_runnable(&named, &at("0016")).await.unwrap_err();
        assert!(missing.contains("0016_rollback.sql cannot be read"), "{missing}");
        let database = looks_runnable(&named, &at("0015")).await.unwrap_err();
        assert!(database.contains("the database cannot be reached"), "{database}");
        let unknown = looks_runnable(&named, &[]).await.unwrap_err();
        assert!(unknown.contains("the database cannot be reached"), "no file is missed yet: {unknown}");
    }

    #[test]
    fn the_image_of_a_one_off_container_is_known_unless_it_is_a_releases() {
        let run = |image: RunImage| hook(HookKind::Run { image, command: vec!["migrate".into()] });
        let tag = [("to_tag", "v1".to_owned())];
        let other = |reference: &str| run(RunImage::Other(reference.to_owned()));
        assert_eq!(image_of(&other("tools:{{to_tag}}"), &tag).as_deref(), Some("tools:v1"));
        assert_eq!(image_of(&other("tools:{{to_tag}}"), &[]), None);
        assert_eq!(image_of(&run(RunImage::Good), &tag), None);
    }
}
