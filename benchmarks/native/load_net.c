/*
 * Clock, addresses, connecting and the histogram of latencies.
 *
 * Rules of this file: it knows nothing of modes. A call that fails because of the server or the
 * network is counted in the report; any other failure ends the program.
 *
 * On ephemeral ports: the side that closes first keeps the address pair in TIME_WAIT for 60 s. Here
 * that is the client, as with well-behaved mail clients, and 28,000 ports would last for a second.
 * So client addresses rotate over `sources` addresses of 127.0.0.0/8 (28,000 pairs each), with
 * IP_BIND_ADDRESS_NO_PORT, so that connect() chooses a port that is free for the pair rather than
 * for the address. Connections are closed with FIN; only those that `hold` kept are closed with a
 * reset, because closing them is not measured.
 */

#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* 127.0.1.1, because servers listen on 127.0.0.1. */
static const uint32_t FIRST_SOURCE = 0x7f000101;

uint64_t net_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void net_die(const char *what)
{
    perror(what);
    exit(1);
}

void net_raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        net_die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        net_die("setrlimit");
}

/* Count one failed connection by its kind of error. */
void net_blame(struct report *report, int error)
{
    if (error == 0)
        report->ended++;
    else if (error == ECONNREFUSED)
        report->refused++;
    else if (error == ECONNRESET || error == EPIPE)
        report->reset++;
    else if (error == EADDRNOTAVAIL)
        report->no_address++;
    else if (error == EPROTO)
        report->tls++;
    else
        report->failed++;
}

/* Start to connect from the next source; the descriptor, or -1 if it failed (and was counted). */
int net_connect(const struct request *request, struct report *report)
{
    static unsigned turn;
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        net_die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (request->sources != 0) {
        struct sockaddr_in source = {.sin_family = AF_INET};
        source.sin_addr.s_addr = htonl(FIRST_SOURCE + turn++ % request->sources);
        if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) != 0 ||
            bind(fd, (struct sockaddr *)&source, sizeof source) != 0)
            net_die("bind to a source address");
    }
    if (connect(fd, (const struct sockaddr *)&request->server, sizeof request->server) != 0 &&
        errno != EINPROGRESS) {
        net_blame(report, errno);
        close(fd);
        return -1;
    }
    return fd;
}

void net_watch(int poller, int operation, int fd, uint32_t events, uint32_t data)
{
    struct epoll_event event = {.events = events, .data.u32 = data};
    if (epoll_ctl(poller, operation, fd, &event) != 0)
        net_die("epoll_ctl");
}

/* Wait for events, at most LOAD_EVENTS; their number, possibly none. */
int net_wait(int poller, struct epoll_event *events, const struct request *request)
{
    int tick = request->spin ? 0 : request->rate > 0 ? LOAD_RATE_TICK : LOAD_TICK;
    int ready = epoll_wait(poller, events, LOAD_EVENTS, tick);
    if (ready < 0 && errno != EINTR)
        net_die("epoll_wait");
    return ready < 0 ? 0 : ready;
}

/* Close with a reset, so that neither side keeps the address pair. */
void net_abort(int fd)
{
    struct linger none = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close(fd);
}

/* Count one finished operation. */
void net_record(const struct request *request, struct report *report, uint64_t nanoseconds)
{
    if (request->late != 0 && nanoseconds > request->late)
        report->late++;
    unsigned bucket = (unsigned)nanoseconds;
    if (nanoseconds >> LATENCY_BITS != 0) {
        unsigned octave = 63u - (unsigned)__builtin_clzll(nanoseconds);
        unsigned step = (unsigned)(nanoseconds >> (octave - LATENCY_BITS)) &
                        ((1u << LATENCY_BITS) - 1);
        bucket = ((octave - LATENCY_BITS + 1) << LATENCY_BITS) + step;
    }
    report->latency[bucket]++;
    report->operations++;
}

uint64_t net_due(const struct request *request, uint64_t since)
{
    if (request->rate == 0)
        return UINT64_MAX;
    return 1 + (uint64_t)(request->rate * (double)(net_now() - since) / 1e9);
}

void net_tally(struct report *report, const char *greeting, size_t length)
{
    while (length != 0 && (greeting[length - 1] == '\n' || greeting[length - 1] == '\r'))
        length--;
    unsigned long server = 0, place = 1;
    for (; length != 0 && greeting[length - 1] >= '0' && greeting[length - 1] <= '9'; place *= 10)
        server += place * (unsigned long)(greeting[--length] - '0');
    unsigned i = 0;
    while (i < report->servers && report->tally[i].server != server)
        i++;
    if (i == LOAD_SERVERS) {
        fputs("loadgen: greetings of too many servers\n", stderr);
        exit(1);
    }
    if (i == report->servers)
        report->tally[report->servers++].server = server;
    report->tally[i].count++;
}

/* The lower edge of the step in which this fraction of the operations is reached. */
uint64_t net_percentile(const struct report *report, double fraction)
{
    uint64_t rank = (uint64_t)(fraction * (double)report->operations), seen = 0;
    if (rank >= report->operations && rank != 0)
        rank = report->operations - 1;
    for (unsigned bucket = 0; bucket < LATENCY_BUCKETS; bucket++) {
        seen += report->latency[bucket];
        if (seen > rank) {
            unsigned octave = bucket >> LATENCY_BITS;
            uint64_t step = bucket & ((1u << LATENCY_BITS) - 1);
            if (octave == 0)
                return step;
            return ((1ull << LATENCY_BITS) + step) << (octave - 1);
        }
    }
    return 0;
}
