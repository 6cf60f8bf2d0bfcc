//! A program on this host: run without a shell, in a process group of its own, and ended with everything that it started.
//!
//! Whoever leaves its process group is found by a mark in its environment, which children inherit: a program that makes
//! itself a daemon would outlive its time otherwise, and what an earlier process of ours began would run on unseen.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

use super::last_line;
use crate::core::time::human;
use crate::rollback::hooks::Failed;

/// What is kept of what it prints: the end of it.
const OUTPUT_MAX: usize = 64 << 10;
/// Between SIGTERM and SIGKILL, once its time is over.
const GRACE: Duration = Duration::from_secs(3);
/// Its output is read so long after its end: whoever else holds it open need not be waited for.
const DRAINED: Duration = Duration::from_secs(1);
/// What it gets of our environment, which may hold secrets: where programs are, and where its user is at home.
const KEPT: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];
/// The variable that marks it and its children.
const MARK: &str = "BACKSTOP_HOOK_MARK";
/// Processes that start others while they are ended are looked for again so often.
const ROUNDS: usize = 5;

/// Runs it. Yields the end of what it printed.
pub(super) async fn run(
    words: &[String],
    environment: &[(String, String)],
    mark: &str,
    within: Duration,
) -> Result<String, Failed> {
    let [program, arguments @ ..] = words else { return Err(Failed::silently("there is no command")) };
    let kept = KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(kept).env(MARK, mark);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let mut child = spawn(&mut command, program)?;
    let group = child.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    // Its own ends of the pipe, or it would never end.
    drop(command);
    let mut tail = Tail::default();
    let (ended, in_time) = {
        let reading = tail.read(child.printed);
        tokio::pin!(reading);
        let mut read = false;
        let waiting = wait(&mut child.process, group, within);
        tokio::pin!(waiting);
        let ended = loop {
            tokio::select! {
                ended = &mut waiting => break ended,
                () = &mut reading, if !read => read = true,
            }
        };
        end_group(group);
        end_leftovers(mark).await;
        if !read {
            let _ = tokio::time::timeout(DRAINED, reading).await;
        }
        ended
    };
    let output = tail.text();
    let status = match ended {
        Ok(status) => status,
        Err(e) => return Err(Failed { why: format!("its end cannot be waited for: {e}"), output }),
    };
    if !in_time {
        let why = format!("it did not end within {} and was killed", human(within));
        return Err(Failed { why, output });
    }
    if status.success() {
        return Ok(output);
    }
    Err(Failed { why: format!("{}{}", told(status), last_line(&output)), output })
}

/// A program that runs.
struct Running {
    process: Child,
    /// What it prints, of both streams in the order in which it comes.
    printed: Receiver,
}

fn spawn(command: &mut Command, program: &str) -> Result<Running, Failed> {
    let failed = |e: std::io::Error| {
        Failed::silently(match e.kind() {
            std::io::ErrorKind::NotFound => format!("there is no program {program} here"),
            _ => format!("{program} cannot be run: {e}"),
        })
    };
    let (ours, its) = std::io::pipe().map_err(failed)?;
    command.stdin(Stdio::null()).stdout(its.try_clone().map_err(failed)?).stderr(its);
    command.process_group(0).kill_on_drop(true);
    let process = command.spawn().map_err(failed)?;
    let printed = Receiver::from_owned_fd(ours.into()).map_err(failed)?;
    Ok(Running { process, printed })
}

/// Waits for its end, and brings it about when its time is over. False if that was needed.
async fn wait(
    child: &mut Child,
    group: Option<Pid>,
    within: Duration,
) -> (std::io::Result<ExitStatus>, bool) {
    if let Ok(ended) = tokio::time::timeout(within, child.wait()).await {
        return (ended, true);
    }
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::TERM);
    }
    if let Ok(ended) = tokio::time::timeout(GRACE, child.wait()).await {
        return (ended, false);
    }
    end_group(group);
    (child.wait().await, false)
}

fn end_group(group: Option<Pid>) {
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Ends whatever has the mark in its environment.
pub(super) async fn end_leftovers(mark: &str) {
    let mark = format!("{MARK}={mark}");
    let ended = tokio::task::spawn_blocking(move || {
        for _ in 0..ROUNDS {
            let left = marked(&mark);
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    });
    let _ = ended.await;
}

/// Processes that have the mark. One that is gone or is not ours to look at has none.
fn marked(mark: &str) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let has = |id: &i32| {
        let mut environment = Vec::new();
        let read = std::fs::File::open(format!("/proc/{id}/environ"))
            .and_then(|file| file.take(1 << 20).read_to_end(&mut environment));
        read.is_ok() && environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    ids.filter(|id| *id != own && has(id)).filter_map(Pid::from_raw).collect()
}

/// The end of what is printed.
#[derive(Debug, Default)]
struct Tail {
    kept: Vec<u8>,
    lost: bool,
}

impl Tail {
    async fn read(&mut self, mut from: impl AsyncRead + Unpin) {
        let mut bytes = [0; 8192];
        while let Ok(read @ 1..) = from.read(&mut bytes).await {
            self.keep(bytes.get(..read).unwrap_or_default());
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        // In bigger bites than it comes in, or every one would move all that is kept.
        if self.kept.len() > 2 * OUTPUT_MAX {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let surplus = self.kept.len().saturating_sub(OUTPUT_MAX);
        self.lost |= surplus > 0;
        self.kept.drain(..surplus);
    }

    fn text(mut self) -> String {
        self.cut();
        let text = String::from_utf8_lossy(&self.kept);
        if self.lost { format!("[...]{text}") } else { text.into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, mark: &str, within: Duration) -> Result<String, Failed> {
        let words = ["sh", "-c", script].map(str::to_owned);
        let environment = [("BACKSTOP_SERVICE".to_owned(), "shop".to_owned())];
        run(&words, &environment, mark, within).await
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn it_is_told_what_it_is_about_and_nothing_else() {
        assert_eq!(shell("echo $BACKSTOP_SERVICE", "t/told", LONG).await, Ok("shop\n".into()));
        let all = shell("env", "t/env", LONG).await.unwrap();
        assert!(!all.contains("CARGO"), "nothing of our environment: {all}");
    }

    #[tokio::test]
    async fn no_shell_reads_its_words() {
        let words = ["echo", "$HOME;", "rm"].map(str::to_owned);
        assert_eq!(run(&words, &[], "t/words", LONG).await, Ok("$HOME; rm\n".into()));
    }

    #[tokio::test]
    async fn how_it_failed_is_said_with_its_last_words() {
        let failed = shell("echo doing; echo 'no space' >&2; exit 3", "t/fail", LONG).await.unwrap_err();
        assert_eq!(failed.why, "exit code 3: no space");
        assert!(failed.output.contains("doing"));
        let killed = shell("kill -9 $$", "t/signal", LONG).await.unwrap_err();
        assert_eq!(killed.why, "it was ended by signal 9");
        let none = run(&["no-such-program".to_owned()], &[], "t/none", LONG).await.unwrap_err();
        assert_eq!(none.why, "there is no program no-such-program here");
    }

    #[tokio::test]
    async fn megabytes_are_read_and_their_end_is_kept() {
        let output = shell("yes line | head -c 20000000; echo; echo the end", "t/much", LONG).await.unwrap();
        assert!(output.len() <= OUTPUT_MAX + 5 && output.ends_with("the end\n"), "{}", output.len());
        assert!(output.starts_with("[...]"));
    }

    #[tokio::test]
    async fn what_hangs_and_ignores_its_signal_is_killed() {
        let failed =
            shell("trap '' TERM; echo on; while :; do sleep 1; done", "t/hang", Duration::from_millis(300))
                .await
                .unwrap_err();
        assert!(failed.why.contains("did not end within 300ms"), "{failed:?}");
        assert_eq!(failed.output, "on\n");
        assert_eq!(marked(&format!("{MARK}=t/hang")), []);
    }

    #[tokio::test]
    async fn what_it_started_ends_with_it_even_in_a_session_of_its_own() {
        let script = "setsid sh -c 'while :; do sleep 1; done' & sleep 30 & echo started";
        assert_eq!(shell(script, "t/fork", LONG).await, Ok("started\n".into()));
        assert_eq!(marked(&format!("{MARK}=t/fork")), []);
        let failed = shell(
            "setsid sh -c 'while :; do sleep 1; done' & while :; do sleep 1; done",
            "t/forkhang",
            Duration::from_millis(300),
        );
        assert!(failed.await.is_err());
        assert_eq!(marked(&format!("{MARK}=t/forkhang")), []);
    }
}
