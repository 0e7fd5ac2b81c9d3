"""imap: known to the configuration, and not served by this version."""
