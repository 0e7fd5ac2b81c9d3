/*
 * Mode echo: one message at a time on each of many connections, until a time or a count is reached.
 *
 * Rules of this file: the measured part ends when every message sent has come back, so that the
 * operations counted are exactly the work that the server did.
 */

#include "load.h"


/* Send on all peers until the time or the count is reached, then wait for the answers. */
static void run(struct peers *peers, const struct request *request, struct report *report,
                uint64_t duration, uint64_t count)
{
    static struct epoll_event events[LOAD_EVENTS];
    uint64_t now = net_now();
    uint64_t until = now + duration, last = until + request->grace, begun = 0;
    unsigned busy = 0;
    for (unsigned i = 0; i < peers->count && (count == 0 || begun < count); i++)
        if (peers->all[i].open) {
            peers_send(peers, i, request);
            begun++;
            busy++;
        }
    while (busy != 0 && now < last) {
        int ready = net_wait(peers->poller, events, request);
        now = net_now();
        for (int i = 0; i < ready; i++) {
            unsigned index = events[i].data.u32;
            bool was_busy = peers->all[index].busy;
            enum progress progress =
                peers_progress(peers, index, events[i].events, request, report);
            if (progress == PROGRESS_MORE)
                continue;
            if (progress == PROGRESS_DONE && now < until && (count == 0 || begun < count)) {
                peers_send(peers, index, request);
                begun++;
            } else if (was_busy) {
                busy--;
            }
        }
    }
    report->unfinished += busy;
}

void load_echo(const struct request *request, struct report *report)
{
    struct peers peers = {0};
    peers_open(&peers, request, report);
    struct report opening = *report;
    if (request->warm_up != 0)
        run(&peers, request, report, request->warm_up, 0);
    step_ready(request, report);
    /* Otherwise the report on the messages would lack the connections that failed to open. */
    report->refused = opening.refused;
    report->no_address = opening.no_address;
    report->unfinished = opening.unfinished;
    run(&peers, request, report, request->duration, request->count);
    report->finished = net_now();
    step_report("done", report, peers.open);
    step_end(request);
}
