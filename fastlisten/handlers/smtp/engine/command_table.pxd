# C types for command_table.py; the rules are in input_buffer.pxd.

from fastlisten.handlers.smtp.engine.smtp_session cimport Session

cpdef execute(Session session, dict commands, bytes line)
cpdef carry_out(Session session, command, bytes answer)
