"""What the protocols share: whose mail it is, where it is kept, and how it gets elsewhere.

address      mailbox addresses, and when two are the same
envelope     sender and recipients of a message, with what was asked for
reply        what a client is told about a message: code, enhanced status, text
xtext        the encoding of parameters about DSNs
accounts/    who has a mailbox: the accounts file and its passwords
logins/      who may log in, and how long an address has to wait after failures
delivery_interface  `Delivery`: the one way in which a message goes anywhere
delivery/    the way into the mailboxes: `PostOffice`
maildir/     how messages lie on the disk
store/       folders, UIDs, flags and changes, for the protocols that read mail
relay/       the way to other servers
dsn/         delivery status notifications
loop_calls   calls from threads to event loops
"""
