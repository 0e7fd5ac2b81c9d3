"""The tables of an account's index.

Rules of this file: SQL and what its columns mean; nothing is executed here.

What the files of a Maildir say (existence, content, system flags) is only repeated here. What the
index alone knows: UIDs, keywords, modification sequences, subscriptions, roles. Ids, createseq and
modseq are numbers of one counter (`state.counter`), so that none is ever used again, not even
after a power loss, which may take the last transactions back.
"""

from __future__ import annotations

__all__ = ["SCHEMA", "STEPS", "VERSION", "Gone", "Op", "Step"]

#: PRAGMA user_version of an index with these tables.
VERSION = 1


class Gone:
    """Values of `gone.type`; the triggers below have them as numbers."""

    MESSAGE = 1
    EMAIL = 2
    FOLDER = 3


class Op:
    """Values of `pending.op`; pending.py says what they ask for."""

    REMOVE = 1
    FLAGS = 2
    PUBLISH = 3
    MOVE = 4
    RENAME_FOLDER = 5
    TRASH_FOLDER = 6
    PURGE_FOLDER = 7


class Step:
    """Values of `first_open.step`; first_open.py says what they ask for."""

    IMPORT = "import"
    ROLES = "roles"
    MAKE = "make"


#: What the first open of an account begins with.
STEPS = (Step.IMPORT, Step.ROLES)


SCHEMA = """
-- One row.
--   epoch       random, of this index
--   counter     the last number that was given out
--   dirty_boot  boot id of whoever may have written without syncing; empty after a checkpoint
--   file        identity of the file that this index is in; another one means a restored copy
--   floor       the least modseq that is reported (a power loss may have changed older ones)
--   pruned      what is gone up to this modseq is not known
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    counter INTEGER NOT NULL,
    dirty_boot TEXT NOT NULL,
    file TEXT NOT NULL,
    floor INTEGER NOT NULL,
    pruned INTEGER NOT NULL
);
--   name        of its directory, in modified UTF-7; empty: INBOX, the Maildir itself
--   synced      the uidnext that is known to be on the disk
--   countseq    the modseq of the last change of the sums
--   recent      the first UID that no session has been told is recent
--   total ...   sums over its messages, kept by triggers and by rows.py; size is that of the
--               messages as served
--   seen_mtime  the time of cur/, in ns, when it was last compared with the index, or after
--               a change of our own; negative if any change since has given it another one
CREATE TABLE folder (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL DEFAULT 1,
    synced INTEGER NOT NULL DEFAULT 1,
    highmodseq INTEGER NOT NULL,
    createseq INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    countseq INTEGER NOT NULL,
    role TEXT UNIQUE,
    total INTEGER NOT NULL DEFAULT 0,
    unseen INTEGER NOT NULL DEFAULT 0,
    recent INTEGER NOT NULL DEFAULT 1,
    deleted INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL DEFAULT 0,
    seen_mtime INTEGER NOT NULL DEFAULT 0
);
--   size, eol   octets as served; 1 if the file's lines end with LF, which is served as CRLF
--   octets, mtime, inode   of the file: structure belongs to a file that has these
--   date        INTERNALDATE, in seconds
CREATE TABLE email (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    createseq INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    size INTEGER NOT NULL,
    eol INTEGER NOT NULL,
    date INTEGER NOT NULL,
    octets INTEGER NOT NULL,
    mtime INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    structure BLOB
);
--   name        of the file, without flags
--   flags       bits of letters.py
--   keywords    sorted, with blanks in between
CREATE TABLE message (
    folder INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    email INTEGER NOT NULL,
    name TEXT NOT NULL,
    flags INTEGER NOT NULL,
    keywords TEXT NOT NULL,
    createseq INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    PRIMARY KEY (folder, uid)
) WITHOUT ROWID;
CREATE UNIQUE INDEX message_name ON message (folder, name);
CREATE INDEX message_modseq ON message (folder, modseq);
CREATE INDEX message_email ON message (email);
-- Keywords that a folder has had, as they were first spelt.
CREATE TABLE keyword (
    folder INTEGER NOT NULL,
    name TEXT NOT NULL COLLATE NOCASE,
    PRIMARY KEY (folder, name)
) WITHOUT ROWID;
-- Names as clients write them; the folders need not exist.
CREATE TABLE subscription (name TEXT PRIMARY KEY) WITHOUT ROWID;
-- Keywords of messages that will be absorbed: by the name of the file.
CREATE TABLE arrival (name TEXT PRIMARY KEY, keywords TEXT NOT NULL) WITHOUT ROWID;
-- Roles that folders had in an index that was lost: by the name of the directory.
CREATE TABLE former (name TEXT PRIMARY KEY, role TEXT NOT NULL) WITHOUT ROWID;
-- What the first open has yet to do (first_open.py): a word.
CREATE TABLE first_open (step TEXT PRIMARY KEY) WITHOUT ROWID;
-- Folders whose messages have UIDs and keywords in files of another server (first_open.py).
--   uidnext     larger than the UIDs in those files; 1: they have none
CREATE TABLE former_uids (folder INTEGER PRIMARY KEY, uidnext INTEGER NOT NULL);
-- What there was. folder and uid are those of a message; id is that of an email or a folder.
CREATE TABLE gone (
    type INTEGER NOT NULL,
    folder INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    id INTEGER NOT NULL,
    createseq INTEGER NOT NULL,
    modseq INTEGER NOT NULL
);
CREATE INDEX gone_modseq ON gone (type, folder, modseq);
-- File work of committed transactions that may not have been done yet.
CREATE TABLE pending (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    folder INTEGER NOT NULL,
    name TEXT NOT NULL,
    op INTEGER NOT NULL,
    target TEXT NOT NULL
);
CREATE INDEX pending_name ON pending (folder, name);
-- Every change of a message is one of its folder; rows.py does this for those that are inserted,
-- once for all of them. A deletion takes its modseq from the counter, so a transaction takes a
-- number first.
CREATE TRIGGER message_removed AFTER DELETE ON message BEGIN
    INSERT INTO gone (type, folder, uid, id, createseq, modseq)
        SELECT 1, id, OLD.uid, OLD.email, OLD.createseq, (SELECT counter FROM state)
        FROM folder WHERE id = OLD.folder;
    UPDATE folder SET
        total = total - 1,
        unseen = unseen - ((OLD.flags & 1) = 0),
        deleted = deleted - ((OLD.flags & 8) != 0),
        size = size - (SELECT size FROM email WHERE id = OLD.email),
        highmodseq = (SELECT counter FROM state),
        countseq = (SELECT counter FROM state)
    WHERE id = OLD.folder;
    INSERT INTO gone (type, folder, uid, id, createseq, modseq)
        SELECT 2, 0, 0, id, createseq, (SELECT counter FROM state) FROM email
        WHERE id = OLD.email AND NOT EXISTS (SELECT 1 FROM message WHERE email = OLD.email);
    DELETE FROM email
        WHERE id = OLD.email AND NOT EXISTS (SELECT 1 FROM message WHERE email = OLD.email);
END;
CREATE TRIGGER message_changed AFTER UPDATE OF modseq ON message BEGIN
    UPDATE folder SET
        unseen = unseen - ((OLD.flags & 1) = 0) + ((NEW.flags & 1) = 0),
        deleted = deleted - ((OLD.flags & 8) != 0) + ((NEW.flags & 8) != 0),
        highmodseq = NEW.modseq,
        countseq = iif((OLD.flags & 9) = (NEW.flags & 9), countseq, NEW.modseq)
    WHERE id = NEW.folder;
END;
"""
