//! One line of a trace as it was typed: every field optional, numbers in whatever way JSON writes them.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

/// See the module. Fields that are not here are passed over.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Bare<'a> {
    #[serde(default)]
    pub(super) t: Option<f64>,
    #[serde(default, borrow)]
    pub(super) service: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(super) kind: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) version: Option<Name>,
    #[serde(default)]
    pub(super) ok: Option<bool>,
    #[serde(default)]
    pub(super) latency_ms: Option<f64>,
    #[serde(default)]
    pub(super) window_s: Option<f64>,
    #[serde(default)]
    pub(super) total: Option<f64>,
    #[serde(default)]
    pub(super) errors: Option<f64>,
    #[serde(default)]
    pub(super) latency_buckets_ms: Option<Buckets>,
    #[serde(default)]
    pub(super) used_bytes: Option<f64>,
    #[serde(default)]
    pub(super) limit_bytes: Option<f64>,
    #[serde(default)]
    pub(super) code: Option<f64>,
    #[serde(default)]
    pub(super) oom: Option<bool>,
    #[serde(default)]
    pub(super) reporter: Option<Name>,
    #[serde(default, borrow)]
    pub(super) name: Option<Cow<'a, str>>,
}

/// What a release or a person is called: text, or a number.
#[derive(Debug)]
pub(super) struct Name(pub(super) String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, as text or as a number")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Name, E> {
                Ok(Name(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Name, E> {
                Ok(Name(number.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Name, E> {
                Ok(Name(number.to_string()))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Name, E> {
                Ok(Name(number.to_string()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// The histogram as it was typed: upper bound in milliseconds, cumulative count.
#[derive(Debug, Default)]
pub(super) struct Buckets(pub(super) Vec<(f64, f64)>);

impl<'de> Deserialize<'de> for Buckets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Buckets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bounds in milliseconds with cumulative counts, as in {\"5\":100,\"+Inf\":812}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Buckets, A::Error> {
                let mut found = Vec::with_capacity(map.size_hint().unwrap_or(16));
                while let Some((bound, count)) = map.next_entry::<Cow<'de, str>, f64>()? {
                    // "+Inf", "inf" and "Infinity" are numbers to Rust's parser as well.
                    let parsed = bound.trim().parse::<f64>().ok().filter(|b| !b.is_nan());
                    let wrong = || {
                        A::Error::custom(format_args!(
                            "the bound {bound:?} is not a number of milliseconds nor \"+Inf\""
                        ))
                    };
                    found.push((parsed.ok_or_else(wrong)?, count));
                }
                Ok(Buckets(found))
            }
        }
        deserializer.deserialize_map(Map)
    }
}
