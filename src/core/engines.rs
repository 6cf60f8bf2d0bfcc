//! Engines: which of them answer. The default one (`[engine]`) has no name, and its services have plain names; a service
//! of any other is called `ENGINE/SERVICE`. An engine that is away makes its own services invisible, and nobody else's.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::io::EngineState;
use super::release::ServiceName;
use super::snapshot::EngineSnapshot;
use super::time::Timestamp;

/// How the default engine is called where a name is needed.
pub(crate) const DEFAULT: &str = "";
/// An engine that is silent for this long is announced; a restart of it takes less.
const SILENCE_ANNOUNCED: Duration = Duration::from_secs(60);

/// Every engine that was heard of. Flattened into the fleet: records of times with one engine have the default one's
/// fields there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Engines {
    #[serde(flatten)]
    pub(crate) default: Engine,
    #[serde(default, rename = "engines", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) named: BTreeMap<String, Engine>,
}

/// One engine, as last heard of.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Engine {
    /// None before the first answer.
    #[serde(rename = "engine", default)]
    pub(crate) state: Option<EngineState>,
    /// It came back at this time.
    #[serde(rename = "engine_back", default)]
    pub(crate) back: Option<Timestamp>,
    /// Since when it is silent, and whether that was announced.
    #[serde(rename = "engine_lost", default)]
    lost: Option<(Timestamp, bool)>,
    /// A full look at it was taken in.
    #[serde(default)]
    pub(crate) looked: bool,
}

/// What is to be said of an engine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It has not answered for a while.
    Silent { why: String },
    /// It answers again, after having been said to be silent.
    Back { silent_for: Duration },
}

impl Engines {
    /// The engine of a service, if it was heard of.
    pub(crate) fn of(&self, service: &ServiceName) -> Option<&Engine> {
        match service.engine() {
            DEFAULT => Some(&self.default),
            name => self.named.get(name),
        }
    }

    fn entry(&mut self, name: &str) -> &mut Engine {
        match name {
            DEFAULT => &mut self.default,
            name => self.named.entry(name.to_owned()).or_default(),
        }
    }

    /// Takes in how an engine is. If it came back: whether it was restarted.
    pub(crate) fn is(&mut self, now: Timestamp, name: &str, state: EngineState) -> Option<bool> {
        let engine = self.entry(name);
        let came_back = match &state {
            EngineState::Reachable { restarted } => {
                let back = *restarted || engine.is_away();
                (back && engine.state.is_some()).then_some(*restarted)
            }
            EngineState::Unreachable { .. } => {
                engine.lost.get_or_insert((now, false));
                None
            }
        };
        if came_back.is_some() {
            engine.back = Some(now);
        }
        engine.state = Some(state);
        came_back
    }

    /// A full look at it was taken in.
    pub(crate) fn looked(&mut self, name: &str) {
        self.entry(name).looked = true;
    }

    /// What is to be said by now, each thing once.
    pub(crate) fn news(&mut self, now: Timestamp) -> Vec<(String, News)> {
        let named = self.named.iter_mut().map(|(name, engine)| (name.as_str(), engine));
        let all = std::iter::once((DEFAULT, &mut self.default)).chain(named);
        all.filter_map(|(name, engine)| Some((name.to_owned(), engine.news(now)?))).collect()
    }

    /// Those with a name, for people: the `expected` ones, heard of or not.
    pub(crate) fn seen(&self, expected: &[String]) -> Vec<EngineSnapshot> {
        let told = |name: &String| {
            let engine = self.named.get(name);
            EngineSnapshot {
                name: name.clone(),
                state: engine.and_then(|engine| engine.state.clone()),
                looked: engine.is_some_and(|engine| engine.looked),
            }
        };
        expected.iter().map(told).collect()
    }
}

impl Engine {
    /// It was heard of, and does not answer.
    pub(crate) const fn is_away(&self) -> bool {
        matches!(self.state, Some(EngineState::Unreachable { .. }))
    }

    fn news(&mut self, now: Timestamp) -> Option<News> {
        let (since, announced) = self.lost?;
        match &self.state {
            Some(EngineState::Unreachable { why }) if !announced && now.since(since) >= SILENCE_ANNOUNCED => {
                self.lost = Some((since, true));
                Some(News::Silent { why: why.clone() })
            }
            Some(EngineState::Reachable { .. }) => {
                self.lost = None;
                announced.then(|| News::Back { silent_for: now.since(since) })
            }
            Some(EngineState::Unreachable { .. }) | None => None,
        }
    }
}

impl ServiceName {
    /// The name of the engine that it runs on; empty for the default one.
    pub fn engine(&self) -> &str {
        self.as_str().split_once('/').map_or(DEFAULT, |(engine, _)| engine)
    }

    /// Its name on its engine: without the engine's name.
    pub fn on_its_engine(&self) -> Self {
        Self::new(self.as_str().split_once('/').map_or(self.as_str(), |(_, name)| name))
    }

    /// The same service name on the engine of that name; empty for the default one.
    #[must_use]
    pub fn on(&self, engine: &str) -> Self {
        if engine == DEFAULT { self.clone() } else { Self::new(format!("{engine}/{self}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_a_named_engine_has_its_name_in_front() {
        let plain = ServiceName::new("shop");
        assert_eq!((plain.engine(), plain.on(DEFAULT).as_str()), (DEFAULT, "shop"));
        let east = plain.on("east");
        assert_eq!(
            (east.as_str(), east.engine(), east.on_its_engine().as_str()),
            ("east/shop", "east", "shop")
        );
    }

    #[test]
    fn what_one_engine_was_recorded_as_is_the_default_one() {
        let old = r#"{"engine": {"unreachable": {"why": "no"}}, "engine_back": null, "engine_lost": null, "looked": true}"#;
        let engines: Engines = serde_json::from_str(old).unwrap();
        assert!(engines.default.is_away() && engines.default.looked && engines.named.is_empty());
    }
}
