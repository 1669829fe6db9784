"""An RTSP server for tests: `serve LINE` plays, `record LINE` takes what is published. Prints its port."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
mode, line = sys.argv[1:3]
server = GstRtspServer.RTSPServer(address="127.0.0.1", service="0")
factory = GstRtspServer.RTSPMediaFactory(latency=50, shared=True)
factory.set_launch(line)
if mode == "record":
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
server.get_mount_points().add_factory("/pose", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
