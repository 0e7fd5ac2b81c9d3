"""The store: folders, UIDs, flags and changes of an account's mail, for the protocols that read it.

    interface      what a protocol needs from any store
    base           the base of a store for mail that a program has elsewhere

The one that keeps mail in Maildirs, with an index per account in SQLite:

    open_accounts  which accounts are open, shared by their sessions
      resources      what they share, and what is closed when there is too much
      notices        what happens to files, from the kernel
    account        implements the interface, with maildir_folder and maildir_streams
      shared_folder  a folder in use: when it is looked at, and who is told
        folder_state   what sessions share about a folder, and what each of them sees
      index_use      the index in threads: everything below blocks, and runs there
    index          its connection, transactions, counter; power loss and restored copies
      schema       its tables
      account_lock   the lock under which everything is changed
      index_snapshot  what the index alone knows, for the day on which it is lost
      file_identity  whether a file is a copy
    pending        file work that committed transactions imply
    first_open     what Dovecot or Courier knew about an account that is new here
      former_files   their files
    special_folders  Drafts, Sent, Junk, Trash, Archive
    absorb         taking over what was delivered, and what other programs have done
      arrivals       files that have arrived, in their order
    folders        which there are; CREATE, DELETE, RENAME
    flags          STORE
    expunge        EXPUNGE
    append         APPEND
    copying        COPY and MOVE
      publish      staged messages become visible, all or none
      rows         rows of new messages
      selection    messages that a command names, with their files
    autoexpunge    what has been in Trash or Junk for long
    bounds         how many folders and keywords there may be; admission: whether there may be more
    usage          how much mail there is, and whether more fits into the quota
    changes        what has happened since a modification sequence
    reading        octets as they are served, sizes, dates
    files          finding, listing and inspecting files
    letters        flags in the names of files
"""
