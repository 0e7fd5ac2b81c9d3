"""The management application: health, metrics and control of a running server over HTTP."""
