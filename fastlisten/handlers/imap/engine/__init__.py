"""The IMAP server as a state machine: octets in, commands out; responses in, octets out.

Rules of this package: no I/O, no loop, no clock, no store, and no import of the package above it.
Nothing that a client sends makes it raise, and everything that a client sends has a bound.
"""
