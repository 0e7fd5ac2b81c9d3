"""Several workers: the supervisor that runs them, and the server in each of them.

the supervisor's loop and its parts   supervisor, shared_state, workers, slot, worker_process,
                                      worker_events, restarting, upkeep
starting processes                    forking, back_off
messages                              channel; lifecycle_messages, control_messages,
                                      reload_messages
control of all workers                supervisor_control, worker_requests, worker_reports;
                                      control_access, control_clients (the control socket)
reload                                reloads, server_reload, reload_phases
upgrade                               upgrading, upgrade, handover
what is counted for all workers       login_penalties
in a worker                           worker_server, worker_reload, remote_control,
                                      remote_penalties
both sides                            heartbeat, pending (coroutines without a loop)
"""
