"""Protocol handlers: what runs on an accepted connection."""
