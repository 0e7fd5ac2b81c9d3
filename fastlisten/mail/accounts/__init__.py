"""Accounts: the file that names them, what a version of it says, and their passwords."""
