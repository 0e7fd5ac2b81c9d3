"""MIME: what a message consists of, by offsets into its octets, for IMAP and JMAP.

parser           octets in, a tree of parts out
  structure      the tree: `Part`, with offsets, sizes and the fields that describe a part
  limits         the bounds on what is parsed
  header_fields  the fields of a header: where they are, and unfolding
  content_fields   the values of Content-Type and its kind: types, parameters, languages
  envelope       what IMAP's ENVELOPE says of a message
    addresses    address lists
    lexical      comments, quoted strings and words, as RFC 5322 and RFC 2045 have them
sections         which octets of the file FETCH's sections are, and these octets
text             the text of bodies and fields, and searching it
  encoded_words  text in header fields
  transfer_encoding  base64 and quoted-printable
  charsets       octets to text
sent_date        the date in the field Date
base_subject     what SORT and THREAD take for the subject
compact          the tree in a form for an index, and back

Rules of this package: no I/O, and nothing of a protocol's notation. A message comes as `bytes` or
as an `mmap`; it is never changed, and values that refer to it are offsets. Nothing here fails
because of what a message contains: what cannot be understood is described as well as it can be.
Work is linear in the size of the message, whatever it contains.
"""
