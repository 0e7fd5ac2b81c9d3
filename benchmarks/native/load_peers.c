/*
 * Many connections kept open, and one message at a time on each.
 *
 * Rules of this file: at most `in_flight` connections are being opened at once. A message counts as
 * answered when the same number of bytes has come back. Bytes are not compared, because the load
 * generator would then measure itself.
 */

#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The most that is sent or read at once. */
static char scratch[256 * 1024];

/* Remove a peer after an error (0: the server closed the connection). */
void peers_lose(struct peers *peers, unsigned index, struct report *report, int error)
{
    struct peer *peer = &peers->all[index];
    net_blame(report, error);
    tls_free(peer->tls);
    close(peer->fd);
    peer->fd = -1;
    peer->tls = NULL;
    if (peer->open)
        peers->open--;
    peer->open = peer->busy = false;
}

/* Handle an event of a peer that is being opened: PROGRESS_DONE when it is open. */
static enum progress opened(struct peers *peers, unsigned index, const struct request *request,
                            struct report *report)
{
    struct peer *peer = &peers->all[index];
    int error = 0;
    if (peer->shaking) {
        uint32_t events;
        int done = tls_shake(peer->tls, &events);
        if (done < 0) {
            peers_lose(peers, index, report, errno);
            return PROGRESS_LOST;
        }
        net_watch(peers->poller, EPOLL_CTL_MOD, peer->fd, done ? EPOLLIN : events, index);
        if (!done)
            return PROGRESS_MORE;
        peer->shaking = false;
    }
    if (request->greeting) {
        ssize_t got = stream_recv(peer->fd, peer->tls, scratch, sizeof scratch);
        if (got < 0 && errno == EAGAIN)
            return PROGRESS_MORE;
        if (got <= 0) {
            peers_lose(peers, index, report, got < 0 ? errno : 0);
            return PROGRESS_LOST;
        }
        if (memchr(scratch, '\n', (size_t)got) == NULL)
            return PROGRESS_MORE;
        if (request->tally)
            net_tally(report, scratch, (size_t)got);
    } else {
        socklen_t length = sizeof error;
        if (getsockopt(peer->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
            error = errno;
        if (error != 0) {
            peers_lose(peers, index, report, error);
            return PROGRESS_LOST;
        }
    }
    net_watch(peers->poller, EPOLL_CTL_MOD, peer->fd, EPOLLIN, index);
    peer->open = true;
    peers->open++;
    return PROGRESS_DONE;
}

/* Open all connections, or as many as possible within the duration and the grace period. */
void peers_open(struct peers *peers, const struct request *request, struct report *report)
{
    static struct epoll_event events[LOAD_EVENTS];
    uint64_t last = net_now() + request->duration + request->grace;
    unsigned begun = 0, opening = 0;
    char *message = malloc(request->size);
    peers->count = request->connections;
    peers->all = calloc(peers->count, sizeof *peers->all);
    peers->poller = epoll_create1(EPOLL_CLOEXEC);
    if (peers->all == NULL || message == NULL || peers->poller < 0)
        net_die("peers_open");
    memset(message, 'x', request->size);
    message[request->size - 1] = '\n';
    peers->message = message;
    report->begun = net_now();
    while ((begun < peers->count || opening != 0) && net_now() < last) {
        uint64_t due = net_due(request, report->begun);
        for (; begun < peers->count && begun < due && opening < request->in_flight; begun++) {
            struct peer *peer = &peers->all[begun];
            peer->fd = net_connect(request, report);
            if (peer->fd < 0)
                continue;
            peer->begun = net_now();
            opening++;
            if (request->tls) {
                peer->tls = tls_new(peer->fd);
                peer->shaking = true;
            }
            net_watch(peers->poller, EPOLL_CTL_ADD, peer->fd,
                      request->greeting && !request->tls ? EPOLLIN : EPOLLOUT, begun);
        }
        int ready = net_wait(peers->poller, events, request);
        for (int i = 0; i < ready; i++) {
            unsigned index = events[i].data.u32;
            if (peers->all[index].open) {
                /* The server closed an idle connection or sent something on it, or OpenSSL sent
                 * its session tickets. */
                if (peers->all[index].tls == NULL ||
                    stream_recv(-1, peers->all[index].tls, scratch, sizeof scratch) >= 0 ||
                    errno != EAGAIN)
                    peers_lose(peers, index, report, 0);
                continue;
            }
            enum progress progress = opened(peers, index, request, report);
            if (progress == PROGRESS_MORE)
                continue;
            opening--;
            if (progress == PROGRESS_DONE)
                net_record(request, report, net_now() - peers->all[index].begun);
        }
    }
    for (unsigned i = 0; i < begun; i++)
        if (peers->all[i].fd >= 0 && !peers->all[i].open) {
            report->unfinished++;
            tls_free(peers->all[i].tls);
            close(peers->all[i].fd);
            peers->all[i].tls = NULL;
            peers->all[i].fd = -1;
        }
    for (unsigned i = begun; i < peers->count; i++) {
        report->unfinished++;
        peers->all[i].fd = -1;
    }
    report->finished = net_now();
}

/* Send as much of the message as the socket takes; the error, or 0. */
static int push(struct peers *peers, unsigned index, const struct request *request)
{
    struct peer *peer = &peers->all[index];
    while (peer->sent < request->size) {
        ssize_t sent = stream_send(peer->fd, peer->tls, peers->message + peer->sent,
                                   request->size - peer->sent);
        if (sent < 0) {
            if (errno != EAGAIN)
                return errno;
            break;
        }
        peer->sent += (size_t)sent;
    }
    bool writing = peer->sent < request->size;
    if (writing != peer->writing) {
        peer->writing = writing;
        net_watch(peers->poller, EPOLL_CTL_MOD, peer->fd, writing ? EPOLLIN | EPOLLOUT : EPOLLIN,
                  index);
    }
    return 0;
}

/* Start a message. An error will show at the next event of the peer. */
void peers_send(struct peers *peers, unsigned index, const struct request *request)
{
    struct peer *peer = &peers->all[index];
    peer->sent = peer->received = 0;
    peer->busy = true;
    peer->begun = net_now();
    push(peers, index, request);
}

/* Continue after an event; PROGRESS_DONE when the whole message has come back. */
enum progress peers_progress(struct peers *peers, unsigned index, uint32_t events,
                             const struct request *request, struct report *report)
{
    struct peer *peer = &peers->all[index];
    if ((events & EPOLLOUT) != 0) {
        int error = push(peers, index, request);
        if (error != 0) {
            peers_lose(peers, index, report, error);
            return PROGRESS_LOST;
        }
    }
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) == 0)
        return PROGRESS_MORE;
    /* With TLS a call returns one record, and more may be in OpenSSL's buffer. */
    do {
        ssize_t got = stream_recv(peer->fd, peer->tls, scratch, sizeof scratch);
        if (got < 0 && errno == EAGAIN)
            return PROGRESS_MORE;
        if (got <= 0) {
            peers_lose(peers, index, report, got < 0 ? errno : 0);
            return PROGRESS_LOST;
        }
        report->bytes += (uint64_t)got;
        peer->received += (size_t)got;
    } while (peer->tls != NULL && peer->busy && peer->received < request->size);
    if (!peer->busy || peer->received < request->size)
        return PROGRESS_MORE;
    peer->busy = false;
    net_record(request, report, net_now() - peer->begun);
    return PROGRESS_DONE;
}
