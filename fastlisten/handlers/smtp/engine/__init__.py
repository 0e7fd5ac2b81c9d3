"""The SMTP and LMTP server as a state machine: octets in; events, questions and replies out.

Rules of this package: no I/O, no loop, no clock, and no import of the package above it.
"""
