//! Images out of Backstop's own binary: `v1` is good, and `v2` is bad in the way that a test wants.

use std::process::Command;
use std::sync::OnceLock;

use super::handed_over;

/// An image to be made: a demo app with its faults baked in.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    lines: Vec<String>,
    entrypoint: String,
}

impl Image {
    /// A healthy demo app that calls itself `version`.
    pub(crate) fn demo(version: &str) -> Self {
        Self { lines: Vec::new(), entrypoint: r#"["/backstop","demo-app"]"#.to_owned() }
            .env("DEMO_VERSION", version)
    }

    /// `DEMO_BAD=1`, `DEMO_BAD_AFTER=5s`, ...: see `backstop demo-app --help`.
    pub(crate) fn env(self, name: &str, value: &str) -> Self {
        self.line(&format!("ENV {name}={value}"))
    }

    /// The container does not start at all.
    pub(crate) fn that_cannot_start(mut self) -> Self {
        self.entrypoint = r#"["/nothing-is-here"]"#.to_owned();
        self
    }

    /// A Docker HEALTHCHECK that asks /healthz every second.
    pub(crate) fn healthcheck(self) -> Self {
        self.line(
            r#"HEALTHCHECK --interval=1s --timeout=10s --retries=3 CMD ["/backstop","demo-app","--probe","http://127.0.0.1:8080/healthz"]"#,
        )
    }

    /// Any line of a Dockerfile that `docker import --change` takes.
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// The lines of a Dockerfile that make it of [`root_file_system`], as `docker import` and `docker commit` take them.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let entrypoint = format!("ENTRYPOINT {}", self.entrypoint);
        [entrypoint, "EXPOSE 8080".to_owned()].into_iter().chain(self.lines.iter().cloned())
    }
}

/// The tar file behind all images, made once for all tests of a run.
pub(super) fn root_file_system() -> &'static str {
    static TAR: OnceLock<String> = OnceLock::new();
    TAR.get_or_init(|| {
        let tar = std::env::temp_dir().join(format!("backstop-demo-{}.tar", std::process::id()));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/demo-image");
        let binary = handed_over("BACKSTOP_BIN");
        let made = Command::new(script).args(["--tar", &binary]).arg(&tar).status().unwrap();
        assert!(made.success(), "{script} --tar {binary} failed");
        tar.display().to_string()
    })
}
