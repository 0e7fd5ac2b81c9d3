"""Maildirs: how messages lie on the disk.

maildir        one mailbox, its folders and messages
folder_names   the names of folders and of their directories
spool          a directory for messages that are being written; the base of a maildir
"""
