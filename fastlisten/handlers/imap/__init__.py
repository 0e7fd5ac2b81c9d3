"""imap: known to the configuration, but not served in this version.

The modules, from the listener down to the octets:

    settings               ports and timeouts
    handler                what all connections of a listener share
      capabilities         what is announced, before and after login
      engine_protocol      transport, flow control, STARTTLS
      connection_interface  what a connection, a session and the listener know of each other
      session              the engine's events: which command is carried out by what
        login              LOGIN and AUTHENTICATE
        mailbox_commands   LIST, LSUB, STATUS, CREATE
          list_matching    patterns of names
        selected_mailbox   what the session sees of a mailbox, and telling its changes
          message_sets     numbers and UIDs to places in it
          vanished         what was expunged before
        fetching           FETCH
          message_content  structure, header and sections of one message
        searching          SEARCH
        message_commands   STORE, EXPUNGE, COPY, MOVE
          message_flags    flags between protocol and store
        appending          APPEND
        rejection          why a command is not carried out
      session_log          the log of sessions
      engine/              octets to commands, and responses to octets, without I/O
"""
