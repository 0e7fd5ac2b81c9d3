"""Certificates and contexts: what a configuration's TLS keys make of files and of Python's ssl."""
