"""Samples from the configuration format's page that several tests use."""

from __future__ import annotations

__all__ = ["WHOLE"]

#: The last example of the page.
WHOLE = """\
[server.listener."smtp"]
bind = ["[::]:25"]
protocol = "smtp"

[server.listener."submission"]
bind = ["[::]:587"]
protocol = "smtp"

[server.listener."submissions"]
bind = ["[::]:465"]
protocol = "smtp"
tls.implicit = true

[server.listener."management"]
bind = ["127.0.0.1:8080"]
protocol = "http"
"""
