//! Settings that are numbers, or yes and no. Bounds are in their types.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::problem::Wrong;
use super::schema::{Setting, Shape};
use super::tree::{Node, Value};
use super::values::{Parse, quoted, shown, text_settings};

/// A whole number from `FIRST` to `LAST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Count<const FIRST: u32, const LAST: u32>(pub(super) u32);

impl<const FIRST: u32, const LAST: u32> Setting for Count<FIRST, LAST> {
    const SHAPE: &'static Shape = &Shape::Leaf { read: read_count::<FIRST, LAST>, secret: false };
}

fn read_count<const FIRST: u32, const LAST: u32>(node: &Node) -> Result<Value, Wrong> {
    let right = || format!("a whole number from {FIRST} to {LAST} would be right");
    let number = match &node.value {
        Value::Integer(number) => Some(*number),
        Value::Loose(text) => text.trim().parse().ok(),
        Value::Text(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Date(_)
        | Value::Null
        | Value::List(_)
        | Value::Table(_) => None,
    };
    let Some(number) = number else {
        return Err(Wrong::new(format!("{} is not a whole number", shown(node)), right()));
    };
    if (i64::from(FIRST)..=i64::from(LAST)).contains(&number) {
        return Ok(Value::Integer(number));
    }
    Err(Wrong::new(format!("{number} is out of range"), right()))
}

/// Where a line is drawn: a number, or a time as in "800ms" where the line is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Amount {
    Number(f64),
    Time(Duration),
}

impl Amount {
    /// The number; a time in seconds.
    pub(super) const fn number(self) -> f64 {
        match self {
            Self::Number(number) => number,
            Self::Time(time) => time.as_secs_f64(),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Time(time) => write!(f, "{}", super::values::time(*time)),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Typed {
            Number(f64),
            Text(String),
        }
        match Typed::deserialize(deserializer)? {
            Typed::Number(number) => Ok(Self::Number(number)),
            Typed::Text(text) => {
                humantime::parse_duration(&text).map(Self::Time).map_err(serde::de::Error::custom)
            }
        }
    }
}

/// An amount above zero.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(transparent)]
pub(super) struct Threshold(pub(super) Amount);

impl Setting for Threshold {
    const SHAPE: &'static Shape = &Shape::Leaf {
        read: |node| read_amount(node, |number| number > 0.0, "a number above zero"),
        secret: false,
    };
}

/// An amount from zero.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(transparent)]
pub(super) struct Floor(pub(super) Amount);

impl Setting for Floor {
    const SHAPE: &'static Shape = &Shape::Leaf {
        read: |node| read_amount(node, |number| number >= 0.0, "a number from zero"),
        secret: false,
    };
}

fn read_amount(node: &Node, fits: fn(f64) -> bool, what: &str) -> Result<Value, Wrong> {
    let number = match &node.value {
        Value::Float(number) => Some(*number),
        // Nobody's threshold has more than 2^32.
        Value::Integer(number) => u32::try_from(*number).ok().map(f64::from),
        Value::Loose(text) => text.trim().parse().ok(),
        Value::Text(_) | Value::Bool(_) | Value::Date(_) | Value::Null | Value::List(_) | Value::Table(_) => {
            None
        }
    };
    if let Some(number) = number.filter(|number| number.is_finite() && fits(*number)) {
        return Ok(Value::Float(number));
    }
    if let Value::Text(text) | Value::Loose(text) = &node.value {
        let time = humantime::parse_duration(text.trim()).ok();
        if time.is_some_and(|time| fits(time.as_secs_f64())) && number.is_none() {
            return Ok(Value::Text(text.trim().to_owned()));
        }
    }
    Err(Wrong::new(
        format!("{} is not {what}", shown(node)),
        "a number would be right, as in 2 or 0.9, or for a latency a time, as in \"800ms\"",
    ))
}

/// A size from `FIRST` to `LAST` mebibytes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size<const FIRST: u64, const LAST: u64>(pub(super) u64);

/// One mebibyte.
pub(super) const MEBI: u64 = 1 << 20;

/// Units of sizes; without one it could be anything.
const UNITS: [(&str, u64); 8] = [
    ("KIB", 1 << 10),
    ("MIB", MEBI),
    ("GIB", 1 << 30),
    ("TIB", 1 << 40),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl<const FIRST: u64, const LAST: u64> Parse for Size<FIRST, LAST> {
    const RIGHT: &'static str = "a whole number and a unit would be right, as in \"512MiB\" or \"2GB\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let upper = text.trim().to_ascii_uppercase();
        let bytes = UNITS.iter().find_map(|(unit, bytes)| {
            let number = upper.strip_suffix(unit)?.trim_end();
            let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| number.parse::<u64>().ok()?.checked_mul(*bytes))?
        });
        let Some(bytes) = bytes else {
            return Err(Wrong::new(format!("{} is not a size", quoted(text)), Self::RIGHT));
        };
        if (FIRST * MEBI..=LAST * MEBI).contains(&bytes) {
            return Ok(Self(bytes));
        }
        let wrong = if bytes < FIRST * MEBI { "is too small" } else { "is too large" };
        let right = format!("from {FIRST}MiB to {}GiB would be right", LAST / 1024);
        Err(Wrong::new(format!("{} {wrong}", quoted(text)), right))
    }
}

text_settings! {
    [const FIRST: u64, const LAST: u64] Size<FIRST, LAST>;
}

impl Setting for bool {
    const SHAPE: &'static Shape = &Shape::Leaf { read: read_bool, secret: false };
}

fn read_bool(node: &Node) -> Result<Value, Wrong> {
    let bool = match &node.value {
        Value::Bool(bool) => Some(*bool),
        Value::Loose(text) => text.trim().parse().ok(),
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Date(_)
        | Value::Null
        | Value::List(_)
        | Value::Table(_) => None,
    };
    bool.map(Value::Bool).ok_or_else(|| {
        Wrong::new(
            format!("{} is neither true nor false", shown(node)),
            "true or false without quotes would be right",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::Place;

    #[test]
    fn sizes_have_units_and_bounds() {
        type Any = Size<1, 1024>;
        let said = |text: &str| Any::parse(text).map(|size| size.0).map_err(|wrong| wrong.to_string());
        for (text, bytes) in
            [("512MiB", 512 << 20), ("1 GiB", 1 << 30), ("2mb", 2_000_000), ("1024kib", 1 << 20)]
        {
            assert_eq!(said(text), Ok(bytes), "{text}");
        }
        for text in ["", "512", "MiB", "-1MiB", "1.5GiB", "99999999999999999999MiB", "5 apples"] {
            assert!(said(text).is_err_and(|wrong| wrong.contains("is not a size")), "{text}");
        }
        assert_eq!(said("2GiB"), Err("\"2GiB\" is too large; from 1MiB to 1GiB would be right".to_owned()));
        assert_eq!(said("5KiB"), Err("\"5KiB\" is too small; from 1MiB to 1GiB would be right".to_owned()));
    }

    #[test]
    fn amounts_are_numbers_or_times() {
        let read = |value| {
            let node = Node { place: Place::Flag("x".into()), value };
            let Shape::Leaf { read, .. } = Threshold::SHAPE else { panic!("no leaf") };
            let value = read(&node).map_err(|wrong| wrong.to_string())?;
            let value = config::Value::from(Node { value, ..node });
            Threshold::deserialize(value).map(|read| read.0).map_err(|error| error.to_string())
        };
        assert_eq!(read(Value::Float(0.5)), Ok(Amount::Number(0.5)));
        assert_eq!(read(Value::Loose("2".into())), Ok(Amount::Number(2.0)));
        assert_eq!(read(Value::Text("800ms".into())), Ok(Amount::Time(Duration::from_millis(800))));
        assert_eq!(read(Value::Loose("1m 30s".into())).map(Amount::number), Ok(90.0));
        for bad in ["0", "-1", "nan", "inf", "0s", "much", ""] {
            assert!(read(Value::Loose(bad.into())).is_err(), "{bad}");
        }
        assert!(read(Value::Text("0.5".into())).is_err(), "a number in quotes is a slip");
    }
}
