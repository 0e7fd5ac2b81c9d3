/*
 * Mode hold: open connections, keep them open, and check on command that they still answer.
 *
 * Rules of this file: the line "ping" on standard input sends one message on every connection, all
 * of which must come back within the grace period. The program ends at the end of input, or when
 * the duration is over. Connections are then closed with a reset: nothing is measured any more, and
 * 15,000 of them would otherwise occupy as many address pairs for a minute.
 */

#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Stands for standard input among the indexes of peers. */
static const uint32_t COMMANDS = UINT32_MAX;

/* One message on every open peer, `in_flight` at once. */
static void ping(struct peers *peers, const struct request *request, struct report *report)
{
    static struct epoll_event events[LOAD_EVENTS];
    uint64_t last = net_now() + request->grace;
    unsigned next = 0, busy = 0;
    memset(report, 0, sizeof *report);
    report->begun = net_now();
    while (net_now() < last) {
        for (; next < peers->count && busy < request->in_flight; next++)
            if (peers->all[next].open) {
                peers_send(peers, next, request);
                busy++;
            }
        if (busy == 0)
            break;
        int ready = epoll_wait(peers->poller, events, LOAD_EVENTS, LOAD_TICK);
        if (ready < 0 && errno != EINTR)
            net_die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            unsigned index = events[i].data.u32;
            if (index == COMMANDS)
                continue;
            bool was_busy = peers->all[index].busy;
            if (peers_progress(peers, index, events[i].events, request, report) !=
                    PROGRESS_MORE && was_busy)
                busy--;
        }
    }
    report->unfinished += busy;
    report->finished = net_now();
    step_report("ping", report, peers->open);
}

void load_hold(const struct request *request, struct report *report)
{
    static struct epoll_event events[LOAD_EVENTS];
    struct peers peers = {0};
    uint64_t last = net_now() + request->duration;
    bool more = true;
    peers_open(&peers, request, report);
    step_report("open", report, peers.open);
    memset(report, 0, sizeof *report);
    report->begun = net_now();
    net_watch(peers.poller, EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, COMMANDS);
    while (more && net_now() < last) {
        int ready = epoll_wait(peers.poller, events, LOAD_EVENTS, LOAD_TICK);
        if (ready < 0 && errno != EINTR)
            net_die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            unsigned index = events[i].data.u32;
            char line[16] = "";
            if (index != COMMANDS) {
                /* Unexpected bytes are counted; a peer that has closed is removed. */
                peers_progress(&peers, index, events[i].events, request, report);
                continue;
            }
            ssize_t got = read(STDIN_FILENO, line, sizeof line - 1);
            if (got <= 0)
                more = false;
            else if (strncmp(line, "ping", 4) == 0) {
                ping(&peers, request, report);
                memset(report, 0, sizeof *report);
                report->begun = net_now();
            } else
                fputs("loadgen: the only command of hold is ping\n", stderr);
            break; /* a ping has used up the events of this wake-up */
        }
    }
    report->finished = net_now();
    step_report("done", report, peers.open);
    for (unsigned i = 0; i < peers.count; i++)
        if (peers.all[i].fd >= 0)
            net_abort(peers.all[i].fd);
}
