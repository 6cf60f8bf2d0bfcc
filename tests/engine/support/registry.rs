//! A real registry with TLS by a CA of its own and with passwords, which only those get in who logged in.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tempfile::TempDir;

use super::ca::Ca;
use super::port::{free_address, free_port_of};
use super::{Bed, eventually, seconds};

const USER: &str = "tester";
/// Its base64 has letters that differ between the two alphabets of base64: `X-Registry-Auth` is in the one for URLs.
const PASSWORD: &str = "secret>>>of???the~~~tests";
/// `htpasswd -nbB tester PASSWORD`: a registry takes bcrypt and nothing else.
const HTPASSWD: &str = "$2b$05$backstopbackstopbackse2nm8Q4hXttnBYnyJq9thTw5.wk5c6Aa";

/// A registry on the bridge of an engine: the engine trusts whatever is on the loopback address without asking.
#[derive(Debug)]
pub(crate) struct Registry {
    home: TempDir,
    address: String,
    process: Option<Child>,
}

impl Registry {
    #[track_caller]
    pub(crate) fn start(bed: &Bed) -> Self {
        let home = tempfile::Builder::new().prefix("backstop-registry-").tempdir().unwrap();
        let bridge =
            bed.docker(&["network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"]);
        let address = format!("{bridge}:{}", free_port_of(&bridge));
        let mut registry = Self { home, address, process: None };
        registry.secure(&bridge);
        let path = |name: &str| registry.home.path().join(name).display().to_string();
        fs::write(path("htpasswd"), format!("{USER}:{HTPASSWD}\n")).unwrap();
        let settings = json!({
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": path("images")}, "delete": {"enabled": true}},
            "http": {"addr": registry.address, "tls": {"certificate": path("server.pem"), "key": path("server.key")}},
            "auth": {"htpasswd": {"realm": "tests", "path": path("htpasswd")}},
        });
        // YAML takes JSON.
        fs::write(path("registry.yml"), settings.to_string()).unwrap();
        registry.start_again();
        registry.log_in();
        registry
    }

    /// One without TLS and passwords, on the loopback address, in whose place somebody else can answer.
    #[track_caller]
    pub(crate) fn plain() -> Self {
        let home = tempfile::Builder::new().prefix("backstop-registry-").tempdir().unwrap();
        let mut registry = Self { home, address: free_address(), process: None };
        let settings = json!({
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": registry.home.path().join("images")}},
            "http": {"addr": registry.address},
        });
        fs::write(registry.home.path().join("registry.yml"), settings.to_string()).unwrap();
        registry.start_again();
        registry
    }

    /// A CA that nobody has heard of, until the engine is told.
    fn secure(&self, name: &str) {
        let ca = Ca::new();
        let path = |name: &str| self.home.path().join(name);
        ca.write(&path("ca.pem"));
        ca.server(name, &path("server.pem"), &path("server.key"));
        fs::create_dir_all(self.trusted()).unwrap();
        fs::copy(self.home.path().join("ca.pem"), self.trusted().join("ca.crt")).unwrap();
    }

    /// Where every engine of a host looks for the CA of a registry. Nobody else has a registry at this address.
    fn trusted(&self) -> PathBuf {
        Path::new("/etc/docker/certs.d").join(&self.address)
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Docker's `config.json` of whoever logged in.
    pub(crate) fn config(&self) -> PathBuf {
        self.home.path().join("config.json")
    }

    /// As `docker login` does it.
    pub(crate) fn log_in(&self) {
        self.log_in_as(PASSWORD);
    }

    /// The password was changed since.
    pub(crate) fn log_in_as(&self, password: &str) {
        let auth = STANDARD.encode(format!("{USER}:{password}"));
        fs::write(self.config(), json!({"auths": {&self.address: {"auth": auth}}}).to_string()).unwrap();
    }

    /// From now on a helper gives the credentials away. Gives the directory of the program, for `PATH`, and what a
    /// `config.json` says that names it.
    pub(crate) fn helper(&self) -> (PathBuf, PathBuf) {
        let directory = self.home.path().join("bin");
        fs::create_dir_all(&directory).unwrap();
        let program = directory.join("docker-credential-of-the-tests");
        let script = format!(
            "#!/bin/sh\nread server\n[ \"$1 $server\" = \"get {}\" ] || {{ echo 'credentials not found in native keychain'; exit 1; }}\n\
             echo '{}'\n",
            self.address,
            json!({"ServerURL": self.address, "Username": USER, "Secret": PASSWORD})
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let config = self.home.path().join("helped.json");
        fs::write(&config, json!({"credHelpers": {&self.address: "of-the-tests"}}).to_string()).unwrap();
        (directory, config)
    }

    /// Nothing of a secret may be in it.
    #[track_caller]
    pub(crate) fn is_secret_in(&self, text: &str) -> bool {
        text.contains(PASSWORD) || text.contains(&STANDARD.encode(format!("{USER}:{PASSWORD}")))
    }

    /// Pushes an image of the engine. Gives what it is called then, and its digest.
    #[track_caller]
    pub(crate) fn push(&self, bed: &Bed, image: &str) -> (String, String) {
        let name = format!("{}/{image}", self.address);
        bed.docker(&["tag", image, &name]);
        let home = self.home.path().display().to_string();
        bed.docker(&["--config", &home, "push", "-q", &name]);
        let digests = bed.docker(&["image", "inspect", "-f", "{{join .RepoDigests \" \"}}", &name]);
        let own = digests.split(' ').find_map(|digest| digest.strip_prefix(&*self.address)?.split_once('@'));
        let (_, digest) = own.unwrap_or_else(|| panic!("{name} has no digest: {digests}"));
        (name, digest.to_owned())
    }

    /// Deletes an image by its digest, as retention policies do.
    #[track_caller]
    pub(crate) fn delete(&self, repository: &str, digest: &str) {
        let url = format!("https://{}/v2/{repository}/manifests/{digest}", self.address);
        let output = Command::new("curl")
            .args(["-fsS", "-X", "DELETE", "-u", &format!("{USER}:{PASSWORD}"), "--cacert"])
            .arg(self.home.path().join("ca.pem"))
            .arg(&url)
            .output()
            .unwrap();
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.home.path().join("log")).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(self.home.path().join("registry.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| {
                panic!("docker-registry does not start ({e}); get it with `tests/bed install`")
            });
        self.process = Some(process);
        eventually(seconds(60), "the registry listens", || {
            TcpStream::connect(&self.address).map(drop).map_err(|e| e.to_string())
        });
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("---- log of the registry, newest first\n{}", end.join("\n"));
        }
        self.stop();
        let _ = fs::remove_dir_all(self.trusted());
    }
}
