"""Maildirs: their directories, folders and messages, and the spool."""
