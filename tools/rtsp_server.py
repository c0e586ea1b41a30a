"""Serve a network camera for tests: an RTSP server with a moving test picture, by GStreamer.

    sudo apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{base,good,ugly}
    /usr/bin/python3 tools/rtsp_server.py --port 8554 --size 320x240        # rtsp://127.0.0.1:8554/camera

It needs the system's Python with GStreamer's bindings, and does not use rtfuse. It listens on the loopback device only.
"""

from __future__ import annotations

import argparse

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max={keyframes} bitrate=2000 "
    "! rtph264pay config-interval=1 pt=96",
    "mjpeg": "jpegenc ! rtpjpegpay pt=26",
}


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", default="8554")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--codec", choices=sorted(ENCODERS), default="h264")
    parser.add_argument("--user", help="USER:PASSWORD to ask for")
    asked = parser.parse_args()
    Gst.init(None)
    width, height = asked.size.split("x")
    pipeline = (
        f"( videotestsrc is-live=true pattern=ball "
        f"! video/x-raw,format=I420,width={width},height={height},framerate={asked.fps}/1 "
        f"! {ENCODERS[asked.codec].format(keyframes=max(asked.fps // 4, 1))} name=pay0 )"
    )
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(asked.port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(pipeline)
    factory.set_shared(True)
    if asked.user:
        auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        name, _, password = asked.user.partition(":")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(name, password), token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("user", "media.factory.access", True)
        permissions.add_permission_for_role("user", "media.factory.construct", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    print(f"rtsp://127.0.0.1:{asked.port}/camera", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
