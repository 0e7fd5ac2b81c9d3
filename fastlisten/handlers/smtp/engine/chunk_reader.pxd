# C types for chunk_reader.py; the rules are in input_buffer.pxd.

cimport cython

from fastlisten cimport _mail_syntax as syntax
from fastlisten.handlers.smtp.engine.input_buffer cimport InputBuffer

cdef class ChunkReader:
    cdef InputBuffer _input
    cdef bint _after_cr
    cdef readonly bint bare
    cdef readonly bint final
    cdef readonly object left  # named by the client: may exceed what C can count

    cpdef begin_message(self)
    cpdef begin_chunk(self, size, bint final)
    cpdef bytes next_piece(self)
    cpdef skip(self)

    @cython.locals(begins_with_lf=bint)
    cpdef judge(self, bytes piece)
