# The arena: shared memory behind max-connections.
#
# Rules of this file: what happens once per process, row or configuration, and waking whoever waits.
# What happens once per connection is in the .pxd. No import of the package's Python modules, and of
# the native ones only _system.
#
#   +------+---------+---------+-----------------+------+-- ... --+ - - - - - - - - - - - +
#   | head | members | notices | address buckets | rows           : room for more rows    :
#   +------+---------+---------+-----------------+------+-- ... --+ - - - - - - - - - - - +
#
# A member is a process with an engine, from its start to its end. A row is a limit: that of a
# listener, the part of the total that listeners share, or a listener's reserve. It has one cell per
# member, which only that member writes, so that `heal` can give back what a dead one held, whatever
# instruction it died in.
#
# The memory is a memfd. Every process maps the room for MAX_ROWS at once, so that the arena can
# grow while others use it and no row ever moves; pages are used only where something was written.
#
# How a server with several processes uses it:
#
#   create   Arena(rows, members) before the first fork. Members are 3 x workers + 1: the new and
#            the old workers of a restart, once more those that still drain, and one that takes the
#            place of a crashed one. Rows 0 to rows - 1 exist; their limits are set by
#            places(row, 0).limit.
#   join     in the child, after fork: join() returns its member number. A forked child has the
#            mapping already. A program that was executed has inherited or received the descriptors
#            (fd and wakeups), and calls Arena.attach.
#   heal     by the parent, after waitpid: heal_process(pid). Not before, because a living process
#            would go on to write its cells. It is right also when the child had not joined yet.
#   grow     by one process only, that which creates the rows: add_row(limit) returns a row, which
#            others use as soon as they are told its number. When all workers have confirmed that
#            they take no more places of a row, retire_row(row): add_row uses it again once the last
#            place is given back, so that connections that drain still count.
#   upgrade  execve with fd and wakeups inherited, then Arena.attach. Another ARENA_VERSION raises
#            ValueError before anything was changed.
#
# Notices and address buckets have their layout and no code yet. Nothing may set a bit in
# Notice.watchers, or use a bucket, before `heal` clears them.

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastlisten._system cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, F_ADD_SEALS, F_SEAL_SEAL, F_SEAL_SHRINK, MAP_FAILED, MAP_SHARED,
    MFD_ALLOW_SEALING, MFD_CLOEXEC, PROT_READ, PROT_WRITE, close, eventfd, fcntl, fl_and64,
    fl_cas32, fl_load32, fl_load64, fl_store32, fl_store64, fl_swap32, fl_take_bit64, ftruncate,
    memfd_create, mmap, munmap, raise_errno, write,
)

import os
import time

cdef enum:
    # The arena begins with this and the version of its layout, so that a process that expects
    # another layout does not join.
    ARENA_MAGIC = 0x666C3161  # "fl1a"
    LAYOUT = 2
    # A cache line. Members, notices, buckets and rows are aligned to it, and do not share one.
    LINE = 64
    # Cells for the accounts of mail stores. Two accounts that share one cost a needless look.
    NOTICES = 4096
    # Room that is mapped, not used: 65,535 listening sockets, each with a limit and a reserve. That
    # is 16 MiB of address space for one member, 136 MiB for 256.
    ROWS_AT_MOST = 131072

ARENA_VERSION = LAYOUT
# Row.waiters has one bit per member.
MAX_MEMBERS = 256
MAX_ROWS = ROWS_AT_MOST


cdef size_t size_of_row(uint32_t members):
    return (sizeof(Row) + members * sizeof(uint32_t) + LINE - 1) // LINE * LINE


cdef size_t offset_of_rows(uint32_t members, uint32_t notices, uint32_t buckets):
    return (sizeof(ArenaHead) + members * sizeof(Member) + notices * sizeof(Notice)
            + <size_t>members * buckets * sizeof(AddressBucket))


cdef inline bint ring(const PlaceCounter *counter, uint32_t member) noexcept nogil:
    """Wake a member if it waits for a place of this row."""
    cdef uint64_t one = 1
    if not fl_take_bit64(&counter.row.waiters[member // 64], one << (member % 64)):
        return False
    # EAGAIN means that the eventfd is full, so its reader has been woken already.
    write(counter.wakeups[member], &one, 8)
    return True


cdef void wake_one(const PlaceCounter *counter) noexcept nogil:
    """Wake one of the members that wait for a place of this row.

    One place needs one process: were all woken, all but one would find the place taken again. It is
    the member with the least load. But if each has its own clients, it is the one after this one;
    otherwise the clients of a member with much load might wait for ever.
    """
    cdef uint32_t i, load, least, found
    cdef uint64_t one = 1
    if counter.in_turn:
        for i in range(1, counter.members + 1):
            if ring(counter, (counter.member + i) % counter.members):
                return
        return
    while anybody_waits(counter):
        least = 0xFFFFFFFF
        found = counter.members
        for i in range(counter.members):
            if fl_load64(&counter.row.waiters[i // 64]) & (one << (i % 64)):
                load = fl_load32(&counter.processes[i].load)
                if found == counter.members or load < least:
                    least = load
                    found = i
        # If it has been woken by another member meanwhile, this place is for the next one.
        if found == counter.members or ring(counter, found):
            return


cdef void wake_all(const PlaceCounter *counter) noexcept nogil:
    """Wake all members that wait for a place of this row."""
    cdef uint32_t i
    for i in range(counter.members):
        ring(counter, i)


# Without tp_clear, because __dealloc__ closes what `wakeups` lists, and must find it also when the
# garbage collector has broken a cycle.
@cython.no_gc_clear
cdef class Arena:
    """Shared memory that counts connections under limits, in all processes of a server.

    Args:
        rows: how many limits it has at first, 1 to MAX_ROWS.
        members: how many processes (more exactly: engines) can take part at the same time, 1 to
            256.

    Attributes:
        fd: the descriptor of the memory; `wakeups`: an event descriptor for each member. Both are
            closed with the arena.

    Raises:
        ValueError: a number is out of range.
        OSError: no memory or no descriptor.
    """

    def __cinit__(self):
        self.fd = -1

    def __init__(self, uint32_t rows, uint32_t members=1):
        if not 1 <= rows <= MAX_ROWS:
            raise ValueError(f"rows must be 1 to {MAX_ROWS}, not {rows}")
        if not 1 <= members <= MAX_MEMBERS:
            raise ValueError(f"members must be 1 to {MAX_MEMBERS}, not {members}")
        cdef int fd
        cdef uint32_t i
        cdef size_t offset = offset_of_rows(members, NOTICES, 0)
        cdef ArenaHead *head
        wakeups = []
        self.members = members
        self.row_size = size_of_row(members)
        fd = memfd_create(b"fastlisten-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING)
        if fd < 0:
            raise_errno("memfd_create")
        self.fd = fd
        if ftruncate(fd, <long>(offset + rows * self.row_size)) < 0:
            raise_errno("ftruncate of the arena")
        # A process with fewer privileges must not be able to take the memory away from the others.
        if fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) < 0:
            raise_errno("seals of the arena")
        self.map(offset)
        head = self.head()
        head.magic = ARENA_MAGIC
        head.version = LAYOUT
        head.members = members
        head.rows = rows
        head.row_size = <uint32_t>self.row_size
        head.notices = NOTICES
        for i in range(rows):
            self.row_at(i).state = ROW_USED
        try:
            for _ in range(members):
                fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
                if fd < 0:
                    raise_errno("eventfd")
                wakeups.append(fd)
        finally:
            self.set_wakeups(wakeups)

    @staticmethod
    def attach(int fd, wakeups):
        """Return the arena of a descriptor that was passed on by its creator.

        Takes over `fd` and the event descriptors `wakeups` (one per member, in order), unless it
        raises.

        Raises:
            ValueError: not an arena, or one of another version.
            OSError: the descriptor cannot be mapped.
        """
        cdef Arena self = Arena.__new__(Arena)
        cdef ArenaHead head
        cdef size_t offset, size = os.fstat(fd).st_size
        cdef bytes text = os.pread(fd, sizeof(ArenaHead), 0)
        if len(text) < <Py_ssize_t>sizeof(ArenaHead):
            raise ValueError("not an arena: too small")
        head = (<ArenaHead *><char *>text)[0]
        if head.magic != ARENA_MAGIC:
            raise ValueError("not an arena")
        if head.version != LAYOUT:
            raise ValueError(f"an arena of version {head.version}, not {LAYOUT}")
        self.members = head.members
        self.row_size = size_of_row(head.members)
        offset = offset_of_rows(head.members, head.notices, head.address_buckets)
        # Touching memory beyond the end of the file would be SIGBUS.
        if not 1 <= head.members <= MAX_MEMBERS or not 1 <= head.rows <= MAX_ROWS \
                or head.row_size != self.row_size or size < offset + head.rows * self.row_size:
            raise ValueError("not an arena: its size does not match its head")
        if len(wakeups) != head.members:
            raise ValueError(f"{head.members} wake-up descriptors expected")
        self.fd = fd
        try:
            self.map(offset)
        except BaseException:
            self.fd = -1
            raise
        self.set_wakeups(wakeups)
        return self

    cdef size_t mapping_size(self):
        return self.offset + MAX_ROWS * self.row_size

    cdef int map(self, size_t offset) except -1:
        cdef void *base
        self.offset = offset
        base = mmap(NULL, self.mapping_size(), PROT_READ | PROT_WRITE, MAP_SHARED, self.fd, 0)
        if base == MAP_FAILED:
            raise_errno("mmap of the arena")
        self.base = <char *>base
        return 0

    cdef int set_wakeups(self, wakeups) except -1:
        self.wakeups = tuple(wakeups)
        self.wakeup_fds = <int *>calloc(max(1, len(self.wakeups)), sizeof(int))
        if self.wakeup_fds == NULL:
            raise MemoryError
        for i, fd in enumerate(self.wakeups):
            self.wakeup_fds[i] = fd
        return 0

    cdef ArenaHead *head(self):
        return <ArenaHead *>self.base

    cdef Member *member_at(self, uint32_t member):
        return <Member *>(self.base + sizeof(ArenaHead)) + member

    cdef Row *row_at(self, uint32_t row):
        return <Row *>(self.base + self.offset + row * self.row_size)

    cdef uint32_t *cells_of(self, uint32_t row):
        return <uint32_t *>(self.row_at(row) + 1)

    cdef uint64_t sum_of(self, uint32_t row):
        cdef uint64_t total = 0
        cdef uint32_t i
        for i in range(self.members):
            total += fl_load32(&self.cells_of(row)[i])
        return total

    cdef int require_member(self, member) except -1:
        if not 0 <= member < self.members:
            raise ValueError(f"member must be 0 to {self.members - 1}, not {member}")
        return 0

    cdef int require_row(self, row) except -1:
        if not 0 <= row < self.rows:
            raise ValueError(f"row must be 0 to {self.rows - 1}, not {row}")
        return 0

    @property
    def rows(self):
        """How many rows there are, those included that are not in use."""
        # Number and size can be changed by processes that have fewer privileges than this one.
        # Believing them must not end in a SIGBUS, or in writing beyond the mapping.
        return min(fl_load32(&self.head().rows), MAX_ROWS,
                   (os.fstat(self.fd).st_size - self.offset) // self.row_size)

    # -- members

    def join(self):
        """Become a member, for one engine of this process; return the member's number.

        Raises:
            RuntimeError: the arena has as many members as it can have.
        """
        cdef uint32_t i
        for i in range(self.members):
            if fl_cas32(&self.member_at(i).pid, 0, <uint32_t>os.getpid()):
                return i
        raise RuntimeError(f"the arena is full: it has {self.members} members already")

    def heal(self, member):
        """Give back all places that a member holds, free its number, return how many there were.

        Call it only for a process that is gone (after waitpid), or for one's own number when the
        engine is closed.
        """
        self.require_member(member)
        cdef uint32_t i, own = member, rows = self.rows
        cdef uint64_t found = 0, one = 1
        for i in range(rows):
            fl_and64(&self.row_at(i).waiters[own // 64], ~(<uint64_t>1 << (own % 64)))
            found += fl_swap32(&self.cells_of(i)[own], 0)
        # Wake all members, not only those whose bit says that they wait: the dead one may have
        # taken the bits, or given a place back, and then died before it woke anybody.
        for i in range(self.members):
            write(self.wakeup_fds[i], &one, sizeof(one))
        memset(<char *>self.member_at(own) + sizeof(uint32_t), 0,
               sizeof(Member) - sizeof(uint32_t))
        fl_store32(&self.member_at(own).pid, 0)
        return found

    def heal_process(self, uint32_t pid):
        """Give back all places that a process held, which is gone; return how many there were.

        Call it after waitpid. A process that has ended before it joined held none.
        """
        cdef uint32_t i
        found = 0
        for i in range(self.members):
            if fl_load32(&self.member_at(i).pid) == pid:
                found += self.heal(i)
        return found

    def pids(self):
        """Return each member's process id, by number; 0 for a number that is free."""
        return tuple(fl_load32(&self.member_at(i).pid) for i in range(self.members))

    def beat(self, member):
        """Show that the event loop of a member turns; called by the member itself, regularly."""
        self.require_member(member)
        fl_store64(&self.member_at(member).heartbeat, time.monotonic_ns() // 1_000_000)

    def heartbeats(self):
        """Return when each process last called `beat`, by process id.

        In milliseconds of CLOCK_MONOTONIC; 0 for a process that never has.
        """
        cdef uint32_t i
        found = {}
        for i in range(self.members):
            if fl_load32(&self.member_at(i).pid):
                found[fl_load32(&self.member_at(i).pid)] = fl_load64(&self.member_at(i).heartbeat)
        return found

    def loads(self):
        """Return each member's connections in flight plus its recent accepts, by number."""
        return tuple(fl_load32(&self.member_at(i).load) for i in range(self.members))

    # -- rows: called only by the process that manages them

    def add_row(self, uint32_t limit=0):
        """Return a row that is free, with this limit; append one if there is none.

        Raises:
            RuntimeError: there are MAX_ROWS rows, and all are in use.
            OSError: no memory.
        """
        cdef uint32_t i, rows = self.rows
        cdef Row *row
        for i in range(rows):
            row = self.row_at(i)
            if row.state == ROW_FREE or row.state == ROW_RETIRED and self.sum_of(i) == 0:
                break
        else:
            if rows == MAX_ROWS:
                raise RuntimeError(f"the arena is full: it has {MAX_ROWS} rows")
            i = rows
            if ftruncate(self.fd, <long>(self.offset + (rows + 1) * self.row_size)) < 0:
                raise_errno("ftruncate of the arena")
            row = self.row_at(i)
        memset(row, 0, self.row_size)
        row.state = ROW_USED
        fl_store32(&row.limit, limit)
        fl_store32(&self.head().rows, max(rows, i + 1))
        return i

    def retire_row(self, row):
        """Let `add_row` use a row again once nobody holds a place of it.

        Call it when no process takes places of it any more.
        """
        self.require_row(row)
        self.row_at(row).state = ROW_RETIRED

    def places(self, row, member):
        """Return the places of one row, as one member takes them and gives them back."""
        cdef Places places = Places.__new__(Places)
        places.arena = self
        self.fill(&places.counter, row, member)
        places.row = row
        return places

    cdef int fill(self, PlaceCounter *counter, row, member) except -1:
        self.require_member(member)
        self.require_row(row)
        counter.row = self.row_at(row)
        counter.cells = self.cells_of(row)
        counter.member = member
        counter.members = self.members
        counter.workers = max(<uint32_t>1, (self.members + 1) // 3)
        counter.processes = self.member_at(0)
        counter.wakeups = self.wakeup_fds
        return 0

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.base != NULL:
            munmap(self.base, self.mapping_size())
        if self.fd >= 0:
            close(self.fd)
        if self.wakeup_fds != NULL:
            if self.wakeups is not None:
                for i in range(len(self.wakeups)):
                    close(self.wakeup_fds[i])
            free(self.wakeup_fds)


cdef class Places:
    """The places of one row, as one member sees them. Made by `Arena.places`."""

    @property
    def member(self):
        """The number of the member that takes and gives back."""
        return self.counter.member

    @property
    def limit(self):
        """How many places all members together may hold; 0 for no limit. May be set at any time."""
        return fl_load32(&self.counter.row.limit)

    @limit.setter
    def limit(self, uint32_t value):
        fl_store32(&self.counter.row.limit, value)
        wake_all(&self.counter)

    @property
    def count(self):
        """How many places all members hold (a snapshot: others may be taking some right now)."""
        return places_held(&self.counter)

    @property
    def held(self):
        """How many places this member holds."""
        return fl_load32(&self.counter.cells[self.counter.member])

    def count_total(self, shared, reserve):
        """Count the connections under the server's total, too, from now on.

        Call it before an acceptor is made with these places. A process must have one such object
        for each listener: it remembers which of the listener's connections hold a shared place.

        Args:
            shared: the row of what all listeners share: the total less the sum of all reserves.
            reserve: the row of the listener's reserve. Its limit is the reserve, and may be 0.
        """
        self.arena.fill(&self.total.shared, shared, self.member)
        self.arena.fill(&self.total.reserve, reserve, self.member)

    cdef void wake_in_turn(self) noexcept:
        """Wake the members that wait in turn, from now on, because each has clients of its own."""
        self.counter.in_turn = True
        self.total.shared.in_turn = True
        self.total.reserve.in_turn = True

    def take(self):
        """Take one place, under the total, too; return False when a limit is reached."""
        if not take_place(&self.counter):
            return False
        if self.total.shared.row == NULL or take_total(&self.total):
            return True
        give_place(&self.counter)
        return False

    def give(self):
        """Give one place back and wake a member that waits for it."""
        if self.held == 0:
            raise ValueError("this member holds no place")
        if self.total.shared.row != NULL:
            give_total(&self.total)
        give_place(&self.counter)
