//! What the core and the flight record cost, at a thousand services. Run by `tests/bench/core` and `tests/bench/flight`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on should stop, and it prints"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use backstop::clock::Clock;
use backstop::core::io::{EngineState, Input};
use backstop::core::ledger::Remembered;
use backstop::core::observation::{Look, Observation, Phase, Replica};
use backstop::core::release::{ImageId, Release, ReleaseId, ReplicaId, ServiceName};
use backstop::core::sample::{Latencies, Measurement, Requests, Signal};
use backstop::core::settings::{FleetSettings, HealthCheck, MetricsSource, ServiceSettings, Target};
use backstop::core::{Fleet, Timestamp};
use backstop::flight::reader::segments;
use backstop::flight::{Limits, Recorder};
use backstop::replay::record::replay;

const SERVICES: u32 = 1_000;
/// Each service is measured this often, three ways: health, memory, requests.
const EVERY: Duration = Duration::from_secs(5);
const ROUNDS: u32 = 120;
const LOOK_EVERY: u32 = 6;
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn main() {
    let inputs = inputs();
    let simulated = EVERY * ROUNDS;
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|a| a == "core") {
        core(&inputs, simulated);
    } else if args.iter().any(|a| a == "flight") {
        flight(&inputs, simulated);
    }
}

fn settings() -> Arc<ServiceSettings> {
    let target = |path: &str| Target::Replica { port: 8080, path: path.into() };
    let check = HealthCheck::get(target("/healthz"), EVERY, Duration::from_secs(2));
    let metrics = MetricsSource::auto(target("/metrics"), EVERY, Duration::from_secs(2));
    Arc::new(ServiceSettings {
        checks: BTreeMap::from([("health".to_owned(), check)]),
        metrics: Some(metrics),
        ..ServiceSettings::default()
    })
}

fn observation(i: u32, settings: &Arc<ServiceSettings>) -> Observation {
    let release = Release {
        id: ReleaseId::new(format!("{i:012x}")),
        image: ImageId::new(format!("sha256:{i:064x}")),
        reference: format!("shop-{i}:v1"),
        digests: vec![format!("registry.example/shop-{i}@sha256:{i:064x}")],
        fingerprint: format!("{i:064x}"),
        version: None,
    };
    let replica = Replica {
        id: ReplicaId::new(format!("{i:064x}")),
        name: format!("shop-{i}"),
        release,
        created: START.before(Duration::from_secs(600)),
        started: Some(START),
        phase: Phase::Running,
        restart_count: 0,
        restarts: true,
        health: None,
        exit_code: None,
        start_error: None,
        address: Some(IpAddr::from([172, 17, 0, 2])),
    };
    Observation {
        service: ServiceName::new(format!("shop-{i}")),
        settings: Arc::clone(settings),
        asked: Timestamp::MAX,
        replicas: vec![replica],
    }
}

fn sampled(i: u32, round: u32, signal: Signal) -> Input {
    let noise = u64::from(i.wrapping_mul(2_654_435_761).wrapping_add(round.wrapping_mul(40_503)) >> 16);
    let (replica, name, measurement) = match signal {
        Signal::Health => {
            let detail = format!("200 OK after {}ms", noise % 40);
            let m = Measurement::Check { ok: true, detail, latency: Duration::from_millis(noise % 40) };
            (true, "health", m)
        }
        Signal::Memory => (true, "", Measurement::Level { used: (400 << 20) + noise * 4096, limit: 1 << 30 }),
        _ => {
            let bounds = vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
            let total = 80 + noise % 40;
            let counts = (0..12).map(|b| total * b.min(11) / 11).collect();
            let requests = Requests {
                window: EVERY,
                total,
                errors: u64::from(noise % 7 == 0),
                latency: Latencies { bounds, counts },
                ..Requests::default()
            };
            (false, "", Measurement::Requests(requests))
        }
    };
    Input::Sampled {
        service: ServiceName::new(format!("shop-{i}")),
        replica: replica.then(|| ReplicaId::new(format!("{i:064x}"))),
        signal,
        name: name.into(),
        measurement,
    }
}

/// Ten minutes of a thousand services, in order of time, as the daemon sees them.
fn inputs() -> Vec<(Timestamp, Input)> {
    let settings = settings();
    let look = || Look {
        services: (0..SERVICES).map(|i| observation(i, &settings)).collect(),
        asked: Timestamp::MAX,
        ..Look::default()
    };
    let mut all = vec![(START, Input::Engine(EngineState::Reachable { restarted: false }))];
    for round in 0..ROUNDS {
        let begin = START + EVERY * round;
        if round % LOOK_EVERY == 0 {
            all.push((begin, Input::Looked(look())));
        }
        for i in 0..SERVICES {
            let at = begin + EVERY * i / SERVICES;
            for signal in [Signal::Health, Signal::Memory, Signal::Requests] {
                all.push((at, sampled(i, round, signal)));
            }
        }
    }
    all
}

fn fresh() -> Fleet {
    Fleet::restore(START, FleetSettings::default(), Remembered::default())
}

/// Plays everything with time passing, and hands on what happened.
fn play(inputs: &[(Timestamp, Input)], mut recorder: Option<&mut Recorder>) -> u64 {
    let mut fleet = fresh();
    let mut turns = 0;
    for (at, input) in inputs {
        loop {
            let due = fleet.poll_timeout();
            if due >= *at {
                break;
            }
            turn(&mut fleet, due, Input::Tick, recorder.as_deref_mut());
            turns += 1;
        }
        turn(&mut fleet, *at, input.clone(), recorder.as_deref_mut());
        turns += 1;
    }
    turns
}

fn turn(fleet: &mut Fleet, at: Timestamp, input: Input, recorder: Option<&mut Recorder>) {
    let Some(recorder) = recorder else {
        std::hint::black_box(fleet.handle(at, input));
        return;
    };
    let effects = fleet.handle(at, input.clone());
    recorder.turned(at, input, &effects, fleet);
    // Life leaves it seconds; here it has to catch up.
    while recorder.waiting() > 4096 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn core(inputs: &[(Timestamp, Input)], simulated: Duration) {
    let clock = Clock::start();
    let packed: Vec<Vec<u8>> =
        inputs.iter().map(|(_, input)| rmp_serde::to_vec_named(input).unwrap()).collect();
    let reading = clock.stopwatch();
    for bytes in &packed {
        std::hint::black_box(rmp_serde::from_slice::<Input>(bytes).unwrap());
    }
    let read = reading.elapsed().as_secs_f64();
    let judging = clock.stopwatch();
    let turns = play(inputs, None);
    let judged = judging.elapsed().as_secs_f64();
    let n = inputs.len() as f64;
    println!("| {SERVICES} services, {n} observations | per second | microseconds each | ratio |");
    println!("| --- | ---: | ---: | ---: |");
    println!("| read from MessagePack, and nothing else | {:.0} | {:.2} | 1.0 |", n / read, read / n * 1e6);
    println!(
        "| judged by the core ({turns} turns) | {:.0} | {:.2} | {:.1} |",
        n / judged,
        judged / n * 1e6,
        judged / read
    );
    println!(
        "\n{:.0} times faster than real time; live, it takes {:.2} % of one processor.",
        simulated.as_secs_f64() / judged,
        judged / simulated.as_secs_f64() * 100.0
    );
}

/// Processor time of all threads so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // utime and stime, in hundredths of a second.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn flight(inputs: &[(Timestamp, Input)], simulated: Duration) {
    let directory = std::env::temp_dir().join(format!("backstop-bench-{}", std::process::id()));
    let before = cpu();
    play(inputs, None);
    let without = cpu() - before;
    let mut recorder = Recorder::start(directory.clone(), Limits::default(), START, &fresh()).unwrap();
    let before = cpu();
    let turns = play(inputs, Some(&mut recorder));
    let lost = recorder.lost();
    recorder.close();
    let with = cpu() - before;
    let files = segments(&directory).unwrap();
    let bytes: u64 = files.iter().map(|f| std::fs::metadata(f).unwrap().len()).sum();
    let account = replay(&directory).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let share = |spent: Duration| spent.as_secs_f64() / simulated.as_secs_f64() * 100.0;
    println!("| {SERVICES} services for {} s, {turns} turns | share of one processor |", simulated.as_secs());
    println!("| --- | ---: |");
    println!("| the core alone | {:.2} % |", share(without));
    println!("| the flight record besides | {:.2} % |", share(with.saturating_sub(without)));
    println!(
        "\n{} segments of {:.1} MiB in all, {:.0} bytes a turn; {lost} turns lost; {} replayed, difference: {:?}",
        files.len(),
        bytes as f64 / f64::from(1 << 20),
        bytes as f64 / turns as f64,
        account.turns,
        account.difference
    );
}
