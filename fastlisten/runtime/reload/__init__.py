"""Reloading: what differs between two configurations, and the report on what was done about it."""
