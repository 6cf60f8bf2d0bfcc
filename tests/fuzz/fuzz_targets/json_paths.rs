//! JSON paths, as an operator types them, into documents, as a service answers them: a path is either refused with the place
//! that is wrong, or followed as far as it goes; and whatever stands in a document, there is a path to it.
#![no_main]

use backstop::signal::check::json_path::{JsonPath, described, same};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// A path to each value of the document leads there.
fn every_value_is_found(document: &Value, here: &Value, path: &str) {
    let found = JsonPath::parse(if path.is_empty() { "." } else { path }).unwrap();
    assert!(std::ptr::eq(found.find(document).unwrap(), here), "{path}");
    assert!(same(here, here) && !described(here).is_empty());
    match here {
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                every_value_is_found(document, value, &format!("{path}[{i}]"));
            }
        }
        Value::Object(object) => {
            for (key, value) in object {
                every_value_is_found(document, value, &format!("{path}[{}]", Value::from(key.as_str())));
            }
        }
        _ => {}
    }
}

fuzz_target!(|data: &[u8]| {
    let (path, document) = data.split_at(data.iter().position(|b| *b == b'\n').unwrap_or(data.len()));
    let path = std::str::from_utf8(path).map(JsonPath::parse);
    if let Ok(Err(wrong)) = &path {
        assert!(wrong.contains(" at character "), "{wrong}");
    }
    // Each value is looked for from the top: long documents would take the square of their length.
    let Some(document) = document.get(..4096.min(document.len())) else { return };
    let Ok(document) = serde_json::from_slice::<Value>(document) else { return };
    if let Ok(Ok(path)) = path
        && let Err(missing) = path.find(&document)
    {
        assert!(missing.starts_with("there is no "), "{missing}");
    }
    every_value_is_found(&document, &document, "");
});
