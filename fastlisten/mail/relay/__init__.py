"""Handing mail to a relay: the relay of a configuration, a session with it, an SMTP client."""
