# The asyncio transport over a slot: layout and signatures.

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastlisten._core cimport Acceptor, AcceptorState, Endpoint, Engine


cdef enum ConnectionFlag:
    CLOSING = 1             # close() or abort() was called, or the connection broke
    LOST = 2                # connection_lost is scheduled or was called
    PAUSED = 4              # pause_reading() was called
    WRITE_EOF = 8           # write_eof() was called
    PEER_EOF = 16           # the peer has shut down its side, and the protocol keeps ours open
    PROTOCOL_PAUSED = 32    # the protocol's pause_writing() was called
    BUFFERED = 64           # the protocol is a BufferedProtocol
    CONNECTED = 128         # connection_made was called
    ABORTED = 256           # what is unsent is dropped
    UPGRADING = 512         # start_tls() waits until everything is sent
    TIMED_OUT = 1024        # closed because the peer was silent for too long
    SERVER_SHUTDOWN = 2048  # closed because the server shuts down
    LATE_WRITES = 4096      # from this bit up: the number of writes after the loss


cdef enum:
    # asyncio logs a warning when so many writes after the loss have been dropped.
    LOG_THRESHOLD = 5


# The address of one end of a connection, as numbers: most are never needed as text.
cdef struct SocketName:
    int length            # 4, 16, or 0 for none or a Unix socket
    uint32_t scope
    uint16_t port
    uint8_t numbers[16]


# What start_tls() takes; TlsSettings implements it.
cdef class Security:
    cdef uint32_t handshake_time   # milliseconds from start_tls() on
    cdef int take_over(self, Connection connection, waiter) except -1


# What most connections never need; made on demand.
cdef class Extras:
    # the queue of what is not sent yet
    cdef list chunks
    cdef Py_ssize_t first   # index of the first chunk that is not sent
    cdef Py_ssize_t offset  # how much of it is sent
    cdef Py_ssize_t size    # bytes in the queue
    cdef Py_ssize_t high
    cdef Py_ssize_t low
    cdef object context    # in which it is sent on
    cdef object sock
    cdef dict info         # for get_extra_info()
    cdef SocketName peername
    cdef bytes peername_path  # of a Unix socket; None if it has no name
    cdef SocketName sockname
    cdef bytes sockname_path
    # start_tls()
    cdef Security security
    cdef object waiter     # the future that it has returned
    cdef Connection successor  # the transport that has the descriptor now


@cython.no_gc
cdef class Connection(Endpoint):
    cdef object protocol
    cdef object context
    cdef Extras extras
    cdef uint32_t own_idle  # ms; 0: that of the acceptor
    cdef object loop(self)
    cdef AcceptorState *state(self) except NULL
    cdef Acceptor acceptor(self)
    cdef bint call_factory(self) except -1
    cdef int connect(self) except -1
    cdef object own_context(self)
    cdef int use_callers_context(self) except -1
    cdef int hand_over(self) except -1
    cdef int check_loss(self, uint32_t events) except -1
    cdef bytes last_words(self)
    cdef int start_tls_timed_out(self, AcceptorState *state) except -1
    cdef int keep_names(self) except -1
    cdef int use_protocol(self, protocol) except -1
    cdef int report(self, str message, exc) except -1
    cdef int fatal(self, exc, str message) except -1
    cdef int fatal_errno(self, int error, str message) except -1
    cdef int force_close(self, exc) except -1
    cdef int lost(self, exc) except -1
    cdef void give_back(self) noexcept
    cdef int schedule_lost(self, exc) except -1
    cdef int update_watch(self) except -2
    cdef int say_farewell(self, bytes text) except -1
    cdef int set_farewell_deadline(self) except -1
    cdef uint32_t current_idle(self) except? 0xFFFFFFFF
    cdef bint goes_on(self) except -1
    cdef bint protocol_is(self, str attribute, bint default) except -1
    cdef int late_write(self) except -1
    cdef int remember(self) except -1
    cdef Extras need_extras(self)
    cdef int input_arrived(self) except -1
    cdef int receive(self) except -1
    cdef int receive_into(self) except -1
    cdef int deliver(self, bytes data) except -1
    cdef int end_of_input(self) except -1
    cdef int flush(self) except -1
    cdef int queue(self, bytes rest, Py_ssize_t offset) except -1
    cdef int maybe_pause(self) except -1
    cdef int maybe_resume(self) except -1
    cdef dict info(self)
    cdef object socket_view(self)
    cdef bytes get_peername(self, SocketName *name)


cdef class ConnectionAcceptor(Acceptor):
    cdef SocketName sockname    # of the listening socket
    cdef bint sockname_fixed    # ... and of all its connections
    cdef int attach_connection(self, Connection connection, sock, protocol) except -1
