"""Listening sockets: created, set up and bound as a configuration says, or inherited."""
