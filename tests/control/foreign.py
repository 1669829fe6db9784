"""A client that shares no code with keyframed: pyzmq, which is libzmq.

Usage: foreign.py CONTROL TELEMETRY [TOKEN]. Prints what it tried; an assertion ends it.
"""

import json
import sys
import time

import zmq
from zmq.utils.monitor import recv_monitor_message

CONTROL, TELEMETRY = sys.argv[1:3]
TOKEN = sys.argv[3].encode() if len(sys.argv) > 3 else None
PATIENCE_MS = 60_000
context = zmq.Context()


def connect(kind, endpoint=CONTROL):
    socket = context.socket(kind)
    socket.linger = 0
    socket.rcvtimeo = PATIENCE_MS
    socket.sndtimeo = PATIENCE_MS
    socket.connect(endpoint)
    return socket


def send(socket, body, envelope=()):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    socket.send_multipart([*envelope, *([TOKEN] if TOKEN else []), text])


def request(method, params=None, id=1):
    call = {"jsonrpc": "2.0", "method": method, "id": id}
    return call if params is None else {**call, "params": params}


def ask(socket, body):
    send(socket, body)
    return json.loads(socket.recv())


def result(socket, method, params=None):
    reply = ask(socket, request(method, params))
    assert "error" not in reply, reply
    return reply["result"]


def error(socket, body, code, *words):
    reply = ask(socket, body)
    assert reply["error"]["code"] == code, reply
    for word in words:
        assert word in reply["error"]["message"], (word, reply)
    return reply


def envelopes():
    req = connect(zmq.REQ)
    assert ask(req, request("status", id="x"))["id"] == "x"
    dealer = connect(zmq.DEALER)
    for envelope in ([], [b""], [b"hop", b""], [b"a", b"b", b""]):
        send(dealer, request("params.get", id=7), envelope)
        *back, text = dealer.recv_multipart()
        assert back == envelope, (back, envelope)
        assert json.loads(text)["id"] == 7
    for i in range(200):
        send(dealer, request("params.get", id=i))
    ids = {json.loads(dealer.recv())["id"] for _ in range(200)}
    assert ids == set(range(200))


def through_a_proxy():
    """A ROUTER in between, as `zmq.proxy` makes it: the envelope has its identities."""
    front = context.socket(zmq.ROUTER)
    front.bind("inproc://front")
    back = connect(zmq.DEALER)
    client = context.socket(zmq.REQ)
    client.rcvtimeo = PATIENCE_MS
    client.connect("inproc://front")
    send(client, request("status"))
    back.send_multipart(front.recv_multipart())
    front.send_multipart(back.recv_multipart())
    assert json.loads(client.recv())["result"]["pid"] > 0


def batches():
    dealer = connect(zmq.DEALER)
    replies = ask(dealer, [
        {"jsonrpc": "2.0", "method": "params.set", "params": {"seed": 41}},
        request("params.get", id=1),
        request("nonsense", id=2),
        5,
    ])
    assert len(replies) == 3, replies
    assert replies[0]["result"]["seed"] == 41
    assert replies[1]["error"]["code"] == -32601
    assert replies[2] == {"jsonrpc": "2.0", "id": None, "error": replies[2]["error"]}
    error(dealer, [], -32600, "empty batch")
    error(dealer, [request("status")] * 65, -32600, "at most 64")
    # Notifications are carried out and not answered: the next answer belongs to the next request.
    send(dealer, {"jsonrpc": "2.0", "method": "params.set", "params": {"seed": 42}})
    send(dealer, [{"jsonrpc": "2.0", "method": "nonsense"}])
    send(dealer, {"jsonrpc": "2.0", "method": "params.set", "params": [1]})
    send(dealer, [{"jsonrpc": "2.0", "method": "params.set", "params": [1]}])
    deadline = time.monotonic() + PATIENCE_MS / 1e3
    while result(dealer, "params.get")["seed"] != 42:
        assert time.monotonic() < deadline
    assert ask(dealer, request("params.get", id=99))["id"] == 99


def refusals():
    s = connect(zmq.REQ)
    error(s, b"{", -32700)
    error(s, b"", -32700)
    error(s, b"[" * 60_000, -32700, "recursion")
    error(s, b"\xff\xfe\x00", -32700)
    error(s, {"jsonrpc": "1.0", "method": "status", "id": 1}, -32600, "2.0")
    error(s, {"jsonrpc": "2.0", "id": 1}, -32600, "method")
    error(s, request("stauts"), -32601, 'did you mean "status"')
    error(s, request("x" * 30_000), -32601)
    error(s, request("status", {"a": 1}), -32602, "takes none")
    error(s, request("status", [1]), -32602, "by name")
    assert "result" in ask(s, request("status", []))
    before = result(s, "params.get")
    for params, words in [
        ({"lambda": 7}, ["`lambda`", "from 0 to 1", "not 7"]),
        ({"lambda": -0.1}, ["`lambda`"]),
        ({"lambda": "0.1"}, ["`lambda`", "a number", '"0.1"']),
        ({"lambda": None}, ["`lambda`", "null"]),
        ({"lamda": 0.1}, ["did you mean `lambda`"]),
        ({"steps": 2.5}, ["`steps`", "whole number"]),
        ({"steps": 51}, ["`steps`", "50"]),
        ({"steps": True}, ["`steps`", "a boolean"]),
        ({"max_quality": "flim"}, ["`max_quality`", '"film"']),
        ({"seed": 1, "lambda": 2}, ["`lambda`"]),
        ({"seed": 1 << 64}, ["`seed`"]),
        ({}, ["nothing to set"]),
    ]:
        reply = error(s, request("params.set", params), -32602, *words)
        assert reply["id"] == 1
    assert result(s, "params.get") == before, "a refused change changed something"
    error(s, request("reference.set", {}), -32602, "`name`", "`path`")
    error(s, request("reference.set", {"name": "a", "path": "b"}), -32602, "exactly one")
    error(s, request("pipeline.switch", {}), -32602, "`name`", "missing")
    for params in ({"name": "nobody-has-this-name"}, {"path": "/etc/passwd"}, {"path": "../../../etc/passwd"}):
        reply = ask(s, request("reference.set", params))
        assert reply["error"]["code"] in (-32602, -32000), reply
    assert ask(s, request("pipeline.switch", {"name": "nowhere"}))["error"]["code"] in (-32602, -32000)


def changes():
    s = connect(zmq.REQ)
    was = result(s, "params.get")
    wanted = {"lambda": 0.02, "steps": 2, "window_frames": 9, "guidance_scale": None}
    assert result(s, "params.set", wanted) == {**was, **wanted}
    assert result(s, "params.get") == {**was, **wanted}
    assert result(s, "params.set", {"steps": 2.0})["steps"] == 2
    assert result(s, "params.set", {"steps": None})["steps"] is None
    back = {k: was[k] for k in wanted}
    assert result(s, "params.set", back) == was
    names = [r["name"] for r in result(s, "reference.list")]
    assert "ben" in names, names
    assert result(s, "reference.set", {"name": "ben"})["name"] == "ben"
    assert [p["current"] for p in result(s, "pipeline.list")].count(True) == 1
    assert result(s, "pause") is None and result(s, "status")["paused"]
    assert result(s, "resume") is None and not result(s, "status")["paused"]
    snapshot = result(s, "snapshot")
    assert snapshot["png_base64"].startswith("iVBORw0KGgo"), snapshot["png_base64"][:20]


def discovery():
    s = connect(zmq.REQ)
    document = result(s, "rpc.discover")
    assert document["openrpc"].startswith("1.")
    methods = {m["name"]: m for m in document["methods"]}
    assert {"status", "params.set", "rpc.discover"} <= set(methods)
    try:
        import jsonschema
    except ImportError:
        print("  (without jsonschema: results are not compared with their schemas)")
        return
    for name in ("status", "params.get", "reference.list", "pipeline.list", "snapshot", "rpc.discover", "pause", "resume"):
        schema = {**methods[name]["result"]["schema"], "components": document["components"]}
        jsonschema.Draft7Validator.check_schema(schema)
        jsonschema.Draft7Validator(schema).validate(result(s, name))


def disconnects(monitor, within_ms):
    """Whether the daemon closes a monitored socket's connection in this time."""
    deadline = time.monotonic() + within_ms / 1e3
    while (left := deadline - time.monotonic()) > 0:
        if monitor.poll(max(1, left * 1e3)) and recv_monitor_message(monitor)["event"] == zmq.EVENT_DISCONNECTED:
            return True
    return False


def strangers():
    """Who shows no token or a wrong one is sent away; libzmq connects anew."""
    if not TOKEN:
        # One that nobody asked for is no topic, and no reason to disconnect.
        sub = connect(zmq.SUB, TELEMETRY)
        monitor = sub.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        for length in (1, 4000):
            sub.subscribe(b"token:" + b"x" * length)
        sub.subscribe(b"stats")
        assert sub.recv_multipart()[0] == b"stats"
        assert not disconnects(monitor, 500)
        return
    idle, wrong = connect(zmq.DEALER), connect(zmq.DEALER)
    deaf, bad = connect(zmq.SUB, TELEMETRY), connect(zmq.SUB, TELEMETRY)
    monitors = [s.get_monitor_socket(zmq.EVENT_DISCONNECTED) for s in (idle, wrong, deaf, bad)]
    deaf.subscribe(b"")
    bad.subscribe(b"token:not-the-token")
    wrong.send_multipart([b"not-the-token", json.dumps(request("status")).encode()])
    assert json.loads(wrong.recv())["error"]["code"] == -32001
    began = time.monotonic()
    for monitor in monitors:
        assert disconnects(monitor, PATIENCE_MS)
    assert time.monotonic() - began < 40
    assert ask(idle, request("status", id=3))["id"] == 3
    # Who has shown it may be silent for longer.
    assert not disconnects(monitors[0], 12_000)


def heartbeats():
    """Against `heartbeat_timeout` only a PONG helps while a batch and calls beside it are carried out."""
    dealer = context.socket(zmq.DEALER)
    dealer.linger, dealer.rcvtimeo, dealer.sndtimeo = 0, PATIENCE_MS, PATIENCE_MS
    dealer.heartbeat_ivl, dealer.heartbeat_timeout = 100, 3000
    monitor = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    dealer.connect(CONTROL)
    send(dealer, [request("snapshot", id=i) for i in range(64)])
    for i in range(20):
        send(dealer, request("snapshot", id=100 + i))
    assert len(json.loads(dealer.recv())) == 64
    assert {json.loads(dealer.recv())["id"] for _ in range(20)} == set(range(100, 120))
    assert not disconnects(monitor, 300)


def telemetry():
    sub = connect(zmq.SUB, TELEMETRY)
    if TOKEN:
        sub.subscribe(b"token:" + TOKEN)
    sub.subscribe(b"")
    s = connect(zmq.REQ)
    seen = {}
    deadline = time.monotonic() + PATIENCE_MS / 1e3
    sub.rcvtimeo = 1000
    while not ({"stats", "keyframe"} <= seen.keys() and seen.get("event", {}).get("kind") == "paused"):
        assert time.monotonic() < deadline, seen
        if "stats" in seen and "event" not in seen:
            result(s, "pause")
        try:
            parts = sub.recv_multipart()
        except zmq.Again:
            continue
        topic, text = parts
        told = json.loads(text)
        if topic != b"event" or told["kind"] == "paused":
            seen[topic.decode()] = told
        if "event" in seen:
            result(s, "resume")
    assert seen["stats"]["uptime_secs"] > 0 and "lambda" in seen["stats"]
    assert seen["keyframe"]["count"] > 0
    only = connect(zmq.SUB, TELEMETRY)
    if TOKEN:
        only.subscribe(b"token:" + TOKEN)
    only.subscribe(b"stats")
    assert only.recv_multipart()[0] == b"stats"


def too_large():
    dealer = connect(zmq.DEALER)
    for parts in ([b" " * 100_000_000], [b"", b" " * 100_000_000], [b"x"] * 100_000):
        dealer.send_multipart(parts)
        *_, text = dealer.recv_multipart()
        told = json.loads(text)["error"]
        assert told["code"] == -32600 and "at most" in told["message"], told
    # The same connection goes on.
    assert result(dealer, "status")["pid"] > 0


for part in (envelopes, through_a_proxy, batches, refusals, changes, discovery, telemetry, strangers, heartbeats, too_large):
    began = time.monotonic()
    part()
    print(f"{part.__name__}: ok, {time.monotonic() - began:.1f} s")
