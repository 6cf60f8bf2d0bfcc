//! What people said of pausing services, as the Swarm keeps it: one config object for each service, named `backstop.said.*`,
//! and one for the fleet; newer ones take the place of older ones. Whoever reads them goes by whatever was said last.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};

use super::SwarmRuntime;
use crate::core::release::ServiceName;
use crate::runtime::container::fingerprint::short_hash;
use crate::runtime::{RuntimeError, Word};

/// Marks our objects, and names the service; empty for the fleet.
const SAID: &str = "backstop.said";

impl SwarmRuntime {
    /// Keeps it, unless it is kept already, or there never was a pause.
    pub(super) async fn keep_said(
        &self,
        service: Option<&ServiceName>,
        word: &Word,
    ) -> Result<(), RuntimeError> {
        let of = service.map_or("", ServiceName::as_str);
        let mut old = self.configs(SAID).await?;
        old.retain(|config| config["Spec"]["Labels"][SAID] == of);
        let newest = old.iter().filter_map(read).map(|(_, word)| word).max_by_key(|word| word.at);
        if newest.map_or(word.paused.is_none(), |kept| kept.paused == word.paused) {
            return Ok(());
        }
        let name = format!("backstop.said.{}.{}", short_hash(of), word.at.as_millis());
        let data = BASE64.encode(json!(word).to_string());
        let body = json!({"Name": name, "Labels": {SAID: of}, "Data": data});
        self.engine.post("/configs/create", Some(&body)).await?;
        for config in &old {
            // While they are there, the newer one counts.
            if let Err(error) = self.drop_config(config["Spec"]["Name"].as_str().unwrap_or_default()).await {
                tracing::debug!(service = of, "what was said before stays in the Swarm: {error}");
            }
        }
        Ok(())
    }

    /// The newest of each service.
    pub(super) async fn said_last(&self) -> Result<Vec<(Option<ServiceName>, Word)>, RuntimeError> {
        Ok(last(&self.configs(SAID).await?))
    }
}

fn last(configs: &[Value]) -> Vec<(Option<ServiceName>, Word)> {
    let mut all: Vec<_> = configs.iter().filter_map(read).collect();
    all.sort_by(|(a, one), (b, other)| a.cmp(b).then(other.at.cmp(&one.at)));
    all.dedup_by(|(later, _), (first, _)| later == first);
    all
}

/// One object; none if it is not as we write them.
fn read(config: &Value) -> Option<(Option<ServiceName>, Word)> {
    let name = config["Spec"]["Labels"][SAID].as_str()?;
    let data = BASE64.decode(config["Spec"]["Data"].as_str()?).ok()?;
    let word = serde_json::from_slice(&data).ok()?;
    Some(((!name.is_empty()).then(|| ServiceName::new(name)), word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ledger::Pause;
    use crate::core::time::Timestamp;

    fn word(second: u64, by: Option<&str>) -> Word {
        let at = Timestamp::from_secs(second);
        let pause = |by: &str| Pause { by: by.into(), why: String::new(), since: at, until: None };
        Word { at, paused: by.map(pause) }
    }

    fn config(of: &str, word: &Word) -> Value {
        json!({"Spec": {"Labels": {SAID: of}, "Data": BASE64.encode(json!(word).to_string())}})
    }

    #[test]
    fn what_was_said_last_counts() {
        let (anna, ben, over) = (word(10, Some("anna")), word(20, Some("ben")), word(30, None));
        let configs = [
            config("web", &ben),
            config("", &anna),
            config("web", &anna),
            config("api", &anna),
            config("api", &over),
        ];
        let of = |name: &str| Some(ServiceName::new(name));
        assert_eq!(last(&configs), [(None, anna), (of("api"), over), (of("web"), ben)]);
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        let mut broken = config("web", &word(10, Some("ben")));
        broken["Spec"]["Data"] = json!("no base64");
        assert_eq!(last(&[broken, json!({})]), []);
    }
}
