"""What runs: sockets, listeners, the server."""
