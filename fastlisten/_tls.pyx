# TLS on the descriptor: a transport that encrypts with OpenSSL reading and writing the socket.
#
# Rules of this file: asyncio is the specification (sslproto.py of CPython), down to messages.
# OpenSSL's own buffers are the only ones beside the queue of what is unsent. For that it takes the
# private SSLContext._wrap_socket (in `wrap` alone) and functions of OpenSSL's (`find_openssl`).
# Where either cannot be had, OpenSSL reads and writes memory, as in asyncio (`Buffers`).
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
from libc.string cimport strerror

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
    SOL_SOCKET, SO_ERROR, fl_load32, fl_microseconds, getsockopt, recv, send, socklen_t,
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
    # The most plain text in a record (RFC 8446 5.1).
    RECORD = 16384
    # What OpenSSL is given at once where it reads memory: a record with its head and tag. All of it
    # may be key updates, some 600, which are done in one call.
    FEED = 16640
    # Where it writes memory: the most that waits there before nothing more is read. A record of
    # ours, and answers to key updates, of which a client could ask for any number.
    ANSWERS = 32768
    # asyncio's defaults for TLS: pause the protocol from 512 KiB on, resume at a quarter.
    HIGH_WATER = 524288
    # Microseconds in which one connection may go on with what OpenSSL has decrypted already.
    DECRYPTED_SLICE = 500

cdef object logger = logging.getLogger("asyncio")
cdef object Disconnected = (SSLEOFError, SSLZeroReturnError)
cdef int NONBLOCKING_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
# Whether tests have asked for memory where the socket could be had.
cdef bint memory_wanted = False


def use_memory(bint wanted):
    """Let OpenSSL read and write memory, not the socket; for tests. Return what held before.

    It costs some kilobytes for each connection, and copying.
    """
    global memory_wanted
    before = memory_wanted
    memory_wanted = wanted
    return before


# What is called of the OpenSSL that Python's ssl uses. All of it is there, or `direct` is false.
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
cdef Control ssl_ctrl = NULL
cdef Read ssl_read = NULL
cdef Write ssl_write = NULL
cdef GetError ssl_get_error = NULL
cdef ClearError clear_error = NULL
cdef bint direct = False
cdef bint looked = False

# The size of a `_ssl._SSLSocket` of each CPython in which its second field is the SSL. A build
# whose objects are larger (free-threaded, Py_TRACE_REFS) or smaller (32 bits) has another.
cdef dict LAYOUTS = {(3, 11): 96, (3, 12): 80, (3, 13): 80, (3, 14): 88, (3, 15): 72}


cdef void *session_pointer(session):
    """The SSL behind a `_ssl._SSLSocket` of known layout."""
    return (<void **>(<char *><void *>session + sizeof(PyObject)))[1]


cdef bint agrees(void *library, holder, session) except -1:
    """Whether the functions of a library are those that have made a session; take them if so.

    A process may have several OpenSSLs, and the layout may not be what it was. So nothing is
    believed: versions agree, then the descriptor, then the table of methods in the context is the
    library's own, and an error that libssl raises is found in libcrypto's queue.
    """
    global ssl_ctrl, ssl_read, ssl_write, ssl_get_error, clear_error
    cdef void *pointer = session_pointer(session)
    cdef Number version = <Number>dlsym(library, b"OpenSSL_version_num")
    cdef OfSession get_fd = <OfSession>dlsym(library, b"SSL_get_fd")
    cdef PartOf get_context = <PartOf>dlsym(library, b"SSL_get_SSL_CTX")
    cdef PartOf get_method = <PartOf>dlsym(library, b"SSL_CTX_get_ssl_method")
    cdef Method server_method = <Method>dlsym(library, b"TLS_server_method")
    cdef Use use_certificate = <Use>dlsym(library, b"SSL_use_certificate")
    cdef Number peek_error = <Number>dlsym(library, b"ERR_peek_error")
    ssl_ctrl = <Control>dlsym(library, b"SSL_ctrl")
    ssl_read = <Read>dlsym(library, b"SSL_read_ex")
    ssl_write = <Write>dlsym(library, b"SSL_write_ex")
    ssl_get_error = <GetError>dlsym(library, b"SSL_get_error")
    clear_error = <ClearError>dlsym(library, b"ERR_clear_error")
    if version == NULL or get_fd == NULL or get_context == NULL or get_method == NULL \
            or server_method == NULL or use_certificate == NULL or peek_error == NULL \
            or ssl_ctrl == NULL or ssl_read == NULL or ssl_write == NULL \
            or ssl_get_error == NULL or clear_error == NULL:
        return False
    if version() != ssl.OPENSSL_VERSION_NUMBER or get_fd(pointer) != holder.fileno() \
            or get_method(get_context(pointer)) != server_method():
        return False
    clear_error()
    if use_certificate(pointer, NULL) == 1 or not peek_error():
        return False
    clear_error()
    return not peek_error()


cdef int find_openssl() except -1:
    """Find OpenSSL's functions, if this is an interpreter whose session objects are known.

    It saves a tenth of the instructions of a small message. And it is what makes reading from the
    socket safe: OpenSSL's default is to go on reading as long as records without data follow each
    other (TLS 1.3 key updates), so that one client that never stops sending them would keep the
    loop in one call. With SSL_MODE_AUTO_RETRY cleared, which the ssl module cannot do, the call
    returns after each of them, and other connections get their turn.

    They are looked for in what `_ssl` is linked with, and, where it is built into the interpreter,
    in the whole process. An interpreter that has OpenSSL linked into itself as a static library
    (those that uv installs) shows them to nobody.
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
                direct = library != NULL and agrees(library, holder, session) \
                    or agrees(RTLD_DEFAULT, holder, session)
            finally:
                holder.close()
    except OSError:
        # No descriptor, or an OpenSSL that does not want to: the package works without.
        direct = False
    return 0


def calls_openssl():
    """Return True if records are read from and written to the socket by OpenSSL itself."""
    find_openssl()
    return bool(direct)


cdef class Buffers:
    """What lies between OpenSSL and the socket where OpenSSL reads and writes memory."""

    def __cinit__(self):
        self.incoming = MemoryBIO()
        self.outgoing = MemoryBIO()


class _Descriptor(_socket.socket):
    """What OpenSSL's side of a connection knows of its socket: the number, and not to block."""

    __slots__ = ("__weakref__",)


cdef uint32_t positive(str name, double seconds) except 0:
    if not seconds > 0:
        raise ValueError(f"{name} should be a positive number, got {seconds:g}")
    return milliseconds(seconds)


cdef class TlsSettings(Security):
    """How a server speaks TLS; made once for many connections.

    Args:
        context: certificate, versions, ciphers. The object stays live: certificates loaded into
            it later are used by new handshakes.
        handshake_timeout: seconds from accept (or `start_tls`) to the end of the handshake.
        shutdown_timeout: seconds from close() until the peer must have answered close_notify.
        handshakes: most handshakes in progress at a time, and never more than half the places of
            a listener that has a limit. When another begins, the oldest is ended: a flood of
            half-open ones cannot keep others out. A client that has not sent its first byte is
            none of them.

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
        self.handshake_time = positive("ssl_handshake_timeout", handshake_timeout)
        self.shutdown_time = positive("ssl_shutdown_timeout", shutdown_timeout)
        find_openssl()
        self.context = context
        self.handshake_timeout = handshake_timeout
        self.shutdown_timeout = shutdown_timeout
        self.handshakes = handshakes
        self.progress = collections.OrderedDict()

    @property
    def in_progress(self):
        """Handshakes in progress now."""
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
        new.known = old.known
        new.waiter = waiter
        old.sock = None
        old.successor = successor
        connection.engine().set_endpoint(fd, successor)
        connection.flags = (connection.flags | CLOSING | LOST) & ~UPGRADING
        connection.fd = -1
        connection.owner = NULL
        connection.protocol = connection.context = None
        # The deadline that start_tls() has set goes on.
        successor.listen_to()
        return 0

    def attach(self, ConnectionAcceptor acceptor not None, sock, protocol):
        """Serve a connection that somebody else has accepted; the handshake comes first.

        Args:
            acceptor: counts it.
            sock: a connected, non-blocking stream socket; closed with the connection.
            protocol: its connection_made is called after the handshake.

        Returns:
            A future: the `TlsConnection`. It fails with what ended the handshake. Cancelling it
            ends the connection, of which the protocol has not been told yet.

        Raises:
            ValueError: the descriptor is out of range or served already.
            RuntimeError: the acceptor is closed.
        """
        cdef TlsConnection connection = TlsConnection.__new__(TlsConnection)
        connection.settings = self
        connection.tls = HANDSHAKE | ATTACHED
        acceptor.take(connection, sock, protocol)
        waiter = connection.extras.waiter = acceptor.engine.loop.create_future()
        connection.engine().set_deadline(connection.fd, self.handshake_time)
        connection.listen_to()
        waiter.add_done_callback(connection._waited)
        return waiter


@cython.no_gc
cdef class TlsConnection(Connection):
    """A served connection under TLS: an `asyncio.Transport` as asyncio's own for TLS.

    Made by the core, or by `Connection.start_tls`; not by programs. Beside asyncio's names,
    ``get_extra_info("truncated")`` says whether the peer has ended TCP without close_notify:
    somebody on the way may have cut off the end of what it sent (RFC 8446 6.1).
    """

    # -- from the engine

    cdef int made(self) except -1:
        cdef TlsAcceptor acceptor = <TlsAcceptor>self.acceptor()
        self.settings = acceptor.tls
        self.tls = HANDSHAKE
        if acceptor.state.lazy:
            self.tls |= SILENT
        elif not self.call_factory():
            return 0
        return self.listen_to()

    cdef int event(self, uint32_t events) except -1:
        context = self.own_context()
        PyContext_Enter(context)
        try:
            self.happened(events)
        finally:
            PyContext_Exit(context)
        return 0

    cdef int happened(self, uint32_t events) except -1:
        cdef uint32_t interest = self.slot().flags
        cdef bint readable = events & <uint32_t>(EPOLLIN | EPOLLERR | EPOLLHUP)
        cdef bint waited = False
        if self.flags & LOST:
            return 0
        if self.tls & HANDSHAKE:
            return self.handshake()
        if events & <uint32_t>EPOLLERR:
            self.note_error()
        if events & <uint32_t>(EPOLLRDHUP | EPOLLERR | EPOLLHUP):
            self.tls |= HUNG_UP
        if not interest & (FLAG_IN | FLAG_OUT):
            return self.check_loss(events)
        if interest & FLAG_OUT and events & <uint32_t>(EPOLLOUT | EPOLLERR | EPOLLHUP):
            if self.ssl == NULL:
                # Also where nothing is unsent any more: it may have gone with a read.
                waited = True
                if self.unsent() and not self.pour():
                    return self.fatal(self.broken(), "Fatal write error on socket transport")
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
            return self.listen_to() if waited else 0
        if self.flags & CLOSING:
            self.shutdown_step()
        elif not self.flags & PAUSED and not self.tls & HELD:
            self.receive_turn()
        if waited and self.fd >= 0:
            # It was left waiting for room only.
            self.listen_to()
        return 0

    cdef int check_loss(self, uint32_t events) except -1:
        if not self.error:
            if not events & <uint32_t>EPOLLHUP or not self.slot().flags & (FLAG_INET | FLAG_INET6):
                return 0
            self.error = ECONNRESET
        self.tls |= RAW_EOF | TRUNCATED
        self.state().truncated += 1
        return self.fatal(self.broken(), "Fatal read error on socket transport")

    cdef int note_error(self) except -1:
        """Ask before OpenSSL does: CPython 3.11 calls every error of its socket an end of file."""
        cdef int error = 0
        cdef socklen_t size = sizeof(error)
        if getsockopt(self.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 and error:
            self.error = error
        return 0

    cdef object broken(self):
        return OSError(self.error, strerror(self.error).decode("ascii", "replace"))

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
        if self.flags & CONNECTED and self.says("busy", False):
            return 1
        # There is no way to say anything.
        return self.force_close(None)

    cdef int cut(self) except -1:
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

    cdef int limit_farewell(self) except -1:
        """The peer has the time of a farewell, or of a shutdown, whichever is shorter."""
        self.engine().set_deadline(
            self.fd, min(<uint32_t>FAREWELL_TIME, self.settings.shutdown_time))
        return 0

    cdef int dropped(self) except -1:
        try:
            self.let_go()
        finally:
            Connection.dropped(self)
        return 0

    cdef int listen_to(self) except -2:
        cdef int wanted = 0
        if self.fd < 0 or self.flags & LOST:
            return 0
        if self.tls & HANDSHAKE:
            # Nothing but what it waits for: who keeps sending and does not read must not wake us.
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
            self.engine().leave(self.fd)
        elif self.engine().interest(self.fd, wanted) < 0:
            self.fatal_errno(errno, "Fatal error on registering the connection with epoll")
            return -1
        return 0

    # -- the handshake

    cdef int begin(self) except -1:
        """The first bytes are there: make OpenSSL's side."""
        cdef TlsConnection oldest
        cdef TlsSettings settings = self.settings
        cdef Py_ssize_t most = settings.handshakes
        cdef AcceptorState *state = self.state()
        cdef uint32_t limit = 0 if state.places.row == NULL \
            else fl_load32(&state.places.row.limit)
        if limit:
            # Else a flood of half-open ones would keep all places. The limit may change.
            most = max(1, min(most, <Py_ssize_t>(limit // (2 * state.places.members))))
        while len(settings.progress) >= most:
            oldest = <TlsConnection><void *><size_t>next(iter(settings.progress))
            del settings.progress[<size_t><void *>oldest]
            oldest.handshake_failed(ConnectionAbortedError("too many handshakes in progress"))
        self.wrap()
        settings.progress[<size_t><void *>self] = None
        return 0

    cdef int wrap(self) except -1:
        cdef Slot *slot = self.slot()
        cdef int family = socket.AF_UNIX
        cdef Buffers between
        if not direct or memory_wanted:
            self.holder = between = Buffers.__new__(Buffers)
            self.session = self.settings.context.wrap_bio(
                between.incoming, between.outgoing, server_side=True)
            return 0
        if slot.flags & FLAG_INET:
            family = socket.AF_INET
        elif slot.flags & FLAG_INET6:
            family = socket.AF_INET6
        # With SOCK_NONBLOCK in its type it is non-blocking without asking the kernel.
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
                self.begin()
            if not self.pour():
                raise self.broken()
            if self.unsent():
                raise SSLWantWriteError
            if not self.fill():
                self.between().incoming.write_eof()
            self.session.do_handshake()
        except SSLWantReadError:
            if not self.pour():
                return self.handshake_failed(self.broken())
            self.tls = self.tls | WANTS_WRITE if self.unsent() else self.tls & ~WANTS_WRITE
            return self.listen_to()
        except SSLWantWriteError:
            self.tls |= WANTS_WRITE
            return self.listen_to()
        except BaseException as exc:
            # An alert.
            self.pour()
            return self.handshake_failed(
                ConnectionResetError() if isinstance(exc, Disconnected) else exc)
        if self.fd < 0 or self.flags & LOST:
            # The server-name callback closed it.
            return 0
        if not self.pour():
            return self.handshake_failed(self.broken())
        return self.ready()

    cdef int ready(self) except -1:
        """The handshake is done."""
        cdef TlsAcceptor acceptor
        cdef Slot *slot = self.slot()
        self.settings.progress.pop(<size_t><void *>self, None)
        self.ssl_owner = None
        self.tls &= ~(HANDSHAKE | WANTS_WRITE)
        if self.ssl == NULL:
            # What came behind the handshake.
            self.tls |= UNREAD
        slot.deadline = 0
        # After an error OpenSSL tells it no more.
        certificate = self.session.getpeercert(False)
        if certificate is not None:
            self.know()["peercert"] = certificate
        if self.tls & STARTED:
            self.touched()
            waiter = self.extras.waiter
            self.extras.waiter = None
            if not waiter.done():
                waiter.set_result(self)
            self.tls |= HELD
            self.listen_to()
            self.loop().call_soon(self._deliver)
            return 0
        if self.tls & ATTACHED:
            waiter = self.extras.waiter
            self.extras.waiter = None
            if waiter.cancelled():
                # ... in this iteration of the loop; its callback comes too late.
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
        elif self.listen_to() < 0:
            return 0
        if self.tls & UNREAD and self.fd >= 0 and not self.flags & (LOST | CLOSING | PAUSED):
            self.receive_turn()
        return 0

    cdef int connect(self) except -1:
        """Call connection_made, in the connection's context, which is entered already."""
        self.flags |= CONNECTED
        try:
            self.protocol.connection_made(self)
        except BaseException as exc:
            # asyncio calls it from there.
            return self.fatal(exc, "Fatal error: protocol.buffer_updated() call failed.")
        if self.extras is not None and self.extras.size:
            # Written by a factory that knows its connection.
            self.flush()
        return self.listen_to()

    cdef int handshake_failed(self, exc) except -1:
        cdef AcceptorState *state
        if self.fd < 0 or self.flags & LOST:
            # The server-name callback has closed it, or the whole engine.
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
        """Nobody waits any more for a connection that was handed over. Called by the loop."""
        if waiter.cancelled():
            self.force_close(None)

    def _deliver(self):
        """Go on receiving, with what is decrypted already first. Called by the loop."""
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
            self.receive_turn()
        self.listen_to()

    # -- where OpenSSL reads and writes memory

    cdef Buffers between(self):
        """What lies between OpenSSL and the socket; None where nothing does."""
        return <Buffers>self.holder if self.ssl == NULL else None

    cdef Py_ssize_t unsent(self) except -1:
        """Bytes that OpenSSL has written and the kernel has not taken."""
        cdef Buffers between = self.between()
        if between is None or between.unsent is None:
            return 0
        return PyBytes_GET_SIZE(between.unsent) - between.offset

    cdef bint pour(self) except -1:
        """Send what OpenSSL has written; False if the connection is broken."""
        cdef Buffers between = self.between()
        cdef ssize_t sent
        if between is None:
            return True
        if between.outgoing.pending:
            more = between.outgoing.read()
            if between.unsent is not None:
                more = between.unsent[between.offset:] + more
            between.unsent = more
            between.offset = 0
        if between.unsent is None:
            return True
        sent = send(self.fd, PyBytes_AS_STRING(between.unsent) + between.offset,
                    PyBytes_GET_SIZE(between.unsent) - between.offset, MSG_NOSIGNAL)
        if sent < 0:
            if errno == EAGAIN or errno == EINTR:
                return True
            # The first error is the reason of those that follow.
            self.error = self.error or errno
            between.unsent = None
            return False
        between.offset += sent
        if between.offset == PyBytes_GET_SIZE(between.unsent):
            between.unsent = None
        return True

    cdef bint fill(self) except -1:
        """Receive for OpenSSL what is there, up to `FEED` bytes; False at the end of input."""
        cdef Buffers between = self.between()
        cdef ssize_t got
        if between is None or self.tls & UNREAD:
            return True
        got = recv(self.fd, self.engine().buffer, FEED, 0)
        if got > 0:
            between.incoming.write(self.engine().view[:got])
        elif got == 0 or errno != EAGAIN and errno != EINTR:
            if got < 0:
                self.error = self.error or errno
            return False
        return True

    cdef bint at_end(self) except -1:
        """Whether all that the peer has sent was read, and it will send no more.

        OpenSSL is not asked: at an end that it does not expect it forgets what it knew of the
        connection, which `ssl_object` is still asked for.
        """
        cdef char byte
        cdef ssize_t got
        if self.ssl == NULL:
            return not self.fill()
        if not self.tls & HUNG_UP or self.session.pending():
            return False
        got = recv(self.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT)
        if got > 0 or got < 0 and (errno == EAGAIN or errno == EINTR):
            return False
        if got < 0:
            self.error = self.error or errno
        return True

    # -- receiving

    cdef int receive_turn(self) except -1:
        """Receive a record; of what OpenSSL has in memory all, since epoll does not tell of it."""
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

    cdef Py_ssize_t take(self, target, char *start, Py_ssize_t room) except -2:
        """Decrypt into `target`, which begins at `start`.

        Return how many bytes, 0 at close_notify, -1 if there is nothing and it is seen to.
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
        # Answers to key updates, an alert. If it fails, epoll tells of the reason.
        self.pour()
        if got < 0:
            self.read_failed(failure)
        if self.unsent():
            self.listen_to()
        return got

    cdef int receive(self) except -1:
        cdef Py_ssize_t got = self.take(self.engine().view, self.engine().buffer, RECEIVE_SIZE)
        if got < 0:
            return 0
        if got == 0:
            self.tell_eof()
            self.close()
            return 0
        return self.took(got)

    cdef Py_ssize_t decrypt(self, char *target, size_t room) except -2:
        """Call SSL_read; return 0 at close_notify, -1 if there is nothing and it is seen to."""
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
            self.listen_to()
        elif code == SSL_ERROR_SYSCALL and error:
            # Newer OpenSSL tries to send an alert when the end comes too early: not the reason.
            self.error = self.error or error
            self.tls |= RAW_EOF | TRUNCATED
            self.state().truncated += 1
            self.fatal(self.broken(), "Fatal read error on socket transport")
        else:
            # The reason is in OpenSSL's queue of errors; Python's ssl words it.
            try:
                self.session.read(1, bytearray(1))
                raise SSLEOFError(8, "EOF occurred in violation of protocol")
            except BaseException as exc:
                self.read_failed(exc)
        return -1

    cdef int took(self, Py_ssize_t got) except -1:
        cdef bytes data = PyBytes_FromStringAndSize(self.engine().buffer, got)
        self.touched()
        if not self.tls & SILENT:
            return self.deliver(data)
        self.tls &= ~SILENT
        before = self.context
        if not self.call_factory():
            return 0
        if self.context is before:
            return self.introduce(data)
        # The factory has set context variables.
        context = self.context
        PyContext_Enter(context)
        try:
            return self.introduce(data)
        finally:
            PyContext_Exit(context)

    cdef int introduce(self, bytes data) except -1:
        """Make a protocol that was not there before the first bytes known to them."""
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
            # Decrypted before the protocol was known to bring its own buffer.
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
                    got = self.take(target, <char *>view.buf, room)
            finally:
                PyBuffer_Release(&view)
            if got < 0:
                return 0
            if got == 0:
                self.tell_eof()
                self.close()
                return 0
            self.touched()
            try:
                self.protocol.buffer_updated(got)
            except BaseException as exc:
                return self.fatal(exc, "Fatal error on SSL protocol")
            if self.ssl == NULL or self.fd < 0 or self.flags & (LOST | CLOSING | PAUSED) \
                    or got < room or not self.session.pending():
                return 0
            # Of what OpenSSL has decrypted already epoll does not tell.
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
            return self.listen_to()
        if isinstance(exc, Disconnected) \
                or self.error and isinstance(exc, (ConnectionResetError, BrokenPipeError)):
            self.tls |= RAW_EOF | TRUNCATED
            self.state().truncated += 1
            if self.error:
                return self.fatal(self.broken(), "Fatal read error on socket transport")
            self.tell_eof()
            self.close()
            return 0
        if isinstance(exc, (ConnectionResetError, BrokenPipeError)):
            self.tls |= RAW_EOF | TRUNCATED
            self.state().truncated += 1
        return self.fatal(exc, "Fatal error on SSL protocol")

    cdef int tell_eof(self) except -1:
        """Call eof_received, once; as in asyncio its result does not matter under TLS."""
        if self.tls & EOF_TOLD or not self.flags & CONNECTED or self.flags & LOST:
            return 0
        self.tls |= EOF_TOLD
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
            self.listen_to()

    def resume_reading(self):
        """Receive again, first what is decrypted already. May be called repeatedly."""
        if self.flags & CLOSING or not self.flags & PAUSED:
            return
        self.flags &= ~PAUSED
        self.take_context()
        if self.early is not None or self.tls & UNREAD \
                or not self.tls & (HANDSHAKE | HELD) and self.session.pending():
            self.loop().call_soon(self._deliver)
        else:
            self.listen_to()

    # -- sending

    def write(self, data):
        """Encrypt and send; what the kernel does not take at once is kept and sent later.

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
        self.keep(data, sent)
        self.listen_to()
        self.may_pause()

    def writelines(self, list_of_data):
        """Send several pieces in as few records as they fit into."""
        pieces = [data if type(data) is bytes else bytes(memoryview(data))
                  for data in list_of_data]
        if self.flags & CLOSING:
            self.late_write()
            return
        waiting = self.tls & HANDSHAKE or self.extras is not None and self.extras.size
        for piece in pieces:
            if piece:
                self.keep(piece, 0)
        if self.extras is None or not self.extras.size:
            return
        if not waiting:
            self.flush()
        if self.fd >= 0 and not self.flags & LOST:
            self.listen_to()
            self.may_pause()

    cdef int late_write(self) except -1:
        if self.flags // LATE_WRITES >= LOG_THRESHOLD:
            logger.warning("SSL connection is closed")
        else:
            self.flags += LATE_WRITES
        return 0

    cdef Py_ssize_t encrypt(self, bytes data, Py_ssize_t offset) except -2:
        """Send of `data` what the kernel takes; return how many bytes, -1 when it is broken.

        One record at a time: a longer write is done for OpenSSL only when all of it is sent. A
        record that could not be sent must be offered again as it was: the caller keeps all that is
        not sent, and offers it from the same byte on.
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
                        self.listen_to()
                        return sent
                    if self.tls & WRITE_WANTS_READ:
                        self.fill()
                    sent += self.session.write(
                        data if more == PyBytes_GET_SIZE(data)
                        else memoryview(data)[offset + sent:offset + sent + more])
                    self.tls &= ~(RETRY | WRITE_WANTS_READ)
                    if self.pour():
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
                    self.error = self.error or error
                else:
                    # The reason is in OpenSSL's queue of errors; Python's ssl words it.
                    self.session.write(memoryview(data)[offset + sent:offset + sent + more])
                raise SSLEOFError(8, "EOF occurred in violation of protocol")
            except SSLWantWriteError:
                self.tls = (self.tls | RETRY) & ~WRITE_WANTS_READ
                return sent
            except SSLWantReadError:
                self.tls |= RETRY | WRITE_WANTS_READ
                # The request to shake hands again.
                self.pour()
                return sent
            except BaseException as exc:
                self.write_failed(exc)
                return -1
        if self.unsent():
            self.listen_to()
        return sent

    cdef int write_failed(self, exc) except -1:
        if not isinstance(exc, Disconnected):
            return self.fatal(exc, "Fatal error on SSL protocol")
        if not self.error:
            self.note_error()
        self.error = self.error or EPIPE
        return self.fatal(self.broken(), "Fatal write error on socket transport")

    cdef int gather(self) except -1:
        """Join small pieces at the head of the queue: each would be a record of its own."""
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
            return self.listen_to()
        while extras.size:
            if not self.tls & RETRY:
                self.gather()
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
        if moved and self.state().idle and not self.flags & CLOSING:
            # A peer that takes what we send is not idle.
            self.engine().tick()
            self.engine().set_deadline(self.fd, self.state().idle)
        self.may_resume()
        if self.fd < 0 or self.flags & LOST:
            return 0
        if extras.size == 0 and self.tls & SHUTTING:
            return self.shutdown_step()
        return self.listen_to()

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

    cdef int may_pause(self) except -1:
        # As asyncio's TLS: at the limit, not above it.
        if self.extras is not None and self.extras.size and self.extras.size == self.extras.high:
            self.extras.high -= 1
            try:
                Connection.may_pause(self)
            finally:
                self.extras.high += 1
            return 0
        return Connection.may_pause(self)

    # -- ending

    def start_tls(self, settings):
        """Raise RuntimeError: it is encrypted already."""
        raise RuntimeError("the connection is encrypted already")

    def close(self):
        """Send what is queued and close_notify, wait for the peer's, call connection_lost(None).

        Nothing that is written or received later matters. The peer has `shutdown_timeout` for it,
        then connection_lost is told a TimeoutError.
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
            self.listen_to()

    cdef int shutdown_step(self) except -1:
        """Send close_notify, wait for the peer's."""
        if self.flags & LOST or self.extras is not None and self.extras.size:
            return 0
        if self.tls & NOTIFIED and not self.tls & RAW_EOF:
            self.tls &= ~UNREAD
            if self.at_end():
                self.tls |= RAW_EOF
                if self.error:
                    return self.fatal(self.broken(), "Fatal read error on socket transport")
        if not self.tls & RAW_EOF:
            self.tls = self.tls & ~(WANTS_WRITE | UNREAD) | NOTIFIED
            try:
                self.fill()
                if self.ssl == NULL:
                    self.session.unwrap()
                else:
                    self.session.shutdown()
            except SSLWantReadError:
                if not self.pour():
                    return self.fatal(self.broken(), "Fatal write error on socket transport")
                if self.unsent():
                    self.tls |= WANTS_WRITE
                return self.listen_to()
            except SSLWantWriteError:
                self.tls |= WANTS_WRITE
                return self.listen_to()
            except Disconnected:
                if self.error:
                    return self.fatal(self.broken(), "Fatal read error on socket transport")
            except BaseException as exc:
                return self.fatal(exc, "Fatal error on transport")
            if self.pour() and self.unsent():
                # Our own notice.
                self.tls |= WANTS_WRITE
                return self.listen_to()
        self.tell_eof()
        if self.fd >= 0 and not self.flags & LOST:
            self.flags |= LOST
            self.engine().leave(self.fd)
            self.schedule_lost(None)
        return 0

    cdef int remember(self) except -1:
        self.let_go()
        return Connection.remember(self)

    cdef int let_go(self) except -1:
        """Take the descriptor from OpenSSL's side, which would close it, or use it as a reused
        number."""
        holder = self.holder
        self.holder = self.ssl_owner = self.early = None
        if self.settings is not None:
            self.settings.progress.pop(<size_t><void *>self, None)
        if holder is not None and self.ssl != NULL:
            holder.detach()
        return 0

    # -- asking

    cdef object ssl_object(self):
        """The session as Python programs know it; None before the handshake is done."""
        if self.tls & HANDSHAKE or self.session is None:
            return None
        if self.ssl == NULL:
            return self.session
        known = self.know()
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
                return self.know().get("peercert")
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
        lazy: the protocol object is made at the first byte after the handshake.
        greeting: sent encrypted after the handshake; farewells likewise. What a client hears that
            is not accepted (`refusal`, `overload`) goes out as it is: a TLS alert, or nothing.
        first_byte: seconds that a client may be silent after the handshake; 0 for ever.
    """

    def __init__(self, engine, sock, factory, *, TlsSettings tls not None, bytes greeting=b"",
                 double first_byte=0.0, bint lazy=False, **options):
        # All that can be wrong comes before the engine knows the socket.
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
