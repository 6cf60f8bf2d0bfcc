//! Whether a hook could be begun, looked at without running it: for drills.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use tokio::net::TcpStream;

use crate::core::settings::{Hook, HookKind, HttpStep, Target};

/// Whoever is asked answers within milliseconds, or is far away; a drill is watched by a person.
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);

/// Whether what it needs is there: its program, its file, whoever it asks. What it would do there is not tried. What is
/// known only at a rollback (a template in the place of a program or host, an image, a replica) is not looked at.
///
/// # Errors
/// What is missing, in words.
pub async fn looks_runnable(hook: &Hook) -> Result<(), String> {
    let found = match &hook.kind {
        HookKind::Command(words) => words.first().map_or(Ok(()), |program| program_is_there(program)),
        HookKind::Http(steps) => answers(steps).await,
        HookKind::Sql { file, .. } => {
            std::fs::File::open(file).map(drop).map_err(|e| format!("its file {file} cannot be read: {e}"))
        }
        HookKind::Run { .. } | HookKind::Schema(_) => Ok(()),
    };
    found.map_err(|why| format!("{} ({}): {why}", hook.name, hook.phase.name()))
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
            assert_eq!(looks_runnable(&command(there)).await, Ok(()), "{there}");
        }
        for missing in ["/nonexistent/smoke", "no-such-program-anywhere", "/etc/passwd", "/tmp"] {
            let why = looks_runnable(&command(missing)).await.unwrap_err();
            assert_eq!(why, format!("smoke (before_verify): there is no program {missing} here"));
        }

        let listens = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let request = |place: String| hook(HookKind::Http(vec![HttpStep::get(Target::Url(place))]));
        let url = format!("http://{}/_up", listens.local_addr().unwrap());
        assert_eq!(looks_runnable(&request(url.clone())).await, Ok(()));
        drop(listens);
        assert!(
            looks_runnable(&request(url)).await.unwrap_err().contains("127.0.0.1 does not answer at port")
        );

        let file = "/nonexistent/down.sql".to_owned();
        let text = crate::core::settings::Text::Plain(String::new());
        let sql = hook(HookKind::Sql { file, database: text });
        assert!(
            looks_runnable(&sql).await.unwrap_err().contains("its file /nonexistent/down.sql cannot be read")
        );
    }
}
