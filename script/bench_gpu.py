"""Joins the results of script/bench-gpu: one JSON file and one table.

    bench_gpu.py RESULTS "NAME, DRIVER, MEMORY, COMPUTE CAPABILITY" OUT
"""

import json
import pathlib
import sys


def row(cost):
    tflops = cost["gflop_per_s"] / 1e3
    share = 100 * cost["share_of_peak"]
    return f"  {cost['name']:22} {cost['gflop']:10.1f} {cost['median_ms']:9.2f} {tflops:9.1f} {share:6.0f}%"


def table(gpu, runs, missing):
    lines = [f"{gpu['name']}, driver {gpu['driver']}, {gpu['memory']}, compute capability {gpu['compute_capability']}"]
    best = max((run["key_frames_per_s"] for run in runs.values()), default=0)
    width = max(map(len, runs), default=0)
    lines += ["", f"{'':{width}} {'key frames/s':>13} {'ms':>8} {'GFLOP':>8} {'TFLOP/s':>8} {'GiB':>6}"]
    for name, run in runs.items():
        frame, memory = run["key_frame"], run["device_memory"] or {"taken_bytes": 0}
        lines.append(
            f"{name:{width}} {run['key_frames_per_s']:13.1f} {frame['median_ms']:8.2f} {frame['gflop']:8.0f}"
            f" {frame['gflop_per_s'] / 1e3:8.1f} {memory['taken_bytes'] / 2**30:6.1f}"
            + (" best" if run["key_frames_per_s"] == best else "")
            + (" (no graph could be made)" if name.endswith("-graph") and not run["cuda_graph"] else "")
        )
    lines += [f"{name} failed" for name in missing]
    for name, run in runs.items():
        peak = run["peak_gflop_per_s"] / 1e3
        lines += ["", f"{name}: {run['width']}x{run['height']}, {run['steps']} steps, {run['context_frames']} context"
                  f" frames, {run['dtype']}; convolutions reach {peak:.0f} TFLOP/s",
                  f"  {'':22} {'GFLOP':>10} {'ms':>9} {'TFLOP/s':>9} {'peak':>7}"]
        lines += [row(cost) for cost in [*run["networks"], run["key_frame"], *run["in_betweens"]]]
    return "\n".join(lines) + "\n"


def main():
    results, described, out = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
    gpu = dict(zip(["name", "driver", "memory", "compute_capability"], map(str.strip, described.split(","))))
    order = (results / "order").read_text().split()
    files = {name: results / f"{name}.json" for name in order}
    runs = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    missing = [name for name in order if name not in runs]
    (out / "bench-gpu.json").write_text(json.dumps({"gpu": gpu, "runs": runs, "failed": missing}, indent=1) + "\n")
    text = table(gpu, runs, missing)
    (out / "bench-gpu.txt").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
