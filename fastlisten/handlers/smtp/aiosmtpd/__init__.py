"""Handlers written for aiosmtpd, on our engine: their hooks answer its events.

Rules of this package: what aiosmtpd documents, and none of its private parts. aiosmtpd itself need
not be installed.
"""
