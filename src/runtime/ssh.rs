//! An engine behind SSH, as the docker command reaches it: `ssh HOST docker system dial-stdio` joins our input and output
//! to the engine's socket there. Both of our clients want a socket, so there is a private one here, and every connection
//! to it is joined to an `ssh` of its own. All of them share one connection to the host, so that only the first pays for
//! the handshake.
//!
//! Nobody is there to type anything: keys, users and known hosts are those of the user that Backstop runs as.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, copy_bidirectional, join};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio_util::task::AbortOnDropHandle;

/// So much of what ssh says is kept, and so many lines of that: its last words are what matters, and they are short. What
/// comes before them may be long, as a server's banner is.
const SAID_MAX: usize = 2048;
const LINES_MAX: usize = 3;
/// The shared connection is waited for so long; a connection without it works too, and takes longer.
const SHARED: Duration = Duration::from_secs(3);
/// Private directories made by this process, so that each has a name of its own.
static MADE: AtomicU32 = AtomicU32::new(0);

/// Where `ssh://[USER@]HOST[:PORT]` leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    user: Option<String>,
    /// A name of ~/.ssh/config, or a host.
    pub(crate) host: String,
    port: Option<u16>,
}

impl Destination {
    /// What is behind `ssh://`; none if that is no destination.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, text),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (place, None),
        };
        let fits = |text: &str| {
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            !text.is_empty() && !text.starts_with('-') && text.chars().all(fine)
        };
        let fits = fits(host) && user.as_deref().is_none_or(fits);
        fits.then(|| Self { user, host: host.to_owned(), port })
    }

    /// `ssh` to there, before the command that is to be run.
    fn ssh(&self, control: &Path) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"]);
        ssh.arg("-S").arg(control);
        if let Some(user) = &self.user {
            ssh.args(["-l", user]);
        }
        if let Some(port) = self.port {
            ssh.args(["-p", &port.to_string()]);
        }
        ssh.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        ssh
    }
}

/// The private socket, while it is there.
#[derive(Debug)]
pub(super) struct Bridge {
    socket: PathBuf,
    directory: PathBuf,
    said: Said,
    _serving: AbortOnDropHandle<()>,
}

/// What ssh said last, when it failed.
type Said = Arc<Mutex<String>>;

impl Bridge {
    /// Opens the socket; nobody is connected to yet. Must be called on a tokio runtime.
    pub(super) fn open(to: Destination) -> io::Result<Self> {
        let directory = private_directory()?;
        let socket = directory.join("engine.sock");
        let listener = UnixListener::bind(&socket)?;
        let said = Said::default();
        let control = directory.join("shared");
        let serving = serve(listener, to, control, Arc::clone(&said));
        let serving = AbortOnDropHandle::new(tokio::spawn(serving));
        Ok(Self { socket, directory, said, _serving: serving })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What ssh said when it last failed; empty if it did not.
    pub(super) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A directory that nobody else may look into. One that is there already is somebody else's.
fn private_directory() -> io::Result<PathBuf> {
    let parent = std::env::var_os("RUNTIME_DIRECTORY").map_or_else(std::env::temp_dir, PathBuf::from);
    loop {
        let name = format!("backstop-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let directory = parent.join(name);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => return Ok(directory),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}

/// Joins every connection to an `ssh` of its own. Those end with the connection, or with us.
async fn serve(listener: UnixListener, to: Destination, control: PathBuf, said: Said) {
    let mut shared: Option<Child> = None;
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if !shared.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
            shared = share(&to, &control).await;
        }
        let (command, said) = (to.ssh(&control), Arc::clone(&said));
        let host = to.host.clone();
        connections.spawn(async move {
            let why = carry(command, &host, connection).await;
            *said.lock().unwrap_or_else(PoisonError::into_inner) = why;
        });
    }
}

/// The connection that the others go through. Without it each makes its own, so a failure is left to them to tell.
async fn share(to: &Destination, control: &Path) -> Option<Child> {
    let _ = tokio::fs::remove_file(control).await;
    let mut ssh = to.ssh(control);
    ssh.args(["-M", "-N", "-o", "ControlPersist=no", "--", &to.host]).stderr(Stdio::null());
    let mut child = ssh.spawn().ok()?;
    let there = async {
        while tokio::fs::metadata(control).await.is_err() && matches!(child.try_wait(), Ok(None)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(SHARED, there).await;
    Some(child)
}

/// One connection, to its end. Yields what went wrong; empty if nothing did.
async fn carry(mut ssh: Command, host: &str, mut connection: UnixStream) -> String {
    ssh.args(["--", host, "docker", "system", "dial-stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = match ssh.spawn() {
        Ok(child) => child,
        Err(e) => return format!("`ssh` cannot be started: {e}"),
    };
    let (Some(input), Some(output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return String::new();
    };
    let mut far = join(output, input);
    let carried = copy_bidirectional(&mut connection, &mut far).await;
    // While the engine's side is open, nothing went wrong that ssh could tell of.
    drop(far);
    let words = last_words(errors).await;
    let ended = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
    let failed = ended.is_ok_and(|status| status.is_ok_and(|status| !status.success()));
    if failed || (carried.is_err() && !words.is_empty()) { format!("ssh: {words}") } else { String::new() }
}

/// The end of what is said, in one line. Whoever still says something after a second is not waited for.
async fn last_words(mut errors: impl AsyncRead + Unpin) -> String {
    let mut said = Vec::new();
    let all = async {
        while errors.read_buf(&mut said).await.is_ok_and(|n| n > 0) {
            said.drain(..said.len().saturating_sub(SAID_MAX));
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let words = lines.get(lines.len().saturating_sub(LINES_MAX)..).unwrap_or_default().join(" ");
    // Some of its words begin with its name.
    words.strip_prefix("ssh: ").unwrap_or(&words).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_host_with_or_without_user_and_port() {
        let all = |user: Option<&str>, host: &str, port| {
            Some(Destination { user: user.map(str::to_owned), host: host.to_owned(), port })
        };
        assert_eq!(
            Destination::parse("ops@db1.example.com:2222"),
            all(Some("ops"), "db1.example.com", Some(2222))
        );
        assert_eq!(Destination::parse("east/"), all(None, "east", None));
        for bad in ["", "@h", "u@", "h:", "h:x", "-oProxyCommand=x", "u@-h", "h/var/run/x", "a b"] {
            assert_eq!(Destination::parse(bad), None, "{bad}");
        }
    }
    #[tokio::test]
    async fn what_ssh_says_last_is_told_whatever_came_before() {
        let banner = "Authorized use only.\r\n".repeat(500);
        let said = format!("{banner}\r\nlast line but one\r\nops@east: Permission denied (publickey).\r\n");
        let told = last_words(said.as_bytes()).await;
        assert_eq!(told, "Authorized use only. last line but one ops@east: Permission denied (publickey).");
        let refused = last_words(&b"ssh: connect to host east port 22: Connection refused\r\n"[..]).await;
        assert_eq!(refused, "connect to host east port 22: Connection refused");
        assert_eq!(last_words(&b""[..]).await, "");
    }
}
