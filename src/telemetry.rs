//! The log: what the daemon did, on stderr.
//!
//! A person at a terminal gets compact lines with colour; the journal has its own time and takes the level as a
//! prefix; everything else gets plain lines, or JSON when asked. Standard output is left to data.

use std::fmt;
use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Compact, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// What fits where stderr goes: a terminal, the journal, or something else.
    #[default]
    Auto,
    /// Plain lines with the time.
    Text,
    /// One JSON object a line.
    Json,
}

/// The environment as far as logging is concerned; whoever reads it hands it in.
#[derive(Debug, Clone, Default)]
pub struct LogEnvironment {
    /// `RUST_LOG`: a filter that wins over the configured level.
    pub filter: Option<String>,
    /// `JOURNAL_STREAM`: the device and inode of the journal's socket, set by systemd.
    pub journal_stream: Option<String>,
    /// `NO_COLOR` is set to something.
    pub no_color: bool,
}

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is nonsense.
    #[error("the log filter `{filter}` is not valid: {why}; right would be `info` or `backstop=debug,info`")]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is a subscriber already.
    #[error("the log is set up already")]
    Twice,
}

/// Sets the log up for the whole process, once. `level` is `settings.log.level`: a level or a whole filter.
pub fn init(format: LogFormat, level: &str, environment: &LogEnvironment) -> Result<(), TelemetryError> {
    let filter = filter(level, environment)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match look(format, environment) {
        Look::Terminal { color } => log.with_ansi(color).with_target(false).compact().try_init(),
        Look::Journal => log.with_ansi(false).event_format(Prefixed::new()).try_init(),
        Look::Plain => log.with_ansi(false).try_init(),
        Look::Json => log.json().flatten_event(true).try_init(),
    };
    set.map_err(|_| TelemetryError::Twice)
}

/// Sets the log up for the whole process, once, as plain lines into a file: standard error belongs to somebody else.
pub fn init_file(file: File, level: &str) -> Result<(), TelemetryError> {
    let filter = filter(level, &LogEnvironment::default())?;
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(file));
    log.try_init().map_err(|_| TelemetryError::Twice)
}

/// Where the log goes, and so how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Terminal { color: bool },
    Journal,
    Plain,
    Json,
}

fn filter(level: &str, environment: &LogEnvironment) -> Result<EnvFilter, TelemetryError> {
    let text = environment.filter.as_deref().filter(|filter| !filter.trim().is_empty()).unwrap_or(level);
    EnvFilter::builder()
        .parse(text)
        .map_err(|why| TelemetryError::Filter { filter: text.to_owned(), why: why.to_string() })
}

fn look(format: LogFormat, environment: &LogEnvironment) -> Look {
    match format {
        LogFormat::Json => Look::Json,
        LogFormat::Text => Look::Plain,
        LogFormat::Auto if std::io::stderr().is_terminal() => Look::Terminal { color: !environment.no_color },
        LogFormat::Auto if is_journal(environment.journal_stream.as_deref()) => Look::Journal,
        LogFormat::Auto => Look::Plain,
    }
}

/// Whether stderr is the journal's socket. The variable alone is not enough: children inherit it with another stderr.
fn is_journal(stream: Option<&str>) -> bool {
    let Some((device, inode)) = stream.and_then(|stream| stream.split_once(':')) else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|meta| device == meta.dev().to_string() && inode == meta.ino().to_string())
}

/// Lines with the syslog level in front, as the journal reads it, and without the time, which it has itself.
struct Prefixed(Format<Compact, ()>);

impl Prefixed {
    fn new() -> Self {
        Self(tracing_subscriber::fmt::format().without_time().with_level(false).with_target(false).compact())
    }
}

impl<S, N> FormatEvent<S, N> for Prefixed
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", syslog(*event.metadata().level()))?;
        self.0.format_event(ctx, writer, event)
    }
}

/// The syslog number of a level.
fn syslog(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_journal_gets_the_level_as_a_prefix_and_no_time() {
        let lines = Lines::default();
        let into = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_writer(move || into.clone())
            .with_ansi(false)
            .event_format(Prefixed::new())
            .finish();
        tracing::subscriber::with_default(log, || {
            tracing::warn!(service = "shop", "the engine is gone");
            tracing::error!("stuck");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "<4>the engine is gone service=\"shop\"\n<3>stuck\n");
    }

    #[test]
    fn rust_log_wins_and_nonsense_is_told() {
        let with =
            |filter: &str| LogEnvironment { filter: Some(filter.to_owned()), ..LogEnvironment::default() };
        assert_eq!(filter("info", &with("debug")).unwrap().to_string(), "debug");
        assert_eq!(filter("info", &with("  ")).unwrap().to_string(), "info");
        let error = filter("backstop=loud", &LogEnvironment::default()).unwrap_err();
        assert!(error.to_string().contains("`backstop=loud`"), "{error}");
    }

    #[test]
    fn another_stderr_than_the_journals_is_not_the_journal() {
        assert!(!is_journal(None));
        assert!(!is_journal(Some("1:1")));
        assert!(!is_journal(Some("nonsense")));
        let meta = std::fs::metadata("/proc/self/fd/2").unwrap();
        assert!(is_journal(Some(&format!("{}:{}", meta.dev(), meta.ino()))));
    }
}
