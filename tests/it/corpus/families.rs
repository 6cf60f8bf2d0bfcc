//! The register of families: what there is, and how many traces of each.

use super::plan::Plan;
use super::rng::Rng;
use super::{bad, environment as e, healthy, marginal};

/// What the traces of a family have in common.
pub(super) struct Family {
    pub(super) name: &'static str,
    /// Traces for each seed of the full form.
    pub(super) traces: usize,
    pub(super) build: fn(&mut Plan),
}

const fn family(name: &'static str, traces: usize, build: fn(&mut Plan)) -> Family {
    Family { name, traces, build }
}

pub(super) const FAMILIES: &[Family] = &[
    family("h_quiet", 1, healthy::quiet),
    family("h_busy", 1, healthy::busy),
    family("h_noisy", 2, healthy::noisy),
    family("h_low_traffic", 1, healthy::low_traffic),
    family("h_bursts", 1, healthy::bursts),
    family("h_cold_start", 2, healthy::cold_start),
    family("h_warm_caches", 1, healthy::warm_caches),
    family("h_jobs", 2, healthy::jobs),
    family("h_traffic_up", 1, healthy::traffic_up),
    family("h_silence", 1, healthy::silence),
    family("h_one_error", 1, healthy::one_error),
    family("h_missing", 1, healthy::missing),
    family("h_old_exits", 1, healthy::old_exits),
    family("h_memory", 2, healthy::memory),
    family("h_few_reports", 1, healthy::few_reports),
    family("h_health_blips", 1, healthy::health_blips),
    family("h_slow_start", 1, healthy::slow_start),
    family("h_short_gap", 1, healthy::short_gap),
    family("h_many_deployments", 1, healthy::many_deployments),
    family("h_replicas", 1, healthy::replicas),
    family("h_faster", 1, healthy::faster),
    family("h_other_buckets", 1, healthy::other_buckets),
    family("h_early", 1, healthy::early),
    family("h_exits_with_zero", 1, healthy::exits_with_zero),
    family("h_partial", 1, healthy::partial),
    family("h_other_is_sick", 1, healthy::other_is_sick),
    family("h_neighbours_deploy", 1, healthy::neighbours_deploy),
    family("h_fixed_forward", 1, healthy::fixed_forward),
    family("h_after_an_incident", 1, healthy::after_an_incident),
    family("h_ends_of_the_scale", 1, healthy::ends_of_the_scale),
    family("h_blind", 1, healthy::blind),
    family("h_cure", 1, healthy::cure),
    family("h_false_dependency", 1, healthy::false_dependency),
    family("m_errors_4", 2, marginal::errors_4),
    family("m_latency_18", 2, marginal::latency_18),
    family("m_latency_115", 1, marginal::latency_115),
    family("m_tail_below", 1, marginal::tail_below),
    family("m_memory_88", 1, marginal::memory_88),
    family("m_memory_spike", 1, marginal::memory_spike),
    family("m_blip", 1, marginal::blip),
    family("m_hard_blip", 1, marginal::hard_blip),
    family("m_nearly_half_a_minute", 1, marginal::nearly_half_a_minute),
    family("m_slow_blip", 1, marginal::slow_blip),
    family("m_few_exits", 1, marginal::few_exits),
    family("m_single_failures", 1, marginal::single_failures),
    family("m_traffic_contradicts", 1, marginal::traffic_contradicts),
    family("b_outage", 2, bad::outage),
    family("b_errors_25", 2, bad::errors_25),
    family("b_errors_10", 2, bad::errors_10),
    family("b_errors_8", 1, bad::errors_8),
    family("b_errors_6", 1, bad::errors_6),
    family("b_errors_low_traffic", 2, bad::errors_low_traffic),
    family("b_errors_slow_reports", 1, bad::errors_slow_reports),
    family("b_errors_ramp", 1, bad::errors_ramp),
    family("b_errors_on_and_off", 1, bad::errors_on_and_off),
    family("b_errors_with_gaps", 1, bad::errors_with_gaps),
    family("b_errors_early", 1, bad::errors_early),
    family("b_errors_worse", 1, bad::errors_worse),
    family("b_errors_and_traffic", 1, bad::errors_and_traffic),
    family("b_latency_4", 2, bad::latency_4),
    family("b_latency_3", 1, bad::latency_3),
    family("b_latency_23", 1, bad::latency_23),
    family("b_latency_low_traffic", 1, bad::latency_low_traffic),
    family("b_latency_tail", 1, bad::latency_tail),
    family("b_latency_ramp", 1, bad::latency_ramp),
    family("b_latency_other_buckets", 1, bad::latency_other_buckets),
    family("b_latency_early", 1, bad::latency_early),
    family("b_latency_of_the_fast", 1, bad::latency_of_the_fast),
    family("b_never_ready", 1, bad::never_ready),
    family("b_dies", 1, bad::dies),
    family("b_health_only", 1, bad::health_only),
    family("b_health_contradicted", 1, bad::health_contradicted),
    family("b_flapping", 1, bad::flapping),
    family("b_crash_loop", 2, bad::crash_loop),
    family("b_crash_slowly", 1, bad::crash_slowly),
    family("b_oom_loop", 1, bad::oom_loop),
    family("b_leak", 2, bad::leak),
    family("b_memory_high", 1, bad::memory_high),
    family("b_memory_in_an_outage", 1, bad::memory_in_an_outage),
    family("b_leaking_saw", 1, bad::leaking_saw),
    family("b_slow_to_show", 1, bad::slow_to_show),
    family("b_recurring_too", 1, bad::recurring_too),
    family("b_hidden_by_outage", 1, bad::hidden_by_outage),
    family("b_kills_dependency", 1, bad::kills_dependency),
    family("b_dependency_blips", 1, bad::dependency_blips),
    family("b_after_a_good_one", 1, bad::after_a_good_one),
    family("b_soon_after_a_good_one", 1, bad::soon_after_a_good_one),
    family("b_twice", 1, bad::twice),
    family("b_two_at_once", 1, bad::two_at_once),
    family("b_others_trouble", 1, bad::others_trouble),
    family("b_drags_dependants", 1, bad::drags_dependants),
    family("b_drags_others", 1, bad::drags_others),
    family("b_silent_neighbours", 1, bad::silent_neighbours),
    family("b_innocent_neighbour", 1, bad::innocent_neighbour),
    family("b_upstream_late", 1, bad::upstream_late),
    family("b_mutual", 1, bad::mutual),
    family("b_chronic_dependency", 1, bad::chronic_dependency),
    family("b_false_dependency", 1, bad::false_dependency),
    family("b_one_of_all", 1, bad::one_of_all),
    family("b_replicas", 1, bad::replicas),
    family("e_database", 2, e::database),
    family("e_database_alone", 1, e::database_alone),
    family("e_slow_recovery", 1, e::slow_recovery),
    family("e_flapping_database", 1, e::flapping_database),
    family("e_slow_database", 1, e::slow_database),
    family("e_common_cause", 2, e::common_cause),
    family("e_slow_node", 1, e::slow_node),
    family("e_network", 1, e::network),
    family("e_upstream", 2, e::upstream),
    family("e_neighbour", 1, e::neighbour),
    family("e_all_at_once", 1, e::all_at_once),
    family("e_errors_before", 1, e::errors_before),
    family("e_broken_before", 1, e::broken_before),
    family("e_slow_before", 1, e::slow_before),
    family("e_sick_before", 1, e::sick_before),
    family("e_full_before", 1, e::full_before),
    family("e_crashes_before", 1, e::crashes_before),
    family("e_after_the_watch", 1, e::after_the_watch),
    family("e_nothing_deployed", 1, e::nothing_deployed),
    family("e_retry_storm", 1, e::retry_storm),
    family("e_slow_witnesses", 1, e::slow_witnesses),
    family("e_reboot", 1, e::reboot),
    family("e_during_an_outage", 1, e::during_an_outage),
    family("e_long_after_the_watch", 1, e::long_after_the_watch),
    family("e_recurring", 2, e::recurring),
    family("v_reports", 1, e::reports),
    family("v_leak_ahead", 1, e::leak_ahead),
    family("v_degraded", 1, e::degraded),
];

/// A finished trace: its name, its lines and the truth about it.
pub(super) struct Trace {
    pub(super) name: String,
    pub(super) family: &'static str,
    pub(super) text: String,
    pub(super) truth: Vec<super::plan::Label>,
}

/// One trace of a family. `turn` says which of its variants.
pub(super) fn make(family: &Family, seed: u64, turn: usize, small: bool) -> Trace {
    let rng = Rng::named(seed.wrapping_mul(1000).wrapping_add(turn as u64), family.name);
    let mut plan = Plan::new(rng, turn, small);
    (family.build)(&mut plan);
    let text = plan.render();
    let name = format!("{}-{seed:03}{:02}", family.name, turn % 100);
    Trace { name, family: family.name, text, truth: plan.truth() }
}

impl Trace {
    /// The truth about it, for other programs: one JSON object for each deployment.
    pub(super) fn truth_as_json(&self) -> String {
        let objects: Vec<String> = self
            .truth
            .iter()
            .map(|label| {
                serde_json::json!({
                    "trace": self.name, "family": self.family, "service": label.service,
                    "deployed": label.deployed, "expect": format!("{:?}", label.expect), "onset": label.onset,
                    "earliest": label.earliest,
                    "usual_delay": label.wait.usual, "latest": label.onset + label.wait.latest,
                    "signals": label.signals, "ask": format!("{:?}", label.ask), "hold": label.hold,
                })
                .to_string()
            })
            .collect();
        if objects.is_empty() {
            return serde_json::json!({"trace": self.name, "family": self.family, "expect": "Keep"})
                .to_string();
        }
        objects.join(",\n")
    }
}
