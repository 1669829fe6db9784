"""What script/soak does: runs the daemon, steers it, samples it, and judges the samples."""

import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

RATE = 25
# Seconds between samples, and between references.
SAMPLE, REFERENCE = 5, 10
# What is reached before memory and times are judged: pools, caches, the first pictures.
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
    # Whoever ends it early gets what there is until then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    recording, record = out / "soak.ts", {"samples": [], "references": []}
    try:
        code = run(programs, minutes * 60, out, recording, record)
        report = judge(record["samples"], record["references"], timestamps(recording), code)
        record["report"] = report
    finally:
        (out / "soak.json").write_text(json.dumps(record, indent=1))
    for name, (value, holds) in report.items():
        print(f"{name:<44} {value:>24}   {'' if holds is None else 'holds' if holds else 'DOES NOT HOLD'}")
    return 0 if all(holds is not False for _, holds in report.values()) else 1


def run(programs, seconds, out, recording, record):
    """Runs the daemon for that long and returns its exit code."""
    runtime = pathlib.Path(tempfile.mkdtemp(prefix="soak-"))
    config = runtime / "keyframed.toml"
    config.write_text(CONFIG.replace("RECORDING", str(recording)))
    environment = dict(os.environ, XDG_RUNTIME_DIR=str(runtime))
    with open(out / "soak.log", "w") as log:
        daemon = subprocess.Popen(
            [programs / "keyframed", "run", "-c", config], env=environment, stdout=log, stderr=log
        )
        try:
            watch(daemon, programs / "keyframedctl", environment, seconds, record)
        finally:
            daemon.terminate()
            code = daemon.wait(30)
            shutil.rmtree(runtime, ignore_errors=True)
    return code


def ask(program, environment, *arguments):
    done = subprocess.run([program, *arguments, "--json"], env=environment, capture_output=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{arguments}: {done.stderr.decode()}")
    return json.loads(done.stdout)


def watch(daemon, control, environment, seconds, record):
    """Samples until the time is over, steering meanwhile."""
    while True:
        try:
            ask(control, environment, "status")
            break
        except RuntimeError:
            if daemon.poll() is not None:
                raise SystemExit("the daemon did not start: see soak.log") from None
            time.sleep(0.2)
    choices = [entry["name"] for entry in ask(control, environment, "reference.list")]
    assert len(choices) > 1, f"no two references to change between: {choices}"
    references, started, changed = record["references"], time.monotonic(), 0.0
    while (now := time.monotonic() - started) < seconds:
        status = ask(control, environment, "status")
        record["samples"].append(sample(daemon.pid, now, status))
        # It says what key frames are made of, not what was asked for.
        if references and references[-1]["seen"] is None and status.get("reference") == references[-1]["path"]:
            references[-1]["seen"] = now
        if now - changed >= REFERENCE:
            changed, number = now, len(references) + 1
            set_to = ask(control, environment, "reference", "set", choices[number % len(choices)])
            references.append({"seconds": now, "path": set_to["path"], "seen": None})
            ask(control, environment, "params", "set", f"seed={number}")
            ask(control, environment, "snapshot", "--output", os.devnull) if number % 6 == 0 else None
        time.sleep(max(0.0, SAMPLE - (time.monotonic() - started - now)))


def sample(pid, now, status):
    process = pathlib.Path(f"/proc/{pid}")
    lines = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    stats = status["stats"]
    latency = stats.get("latency_ms") or {}
    return {
        "seconds": now,
        "showing": status["showing"],
        "reference": status.get("reference"),
        "resident_kib": int(lines["VmRSS"].split()[0]),
        "threads": int(lines["Threads"]),
        "files": len(list((process / "fd").iterdir())),
        "p50_ms": latency.get("p50"),
        "p99_ms": latency.get("p99"),
        **{name: stats[name] for name in ("key_frames", "late", "dropped", "failed", "repeated")},
    }


def timestamps(recording):
    """Pictures in the recording, how many lie off the grid, and how many are not later than the one before."""
    probe = "ffprobe -v error -select_streams v:0 -show_entries packet=pts_time -of csv=p=0".split()
    done = subprocess.run([*probe, recording], capture_output=True, check=True)
    # In the order of the file, which without B-frames is that of the pictures.
    times = [float(line.strip(b",")) for line in done.stdout.split()]
    # MPEG-TS counts ticks of 1/90000 s and wraps after 26 hours.
    errors = sum(abs(time - times[0] - index / RATE) > 0.5 / RATE for index, time in enumerate(times))
    misplaced = sum(later <= time for time, later in zip(times, times[1:]))
    return len(times), errors, misplaced


def judge(samples, references, recorded, code):
    warm = [s for s in samples if s["seconds"] >= WARM_UP] or samples
    part = min(600, (warm[-1]["seconds"] - warm[0]["seconds"]) / 3)
    first = [s for s in warm if s["seconds"] <= warm[0]["seconds"] + part]
    last = [s for s in warm if s["seconds"] >= warm[-1]["seconds"] - part]
    of = lambda some, name, by=statistics.median: by(s[name] for s in some if s[name] is not None)
    resident, most = [of(part, "resident_kib") / 1024 for part in (first, last)], max(s["resident_kib"] for s in samples)
    # Each is over the 512 pictures before. Their mean has every tail in it; a median would leave out up to half of
    # them, and two maxima compare one hiccup of the machine with another. The maxima are shown.
    p99, worst = [[of(part, "p99_ms", by) for part in (first, last)] for by in (statistics.mean, max)]
    pictures, errors, misplaced = recorded
    end, length = samples[-1], samples[-1]["seconds"]
    growth = lambda name: max(s[name] for s in last) - max(s[name] for s in first)
    # Once there are animated pictures they stay, and none lasts from one sample to the next.
    on_air = next((samples[n:] for n, s in enumerate(samples) if s["showing"] == "live"), [])
    dark = sum(s["showing"] != "live" for s in on_air)
    still = sum(b["key_frames"] <= a["key_frames"] for a, b in zip(on_air, on_air[1:]))
    # The last one may not have had its time.
    due = [r for r in references if r["seconds"] + REFERENCE <= length]
    unseen = sum(r["seen"] is None for r in due)
    took = max((r["seen"] - r["seconds"] for r in due if r["seen"] is not None), default=0)
    two = lambda values: ", ".join(f"{value:.0f}" for value in values)
    return {
        "minutes": (f"{length / 60:.1f}", None),
        "pictures, off the grid, out of order": (
            f"{pictures}, {errors}, {misplaced}",
            errors == misplaced == 0 and pictures >= RATE * (length - 2),
        ),
        "samples, not animated after the first": (
            f"{len(samples)}, {dark}",
            bool(on_air) and on_air[0]["seconds"] < WARM_UP and dark == 0,
        ),
        "key frames a second": (f"{end['key_frames'] / length:.2f}", None),
        "samples without a new key frame": (str(still), len(on_air) > 1 and still == 0),
        "references, not in use after ten seconds": (f"{len(due)}, {unseen}", bool(due) and unseen == 0),
        "longest until one was seen in use, s": (f"{took:.0f}", None),
        "late, given up, failed": (f"{end['late']}, {end['dropped']}, {end['failed']}", end["failed"] == 0),
        "resident MiB, first and last part": (two(resident), resident[1] <= resident[0] * 1.02),
        "most resident MiB": (f"{most / 1024:.0f}", None),
        "p50 ms, first and last part": (two([of(first, "p50_ms"), of(last, "p50_ms")]), None),
        "p99 ms, mean of first and last part": (two(p99), p99[1] <= p99[0] * 1.1),
        "p99 ms, most in first and last part": (two(worst), None),
        "more threads at the end": (str(growth("threads")), growth("threads") <= 0),
        "more open files at the end": (str(growth("files")), growth("files") <= 0),
        "exit code after SIGTERM": (str(code), code == 0),
    }


sys.exit(main())
