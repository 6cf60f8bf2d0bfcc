//! What systemd is told: that we are ready, how we are, that the core still turns. Outside systemd nothing is told
//! and nobody is bothered. It must never wait: a service manager that does not listen is not our trouble.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock::Clock;
use crate::core::Timestamp;
use crate::core::io::EngineState;
use crate::core::snapshot::{FleetSnapshot, ServiceSnapshot, State};

/// `systemctl status` shows one line; the rest is `backstop status`.
const STATUS_MAX: usize = 200;

/// So many services are named in the status line; more do not fit.
const NAMED_MAX: usize = 3;

/// The service manager, if there is one. Clones speak for the same process.
#[derive(Debug, Clone)]
pub struct Systemd(Option<Arc<Manager>>);

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How often it wants to hear that we live; none if it has no watchdog.
    interval: Option<Duration>,
    clock: Clock,
    said: Mutex<Said>,
}

/// What was said last, so as not to repeat it.
#[derive(Debug, Default)]
struct Said {
    alive: Option<Timestamp>,
    status: String,
}

impl Systemd {
    /// The service manager that started this process: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_environment(clock: Clock) -> Self {
        Self::new(clock, std::env::var_os("NOTIFY_SOCKET"), sd_notify::watchdog_enabled())
    }

    /// The service manager at `socket` (`@` begins an abstract one), which restarts us after `watchdog` of silence.
    pub fn new(clock: Clock, socket: Option<OsString>, watchdog: Option<Duration>) -> Self {
        let manager = socket.and_then(|path| {
            let address = address(&path)?;
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            let said = Mutex::default();
            // Half of what it waits is the custom. The core turns every few seconds, and what is due is said at
            // the turn after: a quarter keeps that within the half, and one lost datagram is no death sentence.
            let interval = watchdog.map(|wait| wait / 4);
            Some(Arc::new(Manager { socket, address, interval, clock, said }))
        });
        Self(manager)
    }

    /// The program is up: the API answers and the core turns.
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// The configuration is being read again; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// The end has begun and may take as long as `at_most`.
    pub fn stopping(&self, at_most: Duration) {
        let status = "Stopping: a rollback in flight is finished, or resumed at the next start.";
        self.tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
        self.extend(at_most);
    }

    /// Whatever is under way, the start or the end, may take as long as `at_most` from now.
    pub fn extend(&self, at_most: Duration) {
        let micros = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// The core has really turned. To be called then and only then: when it hangs, systemd shall notice. Says so
    /// at least twice in the time that systemd waits (`WATCHDOG_USEC`); all other calls cost nothing.
    pub fn alive(&self) {
        let Some(manager) = &self.0 else { return };
        let Some(interval) = manager.interval else { return };
        let now = manager.clock.now();
        let mut said = manager.said.lock().unwrap_or_else(PoisonError::into_inner);
        let due = said.alive.is_none_or(|last| now.since(last) >= interval);
        if due && manager.send(&[NotifyState::Watchdog]) {
            said.alive = Some(now);
        }
    }

    /// How the fleet is, in one sentence; said when it has changed.
    pub fn status(&self, snapshot: &FleetSnapshot) {
        let Some(manager) = &self.0 else { return };
        let sentence = sentence(snapshot);
        let mut said = manager.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.status != sentence && manager.send(&[NotifyState::Status(&sentence)]) {
            said.status = sentence;
        }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Some(manager) = &self.0 {
            manager.send(states);
        }
    }
}

impl Manager {
    /// Whether it was taken. A full or missing socket is systemd's affair; the next word comes soon.
    fn send(&self, states: &[NotifyState<'_>]) -> bool {
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        self.socket.send_to_addr(message.as_bytes(), &self.address).is_ok()
    }
}

fn address(path: &OsString) -> Option<SocketAddr> {
    match path.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).ok(),
        #[cfg(not(target_os = "linux"))]
        Some(_) => None,
        None => SocketAddr::from_pathname(path).ok(),
    }
}

/// The worst news first: what needs a person, what is under way, what is normal.
fn sentence(snapshot: &FleetSnapshot) -> String {
    let text = troubles(snapshot).or_else(|| under_way(snapshot)).unwrap_or_else(|| normal(snapshot));
    // A newline would begin another word to systemd.
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().nth(STATUS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn troubles(snapshot: &FleetSnapshot) -> Option<String> {
    if let Some(why) = &snapshot.store_error {
        return Some(format!("Watching only, no rollbacks: the store takes no writes ({why})."));
    }
    if let Some(EngineState::Unreachable { why }) = &snapshot.engine {
        return Some(format!("Cannot see anything: the Docker Engine does not answer ({why})."));
    }
    if let Some(why) = &snapshot.flags.stuck {
        return Some(format!("All automatic rollbacks have stopped: {why}. To go on: backstop resume"));
    }
    let stuck = named(snapshot, |service| service.state == State::Stuck)?;
    Some(format!("A person is needed for {stuck}. See: backstop status"))
}

fn under_way(snapshot: &FleetSnapshot) -> Option<String> {
    let all_paused = snapshot.flags.paused.as_ref();
    named(snapshot, |service| service.state.in_flight())
        .map(|names| format!("Rolling back {names}."))
        .or_else(|| all_paused.map(|pause| format!("Paused by {}: {}.", pause.by, pause.why)))
        .or_else(|| {
            named(snapshot, |service| service.state == State::Suspect)
                .map(|names| format!("Suspicious: {names}."))
        })
        .or_else(|| {
            named(snapshot, |service| service.state == State::Blind)
                .map(|names| format!("Cannot measure {names}."))
        })
}

fn normal(snapshot: &FleetSnapshot) -> String {
    if snapshot.engine.is_none() {
        return "Waiting for the first answer of the Docker Engine.".to_owned();
    }
    let count = |state: State| snapshot.services.iter().filter(|service| service.state == state).count();
    let services = match snapshot.services.len() {
        0 => "Watching no services yet: label containers with backstop.enable=true".to_owned(),
        1 => "Watching 1 service".to_owned(),
        n => format!("Watching {n} services"),
    };
    let parts = [
        (count(State::Trial), "on trial"),
        (count(State::CoolingDown), "cooling down"),
        (count(State::Paused), "paused"),
        (snapshot.refused.len(), "refused"),
    ];
    let parts: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    match (parts.is_empty(), snapshot.services.is_empty()) {
        (true, true) => format!("{services}."),
        (true, false) => format!("{services}, all steady."),
        (false, _) => format!("{services}; {}.", parts.join(", ")),
    }
}

/// The names of the services that are so, if any is.
fn named(snapshot: &FleetSnapshot, so: impl Fn(&ServiceSnapshot) -> bool) -> Option<String> {
    let names: Vec<_> =
        snapshot.services.iter().filter(|service| so(service)).map(|service| service.name.as_str()).collect();
    let shown = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(NAMED_MAX) {
        _ if names.is_empty() => None,
        None | Some(0) => Some(shown),
        Some(more) => Some(format!("{shown} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ledger::{Flags, Pause};
    use crate::core::release::ServiceName;
    use crate::core::settings::{FleetSettings, ServiceSettings};

    struct Listener {
        _directory: tempfile::TempDir,
        socket: UnixDatagram,
        path: OsString,
    }

    impl Listener {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self { _directory: directory, socket, path: path.into_os_string() }
        }

        /// All that was said.
        fn heard(&self) -> Vec<String> {
            let mut buffer = [0; 4096];
            let next =
                || self.socket.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into());
            std::iter::from_fn(next).collect()
        }
    }

    fn service(name: &str, state: State) -> ServiceSnapshot {
        ServiceSnapshot {
            name: ServiceName::new(name),
            settings: Arc::new(ServiceSettings::default()),
            state,
            since: Timestamp::default(),
            sentence: String::new(),
            current: None,
            deployed: None,
            target: None,
            downgrade: None,
            replicas: Vec::new(),
            ledger: Vec::new(),
            availability: Default::default(),
            rows: Vec::new(),
            gates: Vec::new(),
            last_decision: None,
            rollback: None,
            pin: None,
            window: None,
            flags: Flags::default(),
            samples: Vec::new(),
        }
    }

    fn fleet(services: Vec<ServiceSnapshot>) -> FleetSnapshot {
        FleetSnapshot {
            at: Timestamp::default(),
            settings: FleetSettings::default(),
            engine: Some(EngineState::Reachable { restarted: false }),
            looked: true,
            engines: Vec::new(),
            store_error: None,
            flags: Flags::default(),
            services,
            refused: Vec::new(),
        }
    }

    #[test]
    fn says_each_thing_in_systemds_words() {
        let listener = Listener::new();
        let systemd = Systemd::new(Clock::start(), Some(listener.path.clone()), None);
        systemd.ready();
        systemd.reloading();
        systemd.stopping(Duration::from_secs(55));
        let heard = listener.heard();
        assert_eq!(heard[0], "READY=1\n");
        assert!(heard[1].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{}", heard[1]);
        assert!(heard[2].starts_with("STOPPING=1\nSTATUS=Stopping: "), "{}", heard[2]);
        assert_eq!(heard[3], "EXTEND_TIMEOUT_USEC=55000000\n");
        assert_eq!(heard.len(), 4);
    }

    #[test]
    fn a_turn_feeds_the_watchdog_and_no_more_often_than_needed() {
        let listener = Listener::new();
        let systemd =
            Systemd::new(Clock::start(), Some(listener.path.clone()), Some(Duration::from_secs(3600)));
        for _ in 0..100 {
            systemd.alive();
        }
        assert_eq!(listener.heard(), ["WATCHDOG=1\n"]);
        let eager = Systemd::new(Clock::start(), Some(listener.path.clone()), Some(Duration::ZERO));
        eager.alive();
        eager.alive();
        assert_eq!(listener.heard().len(), 2, "due again at once");
        let unwatched = Systemd::new(Clock::start(), Some(listener.path.clone()), None);
        unwatched.alive();
        assert!(listener.heard().is_empty());
    }

    #[test]
    fn a_status_is_said_when_it_changes() {
        let listener = Listener::new();
        let systemd = Systemd::new(Clock::start(), Some(listener.path.clone()), None);
        systemd.status(&fleet(Vec::new()));
        systemd.status(&fleet(Vec::new()));
        systemd.status(&fleet(vec![service("web", State::Steady)]));
        assert_eq!(
            listener.heard(),
            [
                "STATUS=Watching no services yet: label containers with backstop.enable=true.\n",
                "STATUS=Watching 1 service, all steady.\n"
            ]
        );
    }

    #[test]
    fn silence_where_nobody_listens() {
        for socket in
            [None, Some("/nonexistent/notify".into()), Some("".into()), Some("@backstop-nobody".into())]
        {
            let systemd = Systemd::new(Clock::start(), socket, Some(Duration::ZERO));
            systemd.ready();
            systemd.alive();
            systemd.status(&fleet(Vec::new()));
        }
    }

    #[test]
    fn a_listener_that_does_not_read_holds_nobody_up() {
        let listener = Listener::new();
        let systemd = Systemd::new(Clock::start(), Some(listener.path.clone()), Some(Duration::ZERO));
        // More than any socket's queue.
        for _ in 0..5000 {
            systemd.alive();
        }
        assert!(!listener.heard().is_empty());
    }

    #[test]
    fn the_worst_comes_first() {
        let paused =
            Pause { by: "eve".into(), why: "database move".into(), since: Timestamp::default(), until: None };
        let services = |states: &[State]| {
            let all = states.iter().enumerate().map(|(n, state)| service(&format!("s{n}"), *state));
            fleet(all.collect())
        };
        use State::{CoolingDown, RollingBack, Steady, Stuck, Suspect, Trial, Verifying};
        let mut cases = vec![
            (services(&[Steady, Steady]), "Watching 2 services, all steady."),
            (services(&[Steady, Trial, CoolingDown]), "Watching 3 services; 1 on trial, 1 cooling down."),
            (services(&[Steady, Suspect]), "Suspicious: s1."),
            (services(&[Suspect, RollingBack, Verifying]), "Rolling back s1, s2."),
            (services(&[Stuck, RollingBack]), "A person is needed for s0. See: backstop status"),
            (services(&[Suspect; 5]), "Suspicious: s0, s1, s2 and 2 more."),
        ];
        let mut stopped = services(&[Suspect]);
        stopped.flags.paused = Some(paused);
        cases.push((stopped.clone(), "Paused by eve: database move."));
        stopped.flags.stuck = Some("5 rollbacks in 1h".into());
        cases.push((
            stopped.clone(),
            "All automatic rollbacks have stopped: 5 rollbacks in 1h. To go on: backstop resume",
        ));
        stopped.engine = Some(EngineState::Unreachable { why: "no\nsocket".into() });
        cases.push((stopped.clone(), "Cannot see anything: the Docker Engine does not answer (no socket)."));
        stopped.store_error = Some("disk full".into());
        let expected = "Watching only, no rollbacks: the store takes no writes (disk full).";
        cases.push((stopped, expected));
        for (snapshot, expected) in cases {
            assert_eq!(sentence(&snapshot), expected);
        }
        let long = fleet(vec![service(&"x".repeat(500), Stuck)]);
        assert!(sentence(&long).len() <= STATUS_MAX + 3);
    }
}
