//! Commands run in a container: what `docker exec` does, bounded, for checks.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::json;

use super::engine::{CALL, Engine, permanent};
use super::{ErrorClass, RuntimeError};

/// What is kept of a command's output: its last lines tell what went wrong.
const OUTPUT_MAX: usize = 4096;

/// The engine closes the stream a moment before it has noted how the command ended.
const NOTING: Duration = Duration::from_millis(20);

/// How often it is asked for that.
const NOTED_AFTER: u32 = 100;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; 126 or 127 if it could not be started.
    pub code: i64,
    /// The end of what it wrote, standard output and error together; or why it could not be started.
    pub output: String,
}

impl Engine {
    /// Makes ready to run a command in a running container. Gives the id of the execution.
    ///
    /// # Errors
    /// As the engine answers: `NotFound` if there is no such container, `Conflict` if it does not run.
    pub async fn prepare_exec(&self, container: &str, command: &[String]) -> Result<String, RuntimeError> {
        let body = json!({"AttachStdin": false, "AttachStdout": true, "AttachStderr": true, "Tty": false, "Cmd": command});
        let made = self.post(&format!("/containers/{container}/exec"), Some(&body)).await?;
        let id = made["Id"].as_str();
        id.map(str::to_owned).ok_or_else(|| permanent("the engine made an execution without an id".into()))
    }

    /// Starts it, and reads its output until it ended. Giving up on it does not end it: no engine can do that.
    ///
    /// # Errors
    /// As the engine answers. A command that is not there is no error.
    pub async fn run_exec(&self, id: &str) -> Result<Ended, RuntimeError> {
        let body = json!({"Detach": false, "Tty": false});
        let started = self.open(Method::POST, &format!("/exec/{id}/start"), Some(&body)).await;
        let output = match started {
            Ok(stream) => read(stream).await.map_err(|why| self.broke_off("exec", &why))?,
            // Newer engines say at once that there is no such program; older ones in the output.
            Err(e) if e.class == ErrorClass::Permanent => match self.exec(id).await? {
                (false, Some(code @ (126 | 127))) => return Ok(Ended { code, output: e.message }),
                _ if cannot_start(&e.message) => return Ok(Ended { code: 127, output: e.message }),
                _ => return Err(e),
            },
            Err(e) => return Err(e),
        };
        for _ in 0..NOTED_AFTER {
            match self.exec(id).await? {
                (false, Some(code)) => return Ok(Ended { code, output }),
                // A command may close its output and go on.
                (true, _) | (false, None) => tokio::time::sleep(NOTING).await,
            }
        }
        Err(permanent(format!(
            "the command closed its output, but {} s later the engine does not say how it ended",
            (NOTING * NOTED_AFTER).as_secs()
        )))
    }

    /// Whether it still runs. One that the engine has forgotten does not.
    ///
    /// # Errors
    /// As the engine answers.
    pub async fn exec_runs(&self, id: &str) -> Result<bool, RuntimeError> {
        match self.exec(id).await {
            Ok((runs, _)) => Ok(runs),
            Err(e) if e.class == ErrorClass::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether it runs, and its exit code if it ended.
    async fn exec(&self, id: &str) -> Result<(bool, Option<i64>), RuntimeError> {
        let about = self.call(Method::GET, &format!("/exec/{id}/json"), None, CALL).await?;
        Ok((about["Running"].as_bool().unwrap_or(false), about["ExitCode"].as_i64()))
    }
}

/// runc's words for a program that is not there or may not be run.
fn cannot_start(message: &str) -> bool {
    message.contains("exec failed") || message.contains("executable file not found")
}

async fn read(mut stream: Response) -> Result<String, String> {
    let mut output = Output::default();
    while let Some(chunk) = stream.chunk().await.map_err(|e| e.to_string())? {
        output.take(&chunk);
    }
    Ok(String::from_utf8_lossy(&output.kept).into_owned())
}

/// Takes the engine's frames apart: a kind, three zeroes, a length (big-endian), and so many bytes. What does not
/// begin like a frame is text as it is: some engines say so why a command could not be started.
#[derive(Debug, Default)]
struct Output {
    kept: Vec<u8>,
    header: Vec<u8>,
    /// Bytes of the frame that are still to come.
    left: usize,
    plain: bool,
}

impl Output {
    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            if self.plain {
                return self.keep(bytes);
            }
            if self.left > 0 {
                let (now, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= now.len();
                self.keep(now);
                bytes = rest;
                continue;
            }
            let fits =
                if self.header.is_empty() { *first <= 2 } else { self.header.len() > 3 || *first == 0 };
            self.header.push(*first);
            bytes = bytes.get(1..).unwrap_or_default();
            if !fits {
                self.plain = true;
                let begun = std::mem::take(&mut self.header);
                self.keep(&begun);
            } else if let [_, _, _, _, a, b, c, d] = self.header[..] {
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.header.clear();
            }
        }
    }

    /// Keeps the end of it.
    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes.get(bytes.len().saturating_sub(OUTPUT_MAX)..).unwrap_or_default());
        let surplus = self.kept.len().saturating_sub(OUTPUT_MAX);
        self.kept.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, text: &[u8]) -> Vec<u8> {
        [&[kind, 0, 0, 0][..], &u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat()
    }

    fn output(stream: &[u8], at_once: usize) -> String {
        let mut output = Output::default();
        stream.chunks(at_once).for_each(|chunk| output.take(chunk));
        assert!(output.kept.len() <= OUTPUT_MAX);
        String::from_utf8_lossy(&output.kept).into_owned()
    }

    #[test]
    fn frames_are_taken_apart_wherever_they_are_cut() {
        let stream = [frame(1, b"out\n"), frame(2, b""), frame(2, b"err\n")].concat();
        for at_once in 1..=stream.len() {
            assert_eq!(output(&stream, at_once), "out\nerr\n", "{at_once}");
        }
    }

    #[test]
    fn what_is_no_frame_is_text() {
        let said = b"OCI runtime exec failed: exec failed: \"nothing\": executable file not found in $PATH";
        for at_once in [1, 7, 1000] {
            assert_eq!(output(said, at_once).as_bytes(), said);
        }
        assert_eq!(output(&[frame(1, b"a"), b"\x01oops".to_vec()].concat(), 2), "a\u{1}oops");
    }

    #[test]
    fn only_the_end_is_kept_of_a_long_output() {
        let stream: Vec<u8> = (0..1000).flat_map(|n| frame(1, format!("line {n}\n").as_bytes())).collect();
        let kept = output(&stream, 4096);
        assert!(kept.ends_with("line 998\nline 999\n") && kept.len() == OUTPUT_MAX, "{}", kept.len());
        assert_eq!(output(&frame(1, &[b'x'; 1 << 20]), 65536).len(), OUTPUT_MAX);
    }
}
