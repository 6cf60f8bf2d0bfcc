//! What can be turned while the demo app runs: `POST /demo/error_rate/0.2`.

use clap::ValueEnum;

use super::args::{AccessLog, Health, Login, Metrics};

/// What the dials stand at. Everything that is asked of the app looks here first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dials {
    pub(super) health: Health,
    pub(super) migrations_current: bool,
    pub(super) login: Login,
    pub(super) metrics: Metrics,
    pub(super) access_log: AccessLog,
    /// The share of requests that fail.
    pub(super) error_rate: f64,
    /// The median time of a request.
    pub(super) latency_ms: f64,
    pub(super) latency_factor: f64,
    /// Lines per minute.
    pub(super) log_errors: f64,
    /// Requests per second.
    pub(super) self_traffic: f64,
    /// To be taken, beside what the app needs.
    pub(super) memory_mb: f64,
    /// Of the container's limit, with what the app needs; zero if there is no such aim.
    pub(super) memory_percent: f64,
    /// Of one core, kept busy.
    pub(super) cpu: f64,
}

impl Dials {
    /// Turn one.
    ///
    /// # Errors
    /// There is no such dial, or the value is none of its.
    pub(super) fn turn(&mut self, dial: &str, value: &str) -> Result<(), String> {
        match dial {
            "health" => self.health = value.parse().map_err(|error: anyhow::Error| error.to_string())?,
            "migrations_current" => {
                self.migrations_current =
                    value.parse().map_err(|_| format!("`{value}` is no true or false"))?;
            }
            "login" => self.login = word(value)?,
            "metrics" => self.metrics = word(value)?,
            "access_log" => self.access_log = word(value)?,
            "error_rate" => self.error_rate = share(value)?,
            "latency_ms" => self.latency_ms = up_to(value, 60_000.0)?,
            "latency_factor" => self.latency_factor = up_to(value, 1000.0)?,
            "log_errors" => self.log_errors = up_to(value, 60_000.0)?,
            "self_traffic" => self.self_traffic = up_to(value, 10_000.0)?,
            "memory_mb" => self.memory_mb = up_to(value, 1_048_576.0)?,
            "memory_percent" => self.memory_percent = up_to(value, 100.0)?,
            "cpu" => self.cpu = share(value)?,
            _ => return Err(format!("there is no dial `{dial}`")),
        }
        Ok(())
    }
}

/// A number from 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    up_to(text, 1.0)
}

fn up_to(text: &str, most: f64) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| (0.0..=most).contains(n));
    number.ok_or_else(|| format!("`{text}` is no number from 0 to {most}"))
}

fn word<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let words: Vec<_> = T::value_variants().iter().filter_map(ValueEnum::to_possible_value).collect();
        let words: Vec<_> = words.iter().map(clap::builder::PossibleValue::get_name).collect();
        format!("`{text}` is none of {}", words.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use crate::cli::demo_app::args::tests::parse;

    #[test]
    fn every_dial_can_be_turned_and_back() {
        let before = parse(&[]).dials();
        for (dial, value) in [
            ("health", "hang"),
            ("migrations_current", "false"),
            ("login", "refuse"),
            ("metrics", "garbage"),
            ("access_log", "logfmt"),
            ("error_rate", "0.2"),
            ("latency_ms", "200"),
            ("latency_factor", "1.8"),
            ("log_errors", "60"),
            ("self_traffic", "50"),
            ("memory_mb", "88"),
            ("memory_percent", "88"),
            ("cpu", "0.5"),
        ] {
            let mut dials = before;
            dials.turn(dial, value).unwrap();
            assert_ne!(dials, before, "{dial}");
        }
    }

    #[test]
    fn a_wrong_turn_changes_nothing_and_says_what_would_be_right() {
        let before = parse(&[]).dials();
        for (dial, value, said) in [
            ("speed", "1", "no dial `speed`"),
            ("error_rate", "1.5", "from 0 to 1"),
            ("latency_ms", "NaN", "from 0 to 60000"),
            ("login", "maybe", "ok, error, refuse"),
            ("migrations_current", "yes", "true or false"),
        ] {
            let mut dials = before;
            assert!(dials.turn(dial, value).unwrap_err().contains(said), "{dial} {value}");
            assert_eq!(dials, before);
        }
    }
}
