"""Accounts: who has a mailbox here.

roster          what one version of the accounts file says
accounts_file   the file while it is in use: which version is in force
file_leases     whether a program is writing the file
passwords       the hashes in the file
"""
