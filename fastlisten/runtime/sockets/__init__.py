"""Listening sockets: made, set up and bound from a configuration's binds, or inherited."""
