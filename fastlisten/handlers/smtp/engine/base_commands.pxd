# C types for base_commands.py; the rules are in input_buffer.pxd.

from fastlisten.handlers.smtp.engine cimport command_syntax
from fastlisten.handlers.smtp.engine.smtp_session cimport Session

cdef object _CONTENT

cpdef no_argument(bytes verb, bytes argument)
cdef bytes _welcome(Session session, bytes verb)
cpdef bytes hello_reply(Session session, bytes verb, bytes argument)
cpdef bytes noop_reply(Session session, bytes verb, bytes argument)
cpdef bytes vrfy_reply(Session session, bytes verb, bytes argument)
cpdef bytes help_reply(Session session, bytes verb, bytes argument)
cpdef bytes quit_reply(Session session, bytes verb, bytes argument)
cpdef bytes rset_reply(Session session, bytes verb, bytes argument)
cpdef hello(Session session, bytes verb, bytes argument)
cpdef noop(Session session, bytes verb, bytes argument)
cpdef vrfy(Session session, bytes verb, bytes argument)
cpdef help_(Session session, bytes verb, bytes argument)
cpdef quit_(Session session, bytes verb, bytes argument)
cpdef unknown(Session session, bytes verb, bytes argument)
cpdef mail(Session session, bytes verb, bytes argument)
cpdef rcpt(Session session, bytes verb, bytes argument)
cpdef data(Session session, bytes verb, bytes argument)
cpdef rset(Session session, bytes verb, bytes argument)
