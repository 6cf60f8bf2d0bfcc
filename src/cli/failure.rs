//! How a command fails: an exit code, a sentence, and the next command to type.

use std::fmt;
use std::process::ExitCode;

/// Exit codes, as documented in `--help`. 64 and 69 are those of `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// It did not work.
    Failure,
    /// The command line is wrong.
    Usage,
    /// Of `wait`: nothing was decided in time.
    Undecided,
    /// Of `wait`: it cannot be told.
    CannotTell,
    /// The configuration is wrong.
    Config,
    /// The daemon could not be reached.
    Unreachable,
}

impl Code {
    /// The number that the shell sees.
    pub const fn number(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::Usage | Self::Undecided => 2,
            Self::CannotTell => 3,
            Self::Config => 64,
            Self::Unreachable => 69,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

/// A failure that knows its exit code and what to do about it. Anything else is a plain failure.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with nothing to be done about it.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
