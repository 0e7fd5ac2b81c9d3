# TLS on the descriptor: a transport for which OpenSSL reads and writes the socket itself.
#
# Rules of this file: asyncio is the specification (sslproto.py of CPython), down to its messages.
# There are no buffers but OpenSSL's own and the queue of unsent data. This needs the private
# SSLContext._wrap_socket (only in `make_session`) and functions of OpenSSL (`find_openssl`). Where
# one of them is missing, OpenSSL reads and writes memory, as in asyncio (`Buffers`).
#
#   HANDSHAKE --ready--> [SILENT --first byte-->] open --close()--> SHUTTING --> lost
#        | handshake_failed                        | close_notify      | the peer's close_notify,
#        v                                         | of the peer       | its end, or the timeout
#       lost                                       +-------------------+

cimport cython

import collections
import logging
import os
import socket
import ssl
import sys
from asyncio.sslproto import _SSLProtocolTransport
from ssl import (
    MemoryBIO, SSLContext, SSLEOFError, SSLObject, SSLWantReadError, SSLWantWriteError,
    SSLZeroReturnError,
)

import _socket
import _ssl

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EPIPE, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp

from fastlisten._connection cimport (
    BUFFERED, CLOSING, CONNECTED, LATE_WRITES, LOG_THRESHOLD, LOST, PAUSED, UPGRADING, Connection,
    ConnectionAcceptor, Extras, Security,
)
from fastlisten._core cimport (
    FAREWELL_TIME, FLAG_IN, FLAG_INET, FLAG_INET6, FLAG_OUT, RECEIVE_SIZE, REPLY_FIRST_BYTE,
    REPLY_GREETING, REPLY_IDLE, REPLY_SHUTDOWN, R_HANDSHAKE, AcceptorState, Endpoint, Slot,
    check_greeting, milliseconds,
)
from fastlisten._system cimport (
    EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK,
    SOL_SOCKET, SO_ERROR, errno_error, fl_load32, fl_microseconds, getsockopt, recv, send,
    socklen_t,
)

cdef extern from "<dlfcn.h>" nogil:
    void *dlopen(const char *, int)
    void *dlsym(void *, const char *)
    int RTLD_LAZY
    void *RTLD_DEFAULT

cdef enum:
    # openssl/ssl.h; part of its binary interface.
    SSL_CTRL_CLEAR_MODE = 78
    SSL_MODE_AUTO_RETRY = 4
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_WANT_WRITE = 3
    SSL_ERROR_SYSCALL = 5
    SSL_ERROR_ZERO_RETURN = 6
    SSL_TLSEXT_ERR_OK = 0
    SSL_TLSEXT_ERR_ALERT_FATAL = 2
    # The most plain text in a record (RFC 8446 5.1).
    RECORD = 16384
    # Where OpenSSL reads memory: how much it is given at once, a record with its header and tag.
    # All of it may be key updates, about 600, which OpenSSL handles in one call.
    FEED = 16640
    # Where it writes memory: how much may wait to be sent before reading stops. This is one record
    # of ours and answers to key updates, of which a client can ask for any number.
    ANSWERS = 32768
    # asyncio's defaults for TLS: pause the protocol from 512 KiB on, resume at a quarter.
    HIGH_WATER = 524288
    # How long (us) one connection may go on with what OpenSSL has decrypted already.
    DECRYPTED_SLICE = 500

cdef object logger = logging.getLogger("asyncio")
cdef object Disconnected = (SSLEOFError, SSLZeroReturnError)
cdef int NONBLOCKING_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
# Whether `use_memory` was called.
cdef bint memory_wanted = False


def use_memory(bint wanted):
    """Let OpenSSL read and write memory instead of the socket, for tests; return the old setting.

    It costs some kilobytes for each connection, and copying.
    """
    global memory_wanted
    before = memory_wanted
    memory_wanted = wanted
    return before


# Functions of the OpenSSL that Python's ssl uses. If one is missing, `direct` is false.
ctypedef long (*Control)(void *, int, long, void *) noexcept nogil
ctypedef int (*Read)(void *, void *, size_t, size_t *) noexcept nogil
ctypedef int (*Write)(void *, const void *, size_t, size_t *) noexcept nogil
ctypedef int (*GetError)(void *, int) noexcept nogil
ctypedef void (*ClearError)() noexcept nogil
ctypedef int (*OfSession)(void *) noexcept nogil
ctypedef void *(*PartOf)(void *) noexcept nogil
ctypedef void *(*Method)() noexcept nogil
ctypedef unsigned long (*Number)() noexcept nogil
ctypedef int (*Use)(void *, void *) noexcept nogil
ctypedef int (*Choose)(void *, const unsigned char **, unsigned char *, const unsigned char *,
                       unsigned int, void *) noexcept nogil
ctypedef void (*SetChoose)(void *, Choose, void *) noexcept nogil
cdef Control ssl_ctrl = NULL
cdef Read ssl_read = NULL
cdef Write ssl_write = NULL
cdef GetError ssl_get_error = NULL
cdef ClearError clear_error = NULL
cdef PartOf ssl_get_context = NULL
cdef SetChoose set_alpn_callback = NULL
cdef bint direct = False
cdef bint looked = False

# The size of `_ssl._SSLSocket` in those versions of CPython whose second field is the SSL pointer.
# Builds with larger objects (free-threaded, Py_TRACE_REFS) or smaller ones (32 bits) have another.
cdef dict LAYOUTS = {(3, 11): 96, (3, 12): 80, (3, 13): 80, (3, 14): 88, (3, 15): 72}


cdef void *session_pointer(session):
    """Return the SSL pointer in a `_ssl._SSLSocket` of known layout."""
    return (<void **>(<char *><void *>session + sizeof(PyObject)))[1]


cdef bint functions_match(void *library, holder, session) except -1:
    """Look up a library's functions; return whether they are those that have made a session.

    A process may have several OpenSSLs, and the session's layout may have changed. So everything is
    checked: the version, then the descriptor, then that the context's table of methods is this
    library's, and that an error raised by libssl is found in libcrypto's queue.
    """
    global ssl_ctrl, ssl_read, ssl_write, ssl_get_error, clear_error
    global ssl_get_context, set_alpn_callback
    cdef void *pointer = session_pointer(session)
    cdef Number version = <Number>dlsym(library, b"OpenSSL_version_num")
    cdef OfSession get_fd = <OfSession>dlsym(library, b"SSL_get_fd")
    cdef PartOf get_method = <PartOf>dlsym(library, b"SSL_CTX_get_ssl_method")
    cdef Method server_method = <Method>dlsym(library, b"TLS_server_method")
    cdef Use use_certificate = <Use>dlsym(library, b"SSL_use_certificate")
    cdef Number peek_error = <Number>dlsym(library, b"ERR_peek_error")
    ssl_ctrl = <Control>dlsym(library, b"SSL_ctrl")
    ssl_read = <Read>dlsym(library, b"SSL_read_ex")
    ssl_write = <Write>dlsym(library, b"SSL_write_ex")
    ssl_get_error = <GetError>dlsym(library, b"SSL_get_error")
    clear_error = <ClearError>dlsym(library, b"ERR_clear_error")
    ssl_get_context = <PartOf>dlsym(library, b"SSL_get_SSL_CTX")
    set_alpn_callback = <SetChoose>dlsym(library, b"SSL_CTX_set_alpn_select_cb")
    if version == NULL or get_fd == NULL or get_method == NULL \
            or server_method == NULL or use_certificate == NULL or peek_error == NULL \
            or ssl_ctrl == NULL or ssl_read == NULL or ssl_write == NULL \
            or ssl_get_error == NULL or clear_error == NULL \
            or ssl_get_context == NULL or set_alpn_callback == NULL:
        return False
    if version() != ssl.OPENSSL_VERSION_NUMBER or get_fd(pointer) != holder.fileno() \
            or get_method(ssl_get_context(pointer)) != server_method():
        return False
    clear_error()
    if use_certificate(pointer, NULL) == 1 or not peek_error():
        return False
    clear_error()
    return not peek_error()


cdef int find_openssl() except -1:
    """Find OpenSSL's functions, if the layout of this interpreter's session objects is known.

    Calling them saves a tenth of the instructions of a small message. It is also what makes reading
    from the socket safe: by default OpenSSL goes on reading as long as records without data (TLS
    1.3 key updates) follow each other, so that a client which never stops sending them would keep
    the loop in one call. With SSL_MODE_AUTO_RETRY cleared, which the ssl module cannot do, the
    call returns after each of them, and other connections get their turn.

    The functions are looked for in the libraries that `_ssl` is linked with and, if `_ssl` is built
    into the interpreter, in the whole process. Interpreters into which OpenSSL is linked statically
    (such as those that uv installs) hide them.
    """
    global looked, direct
    cdef void *library = NULL
    cdef bytes path
    if looked:
        return 0
    looked = True
    if sys.implementation.name != "cpython" or not hasattr(SSLContext, "_wrap_socket") \
            or _ssl._SSLSocket.__basicsize__ != LAYOUTS.get(sys.version_info[:2]):
        return 0
    if hasattr(_ssl, "__file__"):
        path = os.fsencode(_ssl.__file__)
        library = dlopen(PyBytes_AS_STRING(path), RTLD_LAZY)
    try:
        ours, peer = socket.socketpair()
        with ours, peer:
            holder = _Descriptor(socket.AF_UNIX, NONBLOCKING_STREAM, 0,
                                 fileno=os.dup(ours.fileno()))
            try:
                session = SSLContext(ssl.PROTOCOL_TLS_SERVER)._wrap_socket(holder, True, None)
                direct = library != NULL and functions_match(library, holder, session) \
                    or functions_match(RTLD_DEFAULT, holder, session)
            finally:
                holder.close()
    except OSError:
        # No descriptor, or OpenSSL refuses. The package also works without it.
        direct = False
    return 0


def calls_openssl():
    """Return whether OpenSSL itself reads records from the socket and writes them to it."""
    find_openssl()
    return bool(direct)


# Lists of protocols as callbacks read them, each under itself. They are kept, because OpenSSL holds
# no reference to them; there are as many as there are protocols with ALPN.
cdef dict alpn_lists = {}


cdef int choose_protocol(
    void *session, const unsigned char **chosen, unsigned char *length,
    const unsigned char *offered, unsigned int size, void *supported,
) noexcept nogil:
    """Choose the first of the supported protocols that a client offers (RFC 7301 3.2).

    Both are lists of names with their length before them; the supported ones end with a NUL.
    """
    cdef const unsigned char *name = <const unsigned char *>supported
    cdef unsigned int at
    while name[0]:
        at = 0
        while at < size and offered[at] < size - at:
            if offered[at] == name[0] and memcmp(offered + at + 1, name + 1, name[0]) == 0:
                chosen[0] = name + 1
                length[0] = name[0]
                return SSL_TLSEXT_ERR_OK
            at += 1 + offered[at]
        name += 1 + name[0]
    return SSL_TLSEXT_ERR_ALERT_FATAL


def set_alpn(context, protocols):
    """Let a context negotiate a protocol by ALPN, and refuse clients that offer only others.

    They get the alert no_application_protocol (RFC 7301 3.2). `SSLContext.set_alpn_protocols`,
    which is called too, lets them go on without a protocol, and that is what happens where
    OpenSSL's functions are not called directly. Clients that do not use ALPN are not concerned.

    Args:
        context: an `ssl.SSLContext` for the server's side.
        protocols: their names, the preferred first; empty to ignore ALPN.

    Returns:
        Whether such clients are refused.
    """
    cdef bytes names
    context.set_alpn_protocols(list(protocols))
    find_openssl()
    if not direct or not protocols:
        return False
    names = b"".join(bytes((len(name),)) + name.encode("ascii") for name in protocols)
    names = alpn_lists.setdefault(names, names)
    session = context.wrap_bio(MemoryBIO(), MemoryBIO(), server_side=True)._sslobj
    set_alpn_callback(ssl_get_context(session_pointer(session)), choose_protocol,
                      PyBytes_AS_STRING(names))
    return True


cdef class Buffers:
    """The buffers between OpenSSL and the socket if OpenSSL reads and writes memory."""

    def __cinit__(self):
        self.incoming = MemoryBIO()
        self.outgoing = MemoryBIO()


class _Descriptor(_socket.socket):
    """What a session needs of its socket: the descriptor, and that it does not block."""

    __slots__ = ("__weakref__",)


cdef uint32_t positive_milliseconds(str name, double seconds) except 0:
    if not seconds > 0:
        raise ValueError(f"{name} should be a positive number, got {seconds:g}")
    return milliseconds(seconds)


cdef Py_ssize_t places_limit(const AcceptorState *state) noexcept:
    """Return how many places a listener can have under its limit and the total; 0: no limit."""
    cdef Py_ssize_t limit = 0, total
    if state.places.row != NULL:
        limit = fl_load32(&state.places.row.limit)
    if state.total == NULL:
        return limit
    total = fl_load32(&state.total.shared.row.limit)
    total += fl_load32(&state.total.reserve.row.limit)
    return min(limit, total) if limit else total


cdef class TlsSettings(Security):
    """A server's settings for TLS; made once for many connections.

    Args:
        context: certificate, versions, ciphers. The object stays live: certificates loaded into
            it later are used by new handshakes.
        handshake_timeout: seconds from accept (or `start_tls`) to the end of the handshake.
        shutdown_timeout: seconds from close() until the peer must have answered close_notify.
        handshakes: how many handshakes may be in progress at a time, and never more than half of
            the places that a listener can have under its limit and the server's total. When another
            one begins, the oldest is ended, so that a flood of half-open ones cannot keep others
            out. A client that has not sent anything yet does not count.

    Raises:
        TypeError: the context is not an `ssl.SSLContext`.
        ValueError: a number is not positive.
    """

    def __init__(self, context, *, double handshake_timeout=60.0, double shutdown_timeout=30.0,
                 Py_ssize_t handshakes=1024):
        if not isinstance(context, SSLContext):
            raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, "
                            f"got {context!r}")
        if handshakes < 1:
            raise ValueError(f"handshakes should be at least 1, got {handshakes}")
        self.handshake_time = positive_milliseconds("ssl_handshake_timeout", handshake_timeout)
        self.shutdown_time = positive_milliseconds("ssl_shutdown_timeout", shutdown_timeout)
        find_openssl()
        self.context = context
        self.handshake_timeout = handshake_timeout
        self.shutdown_timeout = shutdown_timeout
        self.handshakes = handshakes
        self.progress = collections.OrderedDict()

    @property
    def in_progress(self):
        """How many handshakes are in progress now."""
        return len(self.progress)

    cdef int take_over(self, Connection connection, waiter) except -1:
        cdef TlsConnection successor = TlsConnection.__new__(TlsConnection)
        cdef Extras old = connection.extras, new
        cdef int fd = connection.fd
        connection.keep_names()
        successor.settings = self
        successor.tls = HANDSHAKE | STARTED
        successor.flags = connection.flags & (BUFFERED | CONNECTED)
        successor.protocol = connection.protocol
        successor.context = connection.context
        new = successor.need_extras()
        new.sock = old.sock
        new.info = old.info
        new.waiter = waiter
        old.sock = None
        old.successor = successor
        connection.engine().set_endpoint(fd, successor)
        connection.flags = (connection.flags | CLOSING | LOST) & ~UPGRADING
        connection.fd = -1
        connection.owner = NULL
        connection.protocol = connection.context = None
        # The deadline that start_tls() has set still holds.
        successor.update_watch()
        return 0

    def attach(self, ConnectionAcceptor acceptor not None, sock, protocol):
        """Serve a connection that was accepted elsewhere; the handshake comes first.

        Args:
            acceptor: what counts the connection.
            sock: a connected, non-blocking stream socket; closed with the connection.
            protocol: its connection_made is called after the handshake.

        Returns:
            A future of the `TlsConnection`. It fails with what ended the handshake. Cancelling it
            ends the connection; its protocol has not seen it yet.

        Raises:
            ValueError: the descriptor is out of range, or already being served.
            RuntimeError: the acceptor is closed.
        """
        cdef TlsConnection connection = TlsConnection.__new__(TlsConnection)
        connection.settings = self
        connection.tls = HANDSHAKE | ATTACHED
        acceptor.attach_connection(connection, sock, protocol)
        waiter = connection.extras.waiter = acceptor.engine.loop.create_future()
        connection.engine().set_deadline(connection.fd, self.handshake_time)
        connection.update_watch()
        waiter.add_done_callback(connection._waited)
        return waiter


@cython.no_gc
cdef class TlsConnection(Connection):
    """A served connection under TLS: an `asyncio.Transport` that behaves as asyncio's own for TLS.

    The core makes it, or `Connection.start_tls`. Programs don't. In addition to asyncio's names,
    ``get_extra_info("truncated")`` says whether the peer has ended TCP without close_notify: if so,
    somebody in between may have cut off the end of what it sent (RFC 8446 6.1).
    """

    # -- from the engine

    cdef int start(self) except -1:
        cdef TlsAcceptor acceptor = <TlsAcceptor>self.acceptor()
        self.settings = acceptor.tls
        self.tls = HANDSHAKE
        if acceptor.state.lazy:
            self.tls |= SILENT
        elif not self.call_factory():
            return 0
        return self.update_watch()

    cdef int event(self, uint32_t events) except -1:
        context = self.own_context()
        PyContext_Enter(context)
        try:
            self.handle_event(events)
        finally:
            PyContext_Exit(context)
        return 0

    cdef int handle_event(self, uint32_t events) except -1:
        cdef uint32_t interest = self.slot().flags
        cdef bint readable = events & <uint32_t>(EPOLLIN | EPOLLERR | EPOLLHUP)
        cdef bint waited = False
        if self.flags & LOST:
            return 0
        if self.tls & HANDSHAKE:
            return self.handshake()
        if events & <uint32_t>EPOLLERR:
            self.fetch_error()
        if events & <uint32_t>(EPOLLRDHUP | EPOLLERR | EPOLLHUP):
            self.tls |= HUNG_UP
        if not interest & (FLAG_IN | FLAG_OUT):
            return self.check_loss(events)
        if interest & FLAG_OUT and events & <uint32_t>(EPOLLOUT | EPOLLERR | EPOLLHUP):
            if self.ssl == NULL:
                # Even if nothing is unsent any more: a read may have sent it.
                waited = True
                if self.unsent() and not self.send_outgoing():
                    return self.fatal(self.os_error(), "Fatal write error on socket transport")
            if self.tls & (READ_WANTS_WRITE | WANTS_WRITE):
                self.tls &= ~(READ_WANTS_WRITE | WANTS_WRITE)
                readable = waited = True
            if self.extras is not None and self.extras.size:
                self.flush()
        elif self.tls & WRITE_WANTS_READ:
            self.flush()
        if self.fd < 0 or self.flags & LOST:
            return 0
        if not readable:
            return self.update_watch() if waited else 0
        if self.flags & CLOSING:
            self.shutdown_step()
        elif not self.flags & PAUSED and not self.tls & HELD:
            self.receive_records()
        if waited and self.fd >= 0:
            # Perhaps it is only waiting for room.
            self.update_watch()
        return 0

    cdef int check_loss(self, uint32_t events) except -1:
        if not self.error:
            if not events & <uint32_t>EPOLLHUP or not self.slot().flags & (FLAG_INET | FLAG_INET6):
                return 0
            self.error = ECONNRESET
        self.tls |= RAW_EOF | TRUNCATED
        self.state().truncated += 1
        return self.fatal(self.os_error(), "Fatal read error on socket transport")

    cdef int fetch_error(self) except -1:
        """Fetch the socket's error before OpenSSL does: CPython 3.11 reports every error of its
        socket as an end of file."""
        cdef int error = 0
        cdef socklen_t size = sizeof(error)
        if getsockopt(self.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 and error:
            self.error = error
        return 0

    cdef object os_error(self):
        return errno_error(self.error)

    cdef int expired(self, bint first_byte) except -1:
        if self.tls & HANDSHAKE:
            return self.handshake_failed(ConnectionAbortedError(
                f"SSL handshake is taking longer than {self.settings.handshake_timeout} seconds: "
                "aborting the connection"))
        if self.flags & CLOSING:
            return self.force_close(TimeoutError("SSL shutdown timed out"))
        return Connection.expired(self, first_byte)

    cdef int drain(self) except -1:
        if not self.tls & HANDSHAKE:
            return Connection.drain(self)
        if self.flags & CONNECTED and self.protocol_is("busy", False):
            return 1
        # Nothing can be sent before the handshake is done.
        return self.force_close(None)

    cdef int abort_with_farewell(self) except -1:
        if self.tls & HANDSHAKE or self.flags & (CLOSING | LOST):
            return self.force_close(None)
        text = self.last_words()
        if not text or self.fd < 0 or self.flags & (CLOSING | LOST):
            return self.force_close(None) if self.fd >= 0 else 0
        self.write(text)
        if self.fd >= 0 and not self.flags & CLOSING:
            # close_notify, if nothing stands before it.
            self.close()
        if self.fd >= 0:
            recv(self.fd, self.engine().buffer, RECEIVE_SIZE, MSG_DONTWAIT)
        return self.force_close(None)

    cdef int set_farewell_deadline(self) except -1:
        """Give the peer the time for a farewell or for a shutdown, whichever is shorter."""
        self.engine().set_deadline(
            self.fd, min(<uint32_t>FAREWELL_TIME, self.settings.shutdown_time))
        return 0

    cdef int engine_closed(self) except -1:
        try:
            self.detach_session()
        finally:
            Connection.engine_closed(self)
        return 0

    cdef int update_watch(self) except -2:
        cdef int wanted = 0
        if self.fd < 0 or self.flags & LOST:
            return 0
        if self.tls & HANDSHAKE:
            # Only what it waits for: a peer that keeps sending and does not read must not wake us.
            wanted = FLAG_OUT if self.tls & WANTS_WRITE else FLAG_IN
        else:
            if self.extras is not None and self.extras.size:
                wanted = FLAG_IN if self.tls & WRITE_WANTS_READ else FLAG_OUT
            elif self.tls & SHUTTING:
                wanted = FLAG_OUT if self.tls & WANTS_WRITE else FLAG_IN
            if not self.flags & (CLOSING | PAUSED) and not self.tls & HELD:
                wanted |= FLAG_OUT if self.tls & READ_WANTS_WRITE else FLAG_IN
            if self.unsent():
                wanted = FLAG_OUT if self.unsent() > ANSWERS else wanted | FLAG_OUT
        if wanted == 0 and not self.state().notice_loss:
            self.engine().unwatch(self.fd)
        elif self.engine().watch(self.fd, wanted) < 0:
            self.fatal_errno(errno, "Fatal error on registering the connection with epoll")
            return -1
        return 0

    # -- the handshake

    cdef int start_session(self) except -1:
        """The first bytes have arrived: begin the handshake."""
        cdef TlsConnection oldest
        cdef TlsSettings settings = self.settings
        cdef Py_ssize_t most = settings.handshakes
        cdef AcceptorState *state = self.state()
        cdef Py_ssize_t limit = places_limit(state)
        if limit:
            # Otherwise a flood of half-open handshakes would keep all places. The limit may change.
            most = max(1, min(most, limit // (2 * <Py_ssize_t>state.places.workers)))
        while len(settings.progress) >= most:
            oldest = <TlsConnection><void *><size_t>next(iter(settings.progress))
            del settings.progress[<size_t><void *>oldest]
            oldest.handshake_failed(ConnectionAbortedError("too many handshakes in progress"))
        self.make_session()
        settings.progress[<size_t><void *>self] = None
        return 0

    cdef int make_session(self) except -1:
        cdef Slot *slot = self.slot()
        cdef int family = socket.AF_UNIX
        cdef Buffers buffers
        if not direct or memory_wanted:
            self.holder = buffers = Buffers.__new__(Buffers)
            self.session = self.settings.context.wrap_bio(
                buffers.incoming, buffers.outgoing, server_side=True)
            return 0
        if slot.flags & FLAG_INET:
            family = socket.AF_INET
        elif slot.flags & FLAG_INET6:
            family = socket.AF_INET6
        # With SOCK_NONBLOCK in its type it is non-blocking without a system call.
        self.holder = _Descriptor(family, NONBLOCKING_STREAM, 0, fileno=self.fd)
        self.ssl_owner = SSLObject.__new__(SSLObject)
        self.session = self.settings.context._wrap_socket(
            self.holder, True, None, owner=self.ssl_owner)
        self.ssl_owner._sslobj = self.session
        self.ssl = session_pointer(self.session)
        ssl_ctrl(self.ssl, SSL_CTRL_CLEAR_MODE, SSL_MODE_AUTO_RETRY, NULL)
        return 0

    cdef int handshake(self) except -1:
        try:
            if self.session is None:
                self.start_session()
            if not self.send_outgoing():
                raise self.os_error()
            if self.unsent():
                raise SSLWantWriteError
            if not self.receive_incoming():
                self.buffers().incoming.write_eof()
            self.session.do_handshake()
        except SSLWantReadError:
            if not self.send_outgoing():
                return self.handshake_failed(self.os_error())
            self.tls = self.tls | WANTS_WRITE if self.unsent() else self.tls & ~WANTS_WRITE
            return self.update_watch()
        except SSLWantWriteError:
            self.tls |= WANTS_WRITE
            return self.update_watch()
        except BaseException as exc:
            # Send the alert.
            self.send_outgoing()
            return self.handshake_failed(
                ConnectionResetError() if isinstance(exc, Disconnected) else exc)
        if self.fd < 0 or self.flags & LOST:
            # The server-name callback closed it.
            return 0
        if not self.send_outgoing():
            return self.handshake_failed(self.os_error())
        return self.handshake_done()

    cdef int handshake_done(self) except -1:
        """The handshake is done."""
        cdef TlsAcceptor acceptor
        cdef Slot *slot = self.slot()
        self.settings.progress.pop(<size_t><void *>self, None)
        self.ssl_owner = None
        self.tls &= ~(HANDSHAKE | WANTS_WRITE)
        if self.ssl == NULL:
            # What came after the handshake.
            self.tls |= UNREAD
        slot.deadline = 0
        # Kept, because after an error OpenSSL no longer has it.
        certificate = self.session.getpeercert(False)
        if certificate is not None:
            self.info()["peercert"] = certificate
        if self.tls & STARTED:
            self.input_arrived()
            waiter = self.extras.waiter
            self.extras.waiter = None
            if not waiter.done():
                waiter.set_result(self)
            self.tls |= HELD
            self.update_watch()
            self.loop().call_soon(self._deliver)
            return 0
        if self.tls & ATTACHED:
            waiter = self.extras.waiter
            self.extras.waiter = None
            if waiter.cancelled():
                # In this iteration of the loop, so that its callback comes too late.
                return self.force_close(None)
            self.connect()
            if not waiter.done():
                waiter.set_result(self)
            if self.tls & UNREAD:
                # After the code that waits has run.
                self.tls |= HELD
                self.loop().call_soon(self._deliver)
            return 0
        acceptor = <TlsAcceptor>self.acceptor()
        if acceptor.first_byte:
            self.engine().set_deadline(self.fd, acceptor.first_byte)
        if acceptor.replies[REPLY_GREETING]:
            self.write(acceptor.replies[REPLY_GREETING])
        if self.fd < 0 or self.flags & LOST:
            return 0
        if not self.tls & SILENT:
            self.connect()
        elif self.update_watch() < 0:
            return 0
        if self.tls & UNREAD and self.fd >= 0 and not self.flags & (LOST | CLOSING | PAUSED):
            self.receive_records()
        return 0

    cdef int connect(self) except -1:
        """Call connection_made, in the connection's context, which has been entered already."""
        self.flags |= CONNECTED
        try:
            self.protocol.connection_made(self)
        except BaseException as exc:
            # asyncio calls it from there.
            return self.fatal(exc, "Fatal error: protocol.buffer_updated() call failed.")
        if self.extras is not None and self.extras.size:
            # What a factory has written that was given its connection.
            self.flush()
        return self.update_watch()

    cdef int handshake_failed(self, exc) except -1:
        cdef AcceptorState *state
        if self.fd < 0 or self.flags & LOST:
            # The server-name callback has closed the connection, or the whole engine.
            return 0
        state = self.state()
        state.handshake_failures += 1
        self.engine().record(R_HANDSHAKE, state, self.fd, 1)
        # OpenSSL has sent its alert. Unread bytes would turn the close into a reset that
        # overtakes it.
        recv(self.fd, self.engine().buffer, RECEIVE_SIZE, MSG_DONTWAIT)
        if self.extras is not None and self.extras.waiter is not None:
            waiter = self.extras.waiter
            self.extras.waiter = None
            if not waiter.done():
                waiter.set_exception(exc)
        return self.fatal(exc, "SSL handshake failed on verifying the certificate"
                          if isinstance(exc, ssl.CertificateError) else "SSL handshake failed")

    def _call_connection_lost(self, exc):
        self.tls |= FORGOTTEN
        Connection._call_connection_lost(self, exc)

    def _waited(self, waiter):
        """End a connection that nobody waits for any more. Only the loop calls this."""
        if waiter.cancelled():
            self.force_close(None)

    def _deliver(self):
        """Go on receiving, first what is decrypted already. Only the loop calls this."""
        cdef bytes data
        if self.fd < 0 or self.flags & LOST:
            return
        self.tls &= ~HELD
        if self.flags & (CLOSING | PAUSED) or self.tls & HANDSHAKE:
            return
        if self.early is not None:
            data = self.early
            self.early = None
            self.deliver(data)
        elif self.tls & UNREAD or self.session.pending():
            self.receive_records()
        self.update_watch()

    # -- where OpenSSL reads and writes memory

    cdef Buffers buffers(self):
        """Return the buffers between OpenSSL and the socket, or None."""
        return <Buffers>self.holder if self.ssl == NULL else None

    cdef Py_ssize_t unsent(self) except -1:
        """Return how many bytes OpenSSL has written that the kernel has not taken."""
        cdef Buffers buffers = self.buffers()
        if buffers is None or buffers.unsent is None:
            return 0
        return PyBytes_GET_SIZE(buffers.unsent) - buffers.offset

    cdef bint send_outgoing(self) except -1:
        """Send what OpenSSL has written; return False if the connection is broken."""
        cdef Buffers buffers = self.buffers()
        cdef ssize_t sent
        if buffers is None:
            return True
        if buffers.outgoing.pending:
            more = buffers.outgoing.read()
            if buffers.unsent is not None:
                more = buffers.unsent[buffers.offset:] + more
            buffers.unsent = more
            buffers.offset = 0
        if buffers.unsent is None:
            return True
        sent = send(self.fd, PyBytes_AS_STRING(buffers.unsent) + buffers.offset,
                    PyBytes_GET_SIZE(buffers.unsent) - buffers.offset, MSG_NOSIGNAL)
        if sent < 0:
            if errno == EAGAIN or errno == EINTR:
                return True
            # The first error is the cause of later ones.
            self.error = self.error or errno
            buffers.unsent = None
            return False
        buffers.offset += sent
        if buffers.offset == PyBytes_GET_SIZE(buffers.unsent):
            buffers.unsent = None
        return True

    cdef bint receive_incoming(self) except -1:
        """Receive up to `FEED` bytes for OpenSSL; return False at the end of input."""
        cdef Buffers buffers = self.buffers()
        cdef ssize_t got
        if buffers is None or self.tls & UNREAD:
            return True
        got = recv(self.fd, self.engine().buffer, FEED, 0)
        if got > 0:
            buffers.incoming.write(self.engine().view[:got])
        elif got == 0 or errno != EAGAIN and errno != EINTR:
            if got < 0:
                self.error = self.error or errno
            return False
        return True

    cdef bint at_end(self) except -1:
        """Whether everything that the peer has sent was read, and it will send no more.

        OpenSSL is not asked: when it meets an end that it does not expect, it forgets the session's
        properties, which `ssl_object` may still be asked for.
        """
        cdef char byte
        cdef ssize_t got
        if self.ssl == NULL:
            return not self.receive_incoming()
        if not self.tls & HUNG_UP or self.session.pending():
            return False
        got = recv(self.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT)
        if got > 0 or got < 0 and (errno == EAGAIN or errno == EINTR):
            return False
        if got < 0:
            self.error = self.error or errno
        return True

    # -- receiving

    cdef int receive_records(self) except -1:
        """Receive a record, or all records that OpenSSL has in memory: epoll sees none of those."""
        cdef uint64_t stop = 0
        while True:
            if self.flags & BUFFERED and not self.tls & SILENT:
                self.receive_into()
            else:
                self.receive()
            if not self.tls & UNREAD or self.fd < 0 or self.flags & (LOST | CLOSING | PAUSED):
                return 0
            if stop == 0:
                stop = fl_microseconds() + DECRYPTED_SLICE
            elif fl_microseconds() > stop:
                self.loop().call_soon(self._deliver)
                return 0

    cdef Py_ssize_t read_into(self, target, char *start, Py_ssize_t room) except -2:
        """Decrypt into `target`, which begins at `start`.

        Returns the number of bytes, 0 at close_notify, or -1 if there is nothing to deliver; any
        error has been handled then.
        """
        cdef Py_ssize_t got
        if self.at_end():
            self.read_failed(SSLEOFError(8, "EOF occurred in violation of protocol"))
            return -1
        if self.ssl != NULL:
            return self.decrypt(start, room)
        self.tls |= UNREAD
        try:
            got = self.session.read(room, target)
        except BaseException as exc:
            if isinstance(exc, SSLWantReadError):
                self.tls &= ~UNREAD
            got = -1
            failure = exc
        # Answers to key updates, or an alert. If this fails, epoll will report the reason.
        self.send_outgoing()
        if got < 0:
            self.read_failed(failure)
        if self.unsent():
            self.update_watch()
        return got

    cdef int receive(self) except -1:
        cdef Py_ssize_t got = self.read_into(self.engine().view, self.engine().buffer, RECEIVE_SIZE)
        if got < 0:
            return 0
        if got == 0:
            self.call_eof_received()
            self.close()
            return 0
        return self.received(got)

    cdef Py_ssize_t decrypt(self, char *target, size_t room) except -2:
        """Call SSL_read; the result is that of `read_into`."""
        cdef size_t got = 0
        cdef int done, error, code
        clear_error()
        done = ssl_read(self.ssl, target, room, &got)
        if done == 1:
            return <Py_ssize_t>got
        error = errno
        code = ssl_get_error(self.ssl, done)
        if code == SSL_ERROR_WANT_READ:
            return -1
        if code == SSL_ERROR_ZERO_RETURN:
            return 0
        if code == SSL_ERROR_WANT_WRITE:
            self.tls |= READ_WANTS_WRITE
            self.update_watch()
        elif code == SSL_ERROR_SYSCALL and error:
            # OpenSSL 3.6 queues failed system calls. What stayed in the thread's queue would be
            # taken for the error of another session there, such as one of Python's own.
            clear_error()
            # An earlier error is the cause: newer OpenSSLs try to send an alert when the end comes
            # too early.
            self.error = self.error or error
            self.tls |= RAW_EOF | TRUNCATED
            self.state().truncated += 1
            self.fatal(self.os_error(), "Fatal read error on socket transport")
        else:
            # The reason is in OpenSSL's queue of errors. Let Python's ssl turn it into an
            # exception.
            try:
                self.session.read(1, bytearray(1))
                raise SSLEOFError(8, "EOF occurred in violation of protocol")
            except BaseException as exc:
                self.read_failed(exc)
        return -1

    cdef int received(self, Py_ssize_t got) except -1:
        cdef bytes data = PyBytes_FromStringAndSize(self.engine().buffer, got)
        self.input_arrived()
        if not self.tls & SILENT:
            return self.deliver(data)
        self.tls &= ~SILENT
        before = self.context
        if not self.call_factory():
            return 0
        if self.context is before:
            return self.deliver_first(data)
        # The factory has set context variables.
        context = self.context
        PyContext_Enter(context)
        try:
            return self.deliver_first(data)
        finally:
            PyContext_Exit(context)

    cdef int deliver_first(self, bytes data) except -1:
        """Deliver the first bytes to a protocol that was made because of them."""
        self.connect()
        if self.fd < 0 or self.flags & (LOST | CLOSING):
            return 0
        if self.flags & PAUSED:
            self.early = data
            return 0
        return self.deliver(data)

    cdef int deliver(self, bytes data) except -1:
        cdef Py_ssize_t offset = 0, room
        try:
            if not self.flags & BUFFERED:
                self.protocol.data_received(data)
                return 0
            # These bytes were decrypted before it was known that the protocol has its own buffer.
            while offset < len(data) and self.fd >= 0 and not self.flags & (LOST | CLOSING):
                if self.flags & PAUSED:
                    self.early = data[offset:]
                    return 0
                if not self.flags & BUFFERED:
                    self.protocol.data_received(data[offset:])
                    return 0
                target = memoryview(self.protocol.get_buffer(-1)).cast("B")
                if self.fd < 0:
                    return 0
                room = min(len(target), len(data) - offset)
                if not room:
                    raise RuntimeError("get_buffer() returned an empty buffer")
                target[:room] = memoryview(data)[offset:offset + room]
                offset += room
                self.protocol.buffer_updated(room)
        except BaseException as exc:
            return self.fatal(exc, "Fatal error on SSL protocol")
        return 0

    cdef int receive_into(self) except -1:
        cdef Py_ssize_t got = 0, room
        cdef uint64_t stop = 0
        cdef Py_buffer view
        while True:
            try:
                target = self.protocol.get_buffer(-1)
                if not len(target):
                    raise RuntimeError("get_buffer() returned an empty buffer")
                PyObject_GetBuffer(target, &view, PyBUF_WRITABLE)
            except BaseException as exc:
                return self.fatal(exc, "Fatal error on SSL protocol")
            room = view.len
            try:
                if self.fd < 0 or self.flags & (LOST | CLOSING):
                    # get_buffer() has closed it.
                    got = -1
                else:
                    got = self.read_into(target, <char *>view.buf, room)
            finally:
                PyBuffer_Release(&view)
            if got < 0:
                return 0
            if got == 0:
                self.call_eof_received()
                self.close()
                return 0
            self.input_arrived()
            try:
                self.protocol.buffer_updated(got)
            except BaseException as exc:
                return self.fatal(exc, "Fatal error on SSL protocol")
            if self.ssl == NULL or self.fd < 0 or self.flags & (LOST | CLOSING | PAUSED) \
                    or got < room or not self.session.pending():
                return 0
            # epoll does not report what OpenSSL has decrypted already.
            if stop == 0:
                stop = fl_microseconds() + DECRYPTED_SLICE
            elif fl_microseconds() > stop:
                self.loop().call_soon(self._deliver)
                return 0
            if not self.flags & BUFFERED:
                return self.receive()

    cdef int read_failed(self, exc) except -1:
        if isinstance(exc, SSLWantReadError):
            return 0
        if isinstance(exc, SSLWantWriteError):
            self.tls |= READ_WANTS_WRITE
            return self.update_watch()
        if isinstance(exc, Disconnected) \
                or self.error and isinstance(exc, (ConnectionResetError, BrokenPipeError)):
            self.tls |= RAW_EOF | TRUNCATED
            self.state().truncated += 1
            if self.error:
                return self.fatal(self.os_error(), "Fatal read error on socket transport")
            self.call_eof_received()
            self.close()
            return 0
        if isinstance(exc, (ConnectionResetError, BrokenPipeError)):
            self.tls |= RAW_EOF | TRUNCATED
            self.state().truncated += 1
        return self.fatal(exc, "Fatal error on SSL protocol")

    cdef int call_eof_received(self) except -1:
        """Call eof_received once. As in asyncio, its result does not matter under TLS."""
        if self.tls & EOF_DELIVERED or not self.flags & CONNECTED or self.flags & LOST:
            return 0
        self.tls |= EOF_DELIVERED
        try:
            if self.protocol.eof_received():
                logger.warning(
                    "returning true from eof_received() has no effect when using ssl")
        except BaseException as exc:
            return self.fatal(exc, "Error calling eof_received()")
        return 0

    def pause_reading(self):
        """Stop calling data_received until `resume_reading`. May be called repeatedly."""
        if not self.flags & (CLOSING | PAUSED):
            self.flags |= PAUSED
            self.update_watch()

    def resume_reading(self):
        """Receive again, first what is decrypted already. May be called repeatedly."""
        if self.flags & CLOSING or not self.flags & PAUSED:
            return
        self.flags &= ~PAUSED
        self.use_callers_context()
        if self.early is not None or self.tls & UNREAD \
                or not self.tls & (HANDSHAKE | HELD) and self.session.pending():
            self.loop().call_soon(self._deliver)
        else:
            self.update_watch()

    # -- sending

    def write(self, data):
        """Encrypt and send; what the kernel does not take at once is queued and sent later.

        After close() it is dropped.

        Raises:
            TypeError: not bytes, bytearray or memoryview.
        """
        cdef Py_ssize_t sent = 0
        if not isinstance(data, (bytes, bytearray, memoryview)):
            _SSLProtocolTransport.write(self, data)
            raise TypeError(f"not bytes: {type(data).__name__}")
        if not data:
            return
        if self.flags & CLOSING:
            self.late_write()
            return
        if type(data) is not bytes:
            data = bytes(data)
        if not self.tls & HANDSHAKE and (self.extras is None or self.extras.size == 0):
            sent = self.encrypt(data, 0)
            if sent < 0 or sent == PyBytes_GET_SIZE(data):
                return
        self.queue(data, sent)
        self.update_watch()
        self.maybe_pause()

    def writelines(self, list_of_data):
        """Send several pieces in as few records as possible."""
        pieces = [data if type(data) is bytes else bytes(memoryview(data))
                  for data in list_of_data]
        if self.flags & CLOSING:
            self.late_write()
            return
        waiting = self.tls & HANDSHAKE or self.extras is not None and self.extras.size
        for piece in pieces:
            if piece:
                self.queue(piece, 0)
        if self.extras is None or not self.extras.size:
            return
        if not waiting:
            self.flush()
        if self.fd >= 0 and not self.flags & LOST:
            self.update_watch()
            self.maybe_pause()

    cdef int late_write(self) except -1:
        if self.flags // LATE_WRITES >= LOG_THRESHOLD:
            logger.warning("SSL connection is closed")
        else:
            self.flags += LATE_WRITES
        return 0

    cdef Py_ssize_t encrypt(self, bytes data, Py_ssize_t offset) except -2:
        """Send as much of `data` as the kernel takes; return the number of bytes, -1 if broken.

        One record at a time, because OpenSSL considers a longer write done only when all of it is
        sent. A record that could not be sent must be offered again unchanged: the caller keeps what
        is not sent, and offers it again from the same byte on.
        """
        cdef Py_ssize_t sent = 0, size = PyBytes_GET_SIZE(data) - offset, more
        cdef const char *start = PyBytes_AS_STRING(data) + offset
        cdef size_t done
        cdef int result, error, code
        while sent < size:
            more = min(<Py_ssize_t>RECORD, size - sent)
            try:
                if self.ssl == NULL:
                    if self.unsent():
                        self.update_watch()
                        return sent
                    if self.tls & WRITE_WANTS_READ:
                        self.receive_incoming()
                    sent += self.session.write(
                        data if more == PyBytes_GET_SIZE(data)
                        else memoryview(data)[offset + sent:offset + sent + more])
                    self.tls &= ~(RETRY | WRITE_WANTS_READ)
                    if self.send_outgoing():
                        continue
                    raise SSLEOFError(8, "EOF occurred in violation of protocol")
                clear_error()
                result = ssl_write(self.ssl, start + sent, more, &done)
                if result == 1:
                    sent += <Py_ssize_t>done
                    self.tls &= ~(RETRY | WRITE_WANTS_READ)
                    continue
                error = errno
                code = ssl_get_error(self.ssl, result)
                if code == SSL_ERROR_WANT_WRITE:
                    self.tls = (self.tls | RETRY) & ~WRITE_WANTS_READ
                    return sent
                if code == SSL_ERROR_WANT_READ:
                    self.tls |= RETRY | WRITE_WANTS_READ
                    return sent
                if code == SSL_ERROR_SYSCALL and error:
                    clear_error()  # as in `decrypt`
                    self.error = self.error or error
                else:
                    # The reason is in OpenSSL's queue of errors. Let Python's ssl turn it into an
                    # exception.
                    self.session.write(memoryview(data)[offset + sent:offset + sent + more])
                raise SSLEOFError(8, "EOF occurred in violation of protocol")
            except SSLWantWriteError:
                self.tls = (self.tls | RETRY) & ~WRITE_WANTS_READ
                return sent
            except SSLWantReadError:
                self.tls |= RETRY | WRITE_WANTS_READ
                # The request to shake hands again.
                self.send_outgoing()
                return sent
            except BaseException as exc:
                self.write_failed(exc)
                return -1
        if self.unsent():
            self.update_watch()
        return sent

    cdef int write_failed(self, exc) except -1:
        if not isinstance(exc, Disconnected):
            return self.fatal(exc, "Fatal error on SSL protocol")
        if not self.error:
            self.fetch_error()
        self.error = self.error or EPIPE
        return self.fatal(self.os_error(), "Fatal write error on socket transport")

    cdef int join_chunks(self) except -1:
        """Join small chunks at the head of the queue, each of which would make a record."""
        cdef Extras extras = self.extras
        cdef Py_ssize_t size = len(<bytes>extras.chunks[extras.first]) - extras.offset
        cdef Py_ssize_t last = extras.first + 1, more
        while last < len(extras.chunks):
            more = len(<bytes>extras.chunks[last])
            if size + more > RECORD:
                break
            size += more
            last += 1
        if last - extras.first > 1:
            extras.chunks[extras.first] = (<bytes>extras.chunks[extras.first])[extras.offset:]
            extras.chunks[extras.first:last] = [b"".join(extras.chunks[extras.first:last])]
            extras.offset = 0
        return 0

    cdef int flush(self) except -1:
        cdef Extras extras = self.extras
        cdef Py_ssize_t sent, length
        cdef bint moved = False
        if extras is None or extras.size == 0 or self.flags & LOST:
            return self.update_watch()
        while extras.size:
            if not self.tls & RETRY:
                self.join_chunks()
            chunk = extras.chunks[extras.first]
            sent = self.encrypt(<bytes>chunk, extras.offset)
            if sent < 0:
                return 0
            moved = moved or sent > 0
            length = len(<bytes>chunk) - extras.offset
            extras.size -= sent
            if sent < length:
                extras.offset += sent
                break
            extras.chunks[extras.first] = None
            extras.first += 1
            extras.offset = 0
            if extras.first >= 256 and extras.first * 2 > len(extras.chunks):
                del extras.chunks[:extras.first]
                extras.first = 0
        if extras.size == 0:
            extras.chunks = extras.context = None
            extras.first = 0
        if moved and self.current_idle() and not self.flags & CLOSING:
            # A peer that takes what we send is not idle.
            self.engine().tick()
            self.engine().set_deadline(self.fd, self.current_idle())
        self.maybe_resume()
        if self.fd < 0 or self.flags & LOST:
            return 0
        if extras.size == 0 and self.tls & SHUTTING:
            return self.shutdown_step()
        return self.update_watch()

    def write_eof(self):
        """Raise NotImplementedError, as asyncio does for TLS."""
        raise NotImplementedError

    def can_write_eof(self):
        """Return False."""
        return False

    cdef Extras need_extras(self):
        if self.extras is None:
            self.extras = Extras.__new__(Extras)
            self.extras.high = HIGH_WATER
            self.extras.low = HIGH_WATER // 4
        return self.extras

    def get_write_buffer_limits(self):
        """Return (low, high) in bytes."""
        cdef Extras extras = self.need_extras()
        return (extras.low, extras.high)

    def set_write_buffer_limits(self, high=None, low=None):
        """Set when the protocol is paused and resumed, in bytes (asyncio.WriteTransport)."""
        if high is None and low is None:
            high = HIGH_WATER
        Connection.set_write_buffer_limits(self, high, low)

    cdef int maybe_pause(self) except -1:
        # As asyncio does under TLS: at the limit, not only above it.
        if self.extras is not None and self.extras.size and self.extras.size == self.extras.high:
            self.extras.high -= 1
            try:
                Connection.maybe_pause(self)
            finally:
                self.extras.high += 1
            return 0
        return Connection.maybe_pause(self)

    # -- ending

    def start_tls(self, settings):
        """Raise RuntimeError: the connection is encrypted already."""
        raise RuntimeError("the connection is encrypted already")

    def close(self):
        """Send what is queued and close_notify, wait for the peer's, call connection_lost(None).

        What is written or received later is dropped. If the peer has not answered after
        `shutdown_timeout`, connection_lost gets a TimeoutError.
        """
        if self.flags & CLOSING:
            return
        if self.tls & HANDSHAKE:
            self.force_close(None)
            return
        self.flags |= CLOSING
        self.tls |= SHUTTING
        self.engine().tick()
        self.engine().set_deadline(self.fd, self.settings.shutdown_time)
        if self.extras is None or self.extras.size == 0:
            self.shutdown_step()
        else:
            self.update_watch()

    cdef int shutdown_step(self) except -1:
        """Send close_notify and wait for the peer's."""
        if self.flags & LOST or self.extras is not None and self.extras.size:
            return 0
        if self.tls & NOTIFIED and not self.tls & RAW_EOF:
            self.tls &= ~UNREAD
            if self.at_end():
                self.tls |= RAW_EOF
                if self.error:
                    return self.fatal(self.os_error(), "Fatal read error on socket transport")
        if not self.tls & RAW_EOF:
            self.tls = self.tls & ~(WANTS_WRITE | UNREAD) | NOTIFIED
            try:
                self.receive_incoming()
                if self.ssl == NULL:
                    self.session.unwrap()
                else:
                    self.session.shutdown()
            except SSLWantReadError:
                if not self.send_outgoing():
                    return self.fatal(self.os_error(), "Fatal write error on socket transport")
                if self.unsent():
                    self.tls |= WANTS_WRITE
                return self.update_watch()
            except SSLWantWriteError:
                self.tls |= WANTS_WRITE
                return self.update_watch()
            except Disconnected:
                if self.error:
                    return self.fatal(self.os_error(), "Fatal read error on socket transport")
            except BaseException as exc:
                return self.fatal(exc, "Fatal error on transport")
            if self.send_outgoing() and self.unsent():
                # Our own close_notify waits for room.
                self.tls |= WANTS_WRITE
                return self.update_watch()
        self.call_eof_received()
        if self.fd >= 0 and not self.flags & LOST:
            self.flags |= LOST
            self.engine().unwatch(self.fd)
            self.schedule_lost(None)
        return 0

    cdef int remember(self) except -1:
        self.detach_session()
        return Connection.remember(self)

    cdef int detach_session(self) except -1:
        """Take the descriptor from the session, which would otherwise close it, or use it after
        another connection has got its number."""
        holder = self.holder
        self.holder = self.ssl_owner = self.early = None
        if self.settings is not None:
            self.settings.progress.pop(<size_t><void *>self, None)
        if holder is not None and self.ssl != NULL:
            holder.detach()
        return 0

    # -- asking

    cdef object ssl_object(self):
        """Return the session as an `ssl.SSLObject`; None before the handshake is done."""
        if self.tls & HANDSHAKE or self.session is None:
            return None
        if self.ssl == NULL:
            return self.session
        known = self.info()
        found = known.get("ssl_object")
        if found is None:
            found = known["ssl_object"] = SSLObject.__new__(SSLObject)
            found._sslobj = self.session
            self.session.owner = found
        return found

    def get_extra_info(self, name, default=None):
        """Return what is known of the connection (asyncio.BaseTransport.get_extra_info).

        Args:
            name: ``sslcontext``, ``ssl_object`` (an `ssl.SSLObject`), ``peercert``, ``cipher``,
                ``compression``, ``truncated``, or a name that `Connection` knows; of the latter
                ``socket``, ``peername`` and ``sockname`` only up to connection_lost.
            default: returned for everything else, and for what is not known yet.
        """
        if name == "sslcontext":
            return self.settings.context
        if name == "truncated":
            return bool(self.tls & TRUNCATED)
        if name in ("ssl_object", "peercert", "cipher", "compression"):
            found = self.ssl_object()
            if found is None:
                return default
            if name == "ssl_object":
                return found
            if name == "peercert":
                return self.info().get("peercert")
            return found.cipher() if name == "cipher" else found.compression()
        if self.tls & FORGOTTEN and name in ("socket", "peername", "sockname"):
            return default
        return Connection.get_extra_info(self, name, default)

    def __repr__(self):
        return Connection.__repr__(self).replace("Connection", "TlsConnection", 1)


cdef class TlsAcceptor(ConnectionAcceptor):
    """An acceptor whose connections begin with a TLS handshake.

    The arguments are those of `Acceptor`, and:

    Args:
        tls: how TLS is spoken.
        lazy: make the protocol object at the first byte after the handshake.
        greeting: sent encrypted after the handshake, as are the farewells. `refusal` and `overload`
            are sent as they are: a TLS alert, or nothing.
        first_byte: seconds that a client may be silent after the handshake; 0 for no timeout.
    """

    def __init__(self, engine, sock, factory, *, TlsSettings tls not None, bytes greeting=b"",
                 double first_byte=0.0, bint lazy=False, **options):
        # Everything that can fail comes before the engine knows the socket.
        self.first_byte = milliseconds(first_byte)
        check_greeting(greeting)
        ConnectionAcceptor.__init__(self, engine, sock, factory, first_byte=tls.handshake_timeout,
                                    lazy=lazy, **options)
        self.tls = tls
        self.replies = (greeting, *self.replies[1:])
        self.state.tls = True
        # Sent by the core these would go out in clear text.
        for kind in (REPLY_FIRST_BYTE, REPLY_IDLE, REPLY_SHUTDOWN):
            self.state.replies[kind].size = 0

    cdef Endpoint endpoint(self, int fd):
        return TlsConnection.__new__(TlsConnection)
