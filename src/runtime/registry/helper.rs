//! Credential helpers: programs called `docker-credential-NAME` that give away what a keychain or a cloud holds. Told
//! the registry on standard input; bounded in time and output, since nothing is known of them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::runtime::engine::cut;

/// Those of clouds ask a service for a token, and try again a few times.
const ANSWERS: Duration = Duration::from_secs(20);
/// A cloud's token has three kilobytes.
const OUTPUT_MAX: u64 = 64 << 10;
/// What is quoted of what a helper says when it fails.
const QUOTED_MAX: usize = 200;
/// The name of a user who is none: the secret is an identity token.
pub(super) const TOKEN: &str = "<token>";
/// What every helper says that has nothing to give; all of them are built on one library.
const NOTHING: &str = "credentials not found in native keychain";

/// What a helper gives.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Found {
    pub(super) username: String,
    pub(super) secret: SecretString,
}

/// Asks a helper; none if it has nothing for that registry. An error says what it did instead, after its name.
pub(super) async fn ask(name: &str, server: &str) -> Result<Option<Found>, String> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err("is no name of a program".to_owned());
    }
    ask_program(Path::new(&format!("docker-credential-{name}")), server, ANSWERS).await
}

/// Asks a program, which is looked for where programs are unless it is a path.
pub(super) async fn ask_program(
    program: &Path,
    server: &str,
    within: Duration,
) -> Result<Option<Found>, String> {
    match tokio::time::timeout(within, run(program, server)).await {
        Ok(Ok((succeeded, output))) => read(succeeded, &output),
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => {
            Err("is not installed in any directory of the PATH that Backstop runs with".to_owned())
        }
        Ok(Err(e)) => Err(format!("cannot be run: {e}")),
        Err(_) => Err(format!("did not answer within {} s", within.as_secs())),
    }
}

async fn run(program: &Path, server: &str) -> std::io::Result<(bool, SecretString)> {
    let mut process = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = process.stdin.take() {
        // One that does not care to read has its reasons, and says them.
        let _ = input.write_all(server.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = process.stdout.take() {
        stdout.take(OUTPUT_MAX).read_to_end(&mut output).await?;
    }
    let status = process.wait().await?;
    Ok((status.success(), SecretString::from(String::from_utf8_lossy(&output).into_owned())))
}

fn read(succeeded: bool, output: &SecretString) -> Result<Option<Found>, String> {
    let text = output.expose_secret().trim();
    if succeeded {
        // serde's own words would quote what stands there.
        return serde_json::from_str(text)
            .map(|found: Found| (!found.secret.expose_secret().is_empty()).then_some(found))
            .map_err(|e| format!("answered what no helper does (line {}, column {})", e.line(), e.column()));
    }
    if text.contains(NOTHING) {
        return Ok(None);
    }
    let said = text.lines().next().unwrap_or_default();
    if said.is_empty() || text.contains("\"Secret\"") {
        return Err("failed and does not say why".to_owned());
    }
    Err(format!("failed: {}", cut(said, QUOTED_MAX)))
}
