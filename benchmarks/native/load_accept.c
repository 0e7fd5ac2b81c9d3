/*
 * Modes accept and silent: connect, read the greeting, close; `in_flight` connections at once.
 *
 * Rules of this file: a connection that fails is counted and replaced by the next one. The client
 * closes first, with FIN, after reading everything that the server sent, so that neither side sees
 * a reset. `silent` sends nothing; `accept` may send one line and wait for its echo. With TLS, the
 * greeting shows that the server has finished the handshake; the client sends close_notify and waits
 * until the server has closed too.
 */

#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One connection; fd is -1 if there is none. */
struct attempt {
    int fd;
    bool shaking, leaving;
    struct ssl_st *tls;
    uint64_t begun;
    size_t awaited; /* bytes of the echo still to come; 0 while the greeting is read */
};

struct work {
    struct attempt *attempts;
    unsigned active;
    int poller;
    size_t say_length;
    uint64_t begun; /* attempts begun, for `count` */
};

/* Start a connection in this slot; it stays empty if no source address has a free port. */
static void begin(struct work *work, unsigned index, const struct request *request,
                  struct report *report)
{
    struct attempt *attempt = &work->attempts[index];
    unsigned tries = request->sources != 0 ? request->sources : 1;
    do
        attempt->fd = net_connect(request, report);
    while (attempt->fd < 0 && --tries != 0);
    if (attempt->fd < 0)
        return;
    attempt->begun = net_now();
    attempt->awaited = 0;
    attempt->leaving = false;
    attempt->shaking = request->tls;
    attempt->tls = request->tls ? tls_new(attempt->fd) : NULL;
    work->begun++;
    work->active++;
    /* "Readable" covers greeting, refusal and reset. Only TLS, where the client speaks first, needs
     * to know when the connection is established. */
    net_watch(work->poller, EPOLL_CTL_ADD, attempt->fd, request->tls ? EPOLLOUT : EPOLLIN, index);
}

static void end(struct work *work, unsigned index)
{
    struct attempt *attempt = &work->attempts[index];
    tls_free(attempt->tls);
    close(attempt->fd);
    attempt->tls = NULL;
    attempt->fd = -1;
    work->active--;
}

static bool lose(struct work *work, unsigned index, struct report *report, int error)
{
    net_blame(report, error);
    end(work, index);
    return true;
}

/* The exchange is complete: close, after close_notify with TLS; true if the slot is free. */
static bool leave(struct work *work, unsigned index, const struct request *request,
                  struct report *report)
{
    struct attempt *attempt = &work->attempts[index];
    if (attempt->tls != NULL && !attempt->leaving) {
        attempt->leaving = true;
        tls_say_goodbye(attempt->tls);
        return false;
    }
    net_record(request, report, net_now() - attempt->begun);
    end(work, index);
    return true;
}

/* Continue the handshake; 1 when it is done, 0 to wait, -1 if it failed. */
static int shake(struct work *work, unsigned index)
{
    struct attempt *attempt = &work->attempts[index];
    uint32_t events;
    int done = tls_shake(attempt->tls, &events);
    if (done < 0)
        return -1;
    net_watch(work->poller, EPOLL_CTL_MOD, attempt->fd, done ? EPOLLIN : events, index);
    attempt->shaking = !done;
    return done;
}

/* Handle an event of a connection; true if its slot is free again. */
static bool look(struct work *work, unsigned index, const struct request *request,
                 struct report *report)
{
    struct attempt *attempt = &work->attempts[index];
    char bytes[2048];
    if (attempt->shaking) {
        int done = shake(work, index);
        if (done <= 0)
            return done < 0 && lose(work, index, report, errno);
    }
    ssize_t got = stream_recv(attempt->fd, attempt->tls, bytes, sizeof bytes);
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got <= 0) {
        if (attempt->leaving && got == 0)
            return leave(work, index, request, report);
        return lose(work, index, report, got < 0 ? errno : 0);
    }
    report->bytes += (uint64_t)got;
    if (attempt->awaited != 0) {
        if ((size_t)got < attempt->awaited) {
            attempt->awaited -= (size_t)got;
            return false;
        }
        return leave(work, index, request, report);
    }
    if (memchr(bytes, '\n', (size_t)got) == NULL)
        return false;
    if (request->tally)
        net_tally(report, bytes, (size_t)got);
    if (work->say_length == 0)
        return leave(work, index, request, report);
    /* A line always fits into an empty send buffer. */
    if (stream_send(attempt->fd, attempt->tls, request->say, work->say_length) !=
        (ssize_t)work->say_length)
        return lose(work, index, report, errno);
    attempt->awaited = work->say_length;
    return false;
}

/* Begin what is due in the slots that are free. */
static void fill(struct work *work, const struct request *request, struct report *report,
                 uint64_t since, uint64_t count)
{
    uint64_t due = net_due(request, since);
    for (unsigned i = 0; i < request->in_flight; i++) {
        if (work->begun >= due || (count != 0 && work->begun >= count))
            return;
        if (work->attempts[i].fd < 0)
            begin(work, i, request, report);
    }
}

/* Keep all slots busy, or begin connections at a rate, until the time or the count is reached; then
 * wait for the remaining ones. */
static void run(struct work *work, const struct request *request, struct report *report,
                uint64_t duration, uint64_t count)
{
    static struct epoll_event events[LOAD_EVENTS];
    uint64_t now = net_now(), since = now;
    uint64_t until = now + duration, last = until + request->grace;
    work->begun = 0;
    fill(work, request, report, since, count);
    while (work->active != 0 ||
           (request->rate > 0 && now < until && (count == 0 || work->begun < count))) {
        int ready = net_wait(work->poller, events, request);
        now = net_now();
        for (int i = 0; i < ready; i++) {
            unsigned index = events[i].data.u32;
            if (look(work, index, request, report) && request->rate == 0 && now < until &&
                (count == 0 || work->begun < count))
                begin(work, index, request, report);
        }
        if (request->rate > 0 && now < until)
            fill(work, request, report, since, count);
        if (now >= last)
            break;
    }
    for (unsigned i = 0; i < request->in_flight; i++)
        if (work->attempts[i].fd >= 0) {
            report->unfinished++;
            end(work, i);
        }
}

void load_accept(const struct request *request, struct report *report)
{
    struct work work = {.poller = epoll_create1(EPOLL_CLOEXEC)};
    if (work.poller < 0)
        net_die("epoll_create1");
    work.attempts = calloc(request->in_flight, sizeof *work.attempts);
    if (work.attempts == NULL)
        net_die("calloc");
    for (unsigned i = 0; i < request->in_flight; i++)
        work.attempts[i].fd = -1;
    if (request->say != NULL)
        work.say_length = strlen(request->say);
    if (request->warm_up != 0)
        run(&work, request, report, request->warm_up, 0);
    step_ready(request, report);
    run(&work, request, report, request->duration, request->count);
    report->finished = net_now();
    step_report("done", report, 0);
    step_end(request);
    free(work.attempts);
    close(work.poller);
}
