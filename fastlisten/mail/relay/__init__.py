"""The relay: the server that mail for other domains is handed to.

relay                a listener's relay: settings, TLS, limits on sessions
relay_delivery       one message for the relay, and for mailboxes here
  session            one session, for one message: what is said, and what the replies mean
    session_start    connect, EHLO, STARTTLS, AUTH
    extensions       what a message needs of the relay's extensions
    message_source   the message, from a file or from memory
    client           EHLO, STARTTLS, AUTH and single commands
      connection     octets, and each reply in its turn; remote_replies parses them
        kernel_queues   what the kernel still holds
        own_addresses   our ends of the open connections
relay_error          why mail cannot be handed over, as a reply to our client
relay_log            what is logged of a relay that fails
"""
