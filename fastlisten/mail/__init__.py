"""What the protocols share: whose mail it is, where it is kept, and how it goes elsewhere.

address    mailbox addresses, and when two are the same
accounts/  who has a mailbox: the accounts file and its passwords
logins/    who may log in, and how long those who guess must wait
delivery/  the way into the mailboxes: `PostOffice`
maildir/   how messages lie on the disk
relay/     the way to other servers
dsn/       delivery status notifications
"""
