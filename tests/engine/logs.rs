//! Container logs as a real engine hands them out: what is followed is what was written, whatever it was, and through
//! restarts of container and engine no line is lost or counted twice.

use std::sync::Arc;

use backstop::clock::Clock;
use backstop::core::release::ReplicaId;
use backstop::core::sample::{Measurement, Signal};
use backstop::core::settings::LogSource;
use backstop::runtime::engine::Engine;
use backstop::runtime::logs::EngineLogs;
use backstop::signal::Probe;
use backstop::signal::logs::{EngineTime, Following, LINE_MAX, LogLine, LogProbe, LogStreams, Unfollowed};
use futures_util::StreamExt;
use tokio::runtime::Runtime;

use crate::support::{Bed, Image, eventually, seconds};

/// The shell of this machine, for containers whose image holds nothing but Backstop.
const SHELL: [&str; 10] = [
    "-v",
    "/usr:/usr:ro",
    "-v",
    "/bin:/bin:ro",
    "-v",
    "/lib:/lib:ro",
    "-v",
    "/lib64:/lib64:ro",
    "--entrypoint",
    "/bin/sh",
];

struct Stage {
    tokio: Runtime,
    logs: Arc<EngineLogs>,
    bed: Bed,
}

impl Stage {
    fn set() -> Self {
        let bed = Bed::lease();
        bed.image("shop:v1", &Image::demo("v1"));
        let engine = Arc::new(Engine::connect(&format!("unix://{}", bed.socket())).unwrap());
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { tokio, logs: Arc::new(EngineLogs::new(engine, Arc::default())), bed }
    }

    /// A container that runs `script`; gives its id.
    fn run(&self, options: &[&str], script: &str) -> ReplicaId {
        let before = ["run", "-d", "--init"];
        let all = [&before[..], options, &SHELL, &["shop:v1", "-c", script]].concat();
        ReplicaId::new(self.bed.docker(&all))
    }

    /// Have it write, by its main process' own file descriptors.
    fn write(&self, replica: &ReplicaId, script: &str) {
        self.bed.docker(&[
            "exec",
            replica.as_str(),
            "/bin/sh",
            "-c",
            &format!("exec >/proc/1/fd/1; {script}"),
        ]);
    }

    fn follow(&self, replica: &ReplicaId, since: Option<EngineTime>) -> Result<Following, Unfollowed> {
        self.tokio.block_on(self.logs.follow(replica, since))
    }

    /// The next `count` lines.
    fn lines(&self, following: &mut Following, count: usize) -> Vec<LogLine> {
        let read = following.lines.by_ref().take(count).map(Result::unwrap).collect();
        self.tokio.block_on(async { tokio::time::timeout(seconds(60), read).await }).expect("lines in time")
    }

    /// Whatever was counted since the last measurement, added up until it is `wanted`.
    #[track_caller]
    fn counts(&self, probe: &LogProbe, wanted: u64) {
        let mut sum = 0;
        let mut seen = String::new();
        eventually(seconds(60), &format!("{wanted} error lines"), || {
            for (signal, measurement) in self.tokio.block_on(probe.measure()) {
                assert_eq!(signal, Signal::Logs);
                seen = format!("{measurement:?}");
                if let Measurement::Count { count, .. } = measurement {
                    sum += count;
                }
            }
            if sum >= wanted { Ok(()) } else { Err(format!("{sum}, {seen}")) }
        });
        assert_eq!(sum, wanted, "some were counted twice");
    }
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_log_is_followed_line_by_line_whatever_is_in_it() {
    let stage = Stage::set();
    let shop = stage.run(&[], "exec sleep 1000");
    stage.write(&shop, "echo before");
    // The engine has read it: it cannot come late, and be taken for a line that came after.
    eventually(seconds(60), "it is written", || match stage.bed.docker(&["logs", shop.as_str()]) {
        log if log.contains("before") => Ok(()),
        log => Err(log),
    });
    let mut following = stage.follow(&shop, None).unwrap();
    assert!(following.opened.is_some(), "the engine tells the time");
    stage.write(&shop, "echo ERROR one; echo two >/proc/1/fd/2");
    let lines = stage.lines(&mut following, 2);
    // Two streams, which the engine reads one beside the other: either may be first.
    let mut told = texts(&lines);
    told.sort_unstable();
    assert_eq!(told, ["ERROR one", "two"], "and nothing from before");
    assert!(lines.iter().all(|line| line.at >= following.opened), "{lines:?}");

    stage.write(&shop, r"head -c 1000000 /dev/zero | tr '\0' x; echo; printf '\377\000\376\n'; echo end");
    let lines = stage.lines(&mut following, 3);
    assert_eq!((lines[0].text.len(), lines[0].cut), (LINE_MAX, true), "a line of a megabyte is one line");
    assert!(lines[0].text.bytes().all(|b| b == b'x'), "no time of the engine stands in it");
    assert_eq!(texts(&lines[1..]), ["\u{fffd}\0\u{fffd}", "end"]);

    // From a moment on: that moment included, and all that came since.
    let mut again = stage.follow(&shop, lines[1].at).unwrap();
    assert_eq!(stage.lines(&mut again, 2), lines[1..]);

    // It ends with the container, and what it wrote can be had after that.
    stage.bed.docker(&["kill", shop.as_str()]);
    assert!(stage.tokio.block_on(following.lines.next()).is_none());
    let mut after = stage.follow(&shop, lines[1].at).unwrap();
    assert_eq!(stage.lines(&mut after, 9), lines[1..]);
    stage.bed.docker(&["rm", shop.as_str()]);
    let gone = stage.follow(&shop, None).unwrap_err();
    assert!(matches!(&gone, Unfollowed::NotNow(why) if why.contains("No such container")), "{gone:?}");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_terminal_is_followed_too() {
    let stage = Stage::set();
    let shop = stage.run(&["-t"], "exec sleep 1000");
    let mut following = stage.follow(&shop, None).unwrap();
    stage.write(&shop, r"printf '\033[31mERROR\033[0m one\n'; echo two");
    let lines = stage.lines(&mut following, 2);
    assert_eq!(texts(&lines), ["\u{1b}[31mERROR\u{1b}[0m one", "two"]);
    assert!(lines.iter().all(|line| line.at >= following.opened));
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_log_that_nobody_keeps_says_what_to_change() {
    let stage = Stage::set();
    let none: &[&str] = &["--log-driver", "none"];
    let elsewhere: &[&str] = &[
        "--log-driver",
        "syslog",
        "--log-opt",
        "syslog-address=udp://127.0.0.1:9",
        "--log-opt",
        "cache-disabled=true",
    ];
    for options in [none, elsewhere] {
        let shop = stage.run(options, "exec sleep 1000");
        let refused = stage.follow(&shop, None).unwrap_err();
        let Unfollowed::Never(why) = &refused else { panic!("{refused:?}") };
        assert!(why.contains(options[1]) && why.contains("--log-driver local"), "{why}");
    }
    // What goes elsewhere is kept by the engine as well, unless somebody forbids it.
    for options in [&elsewhere[..4], &["--log-driver", "local"]] {
        let shop = stage.run(options, "exec sleep 1000");
        let mut following = stage.follow(&shop, None).unwrap();
        stage.write(&shop, "echo one");
        let lines = stage.lines(&mut following, 1);
        assert_eq!(texts(&lines), ["one"]);
        // Their files know the time as exactly as the others.
        stage.write(&shop, "echo two");
        let mut again = stage.follow(&shop, lines[0].at).unwrap();
        assert_eq!(texts(&stage.lines(&mut again, 2)), ["one", "two"]);
    }
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn through_restarts_each_line_is_counted_once() {
    let stage = Stage::set();
    let shop = stage.run(&["--restart", "always"], "echo ERROR on start; exec sleep 1000");
    eventually(seconds(60), "it has started", || match stage.bed.docker(&["logs", shop.as_str()]) {
        log if log.contains("on start") => Ok(()),
        log => Err(log),
    });
    let streams = Arc::clone(&stage.logs) as Arc<dyn LogStreams>;
    let probe = {
        let _inside = stage.tokio.enter();
        LogProbe::new(streams, shop.clone(), &LogSource::default(), Clock::start())
    };
    eventually(seconds(60), "it is followed", || match &stage.tokio.block_on(probe.measure())[..] {
        [(_, Measurement::Unavailable { why })] => Err(why.clone()),
        _ => Ok(()),
    });
    stage.write(&shop, "for i in 1 2 3; do echo ERROR $i; echo fine; done");
    stage.counts(&probe, 3);
    stage.bed.docker(&["restart", "-t", "0", shop.as_str()]);
    stage.counts(&probe, 1);
    stage.write(&shop, "echo ERROR 4");
    stage.bed.restart_engine();
    stage.counts(&probe, 2);
    // A line comes after all before it: whatever was still to come would be counted with it.
    stage.write(&shop, "echo ERROR 5");
    stage.counts(&probe, 1);
}
