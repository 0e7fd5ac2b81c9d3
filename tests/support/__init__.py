"""What several tests share: servers, clients, certificates, programs. No tests in here.

waiting, marks                  PATIENCE, until, soon; decorators
server, program                 a served configuration, in this process or another
serving_handlers, hanging_handlers, staged_program, external_programs, environment
netns, without_ipv6, isolation, hypothesis_profiles
config, page_samples            short loads; samples of the format's page
registered                      protocols and handlers that other packages register

listener, crowd, forked         the native core in one process, under a crowd, in several
strace, traced_program          its system calls
loops, kernel, raw_client       the axis of event loops; descriptors; a client of octets
world, loop_worlds              one script on asyncio's server and on ours
tls_world, starttls_protocol    the same over TLS; asyncio is the oracle
tls_listener, tls_client, tls_records, tls_probes, tls_handlers
certificates, tls_certificates, configured_certificates, without_cryptography

smtp_harness, engine_driver     the smtp handler served; its engine driven by hand
smtp_client                     clients that speak by lines, or type
aiosmtpd, aiosmtpd_handlers     aiosmtpd's handlers on our engine
relay, scripted_relay           a relay that says what it is told to
accounts                        accounts and passwords, virtual time
http, http_application, lifespan_steps, endless_stream
management                      a server and clients of its management

real_server                     a program that real clients talk to, and its mail
foreign, foreign_clients, foreign_smtp, documented_programs      servers of other projects
benchmarks                      the programs of the benchmarks, compiled and run
"""
