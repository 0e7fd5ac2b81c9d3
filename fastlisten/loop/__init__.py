"""For asyncio programs: `create_server`, `new_event_loop`, `start_tls`, `sendfile`.

Rules of this package: asyncio's interfaces over the native core. It knows no configuration, no
handler and no protocol.
"""
