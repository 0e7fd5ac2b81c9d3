"""Delivery status notifications (RFC 3461, RFC 3464), so far those of success.

outcome   which recipients the sender is told about
message   the DSN as a message
sender    whether and how it gets to the sender
"""
