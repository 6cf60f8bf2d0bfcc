//! Settings over settings that were in force once: what was recorded, with what a person says now put in its place. Knows
//! no labels: what they said is part of what was recorded.

use std::collections::BTreeMap;

use super::file::{Check, HEALTH, Service};
use super::resolve::{Context, resolve};
use super::settings::Settings;
use crate::core::release::ServiceName;
use crate::core::settings::{
    Dependency, FleetSettings, HealthCheck, MetricsSource, PromqlSource, ServiceSettings,
};

impl Settings {
    /// `base` with everything in its place that the configuration says of the service.
    ///
    /// # Errors
    /// What cannot hold together with the rest of `base`, as sentences.
    pub fn over(
        &self,
        service: &ServiceName,
        base: &ServiceSettings,
    ) -> Result<ServiceSettings, Vec<String>> {
        let layers: Vec<&Service> =
            std::iter::once(&self.defaults).chain(self.services.get(service.as_str())).collect();
        let checks = self.checks.iter().chain(base.checks.keys()).cloned().collect();
        let credentials = self.credentials.as_deref();
        let context =
            Context { service: Some(service.as_str()), credentials, checks: &checks, people: usize::MAX };
        let (settings, clashes) = resolve(base, &layers, context);
        let problem = |clash| self.places.problem(Some(service.as_str()), clash).to_string();
        if clashes.is_empty() { Ok(settings) } else { Err(clashes.into_iter().map(problem).collect()) }
    }

    /// The same for what concerns all services together.
    pub fn fleet_over(&self, base: &FleetSettings) -> FleetSettings {
        super::fleet(base.clone(), self.of_fleet.clone())
    }
}

/// The checks of `base` with those over them that were made of what was typed, and what was typed of the others.
pub(super) fn checks(
    base: &BTreeMap<String, HealthCheck>,
    typed: &Service,
    mut made: BTreeMap<String, HealthCheck>,
) -> BTreeMap<String, HealthCheck> {
    let mut found = base.clone();
    let health = typed.health.iter().map(|check| (HEALTH, check));
    let others = typed.checks.iter().flatten().map(|(name, check)| (name.as_str(), check));
    for (name, typed) in health.chain(others) {
        match (made.remove(name), found.get_mut(name)) {
            (Some(made), _) => _ = found.insert(name.to_owned(), made),
            (None, Some(_)) if typed.enabled == Some(false) => _ = found.remove(name),
            (None, Some(kept)) => adjust(kept, typed),
            (None, None) => {}
        }
    }
    found
}

/// What can be said of a check without saying what it asks.
fn adjust(check: &mut HealthCheck, typed: &Check) {
    check.required = typed.required.unwrap_or(check.required);
    check.interval = typed.interval.map_or(check.interval, |span| span.0);
    check.timeout = typed.timeout.map_or(check.timeout, |span| span.0);
}

pub(super) fn dependencies(
    base: &BTreeMap<String, Dependency>,
    typed: &Service,
    made: BTreeMap<String, Dependency>,
) -> BTreeMap<String, Dependency> {
    let mut found = base.clone();
    let off = typed.dependencies.iter().flatten().filter(|(_, typed)| typed.enabled == Some(false));
    for (name, _) in off {
        found.remove(name);
    }
    found.extend(made);
    found
}

pub(super) fn metrics(
    base: Option<&MetricsSource>,
    typed: &Service,
    made: Option<MetricsSource>,
) -> Option<MetricsSource> {
    let off = typed.metrics.as_ref().is_some_and(|typed| typed.enabled == Some(false));
    made.or_else(|| base.filter(|_| !off).cloned())
}

pub(super) fn prometheus(
    base: Option<&PromqlSource>,
    typed: &Service,
    made: Option<PromqlSource>,
) -> Option<PromqlSource> {
    let off = typed.prometheus.as_ref().is_some_and(|typed| typed.enabled == Some(false));
    made.or_else(|| base.filter(|_| !off).cloned())
}
