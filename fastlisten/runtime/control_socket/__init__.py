"""The control socket: how commands such as `fastlisten status` reach a running server.

A Unix stream socket with mode 0600. A client sends one JSON object per line and gets one per line
in return, in the same order:

    {"command": "pause", "id": "smtp"}    ->    {"ok": true}
    {"command": "pause", "id": "smpt"}    ->    {"ok": false, "error": "unknown-listener", ...}

    protocol       the lines, without I/O; carries out a request on a `Control`
    socket_file    where the socket is, and how it is created
    server         serves it on an event loop
"""
