"""Starts an unpacked package's daemon as systemd would: hold_notify_socket.py FOLDER.

Holds NOTIFY_SOCKET, waits for READY=1, for an answer of keyframedctl and for the watchdog's food, ends the daemon by
SIGTERM and wants STOPPING=1 and a clean exit within five seconds. Fails with one line that says what did not come.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

PATIENCE_SECS = 120


def words(notify, wanted, deadline):
    """Reads notifications until one holds `wanted`."""
    while time.monotonic() < deadline:
        notify.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            lines = notify.recv(8192).decode().splitlines()
        except TimeoutError:
            break
        if wanted in lines:
            return
    sys.exit(f"{wanted} did not come")


def main(root):
    path = os.path.join(tempfile.mkdtemp(), "notify")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(path)
    environment = dict(os.environ, NOTIFY_SOCKET=path, WATCHDOG_USEC="4000000")
    command = [f"{root}/usr/bin/keyframed", "run", "--config", f"{root}/etc/keyframed/keyframed.toml"]
    daemon = subprocess.Popen(command, env=environment)
    try:
        words(notify, "READY=1", time.monotonic() + PATIENCE_SECS)
        ctl = [f"{root}/usr/bin/keyframedctl", "status", "--json", "--timeout-ms", "30000"]
        status = json.loads(subprocess.run(ctl, env=environment, check=True, capture_output=True).stdout)
        if status["pid"] != daemon.pid:
            sys.exit(f"another daemon answers: {status}")
        words(notify, "WATCHDOG=1", time.monotonic() + PATIENCE_SECS)
        # Frames enough for the recording to be worth a look.
        time.sleep(3)
        daemon.send_signal(signal.SIGTERM)
        words(notify, "STOPPING=1", time.monotonic() + 10)
        code = daemon.wait(timeout=5)
        if code != 0:
            sys.exit(f"the daemon ended with {code}")
    finally:
        daemon.kill()


main(sys.argv[1])
