//! The settings as they hold, for people: in the shape and order of the file, each named service complete, and
//! every secret hidden.

use serde_json::{Map, Value};

use super::file::File;
use super::schema::{Setting, Shape};

/// What stands where a secret is.
const HIDDEN: &str = "(hidden)";

/// Brings the merged layers into the order of the keys, hides secrets, and completes services from the defaults.
pub(super) fn show(merged: Value) -> Value {
    let mut shown = shaped(merged, File::SHAPE);
    let defaults = shown["defaults"].clone();
    if let Some(Value::Object(services)) = shown.get_mut("services") {
        for service in services.values_mut() {
            let own = service.take();
            *service = shaped(laid_over(defaults.clone(), own), super::file::Service::SHAPE);
        }
    }
    shown
}

fn shaped(value: Value, shape: &Shape) -> Value {
    match (shape, value) {
        (Shape::Leaf { secret: true, .. }, _) => HIDDEN.into(),
        (Shape::Leaf { secret: false, .. }, value) => value,
        (Shape::Table(keys), Value::Object(mut table)) => {
            let ordered = keys.iter().filter_map(|key| {
                let value = table.remove(key.name)?;
                Some((key.name.to_owned(), shaped(value, key.shape)))
            });
            Value::Object(ordered.collect())
        }
        (Shape::Map { of, .. }, Value::Object(table)) => {
            let mut entries: Vec<_> = table.into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            let entries = entries.into_iter().map(|(name, value)| (name, shaped(value, of)));
            Value::Object(entries.collect())
        }
        // A section that is empty in every layer.
        (Shape::Table(_) | Shape::Map { .. }, _) => Value::Object(Map::new()),
    }
}

fn laid_over(lower: Value, higher: Value) -> Value {
    match (lower, higher) {
        (Value::Object(mut lower), Value::Object(higher)) => {
            // One way to say where a health endpoint is stands in for the other, as in `file.rs`.
            if higher.contains_key("url") {
                lower.remove("port");
                lower.remove("path");
            } else if higher.contains_key("port") || higher.contains_key("path") {
                lower.remove("url");
            }
            for (key, value) in higher {
                let below = lower.remove(&key).unwrap_or_default();
                lower.insert(key, laid_over(below, value));
            }
            Value::Object(lower)
        }
        (_, higher) => higher,
    }
}
