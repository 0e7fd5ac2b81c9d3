"""The store: folders, UIDs, flags and changes of an account's mail, for the protocols that read it.

interface    what a protocol needs from any store
"""
