"""Handlers written for aiosmtpd, on our engine: their hooks answer its events.

    controller            aiosmtpd's controllers; serve_smtp: a handler on a running loop
    configured_handler    a handler that the configuration names
      aiosmtpd_parameters the keyword arguments of aiosmtpd's SMTP class
      served_handler      what all connections of a handler share; blocking_handlers: in threads
      aiosmtpd_session    events of the engine in their order; eager_tasks: hooks that suspend
        hook_dispatch     which hook answers an event
          command_hooks, transaction_hooks, auth_hooks    what each is asked, what its answer means
        hook_delivery     recipients and message to the hooks, as mail/ delivers
          hook_calls      what all hooks have in common; hook_replies: from strings to replies
      hook_server         the object that hooks get as `server`
      types               Session, Envelope, AuthResult, LoginPassword, MISSING

Rules of this package: it does what aiosmtpd documents, and uses none of its private parts. aiosmtpd
need not be installed.
"""
