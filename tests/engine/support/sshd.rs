//! A real SSH server with keys, a user and a port of its own, before a bed's engine. Nothing of the machine is changed for it:
//! what it wants of /etc and /run it sees in a mount namespace of its own.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::port::free_address;
use super::{Bed, eventually, seconds};

/// A user of the server alone, in the group that the engine's socket is for.
const USER: &str = "ops";
/// Hosts of the client's configuration, which lead to the same server: with a key that it does not know, and with the key
/// of another server in the list of known ones.
pub(crate) const STRANGER: &str = "stranger";
pub(crate) const FORGED: &str = "forged";

/// `$1` is the directory of the server, `$2` that of the engine's socket, which may be in /run.
const IN_ITS_NAMESPACE: &str = r#"
mount --bind "$1/passwd" /etc/passwd && mount --bind "$2" "$1/engine" && mount -t tmpfs -o mode=755 run /run &&
mkdir /run/sshd && exec sshd -D -e -f "$1/sshd_config"
"#;

#[derive(Debug)]
pub(crate) struct Sshd {
    home: TempDir,
    address: String,
    engine: PathBuf,
    process: Option<Child>,
}

impl Sshd {
    /// `docker` is on the path there, and talks to `bed`.
    #[track_caller]
    pub(crate) fn start(bed: &Bed) -> Self {
        let home = tempfile::Builder::new().prefix("backstop-sshd-").tempdir().unwrap();
        // The user is let in as far as to what it may read.
        fs::set_permissions(home.path(), Permissions::from_mode(0o711)).unwrap();
        let engine = Path::new(bed.socket()).parent().unwrap().to_owned();
        let mut server = Self { home, address: free_address(), engine, process: None };
        server.make_keys();
        server.configure_the_server(bed);
        server.configure_the_client();
        server.start_again();
        server
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.home.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.home.path().join(name)).unwrap_or_default()
    }

    #[track_caller]
    fn make_keys(&self) {
        for name in ["host_key", "other_host_key", "key", "strange_key"] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", &self.path(name)]);
            let made = command.stdin(Stdio::null()).output().unwrap();
            assert!(made.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&made.stderr));
        }
        let (host, port) = self.address.split_once(':').unwrap();
        for (list, key) in [("known_hosts", "host_key.pub"), ("other_hosts", "other_host_key.pub")] {
            self.write(list, &format!("[{host}]:{port} {}", self.read(key)));
        }
        self.write("authorized_keys", &self.read("key.pub"));
    }

    fn configure_the_server(&self, bed: &Bed) {
        let (home, group) = (self.home.path().display(), fs::metadata(bed.socket()).unwrap().gid());
        let client = Path::new(bed.client()).parent().unwrap().display();
        self.write(
            "passwd",
            &format!(
                "root:*:0:0::/:/bin/sh\nsshd:*:64998:65534::/run/sshd:/bin/false\n\
                 {USER}:*:64999:{group}::{home}:/bin/sh\n"
            ),
        );
        fs::create_dir(self.home.path().join("engine")).unwrap();
        // As lawyers want them: longer than what is kept of ssh's words.
        self.write("banner", &"AUTHORIZED USE ONLY. Whatever is done here is recorded.\n".repeat(60));
        let settings = [
            format!("Banner {home}/banner"),
            format!("ListenAddress {}", self.address),
            format!("HostKey {home}/host_key"),
            format!("AuthorizedKeysFile {home}/authorized_keys"),
            format!("SetEnv DOCKER_HOST=unix://{home}/engine/docker.sock PATH={client}:/usr/bin:/bin"),
            format!("AllowUsers {USER}"),
            // Only whose /tmp it is may write there, and that is not the user.
            "StrictModes no".to_owned(),
            "PasswordAuthentication no".to_owned(),
            "KbdInteractiveAuthentication no".to_owned(),
            "UsePAM no".to_owned(),
            "PidFile none".to_owned(),
            "LogLevel VERBOSE".to_owned(),
        ];
        self.write("sshd_config", &(settings.join("\n") + "\n"));
    }

    /// What a user has in ~/.ssh/config, which `ssh` looks for where /etc/passwd says, whatever `HOME` is.
    fn configure_the_client(&self) {
        let home = self.home.path().display();
        self.write(
            "ssh_config",
            &format!(
                "Host {STRANGER}\n  HostName 127.0.0.1\n  IdentityFile {home}/strange_key\n\
                 Host {FORGED}\n  HostName 127.0.0.1\n  UserKnownHostsFile {home}/other_hosts\n\
                 Host * !{STRANGER}\n  IdentityFile {home}/key\n\
                 Host *\n  IdentitiesOnly yes\n  IdentityAgent none\n  StrictHostKeyChecking yes\n\
                 \x20 UserKnownHostsFile {home}/known_hosts\n  GlobalKnownHostsFile none\n"
            ),
        );
        let path = std::env::var("PATH").unwrap();
        fs::create_dir(self.home.path().join("bin")).unwrap();
        self.write("bin/ssh", &format!("#!/bin/sh\nPATH='{path}' exec ssh -F {home}/ssh_config \"$@\"\n"));
        fs::set_permissions(self.home.path().join("bin/ssh"), Permissions::from_mode(0o755)).unwrap();
    }

    /// The `PATH` of somebody whose `ssh` is so configured.
    pub(crate) fn client_path(&self) -> String {
        format!("{}:{}", self.path("bin"), std::env::var("PATH").unwrap())
    }

    pub(crate) fn url(&self) -> String {
        self.url_by("127.0.0.1")
    }

    /// By a host of the client's configuration.
    pub(crate) fn url_by(&self, host: &str) -> String {
        let (_, port) = self.address.split_once(':').unwrap();
        format!("ssh://{USER}@{host}:{port}")
    }

    /// The server ends, and with it all that goes through it.
    pub(crate) fn stop(&mut self) {
        self.cut();
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.home.path().join("log")).unwrap();
        let process = Command::new("unshare")
            .args(["-m", "sh", "-c", IN_ITS_NAMESPACE, "sh"])
            .args([self.home.path(), &self.engine])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        eventually(seconds(60), "the SSH server answers", || {
            TcpStream::connect(&self.address).map(drop).map_err(|error| error.to_string())
        });
    }

    /// The processes of the connections that there are, and of what runs in them: all that came of the server.
    pub(crate) fn connections(&self) -> BTreeSet<u32> {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let parents: Vec<(u32, u32)> =
            numbers.filter_map(|number| Some((number, parent_of(number)?))).collect();
        let mut found = BTreeSet::new();
        let mut next: Vec<u32> = self.process.iter().map(Child::id).collect();
        while let Some(one) = next.pop() {
            let children = parents.iter().filter(|(_, parent)| *parent == one).map(|(child, _)| *child);
            next.extend(children.filter(|child| found.insert(*child)));
        }
        found
    }

    /// Cuts all connections: nobody says goodbye. Gives the processes that there were.
    pub(crate) fn cut(&self) -> BTreeSet<u32> {
        let connections = self.connections();
        let all = connections.iter().map(u32::to_string);
        // Some may have ended by themselves by now.
        let _ = Command::new("kill").arg("-KILL").args(all).stderr(Stdio::null()).status();
        connections
    }
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // A program's name may hold spaces and brackets.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the SSH server\n{}", self.read("log"));
        }
        self.stop();
    }
}
