# The asyncio transport over a slot: attributes and signatures.

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastlisten._core cimport Acceptor, AcceptorState, Endpoint, Engine


cdef enum ConnectionFlag:
    CLOSING = 1            # close() or abort() was called, or the connection broke
    LOST = 2               # connection_lost is scheduled or was called
    PAUSED = 4             # pause_reading()
    WRITE_EOF = 8          # write_eof()
    PEER_EOF = 16          # the peer has shut down its side and the protocol keeps ours open
    PROTOCOL_PAUSED = 32   # pause_writing() was called
    BUFFERED = 64          # the protocol is a BufferedProtocol
    CONNECTED = 128        # connection_made was called
    ABORTED = 256          # what is unsent is not waited for
    UPGRADING = 512        # start_tls() waits for what is unsent
    TIMED_OUT = 1024       # the peer was silent for too long
    DISMISSED = 2048       # the server ends
    LATE_WRITES = 4096     # the unit in which writes after the loss are counted, from here up


cdef enum:
    # asyncio logs a warning when so many writes after the loss have been dropped.
    LOG_THRESHOLD = 5


# One end of an IP connection, in numbers: most are never spelled out.
cdef struct Name:
    int length            # 4, 16, or 0 for none or a Unix socket's
    uint32_t scope
    uint16_t port
    uint8_t numbers[16]


# What start_tls() takes; implemented above this module.
cdef class Security:
    cdef uint32_t handshake_time   # milliseconds from start_tls() on
    cdef int take_over(self, Connection connection, waiter) except -1


# What most connections never need; made when it is needed.
cdef class Extras:
    cdef list chunks       # bytes not sent yet
    cdef Py_ssize_t first  # index of the first of them
    cdef Py_ssize_t offset  # bytes of the first that are sent
    cdef Py_ssize_t size   # bytes not sent yet
    cdef Py_ssize_t high
    cdef Py_ssize_t low
    cdef object context   # in which they are sent on
    cdef object sock
    cdef dict known
    cdef Name peer
    cdef bytes peer_path  # of a Unix socket; None without a name
    cdef Name own
    cdef bytes own_path
    cdef Security security  # start_tls() was called
    cdef object waiter     # ... and this future tells how it ended
    cdef Connection successor  # ... and this transport has the descriptor now


@cython.no_gc
cdef class Connection(Endpoint):
    cdef object protocol
    cdef object context
    cdef Extras extras
    cdef object loop(self)
    cdef AcceptorState *state(self) except NULL
    cdef Acceptor acceptor(self)
    cdef bint call_factory(self) except -1
    cdef int connect(self) except -1
    cdef object own_context(self)
    cdef int take_context(self) except -1
    cdef int hand_over(self) except -1
    cdef int check_loss(self, uint32_t events) except -1
    cdef bytes last_words(self)
    cdef int late_for_tls(self, AcceptorState *state) except -1
    cdef int keep_names(self) except -1
    cdef int use_protocol(self, protocol) except -1
    cdef int complain(self, str message, exc) except -1
    cdef int fatal(self, exc, str message) except -1
    cdef int fatal_errno(self, int error, str message) except -1
    cdef int force_close(self, exc) except -1
    cdef int lost(self, exc) except -1
    cdef void give_back(self) noexcept
    cdef int schedule_lost(self, exc) except -1
    cdef int listen_to(self) except -2
    cdef int say_farewell(self, bytes text) except -1
    cdef int limit_farewell(self) except -1
    cdef bint says(self, str attribute, bint default) except -1
    cdef int late_write(self) except -1
    cdef int remember(self) except -1
    cdef Extras need_extras(self)
    cdef int touched(self) except -1
    cdef int receive(self) except -1
    cdef int receive_into(self) except -1
    cdef int deliver(self, bytes data) except -1
    cdef int end_of_input(self) except -1
    cdef int flush(self) except -1
    cdef int keep(self, bytes rest, Py_ssize_t offset) except -1
    cdef int may_pause(self) except -1
    cdef int may_resume(self) except -1
    cdef dict know(self)
    cdef object socket_view(self)
    cdef bytes take_peername(self, Name *name)


cdef class ConnectionAcceptor(Acceptor):
    cdef Name own          # of the listening socket
    cdef bint fixed        # ... and so of its connections
    cdef int take(self, Connection connection, sock, protocol) except -1
