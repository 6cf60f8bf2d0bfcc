//! How the machine is that we run on: whether anything can be reached from here, and what it is short of. What goes
//! wrong meanwhile is no release's fault.
//!
//! Pressure is the kernel's own account of it (PSI: the share of time in which work stood still for want of something).
//! `/proc/pressure` knows no namespaces: in a container it is the host's too, unless lxcfs or a sandbox puts its own
//! there. It is also a bad release that can bring a machine to its knees, so the lines are where a machine is hardly
//! usable, not where it is busy. The routes are those of our own network namespace, which is what counts for reaching
//! others from here.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::check::tcp::host_and_port;
use crate::clock::Clock;
use crate::core::{HostState, Input};

/// PSI's shortest average is over ten seconds: looking more often shows nothing new.
const INTERVAL: Duration = Duration::from_secs(10);

/// A place on the Internet answers within a tenth of it.
const KNOCK: Duration = Duration::from_secs(3);

/// More places make the answer no better.
const PLACES_MAX: usize = 16;

/// Percent of the last minute in which all work waited for memory. systemd-oomd kills at 60 % for half a minute
/// (oomd.conf(5)): after that, the average over the minute is 24 %.
const MEMORY_FULL: f64 = 24.0;

/// Percent of the last minute in which all work waited for disks. A machine that only writes a backup comes to 50 %
/// without anybody suffering.
const IO_FULL: f64 = 80.0;

/// We ourselves, who want next to nothing, get a CPU only so much later than we asked for it, three times in a row.
/// Neither the load nor the PSI of the CPU tells that: both are high on any busy machine, and the scheduler is fair, so
/// that who wants little still gets it at once: with sixteen tasks for each CPU, health checks were answered in 25 ms.
const CPU_LATE: Duration = Duration::from_millis(500);

/// How we find out: a nap of so long, and when we wake up from it.
const NAP: Duration = Duration::from_millis(10);

/// Without PSI: percent of the memory that is available. Below it, the kernel is about to kill.
const AVAILABLE: f64 = 3.0;

/// Looks at the machine.
#[derive(Debug)]
pub struct HostProbe {
    proc: PathBuf,
    clock: Clock,
    /// A default route was seen: losing it is news, never having had one is a choice.
    had_route: bool,
}

impl HostProbe {
    /// A probe of the machine whose `proc` file system is there.
    pub fn new(proc: impl Into<PathBuf>, clock: Clock) -> Self {
        Self { proc: proc.into(), clock, had_route: false }
    }

    /// Looks every ten seconds, and sends what changed, until nobody listens any more. `places` says where to knock
    /// now.
    pub async fn watch(mut self, inputs: mpsc::Sender<Input>, places: impl Fn() -> Vec<String>) {
        let mut due = tokio::time::interval(INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = HostState::default();
        loop {
            due.tick().await;
            let now = self.look(&places()).await;
            if now != told {
                if inputs.send(Input::Host(now.clone())).await.is_err() {
                    return;
                }
                told = now;
            }
            if inputs.is_closed() {
                return;
            }
        }
    }

    /// How it is now. Bounded in time. What cannot be read is no reason to doubt the machine.
    pub async fn look(&mut self, places: &[String]) -> HostState {
        let (cut_off, pressure) = tokio::join!(knock(places), self.pressure());
        let cut_off = match cut_off {
            Some(knocked) => knocked,
            None => self.route_lost().await,
        };
        HostState { cut_off, pressure }
    }

    async fn read(&self, file: &str) -> Option<String> {
        tokio::fs::read_to_string(self.proc.join(file)).await.ok()
    }

    async fn pressure(&self) -> Option<String> {
        let stood_still = |percent: f64, what: &str, line: f64| {
            format!(
                "{what}: all work stood still for {percent:.0} % of the last minute (from {line:.0} % on)"
            )
        };
        let full = async |file: &str| average(&self.read(file).await?, "full");
        if let Some(percent) = full("pressure/memory").await.filter(|p| *p >= MEMORY_FULL) {
            return Some(stood_still(percent, "memory", MEMORY_FULL));
        }
        if let Some(percent) = full("pressure/io").await.filter(|p| *p >= IO_FULL) {
            return Some(stood_still(percent, "disk", IO_FULL));
        }
        // A kernel before 4.20, or one started with `psi=0`, keeps no such account.
        if self.read("pressure/memory").await.is_none()
            && let Some(percent) = self.available().await.filter(|percent| *percent < AVAILABLE)
        {
            return Some(format!("memory: {percent:.1} % is available (below {AVAILABLE:.0} %)"));
        }
        starved(lateness(self.clock).await)
    }

    /// Percent of the memory that is available.
    async fn available(&self) -> Option<f64> {
        let meminfo = self.read("meminfo").await?;
        let kib = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().split(' ').next()?.parse::<f64>().ok()
        };
        let total = kib("MemTotal:")?;
        (total > 0.0).then_some(100.0 * kib("MemAvailable:")? / total)
    }

    /// Without places to knock at: that there was a way out, and it is gone.
    async fn route_lost(&mut self) -> Option<String> {
        // Of our own namespace by the way of `self`, which a hardened unit may still see.
        let v4 = self.read("self/net/route").await;
        let v6 = self.read("self/net/ipv6_route").await;
        if v4.is_none() && v6.is_none() {
            return None;
        }
        let there = v4.is_some_and(|text| text.lines().any(default_v4))
            || v6.is_some_and(|text| text.lines().any(default_v6));
        self.had_route |= there;
        (self.had_route && !there).then(|| {
            "the default route is gone (`ip route`); `fleet.self_check` says what else to go by".into()
        })
    }
}

/// How late we get a CPU at least, of three times.
async fn lateness(clock: Clock) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let asleep = clock.stopwatch();
        tokio::time::sleep(NAP).await;
        least = least.min(asleep.elapsed().saturating_sub(NAP));
    }
    least
}

fn starved(late: Duration) -> Option<String> {
    (late >= CPU_LATE).then(|| {
        let [late, limit] = [late, CPU_LATE].map(|span| span.as_millis());
        format!("CPU: it comes {late} ms after it is asked for (from {limit} ms on)")
    })
}

/// Percent over the last minute, from the line `kind` of a pressure file.
fn average(text: &str, kind: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
    line.split(' ').find_map(|word| word.strip_prefix("avg60="))?.parse().ok()
}

/// Of route flags: it is up.
const UP: u32 = 0x1;
/// Of route flags: it leads nowhere.
const REJECT: u32 = 0x200;

/// Columns: interface, destination, gateway, flags, three counters, mask; all in hexadecimal.
fn default_v4(line: &str) -> bool {
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, "00000000", _, flags, _, _, _, "00000000", ..] = columns[..] else {
        return false;
    };
    leads_out(flags)
}

/// Columns: destination, its length, source, its length, next hop, metric, two counters, flags, interface.
fn default_v6(line: &str) -> bool {
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let [destination, "00", _, _, _, _, _, _, flags, interface] = columns[..] else {
        return false;
    };
    destination.bytes().all(|b| b == b'0') && interface != "lo" && leads_out(flags)
}

fn leads_out(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & UP != 0 && flags & REJECT == 0)
}

/// Knocks at all places at once: `None` if there is none, else why we are cut off, if none of them answers.
async fn knock(places: &[String]) -> Option<Option<String>> {
    let places = places.iter().take(PLACES_MAX).filter_map(|place| Some((place, host_and_port(place).ok()?)));
    let knocked = join_all(places.map(|(place, (host, port))| async move {
        answers(&host, port).await.map_err(|why| format!("{place}: {why}"))
    }))
    .await;
    if knocked.is_empty() {
        return None;
    }
    let failed: Option<Vec<String>> = knocked.into_iter().map(Result::err).collect();
    Some(failed.map(|failed| {
        let shown = failed.iter().take(2).map(String::as_str).collect::<Vec<_>>().join("; ");
        let more = if failed.len() > 2 { "; ..." } else { "" };
        format!("none of the {} places of `fleet.self_check` answers ({shown}{more})", failed.len())
    }))
}

/// Whether anybody is there. Who refuses a connection is there.
async fn answers(host: &str, port: u16) -> Result<(), String> {
    match tokio::time::timeout(KNOCK, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e))
            if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) =>
        {
            Ok(())
        }
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("no answer within {} s", KNOCK.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const CALM: &str =
        "some avg10=1.00 avg60=5.00 avg300=2.00 total=1\nfull avg10=0.00 avg60=1.00 avg300=0.00 total=1\n";
    const ROUTE: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
    const NO_ROUTE: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(files: &[(&str, &str)]) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            for folder in ["pressure", "self/net"] {
                std::fs::create_dir_all(machine.0.path().join(folder)).unwrap();
            }
            files.iter().for_each(|(name, text)| machine.write(name, text));
            machine
        }

        fn with_psi(files: &[(&str, &str)]) -> Self {
            let machine =
                Self::new(&["pressure/cpu", "pressure/memory", "pressure/io"].map(|file| (file, CALM)));
            files.iter().for_each(|(name, text)| machine.write(name, text));
            machine
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).unwrap();
        }

        fn probe(&self) -> HostProbe {
            HostProbe::new(self.0.path(), Clock::start())
        }

        async fn pressure(&self) -> Option<String> {
            self.probe().look(&[]).await.pressure
        }
    }

    fn full(percent: &str) -> String {
        format!(
            "some avg10=99.00 avg60=99.00 avg300=9.00 total=1\nfull avg10=0.00 avg60={percent} avg300=0.00 total=1\n"
        )
    }

    #[tokio::test]
    async fn a_calm_machine_and_one_that_tells_nothing_have_no_pressure() {
        assert_eq!(Machine::with_psi(&[]).pressure().await, None);
        assert_eq!(Machine::new(&[]).pressure().await, None);
        assert_eq!(HostProbe::new("/nowhere", Clock::start()).look(&[]).await, HostState::default());
        let odd = Machine::with_psi(&[("pressure/memory", "full avg60=lots\n"), ("pressure/io", "")]);
        assert_eq!(odd.pressure().await, None);
    }

    #[tokio::test]
    async fn memory_and_disks_count_when_all_work_stands_still() {
        for (file, percent, what) in [
            ("pressure/memory", "23.99", None),
            (
                "pressure/memory",
                "24.00",
                Some("memory: all work stood still for 24 % of the last minute (from 24 % on)"),
            ),
            ("pressure/io", "79.90", None),
            (
                "pressure/io",
                "93.40",
                Some("disk: all work stood still for 93 % of the last minute (from 80 % on)"),
            ),
        ] {
            let machine = Machine::with_psi(&[(file, &full(percent))]);
            assert_eq!(machine.pressure().await.as_deref(), what, "{file} {percent}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cpu_counts_only_if_who_wants_little_does_not_get_it() {
        let busy = "some avg10=99.00 avg60=99.00 avg300=99.00 total=1\n";
        let machine = Machine::with_psi(&[("pressure/cpu", busy)]);
        assert_eq!(machine.pressure().await, None, "busy, and everybody gets a turn");
        assert_eq!(lateness(Clock::start()).await, Duration::ZERO);
        assert_eq!(starved(Duration::from_millis(499)), None);
        assert_eq!(
            starved(Duration::from_millis(1234)).unwrap(),
            "CPU: it comes 1234 ms after it is asked for (from 500 ms on)"
        );
    }

    #[tokio::test]
    async fn without_psi_only_the_last_of_the_memory_counts() {
        let machine =
            Machine::new(&[("meminfo", "MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  30 kB\n")]);
        assert_eq!(machine.pressure().await, None);
        machine.write("meminfo", "MemTotal:  1000 kB\nMemAvailable:  29 kB\n");
        assert_eq!(machine.pressure().await.unwrap(), "memory: 2.9 % is available (below 3 %)");
        machine.write("meminfo", "MemTotal:  0 kB\nMemAvailable:  0 kB\n");
        assert_eq!(machine.pressure().await, None);
    }

    #[tokio::test]
    async fn only_a_default_route_that_was_there_can_be_lost() {
        let machine = Machine::new(&[("self/net/route", NO_ROUTE)]);
        let mut probe = machine.probe();
        assert_eq!(probe.look(&[]).await.cut_off, None, "a network without a way out is a choice");
        machine.write("self/net/route", ROUTE);
        assert_eq!(probe.look(&[]).await.cut_off, None);
        machine.write("self/net/route", &ROUTE.replace("0003", "0203"));
        let said = probe.look(&[]).await.cut_off.unwrap();
        assert!(said.contains("the default route is gone") && said.contains("fleet.self_check"), "{said}");
        let zero = "0".repeat(32);
        let v6 = |flags: &str, dev: &str| {
            format!(
                "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 {flags}     {dev}\n"
            )
        };
        machine.write("self/net/ipv6_route", &v6("00200200", "lo"));
        assert!(probe.look(&[]).await.cut_off.is_some(), "the kernel's own dead end");
        machine.write("self/net/ipv6_route", &v6("00450003", "eth0"));
        assert_eq!(probe.look(&[]).await.cut_off, None);
        std::fs::remove_dir_all(machine.0.path().join("self")).unwrap();
        assert_eq!(probe.look(&[]).await.cut_off, None, "not knowing is no news");
    }

    #[tokio::test]
    async fn whoever_answers_shows_that_we_are_not_cut_off() {
        let machine = Machine::new(&[]);
        let mut probe = machine.probe();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = format!("tcp://{}", listener.local_addr().unwrap());
        let nobody = || "https://nobody.invalid/x".to_owned();
        assert_eq!(probe.look(&[nobody(), open.clone()]).await.cut_off, None);
        let said = probe.look(&[nobody(), "tcp://none.invalid:1".into(), nobody()]).await.cut_off.unwrap();
        assert!(
            said.starts_with(
                "none of the 3 places of `fleet.self_check` answers (https://nobody.invalid/x: "
            ),
            "{said}"
        );
        assert!(said.contains("; tcp://none.invalid:1: ") && said.ends_with("; ...)"), "{said}");
        drop(listener);
        assert_eq!(probe.look(&[open]).await.cut_off, None, "who refuses is there");
        assert_eq!(probe.look(&["nonsense".into()]).await.cut_off, None, "nobody to ask");
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_changed_is_told() {
        let machine = Machine::with_psi(&[]);
        let (inputs, mut outputs) = mpsc::channel(8);
        let watch = tokio::spawn(machine.probe().watch(inputs, Vec::new));
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert!(outputs.try_recv().is_err(), "all is well");
        machine.write("pressure/memory", &full("50.00"));
        let Some(Input::Host(state)) = outputs.recv().await else { panic!("nothing was told") };
        assert!(state.pressure.unwrap().starts_with("memory: "));
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert!(outputs.try_recv().is_err(), "nothing changed");
        machine.write("pressure/memory", CALM);
        assert!(matches!(outputs.recv().await, Some(Input::Host(state)) if state == HostState::default()));
        drop(outputs);
        watch.await.unwrap();
    }
}
