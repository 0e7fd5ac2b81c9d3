"""The listener layer of a mail server."""
