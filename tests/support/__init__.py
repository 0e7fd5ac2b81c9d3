"""What several tests share: servers, clients, certificates, programs. No tests in here.

waiting                         PATIENCE, until, soon
serving, serving_handlers       a served configuration, in this process or another
staged_program, hanging_handlers, environment, netns, without_ipv6, isolation
config, page_samples            short loads; samples of the format's page
registered                      protocols and handlers that other packages register

listener, crowd, forked         the native core in one process, under a crowd, in several
strace, traced_program          its system calls
loops, kernel                   the axis of event loops; open descriptors
world, loop_worlds              one script on asyncio's server and on ours; asyncio is the oracle
tls_world, starttls_protocol    the same over TLS
tls_listener, tls_client, tls_records, tls_probes, tls_handlers
certificates, tls_certificates, configured_certificates, without_cryptography

smtp_harness, engine_driver     the smtp handler served; its engine driven by hand
smtp_client                     a client that types
aiosmtpd, aiosmtpd_handlers     aiosmtpd's handlers on our engine
relay, scripted_relay           a relay that says what it is told to
accounts                        accounts and passwords, virtual time
http, http_application, lifespan_steps
management                      a server and clients of its management

real_server                     a program that real clients talk to, and its mail
foreign, foreign_clients, foreign_smtp, documented_programs      servers of other projects
benchmarks                      the programs of the benchmarks, compiled and run
endless_stream, hypothesis_profiles
"""
