"""jmap: known to the configuration, but not served in this version."""
