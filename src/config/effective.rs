//! The settings as they hold, for people: in the shape and order of the file, each named service complete, and
//! every secret hidden. And those among them that somebody changed, with where.

use serde_json::{Map, Value};

use super::file::{File, Service};
use super::locate::Places;
use super::schema::{Setting, Shape, given_up};
use super::tree::dotted;

/// What stands where a secret is.
const HIDDEN: &str = "(hidden)";

/// A setting that is not as shipped.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// The setting's full name, as `--set` takes it.
    pub key: String,
    /// Its value; `(hidden)` if it is a secret.
    pub value: Value,
    /// Where it was set last: `file:line:column`, a variable, or a flag.
    pub place: String,
}

/// Lays what people said over what is shipped, brings it into the order of the keys, hides secrets, and completes
/// services from the defaults.
pub(super) fn show(shipped: Value, own: Value) -> Value {
    let mut shown = shaped(laid_over(shipped, own, File::SHAPE), File::SHAPE);
    let defaults = shown["defaults"].clone();
    if let Some(Value::Object(services)) = shown.get_mut("services") {
        for service in services.values_mut() {
            let own = service.take();
            *service = shaped(laid_over(defaults.clone(), own, Service::SHAPE), Service::SHAPE);
            raise(service);
        }
    }
    raise(&mut shown["defaults"]);
    shown
}

/// What is on trial is watched, whatever was typed: what is in force is shown, as `resolve` makes it.
fn raise(service: &mut Value) {
    let span = |value: &Value| humantime::parse_duration(value.as_str()?).ok();
    for (low, high) in [("trial", "watch"), ("watch", "watch_slow")] {
        if span(&service[low]) > span(&service[high]) {
            service[high] = service[low].clone();
        }
    }
}

/// What people said that is not what is shipped, with what is in force of it.
pub(super) fn changed(shipped: &Value, own: &Value, shown: &Value, places: &Places) -> Vec<Changed> {
    let mut found = Vec::new();
    each_value(&shaped(own.clone(), File::SHAPE), File::SHAPE, &mut Vec::new(), &mut |path, value| {
        // A service's own settings are compared with what all services have.
        let as_shipped = match path {
            [services, _, rest @ ..] if services == "services" => at(&shipped["defaults"], rest),
            path => at(shipped, path),
        };
        if as_shipped != Some(value) {
            let place = places.of(path).map_or_else(String::new, ToString::to_string);
            let in_force = at(shown, path).unwrap_or(value).clone();
            found.push(Changed { key: dotted(path), value: in_force, place });
        }
    });
    found
}

/// Names that people gave to values which should not stand in the open, as paths.
pub(super) fn in_the_open(own: &Value, shape: &Shape, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    match (shape, own) {
        (Shape::Table { keys, .. }, Value::Object(table)) => {
            for key in *keys {
                if let Some(value) = table.get(key.name) {
                    path.push(key.name.to_owned());
                    in_the_open(value, key.shape, path, found);
                    path.pop();
                }
            }
        }
        (Shape::Map { of, names }, Value::Object(table)) => {
            for (name, value) in table {
                path.push(name.clone());
                if (names.private)(name) && value.as_str().is_some_and(|text| !is_carried_over(text)) {
                    found.push(path.clone());
                }
                in_the_open(value, of, path, found);
                path.pop();
            }
        }
        (Shape::List { of, .. }, Value::Array(items)) => {
            for (number, item) in (1..).zip(items) {
                path.push(number.to_string());
                in_the_open(item, of, path, found);
                path.pop();
            }
        }
        (Shape::Leaf { .. } | Shape::Table { .. } | Shape::Map { .. } | Shape::List { .. }, _) => {}
    }
}

/// Whether nothing of it is the secret itself: what an earlier step captured stands in it as `{{name}}`, and besides
/// only what says how it is sent, as in `Bearer {{token}}` or `session={{id}}`.
fn is_carried_over(text: &str) -> bool {
    const SCHEMES: [&str; 5] = ["bearer", "basic", "token", "apikey", "digest"];
    let mut parts = text.split("{{");
    let mut rest = parts.next().unwrap_or_default().to_owned();
    let mut placeholders = 0;
    for part in parts {
        let Some((_, after)) = part.split_once("}}") else { return false };
        placeholders += 1;
        rest.push(' ');
        rest.push_str(after);
    }
    let mut words = rest.split([' ', ';', ',']).filter(|word| !word.is_empty());
    placeholders > 0
        && words.all(|word| word.ends_with('=') || SCHEMES.contains(&word.to_ascii_lowercase().as_str()))
}

fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

/// Visits every value, lists whole.
fn each_value(
    value: &Value,
    shape: &Shape,
    path: &mut Vec<String>,
    visit: &mut impl FnMut(&[String], &Value),
) {
    match (shape, value) {
        (Shape::Table { keys, .. }, Value::Object(table)) => {
            for key in *keys {
                if let Some(value) = table.get(key.name) {
                    path.push(key.name.to_owned());
                    each_value(value, key.shape, path, visit);
                    path.pop();
                }
            }
        }
        (Shape::Map { of, .. }, Value::Object(table)) => {
            for (name, value) in table {
                path.push(name.clone());
                each_value(value, of, path, visit);
                path.pop();
            }
        }
        (Shape::Leaf { .. } | Shape::List { .. } | Shape::Table { .. } | Shape::Map { .. }, value) => {
            visit(path, value);
        }
    }
}

fn shaped(value: Value, shape: &Shape) -> Value {
    match (shape, value) {
        (Shape::Leaf { secret: true, .. }, _) => HIDDEN.into(),
        (Shape::Leaf { secret: false, .. }, value) => value,
        (Shape::List { of, .. }, Value::Array(items)) => {
            items.into_iter().map(|item| shaped(item, of)).collect()
        }
        (Shape::List { .. }, value) => value,
        (Shape::Table { keys, .. }, Value::Object(mut table)) => {
            let ordered = keys.iter().filter_map(|key| {
                let value = table.remove(key.name)?;
                Some((key.name.to_owned(), shaped(value, key.shape)))
            });
            Value::Object(ordered.collect())
        }
        (Shape::Map { of, names }, Value::Object(table)) => {
            let mut entries: Vec<_> = table.into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            let entries = entries.into_iter().map(|(name, value)| {
                let hidden = (names.private)(&name) && value.is_string();
                let value = if hidden { HIDDEN.into() } else { shaped(value, of) };
                (name, value)
            });
            Value::Object(entries.collect())
        }
        // A section that is empty in every layer.
        (Shape::Table { .. } | Shape::Map { .. }, _) => Value::Object(Map::new()),
    }
}

/// One layer over another, as `under` does it with what was typed.
fn laid_over(lower: Value, higher: Value, shape: &Shape) -> Value {
    match (shape, lower, higher) {
        (Shape::Table { keys, choices }, Value::Object(mut lower), Value::Object(mut higher)) => {
            for key in given_up(choices, |key| higher.contains_key(key)) {
                lower.remove(key);
            }
            for key in *keys {
                if let Some(above) = higher.remove(key.name) {
                    let value = match lower.remove(key.name) {
                        Some(below) => laid_over(below, above, key.shape),
                        None => above,
                    };
                    lower.insert(key.name.to_owned(), value);
                }
            }
            Value::Object(lower)
        }
        (Shape::Map { of, .. }, Value::Object(mut lower), Value::Object(higher)) => {
            for (name, above) in higher {
                let value = match lower.remove(&name) {
                    Some(below) => laid_over(below, above, of),
                    None => above,
                };
                lower.insert(name, value);
            }
            Value::Object(lower)
        }
        (Shape::Leaf { .. } | Shape::List { .. } | Shape::Table { .. } | Shape::Map { .. }, _, higher) => {
            higher
        }
    }
}
