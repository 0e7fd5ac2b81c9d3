# The C layout of InputBuffer, for the compiled engine.
#
# Rules of the .pxd files here: types for the .py file of the same name, nothing else, so that both
# forms of the engine are one text. A position is that of an octet in memory and is counted in C;
# numbers that clients name stay Python ints. A function of another module is called directly where
# the .py file names the module, and its .pxd file cimports that.

cimport cython

from fastlisten cimport _mail_syntax as syntax

cdef class InputBuffer:
    cdef bytes _buffer
    cdef Py_ssize_t _position
    cdef bint _line_start
    cdef readonly bint bare
    cdef readonly bint ended
    cdef readonly bint skipping

    cpdef bint empty(self)
    cpdef receive(self, bytes data)
    cpdef discard(self)

    @cython.locals(start=Py_ssize_t, taken=Py_ssize_t)
    cpdef bytes take(self, most)
    cpdef skip(self, most)

    @cython.locals(start=Py_ssize_t, end=Py_ssize_t)
    cpdef bytes next_line(self)
    cpdef bytes next_response(self)
    cdef bytes _odd_line(self, Py_ssize_t limit)
    cdef bint _skip_line(self) except -1
    cpdef begin_content(self)

    @cython.locals(start=Py_ssize_t, stop=Py_ssize_t, ended=bint, dots=bint, bare=bint)
    cpdef bytes next_piece(self)
