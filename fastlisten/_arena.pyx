# The arena: shared memory behind max-connections.
#
# Rules of this file: what happens once per process or listener. What happens once per connection is
# in the .pxd. No import of the package's Python modules, and of the native ones only _system.
#
#   +------+--------+-- ... --+-----+-- ... --+
#   | head | member |         | row |         |     a member: a process, a row: a listener
#   +------+--------+-- ... --+-----+-- ... --+
#
# Each row has the listener's limit and one cell per member, which only that member writes. When a
# process has died, its cells are set to zero, so nothing leaks.

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastlisten._system cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, MAP_FAILED, MAP_SHARED, MFD_CLOEXEC, PROT_READ, PROT_WRITE, close,
    eventfd, fl_and64, fl_cas32, fl_load32, fl_store32, fl_swap32, ftruncate, memfd_create, mmap,
    munmap, raise_errno, write,
)

import os

cdef enum:
    # The arena begins with this and the version of its layout, so that a process that expects
    # another layout does not join.
    ARENA_MAGIC = 0x666C3161  # "fl1a"
    ARENA_VERSION = 1
    # A cache line. Rows are aligned to it, so that listeners do not share one.
    LINE = 64

# Row.waiters has one bit per member.
MAX_MEMBERS = 256


cdef struct ArenaHead:
    uint32_t magic
    uint32_t version
    uint32_t listeners
    uint32_t members
    uint32_t row_size
    uint32_t spare[11]


# Without tp_clear, because __dealloc__ closes what `wakeups` lists, and must find it also when the
# garbage collector has broken a cycle.
@cython.no_gc_clear
cdef class Arena:
    """Shared memory that counts the connections of all listeners in all processes.

    It lives in a memfd, so that processes which do not descend from its maker can attach to it.
    Each listener has a row: the limit, and one 32-bit cell per member, which only that member
    writes. A member is a process with an engine, from its start to its end. `heal` gives back what
    a dead one held, whatever instruction it died in.

    Args:
        listeners: number of rows, at least 1.
        members: how many processes (more exactly: engines) can take part at the same time, 1 to
            256.

    Raises:
        ValueError: a number is out of range.
        OSError: no memory or no descriptor.
    """

    def __cinit__(self):
        self.fd = -1

    def __init__(self, uint32_t listeners, uint32_t members=1):
        if listeners < 1:
            raise ValueError("an arena needs at least one listener")
        if not 1 <= members <= MAX_MEMBERS:
            raise ValueError(f"members must be 1 to {MAX_MEMBERS}, not {members}")
        cdef int fd
        cdef ArenaHead *head
        wakeups = []
        self.listeners = listeners
        self.members = members
        self.size = LINE + members * sizeof(Member) + listeners * self.row_size()
        fd = memfd_create(b"fastlisten-arena", MFD_CLOEXEC)
        if fd < 0:
            raise_errno("memfd_create")
        self.fd = fd
        if ftruncate(fd, <long>self.size) < 0:
            raise_errno("ftruncate of the arena")
        self.map()
        head = <ArenaHead *>self.base
        head.magic = ARENA_MAGIC
        head.version = ARENA_VERSION
        head.listeners = listeners
        head.members = members
        head.row_size = <uint32_t>self.row_size()
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
        cdef ArenaHead *head
        self.size = os.fstat(fd).st_size
        if self.size < LINE:
            raise ValueError("not an arena: too small")
        self.fd = fd
        try:
            self.map()
            head = <ArenaHead *>self.base
            if head.magic != ARENA_MAGIC or head.version != ARENA_VERSION:
                raise ValueError("not an arena of this version")
            self.listeners = head.listeners
            self.members = head.members
            # Touching memory beyond the end of the file would be SIGBUS.
            if not 1 <= self.members <= MAX_MEMBERS or head.row_size != self.row_size() \
                    or self.size != LINE + self.members * sizeof(Member) \
                    + <size_t>self.listeners * head.row_size:
                raise ValueError("not an arena: its size does not match its head")
            if len(wakeups) != self.members:
                raise ValueError(f"{self.members} wake-up descriptors expected")
        except BaseException:
            self.fd = -1
            raise
        self.set_wakeups(wakeups)
        return self

    cdef size_t row_size(self):
        return (sizeof(Row) + self.members * sizeof(uint32_t) + LINE - 1) // LINE * LINE

    cdef int map(self) except -1:
        cdef void *base = mmap(NULL, self.size, PROT_READ | PROT_WRITE, MAP_SHARED, self.fd, 0)
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

    cdef Row *row_at(self, uint32_t listener):
        cdef ArenaHead *head = <ArenaHead *>self.base
        return <Row *>(self.base + LINE + self.members * sizeof(Member) + listener * head.row_size)

    cdef Member *member_at(self, uint32_t member):
        return <Member *>(self.base + LINE) + member

    cdef int require(self, member) except -1:
        if not 0 <= member < self.members:
            raise ValueError(f"member must be 0 to {self.members - 1}, not {member}")
        return 0

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
        self.require(member)
        cdef uint32_t i, own = member
        cdef uint64_t found = 0, one = 1
        cdef Row *row
        for i in range(self.listeners):
            row = self.row_at(i)
            fl_and64(&row.waiters[own // 64], ~(<uint64_t>1 << (own % 64)))
            found += fl_swap32(<uint32_t *>(row + 1) + own, 0)
        # Wake all members, not only those whose bit says that they wait: the dead one may have
        # taken the bits, or given a place back, and then died before it woke anybody.
        for i in range(self.members):
            write(self.wakeup_fds[i], &one, sizeof(one))
        memset(<char *>self.member_at(own) + sizeof(uint32_t), 0,
               sizeof(Member) - sizeof(uint32_t))
        fl_store32(&self.member_at(own).pid, 0)
        return found

    def pids(self):
        """Return each member's process id, by number; 0 for a number that is free."""
        return tuple(fl_load32(&self.member_at(i).pid) for i in range(self.members))

    def places(self, listener, member):
        """Return the places of one listener, as one member takes them and gives them back."""
        self.require(member)
        if not 0 <= listener < self.listeners:
            raise ValueError(f"listener must be 0 to {self.listeners - 1}, not {listener}")
        cdef Places places = Places.__new__(Places)
        places.arena = self
        places.listener = listener
        places.counter.row = self.row_at(places.listener)
        places.counter.cells = <uint32_t *>(places.counter.row + 1)
        places.counter.member = member
        places.counter.members = self.members
        places.counter.wakeups = self.wakeup_fds
        return places

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.base != NULL:
            munmap(self.base, self.size)
        if self.fd >= 0:
            close(self.fd)
        if self.wakeup_fds != NULL:
            if self.wakeups is not None:
                for i in range(len(self.wakeups)):
                    close(self.wakeup_fds[i])
            free(self.wakeup_fds)


cdef class Places:
    """The places of one listener, as one member sees them. Made by `Arena.places`."""

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
        wake_waiters(&self.counter)

    @property
    def count(self):
        """How many places all members hold (a snapshot: others may be taking some right now)."""
        return places_held(&self.counter)

    @property
    def held(self):
        """How many places this member holds."""
        return fl_load32(&self.counter.cells[self.counter.member])

    def take(self):
        """Take one place; return False when the limit is reached."""
        return take_place(&self.counter)

    def give(self):
        """Give one place back and wake the members that wait for it."""
        if self.held == 0:
            raise ValueError("this member holds no place")
        give_place(&self.counter)
