"""Protocols: what is said on a connection.

The way of a connection, by module:

    base, registry, streams      what a handler is, how one is found, functions as handlers
    smtp                         smtp and lmtp: what all connections of a listener share
      smtp_early                 waits before the greeting, if asked for
      smtp_connection            events of the engine in their order; AUTH
        smtp_flow                when something is executed: transport, flow control, TLS
        smtp_engine              octets to events and replies, without I/O; below it
                                 session, extensions, framing, chunks, commands, parameters, replies
        smtp_transactions        recipients, and
        smtp_messages            messages: to the post office (mail/), to the relay
        smtp_relay, _outgoing    where mail for others goes; below it
                                 client, client_replies (a dialogue), source, relay_replies
        smtp_reports, _notices   what senders asked to be told
      aiosmtpd_connection        the same engine, its events answered by an aiosmtpd handler's hooks
    http                         an ASGI application, or the management/
      http_protocol              a connection; below it framing, exchange, websocket
"""
