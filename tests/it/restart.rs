//! A daemon that is started again knows what was normal; with a clock behind what it remembers it judges, acts and tells
//! as ever.

use std::collections::BTreeMap;
use std::time::Duration;

use backstop::core::Timestamp;
use backstop::core::io::{Effect, Input};
use backstop::core::ledger::{Flags, LedgerChange, LedgerEntry, Pause, Remembered, Standing};
use backstop::core::release::{ReleaseId, ServiceName};
use backstop::store::Store;

use crate::timelines::{START, World};

const HOUR: Duration = Duration::from_secs(3600);

/// What a store would remember of all that.
fn remembered(world: &World) -> Remembered {
    let mut ledgers: BTreeMap<ServiceName, Vec<LedgerEntry>> = BTreeMap::new();
    let (mut rollbacks, mut norms, mut flags) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for effect in world.tape.iter().flat_map(|(.., effects)| effects) {
        match effect {
            Effect::Remember(LedgerChange::Entry { service, entry }) => {
                let entries = ledgers.entry(service.clone()).or_default();
                entries.retain(|known| known.release.id != entry.release.id);
                entries.push(entry.clone());
            }
            Effect::Remember(
                LedgerChange::RollbackOpened(record) | LedgerChange::RollbackUpdated(record),
            ) => {
                rollbacks.insert(record.id.clone(), (**record).clone());
            }
            Effect::Remember(LedgerChange::Norms { service, norms: kept }) => {
                norms.insert(service.clone(), (**kept).clone());
            }
            Effect::Remember(LedgerChange::Flags { service, flags: kept }) => {
                flags.insert(service.clone(), kept.clone());
            }
            _ => {}
        }
    }
    Remembered {
        ledgers: ledgers.into_iter().collect(),
        rollbacks: rollbacks.into_values().collect(),
        norms: norms.into_iter().collect(),
        flags: flags.into_iter().collect(),
    }
}

#[tokio::test]
async fn a_release_that_comes_after_a_restart_is_compared_with_the_one_before_it() {
    const SETTINGS: &str = "0s set health=none shipped access_log=auto\n";
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    let mut before = World::new();
    before.run(&format!(
        "{SETTINGS}0s deploy api api:v1 age=1h
         10s requests api 200 errors=6 p99=100ms window=10s x240 every 10s"
    ));
    let changes = before.tape.iter().flat_map(|(.., effects)| effects).filter_map(|effect| match effect {
        Effect::Remember(change) => Some(change.clone()),
        _ => None,
    });
    store.remember(changes.collect()).await.unwrap();

    let mut after = World::remembering(store.load(START + HOUR).await.unwrap());
    after.run(&format!(
        "{SETTINGS}0s deploy api api:v1 age=2h
         1s deploy api api:v2
         20s requests api 200 errors=6 p99=110ms window=10s x12 every 10s
         130s explain api error_rate
         130s explain api latency_p99"
    ));
    let told = after.log.join("\n");
    assert!(told.contains("before: 3.0 % over 30m"), "{told}");
    assert!(told.contains("before: p99 100ms over 30m"), "{told}");
}

/// It is neither done twice nor passed over in silence.
#[test]
fn what_was_tried_when_it_was_ended_has_failed_and_the_next_step_follows() {
    const SETTINGS: &str = "set memory.mitigations=restart,EXPORT_MODE:off\n";
    let mut first = World::new();
    first.run(&format!(
        "0s {SETTINGS}0s next mitigation lasts
         0s deploy shop shop:v1 age=1h
         1s health shop ok x8
         60s deploy shop shop:v2
         71s memory shop 95 & health shop ok x13 every 5s"
    ));
    let mut second = World::remembering_at(START + Duration::from_secs(140), remembered(&first));
    let awaited = second.fleet.mitigating();
    let [(id, service)] = awaited.as_slice() else { panic!("{awaited:?}: {:#?}", first.log) };
    let result = Err("it was ended".to_owned());
    second.input(Input::Mitigated { id: id.clone(), service: service.clone(), result });
    second.run(&format!(
        "140s {SETTINGS}140s deploy shop shop:v2 age=80s
         141s memory shop 95 & health shop ok x30 every 5s"
    ));
    let told = second.log.join("\n");
    in_order(&told, "MITIGATION FAILED", "shop: EXPORT_MODE=off set");
    assert!(!told.contains("shop: restart"), "{told}");
    assert_eq!(second.fleet.mitigating(), []);
}

/// Both were said, one before the other.
#[track_caller]
fn in_order(told: &str, first: &str, then: &str) {
    let at = |what| told.find(what).unwrap_or_else(|| panic!("{what}: {told}"));
    assert!(at(first) < at(then), "{told}");
}

/// Runs the first timeline, and the second one after a restart. Gives the log of the second.
fn restarted(at: u64, before: &str, after: &str) -> String {
    let mut first = World::new();
    first.run(before);
    let mut second = World::remembering_at(START + Duration::from_secs(at), remembered(&first));
    second.run(after);
    second.log.join("\n")
}

#[test]
fn what_came_and_went_before_the_deployment_is_known_after_a_restart() {
    let told = restarted(
        960,
        "0s deploy worker worker:v1 age=1h
         0s health worker ok x40 every 5s
         200s health worker fail x5 every 5s
         225s health worker ok x50 every 5s
         475s health worker fail x5 every 5s
         500s health worker ok x80 every 5s
         902s deploy worker worker:v2
         905s health worker ok x10 every 5s",
        "960s deploy worker worker:v2 age=58s
         965s health worker ok x18 every 5s
         1055s health worker fail x5 every 5s
         1080s health worker ok x20 every 5s
         1180s health worker fail x40 every 5s
         1380s end",
    );
    in_order(&told, "the same came and went 2 times before", "roll back to worker:v1");
}

#[test]
fn what_was_wrong_before_the_deployment_is_known_after_a_restart() {
    let told = restarted(
        320,
        "0s deploy api api:v1 age=1h
         0s health api ok x40 every 5s
         200s health api fail x20 every 5s
         301s deploy api api:v2
         302s health api fail x3 every 5s",
        "320s deploy api api:v2 age=19s
         321s health api fail x40 every 5s
         530s end",
    );
    assert!(told.contains("before the deployment") && !told.contains("roll back to"), "{told}");
}

/// A good release, a bad one that was rolled back, and a good one: most of it hours after the time at which worlds begin.
fn ahead() -> Remembered {
    let mut world = World::new();
    world.run(
        "0s deploy web web:v1 age=1h
         0s deploy shop shop:v1 age=1h
         5s health shop ok x20
         6h deploy shop shop:v2
         6h10s health shop fail x4
         6h10m deploy shop shop:v3
         6h10m10s health shop ok x20",
    );
    remembered(&world)
}

#[test]
fn what_runs_is_judged_and_rolled_back_as_ever() {
    let mut remembered = ahead();
    let mut right = remembered.clone();
    assert_eq!(right.put_back(START + 24 * HOUR), None);
    let mut entries = right.ledgers.iter().zip(&remembered.ledgers);
    assert!(entries.all(|((_, now), (_, was))| now.iter().all(|entry| was.contains(entry))));
    assert_eq!(right.rollbacks, remembered.rollbacks);
    let (by, _) = remembered.put_back(START).unwrap();
    assert!(by > 6 * HOUR && by < 7 * HOUR, "{by:?}");
    let mut world = World::remembering(remembered);
    world.run(
        "1s deploy shop shop:v3
         10s health shop ok x30
         20m deploy shop shop:v4
         20m10s health shop fail x4
         21m end",
    );
    // To the newest that proved itself, and as soon as if the clock had never been wrong.
    let done = world
        .log
        .iter()
        .find(|line| line.contains("roll back to"))
        .unwrap_or_else(|| panic!("{:#?}", world.log));
    assert!(done.contains("roll back to shop:v3") && done.trim_start().starts_with("12"), "{:#?}", world.log);
}

/// A machine that keeps no time while it is off begins years ago: what was put back to that would be long ago soon after.
#[test]
fn a_clock_that_was_never_set_puts_nothing_back() {
    let mut remembered = ahead();
    let was = remembered.clone();
    let (by, changes) = remembered.put_back(START.before(20 * HOUR)).unwrap();
    assert!(by > 24 * HOUR && changes.is_empty(), "{by:?} {changes:?}");
    assert_eq!(remembered.ledgers, was.ledgers);
    assert_eq!(remembered.rollbacks, was.rollbacks);
}

#[tokio::test]
async fn what_is_later_than_now_is_now_in_its_order_and_stays_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    let mut changes = Vec::new();
    for (service, entries) in ahead().ledgers {
        changes
            .extend(entries.into_iter().map(|entry| LedgerChange::Entry { service: service.clone(), entry }));
    }
    let since = START + 3 * HOUR;
    let pause = Pause { by: "anna".into(), why: String::new(), since, until: Some(since + HOUR) };
    changes.push(LedgerChange::Flags {
        service: None,
        flags: Flags { paused: Some(pause), ..Flags::default() },
    });
    store.remember(changes).await.unwrap();

    let mut read = store.load(START).await.unwrap();
    let (_, kept) = read.put_back(START).unwrap();
    store.remember(kept).await.unwrap();

    let mut again = store.load(START).await.unwrap();
    assert_eq!(again.put_back(START), None, "it is put back once");
    let [(_, entries), (_, web)] = again.ledgers.as_slice() else { panic!("{:?}", again.ledgers) };
    let order: Vec<&str> = entries.iter().map(|entry| entry.release.reference.as_str()).collect();
    assert_eq!(order, ["shop:v3", "shop:v1", "shop:v2"], "the good one came back after the bad one");
    assert!(entries.iter().all(|entry| entry.deployed <= START && entry.first_seen <= START));
    assert_eq!(web[0].deployed, START.before(HOUR), "what was before is as it was");
    assert!(matches!(&entries[2].standing, Standing::Quarantined { since, .. } if *since == START));
    let paused = again.flags[0].1.paused.as_ref().unwrap();
    assert_eq!((paused.since, paused.until), (START, Some(START + HOUR)), "an hour is an hour");

    // A deployment of now is the newest, as it would not be among times that are yet to come.
    let (service, mut entry) = (again.ledgers[0].0.clone(), again.ledgers[0].1[0].clone());
    let now = START + Duration::from_secs(1);
    (entry.release.id, entry.deployed) = (ReleaseId::new("v4"), now);
    store.remember(vec![LedgerChange::Entry { service, entry }]).await.unwrap();
    let newest = store.load(now).await.unwrap().ledgers.remove(0).1.remove(0);
    assert_eq!(newest.release.id.as_str(), "v4");
    assert_eq!(newest.deployed, Timestamp::from_secs(86_401));
}
