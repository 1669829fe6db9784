"""What script/soak does: runs the daemon, steers it, samples it, and judges the samples."""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

RATE = 25
# Seconds between samples, and between references.
SAMPLE, REFERENCE = 5, 10
# What is reached before anything is judged: pools, caches, the first pictures.
WARM_UP = 120

CONFIG = f"""
[video]
width = 256
height = 256
frame_rate_hz = {RATE}

[animation]
reference = "ada"

[sources.figure]
kind = "test-figure"
frame_rate_hz = {RATE}

[pipelines.figure]
source = "figure"

[outputs.watched]
kind = "fragment"
launch = "videoscale ! video/x-raw,width=64,height=64 ! videoconvert ! x264enc tune=zerolatency \
speed-preset=ultrafast key-int-max={RATE} ! h264parse ! mpegtsmux ! filesink location=RECORDING"
"""


def main():
    programs, minutes, out = pathlib.Path(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
    recording = out / "soak.ts"
    runtime = pathlib.Path(tempfile.mkdtemp(prefix="soak-"))
    config = runtime / "keyframed.toml"
    config.write_text(CONFIG.replace("RECORDING", str(recording)))
    environment = dict(os.environ, XDG_RUNTIME_DIR=str(runtime))
    with open(out / "soak.log", "w") as log:
        daemon = subprocess.Popen(
            [programs / "keyframed", "run", "-c", config], env=environment, stdout=log, stderr=log
        )
        try:
            samples = watch(daemon, programs / "keyframedctl", environment, minutes * 60)
        finally:
            daemon.terminate()
            code = daemon.wait(30)
            shutil.rmtree(runtime, ignore_errors=True)
    report = judge(samples, timestamps(recording), code)
    (out / "soak.json").write_text(json.dumps({"report": report, "samples": samples}, indent=1))
    for name, (value, holds) in report.items():
        print(f"{name:<44} {value:>24}   {'' if holds is None else 'holds' if holds else 'DOES NOT HOLD'}")
    return 0 if all(holds is not False for _, holds in report.values()) else 1


def ask(program, environment, *arguments):
    done = subprocess.run([program, *arguments, "--json"], env=environment, capture_output=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{arguments}: {done.stderr.decode()}")
    return json.loads(done.stdout)


def watch(daemon, control, environment, seconds):
    """Samples until the time is over, steering meanwhile."""
    while True:
        try:
            ask(control, environment, "status")
            break
        except RuntimeError:
            if daemon.poll() is not None:
                raise SystemExit("the daemon did not start: see soak.log") from None
            time.sleep(0.2)
    references = [entry["name"] for entry in ask(control, environment, "reference.list")]
    started, changed, number, samples = time.monotonic(), 0.0, 0, []
    while (now := time.monotonic() - started) < seconds:
        if now - changed >= REFERENCE:
            changed, number = now, number + 1
            ask(control, environment, "reference", "set", references[number % len(references)])
            ask(control, environment, "params", "set", f"seed={number}")
            ask(control, environment, "snapshot", "--output", os.devnull) if number % 6 == 0 else None
        status = ask(control, environment, "status")
        samples.append(sample(daemon.pid, now, status["stats"]))
        time.sleep(max(0.0, SAMPLE - (time.monotonic() - started - now)))
    return samples


def sample(pid, now, stats):
    process = pathlib.Path(f"/proc/{pid}")
    lines = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    latency = stats.get("latency_ms") or {}
    return {
        "seconds": now,
        "resident_kib": int(lines["VmRSS"].split()[0]),
        "threads": int(lines["Threads"]),
        "files": len(list((process / "fd").iterdir())),
        "p50_ms": latency.get("p50"),
        "p99_ms": latency.get("p99"),
        **{name: stats[name] for name in ("key_frames", "late", "dropped", "failed", "repeated")},
    }


def timestamps(recording):
    """Pictures in the recording, and how many lie off the grid."""
    probe = "ffprobe -v error -select_streams v:0 -show_entries packet=pts_time -of csv=p=0".split()
    done = subprocess.run([*probe, recording], capture_output=True, check=True)
    times = sorted(float(line.strip(b",")) for line in done.stdout.split())
    # MPEG-TS counts ticks of 1/90000 s and wraps after 26 hours.
    errors = sum(abs(time - times[0] - index / RATE) > 0.5 / RATE for index, time in enumerate(times))
    return len(times), errors


def judge(samples, recorded, code):
    warm = [s for s in samples if s["seconds"] >= WARM_UP] or samples
    part = min(600, (warm[-1]["seconds"] - warm[0]["seconds"]) / 3)
    first = [s for s in warm if s["seconds"] <= warm[0]["seconds"] + part]
    last = [s for s in warm if s["seconds"] >= warm[-1]["seconds"] - part]
    of = lambda some, name: statistics.median(s[name] for s in some if s[name] is not None)
    resident, most = [of(part, "resident_kib") / 1024 for part in (first, last)], max(s["resident_kib"] for s in samples)
    p99 = [of(part, "p99_ms") for part in (first, last)]
    pictures, errors = recorded
    end, length = samples[-1], samples[-1]["seconds"]
    growth = lambda name: max(s[name] for s in last) - max(s[name] for s in first)
    return {
        "minutes": (f"{length / 60:.1f}", None),
        "pictures, and off the grid": (f"{pictures}, {errors}", errors == 0 and pictures >= RATE * (length - 2)),
        "key frames a second": (f"{end['key_frames'] / length:.2f}", None),
        "late, given up, failed": (f"{end['late']}, {end['dropped']}, {end['failed']}", end["failed"] == 0),
        "resident MiB, first and last part": (f"{resident[0]:.0f}, {resident[1]:.0f}", resident[1] <= resident[0] * 1.02),
        "most resident MiB": (f"{most / 1024:.0f}", None),
        "p50 ms, first and last part": (f"{of(first, 'p50_ms'):.0f}, {of(last, 'p50_ms'):.0f}", None),
        "p99 ms, first and last part": (f"{p99[0]:.0f}, {p99[1]:.0f}", p99[1] <= p99[0] * 1.1),
        "more threads at the end": (str(growth("threads")), growth("threads") <= 0),
        "more open files at the end": (str(growth("files")), growth("files") <= 0),
        "exit code after SIGTERM": (str(code), code == 0),
    }


sys.exit(main())
