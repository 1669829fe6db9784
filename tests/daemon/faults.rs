//! Faults while it is on air. A viewer notes when each picture comes, and at the end every timestamp of the recording is
//! looked at. What each fault cost is printed: `cargo test --test daemon faults -- --nocapture`.

mod net;

use std::{
    env,
    io::{PipeReader, Read as _, pipe},
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{
    end::{Starting, wait_for_handler},
    *,
};
use common::keyframed;

/// Longest time between two pictures that a viewer may see: far more than a busy machine needs, far less than what
/// makes anybody think that the stream is over.
const MOST: Duration = Duration::from_secs(3);

/// Notes when the daemon's pictures come: datagrams, one for each.
struct Viewer {
    port: u16,
    arrivals: Arc<Mutex<Vec<Instant>>>,
    ended: Arc<AtomicBool>,
}

impl Viewer {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let port = socket.local_addr().unwrap().port();
        let (arrivals, ended) = (Arc::<Mutex<Vec<Instant>>>::default(), Arc::<AtomicBool>::default());
        let (noted, over) = (arrivals.clone(), ended.clone());
        let note = move || {
            let mut picture = [0; 4096];
            while !over.load(Ordering::Relaxed) {
                if socket.recv(&mut picture).is_ok() {
                    noted.lock().unwrap().push(Instant::now());
                }
            }
        };
        thread::Builder::new().name("viewer".into()).spawn(note).unwrap();
        Self { port, arrivals, ended }
    }

    /// The output that it watches.
    fn output(&self) -> String {
        format!(
            "[outputs.viewer]\nkind = \"fragment\"\nlaunch = \"videoscale ! videoconvert ! \
             video/x-raw,format=GRAY8,width=16,height=16 ! udpsink host=127.0.0.1 port={} sync=false\"\n\n",
            self.port
        )
    }

    /// The longest time without a picture since then, the time since the last one included.
    fn gap(&self, since: Instant) -> Duration {
        let arrivals = self.arrivals.lock().unwrap();
        let seen = arrivals.iter().copied().filter(|&at| at >= since);
        let times: Vec<_> = [since].into_iter().chain(seen).chain([Instant::now()]).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Memory of a process.
fn resident_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// A daemon on air with a viewer, a recording, and faults at hand.
struct OnAir {
    daemon: Daemon,
    viewer: Viewer,
    bench: Bench,
}

impl OnAir {
    /// `rest` are its sources and whatever else it needs.
    fn start(bench: Bench, head: &str, rest: &str) -> Self {
        Self::start_with(bench, head, rest, &[])
    }

    fn start_with(bench: Bench, head: &str, rest: &str, environment: &[(&str, &str)]) -> Self {
        let viewer = Viewer::new();
        let config = head.to_owned() + rest + &viewer.output() + &to_file("file", &bench.path("out.ts"));
        let runtime = bench.path("run");
        let _ = fs::create_dir(&runtime);
        let fault = bench.path("fault");
        let mut all = vec![("KEYFRAMED_FAULT_FILE", fault.to_str().unwrap())];
        all.extend(environment);
        let daemon = Daemon::start_with(&bench.path("."), &runtime, &config, &all);
        let on_air = Self { daemon, viewer, bench };
        on_air.daemon.wait_live();
        more_frames(&on_air.daemon, "viewer", RATE);
        on_air
    }

    fn on_test_figure() -> Self {
        let bench = bench();
        let head = base(&bench, "cpu");
        Self::start(bench, &head, &figure())
    }

    /// The next key frame fails so.
    fn strike(&self, fault: &str) {
        let fresh = self.bench.path("fault.new");
        fs::write(&fresh, fault).unwrap();
        fs::rename(fresh, self.bench.path("fault")).unwrap();
    }

    fn resident_mib(&self) -> u64 {
        resident_mib(self.daemon.pid())
    }

    /// Waits for animated pictures that were made from now on.
    fn animated(&self) {
        let made = |status: &Value| status["stats"]["key_frames"].as_u64().unwrap();
        let before = made(&self.daemon.call(&["status"]));
        self.daemon.wait("new key frames", |status| status["showing"] == "live" && made(status) > before + 1);
    }

    /// Does something bad, waits until animated pictures come again, and tells what it cost.
    #[track_caller]
    fn survives(&self, name: &str, fault: impl FnOnce()) {
        let (before, began) = (self.resident_mib(), Instant::now());
        fault();
        let over = Instant::now();
        self.animated();
        let (recovered, gap) = (over.elapsed(), self.viewer.gap(began));
        eprintln!(
            "fault: {name}: longest gap {} ms, animated again after {} ms, {before} MiB before, {} MiB after",
            gap.as_millis(),
            recovered.as_millis(),
            self.resident_mib()
        );
        assert!(gap < MOST, "{name}: no picture for {gap:?}\n{}", self.daemon.log());
    }

    /// Ends it: every tick of its time is in the recording.
    #[track_caller]
    fn end(mut self) {
        let status = self.daemon.call(&["status"]);
        self.daemon.stop();
        let log = self.daemon.log();
        assert_eq!(output(&status, "file")["restarts"], 0, "{status:#}\n{log}");
        assert_constant_rate(&self.bench.path("out.ts"));
    }

    fn wait_log(&self, words: &str) {
        self.daemon.wait(words, |_| self.daemon.log().contains(words));
    }
}

#[test]
fn a_generator_that_panics_or_has_no_memory() {
    let _alone = alone();
    let on_air = OnAir::on_test_figure();
    on_air.survives("panic in the generator", || {
        on_air.strike("panic");
        on_air.wait_log("a panic that was asked for");
    });
    assert!(!on_air.daemon.log().contains("animation-lost"), "one key frame is lost, no more");

    on_air.daemon.call(&["params.set", "context_frames=2"]);
    for (has, left) in [(2, "1 context frames"), (1, "0 context frames")] {
        on_air.survives(&format!("out of memory with {has} context frames"), || {
            on_air.strike("memory");
            on_air.wait_log(left);
        });
    }
    let log = on_air.daemon.log();
    assert_eq!(log.matches("memory-short").count(), 2, "{log}");
    // Nothing is left to take away: told as what it is.
    on_air.survives("out of memory with no context", || {
        on_air.strike("memory");
        on_air.wait_log("A key frame failed: CUDA out of memory");
    });
    on_air.end();
}

#[test]
fn a_generator_that_is_slow() {
    let _alone = alone();
    let on_air = OnAir::on_test_figure();
    // The least of some: what else the machine does makes single ones longer.
    let takes = || {
        let last = || on_air.daemon.call(&["status"])["stats"]["generate_ms"].as_f64().unwrap();
        let some = std::iter::repeat_with(|| {
            on_air.animated();
            last()
        });
        some.take(3).fold(f64::INFINITY, f64::min)
    };
    let usual = takes();
    let mut slow = 0.0;
    // A key frame is more than its steps, hence more of them than times.
    on_air.survives("slow key frames", || {
        on_air.daemon.call(&["params.set", "steps=40"]);
        more_frames(&on_air.daemon, "viewer", 5 * RATE);
        slow = takes();
    });
    eprintln!("fault: a key frame took {usual:.0} ms and then {slow:.0} ms");
    assert!(slow >= 20.0 * usual, "{slow:.1} ms are not twenty times {usual:.1} ms");
    on_air.survives("and as before", || {
        on_air.daemon.call(&["params.set", "steps=1"]);
    });
    on_air.end();
}

#[test]
fn outputs_that_block_or_have_no_room() {
    let _alone = alone();
    let on_air = OnAir::on_test_figure();
    let config = fs::read_to_string(on_air.bench.path("keyframed.toml")).unwrap();
    let blocked = "[outputs.blocked]\nkind = \"fragment\"\nlaunch = \"identity sleep-time=60000000 ! fakesink \
                   sync=false\"\n\n";
    on_air.survives("an output that takes nothing", || {
        on_air.daemon.rewrite(&(config.clone() + blocked));
        on_air.daemon.call(&["reload"]);
        let full = |status: &Value| output(status, "blocked")["dropped"].as_u64() > Some(0);
        on_air.daemon.wait("frames that it did not take", full);
    });
    on_air.survives("an output whose disk is full", || {
        on_air.daemon.rewrite(&(config.clone() + &to_file("full", Path::new("/dev/full"))));
        on_air.daemon.call(&["reload"]);
        on_air.daemon.wait("failure", |status| {
            let said = output(status, "full")["last_error"].as_str().unwrap_or_default();
            said.contains("no space is left")
        });
        more_frames(&on_air.daemon, "viewer", 3 * RATE);
    });
    on_air.end();
}

#[test]
fn networks_that_compute_no_numbers() {
    let _alone = alone();
    let bench = bench();
    let (good, broken) = (bench.model().to_owned(), bench.path("broken"));
    fs::create_dir(&broken).unwrap();
    common::overflowing(&broken);
    let head = base(&bench, "cpu");
    let on_air = OnAir::start(bench, &head, &figure());
    let to = |model: &Path| {
        let config = fs::read_to_string(on_air.bench.path("keyframed.toml")).unwrap();
        let (from, to) = if model == broken { (&good, &broken) } else { (&broken, &good) };
        on_air.daemon.rewrite(&config.replace(&format!("{from:?}"), &format!("{to:?}")));
        on_air.daemon.call(&["reload"]);
    };
    on_air.survives("networks whose pictures are no numbers", || {
        to(&broken);
        on_air.wait_log("no finite numbers");
        on_air.wait_log("animation-lost");
        showing(&on_air.daemon, "slate");
        more_frames(&on_air.daemon, "viewer", 2 * RATE);
        to(&good);
    });
    on_air.end();
}

#[test]
fn a_process_that_is_stopped_and_goes_on() {
    let _alone = alone();
    let mut on_air = OnAir::on_test_figure();
    let seconds = env::var("KEYFRAMED_FAULT_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let before = on_air.resident_mib();
    on_air.daemon.signal(libc::SIGSTOP);
    thread::sleep(Duration::from_secs(seconds));
    on_air.daemon.signal(libc::SIGCONT);
    let woken = Instant::now();
    on_air.animated();
    let (recovered, gap) = (woken.elapsed(), on_air.viewer.gap(woken));
    eprintln!(
        "fault: SIGSTOP for {seconds} s: longest gap after it {} ms, animated again after {} ms, {before} MiB \
         before, {} MiB after",
        gap.as_millis(),
        recovered.as_millis(),
        on_air.resident_mib()
    );
    assert!(gap < MOST, "no picture for {gap:?}\n{}", on_air.daemon.log());
    more_frames(&on_air.daemon, "viewer", 2 * RATE);
    on_air.daemon.stop();
    // What nobody could make is missing, once; before and after it every tick is there.
    let Some((all, per_second)) = timestamps(&on_air.bench.path("out.ts")) else { return };
    let period = per_second / RATE as f64;
    let steps = all.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / period);
    let off = steps.clone().filter(|step| (step - step.round()).abs() > 1.5 / period || *step < 0.5).count();
    let gaps: Vec<_> = steps.filter(|step| *step > 1.5).collect();
    assert_eq!(off, 0, "pictures off the grid");
    assert!(gaps.len() <= 1, "{gaps:?}");
}

#[test]
fn a_process_that_is_killed_and_started_again() {
    let _alone = alone();
    let bench = bench();
    let model = format!("model = {:?}", bench.model());
    let config = base(&bench, "cpu").replace(&model, "model = \"mini\"") + &figure();
    let mut daemon = start(&bench, &config);
    daemon.wait_live();
    daemon.signal(libc::SIGKILL);
    assert!(!daemon.wait_killed().success());
    assert!(bench.path("run/keyframed/control.sock").exists(), "nothing was tidied up");
    let killed = Instant::now();
    let mut daemon = start(&bench, &config);
    daemon.wait_live();
    eprintln!("fault: kill -9: animated again {} ms after the new start", killed.elapsed().as_millis());
    daemon.stop();
}

#[test]
fn a_control_socket_that_is_removed() {
    let _alone = alone();
    let on_air = OnAir::on_test_figure();
    let folder = on_air.bench.path("run/keyframed");
    let answers = |what: &str| {
        let began = Instant::now();
        while !on_air.daemon.ctl(&["status"]).output().unwrap().status.success() {
            assert!(began.elapsed() < PATIENCE, "{what}: no answer\n{}", on_air.daemon.log());
            thread::sleep(Duration::from_millis(50));
        }
        eprintln!("fault: {what}: answers again after {} ms", began.elapsed().as_millis());
    };
    on_air.survives("the control socket's file is removed", || {
        fs::remove_file(folder.join("control.sock")).unwrap();
        answers("control socket removed");
    });
    on_air.survives("its whole folder is removed", || {
        fs::remove_dir_all(&folder).unwrap();
        answers("control socket's folder removed");
    });
    on_air.end();
}

/// Starts it with its standard error in a pipe that this returns the reading end of.
fn with_log_pipe(bench: &Bench, config: &str) -> (Starting, PipeReader) {
    fs::write(bench.path("keyframed.toml"), config).unwrap();
    let (reader, writer) = pipe().unwrap();
    // The least: it is soon full.
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut command = keyframed();
    command.args(["run", "-c"]).arg(bench.path("keyframed.toml"));
    command
        .env("XDG_RUNTIME_DIR", bench.path("run"))
        .env("HOME", bench.path("."))
        .env("OMP_NUM_THREADS", "1");
    let _ = fs::create_dir(bench.path("run"));
    let child = command.env_remove("G_DEBUG").stderr(writer).spawn().unwrap();
    (Starting(child), reader)
}

#[test]
fn a_log_that_nobody_reads() {
    let _alone = alone();
    for closed in [true, false] {
        let bench = bench();
        let viewer = Viewer::new();
        let config = base(&bench, "cpu") + &figure() + &viewer.output();
        let (mut daemon, mut log) = with_log_pipe(&bench, &config);
        let mut some = [0; 512];
        assert!(log.read(&mut some).unwrap() > 0);
        wait_for_handler(&daemon.0, libc::SIGHUP);
        let pictures = || viewer.arrivals.lock().unwrap().len() as u64;
        let started = Instant::now();
        while pictures() < RATE {
            assert!(started.elapsed() < PATIENCE, "closed {closed}: no pictures");
            thread::sleep(Duration::from_millis(30));
        }
        let (before, seen) = (resident_mib(daemon.0.id()), pictures());
        // From here on nobody reads.
        let log = (!closed).then_some(log);
        let began = Instant::now();
        while pictures() < seen + 8 * RATE {
            let ended = daemon.0.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "closed {closed}: {ended:?}");
            // It has something to say about each.
            // SAFETY: the process is ours and has not been waited for.
            unsafe { libc::kill(daemon.0.id() as i32, libc::SIGHUP) };
            thread::sleep(Duration::from_millis(30));
        }
        // Not even those who had something to say are stuck.
        let mut reload = Command::new(env!("CARGO_BIN_EXE_keyframedctl"));
        common::succeed(reload.arg("reload").env("XDG_RUNTIME_DIR", bench.path("run")));
        let gap = viewer.gap(began);
        eprintln!(
            "fault: log pipe {}: longest gap {} ms, {before} MiB before, {} MiB after",
            if closed { "closed" } else { "full" },
            gap.as_millis(),
            resident_mib(daemon.0.id())
        );
        assert!(gap < MOST, "closed {closed}: {gap:?}");
        let (status, took) = daemon.end();
        assert!(status.success() && took < PATIENCE, "closed {closed}: {status} after {took:?}");
        drop(log);
    }
}

/// Another program sets the clock on the wall, as far as this process can see.
#[test]
fn a_wall_clock_that_jumps() {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    if !Path::new(LIBRARY).exists() {
        eprintln!("skipped: libfaketime is not installed");
        return;
    }
    let (_alone, bench) = (alone(), bench());
    let clock_file = bench.path("clock");
    fs::write(&clock_file, "+0").unwrap();
    let environment = [
        ("LD_PRELOAD", LIBRARY),
        ("FAKETIME_TIMESTAMP_FILE", clock_file.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let head = base(&bench, "cpu");
    let on_air = OnAir::start_with(bench, &head, &figure(), &environment);
    // What the time of day is by the last line that says so, in minutes.
    let minutes = || {
        let log = on_air.daemon.log();
        let at = |line: &str| {
            Some(line.get(11..13)?.parse::<i64>().ok()? * 60 + line.get(14..16)?.parse::<i64>().ok()?)
        };
        log.lines().rev().find_map(at).unwrap()
    };
    for (seed, (clock, jump)) in [("+3600", 60), ("-3600", -120)].into_iter().enumerate() {
        let before = minutes();
        on_air.survives(&format!("the wall clock at {clock} s"), || {
            fs::write(&clock_file, clock).unwrap();
            more_frames(&on_air.daemon, "viewer", 3 * RATE);
        });
        // It has seen that: its lines say so.
        on_air.daemon.call(&["params.set", &format!("seed={}", seed + 7)]);
        on_air.daemon.wait("line of another hour", |_| {
            (0..10).contains(&(minutes() - before - jump).rem_euclid(24 * 60))
        });
    }
    on_air.end();
}
