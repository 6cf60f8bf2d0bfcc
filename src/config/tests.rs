//! The shipped file against the list of keys and against the core's defaults.

use std::collections::BTreeMap;

use super::*;
use crate::core::release::ServiceName;
use crate::core::settings::ServiceSettings;
use crate::core::settings::{Against, Rule};
use schema::{Shape, leaves};
use syntax::Format;

/// Settings made of the shipped defaults alone.
fn shipped() -> Settings {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("empty.toml");
    std::fs::write(&file, "").unwrap();
    load(&Sources { file: Some(file), ..Sources::default() }).unwrap_or_else(|problems| panic!("{problems}"))
}

/// What settings fall back to where no layer says anything.
fn built_in() -> Settings {
    let merged = Merged { typed: File::default(), shown: serde_json::Value::Null };
    let secrets = Secrets { token: None, webhook: None };
    settings(merged, secrets, Places::default(), Vec::new())
}

fn web() -> ServiceName {
    ServiceName::new("web")
}

#[test]
fn the_shipped_file_says_what_is_built_in() {
    let (shipped, built_in) = (shipped(), built_in());
    assert_eq!(shipped.fleet, FleetSettings::default());
    assert_eq!(shipped.fleet, built_in.fleet);
    assert_eq!(shipped.mode, built_in.mode);
    assert_eq!(shipped.state_dir, built_in.state_dir);
    assert_eq!(shipped.log, built_in.log);
    assert_eq!(shipped.engine, built_in.engine);
    assert_eq!(shipped.api.listen, built_in.api.listen);
    assert_eq!(shipped.enroll, built_in.enroll);
    assert!(shipped.api.token.is_none() && shipped.notify.webhook.is_none());

    assert_eq!(shipped.service(&web(), &BTreeMap::new()), Ok(ServiceSettings::default()));
    let labels = BTreeMap::from([("backstop.health.url".to_owned(), "http://web/".to_owned())]);
    let with_health = shipped.service(&web(), &labels).unwrap();
    assert!(!with_health.checks.is_empty());
    assert_eq!(Ok(with_health), built_in.service(&web(), &labels));
}

/// The shipped file with its commented settings in force.
fn uncommented() -> String {
    let is_setting = |line: &str| {
        line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    let lines = layers::SHIPPED.lines().map(|line| if is_setting(line) { &line[1..] } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_key_is_in_the_shipped_file_and_valid() {
    let node =
        syntax::parse(Format::Toml, "backstop.toml", &uncommented()).unwrap_or_else(|p| panic!("{p:?}"));
    let mut findings = Findings::default();
    let node = schema::walk(node, File::SHAPE, &mut findings);
    assert_eq!(findings.problems, []);
    let mut present = Vec::new();
    node.each_key(&mut Vec::new(), &mut |path, _| present.push(path.to_vec()));

    let mut keys = Vec::new();
    leaves(File::SHAPE, &mut Vec::new(), &mut keys);
    assert!(keys.len() > 50, "the list of keys is lost");
    for (key, _) in keys {
        // A service has the keys of `[defaults]`, shown there.
        if key[0] == "services" {
            continue;
        }
        let rows = Rule::matrix();
        let names = if key.contains(&"ROW".to_owned()) {
            rows.iter().map(|row| row.name.clone()).collect()
        } else {
            vec![String::new()]
        };
        for name in names {
            let counted = rows.iter().any(|row| row.name == name && !row.within.is_zero());
            if key.last().unwrap() == "within" && !counted {
                continue;
            }
            let relative = rows.iter().any(|row| row.name == name && row.against == Against::Baseline);
            if ["against", "floor"].contains(&key.last().unwrap().as_str()) && !relative {
                continue;
            }
            let path: Vec<_> =
                key.iter().map(|part| if part == "ROW" { name.clone() } else { part.clone() }).collect();
            assert!(present.contains(&path), "config/backstop.toml lacks {}", tree::dotted(&path));
        }
    }
}

#[test]
fn every_key_has_a_comment_before_it() {
    let mut commented = false;
    let mut in_rows = false;
    for line in layers::SHIPPED.lines() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        let is_key = bare.starts_with(|c: char| c.is_ascii_lowercase()) && bare.contains(" = ");
        if line.starts_with('[') {
            in_rows = line.starts_with("[defaults.rules.");
        }
        if is_key {
            // Rows are explained in one table above them; alternatives share a comment.
            assert!(commented || in_rows, "no comment above: {line}");
        }
        commented = line.starts_with("# ") || (commented && is_key && line.starts_with('#'));
    }
}

#[test]
fn exactly_what_is_secret_is_marked_secret() {
    let mut keys = Vec::new();
    leaves(File::SHAPE, &mut Vec::new(), &mut keys);
    let secret: Vec<_> =
        keys.iter().filter(|(_, secret)| *secret).map(|(key, _)| tree::dotted(key)).collect();
    assert_eq!(secret, ["api.token", "notify.webhook.url"]);
}

#[test]
fn a_services_section_takes_what_defaults_take() {
    let Shape::Table(keys) = File::SHAPE else { panic!("no table") };
    let shape = |name: &str| keys.iter().find(|key| key.name == name).unwrap().shape;
    let Shape::Map { of, .. } = shape("services") else { panic!("no map") };
    let (mut left, mut right) = (Vec::new(), Vec::new());
    leaves(shape("defaults"), &mut Vec::new(), &mut left);
    leaves(of, &mut Vec::new(), &mut right);
    assert_eq!(left, right);
}
