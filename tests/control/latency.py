"""Times requests of a foreign client. Usage: latency.py CONTROL SECONDS. Prints JSON: milliseconds by percentile."""

import json
import sys
import time

import zmq

socket = zmq.Context().socket(zmq.REQ)
socket.linger = 0
socket.rcvtimeo = 60_000
socket.connect(sys.argv[1])
calls = [
    {"jsonrpc": "2.0", "id": 1, "method": "status"},
    {"jsonrpc": "2.0", "id": 2, "method": "params.get"},
    {"jsonrpc": "2.0", "id": 3, "method": "params.set", "params": {"seed": 1}},
]
took = {call["method"]: [] for call in calls}
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    for call in calls:
        began = time.monotonic()
        socket.send(json.dumps(call).encode())
        assert "result" in json.loads(socket.recv())
        took[call["method"]].append((time.monotonic() - began) * 1e3)
        time.sleep(0.01)


def at(times, share):
    return round(sorted(times)[min(len(times) - 1, int(len(times) * share))], 2)


print(json.dumps({
    method: {"count": len(t), "p50": at(t, 0.5), "p95": at(t, 0.95), "p99": at(t, 0.99), "max": at(t, 1)}
    for method, t in took.items()
}))
