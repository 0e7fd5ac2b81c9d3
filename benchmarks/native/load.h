/*
 * Declarations shared by the parts of the load generator: the request, the report, connections.
 *
 * Rules of this file: declarations only. Functions are defined where their prefix says: net_ in
 * load_net.c, tls_ and stream_ in load_tls.c, peers_ in load_peers.c. The modes are in
 * load_accept.c, load_echo.c, load_hold.c, load_imap.c and load_smtp.c; loadgen.c reads the command line and
 * prints.
 */

#ifndef FASTLISTEN_LOAD_H
#define FASTLISTEN_LOAD_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

/* Events taken per wake-up. */
enum { LOAD_EVENTS = 512 };

/* The longest wait for events in milliseconds; then the clock is checked. */
enum { LOAD_TICK = 20 };

/* Latencies are counted in 2^5 = 32 steps per octave of nanoseconds: an error below 3.2 %. */
enum { LATENCY_BITS = 5, LATENCY_BUCKETS = 64 << LATENCY_BITS };

/* The longest wait in milliseconds while connections are begun at a rate: a short one, because those
 * that are due meanwhile begin all at once. */
enum { LOAD_RATE_TICK = 1 };

/* The most server processes that are told apart by their greetings. */
enum { LOAD_SERVERS = 512 };

/* The most commands that mode imap is given. */
enum { LOAD_WORDS = 8 };

/* OpenSSL's SSL; NULL stands for a plain connection. */
struct ssl_st;

/* The command line's settings. Times in nanoseconds. */
struct request {
    struct sockaddr_in server;
    unsigned sources;     /* client addresses 127.0.1.1 and on; 0: the kernel chooses */
    unsigned in_flight;   /* connections being opened, or messages outstanding, at once */
    unsigned connections; /* echo, hold: connections kept open */
    uint64_t count;       /* operations after which the measured part ends; 0: by time alone */
    uint64_t duration;    /* length of the measured part; in hold, of the whole run */
    uint64_t warm_up;     /* length of the warm-up, the same work before it */
    double rate;          /* connections begun per second at most; 0: as fast as possible */
    uint64_t late;        /* operations that took longer are counted; 0: none are */
    uint64_t grace;       /* longest wait for what is in flight at the end */
    size_t size;          /* echo, hold, smtp: bytes per message */
    bool greeting;        /* echo, hold: the server speaks first, a line */
    const char *say;      /* accept: a line to send and have echoed before closing, or NULL */
    const char *recipient; /* smtp: of every message */
    unsigned messages;    /* smtp: per session */
    bool lmtp;            /* smtp: LMTP instead */
    bool pipelining;      /* smtp: MAIL, RCPT and DATA in one piece */
    bool bdat;            /* smtp: the message as one chunk of BDAT */
    const char *user;     /* imap: %u stands for the client's number */
    const char *password; /* imap */
    const char *first[LOAD_WORDS];   /* imap: said once by each client, after LOGIN */
    const char *command[LOAD_WORDS]; /* imap: said again and again, or once in each session */
    unsigned firsts, commands;
    bool sessions;        /* imap: an operation is a session */
    bool idle;            /* imap: clients wait in IDLE */
    uint16_t lmtp_port;   /* imap: where mail is delivered */
    bool tls;             /* TLS from the first byte */
    bool tally;           /* count greetings by the number that they end with */
    bool spin;            /* accept, echo, smtp: never sleep */
    bool steps;           /* wait for a line before the measured part, for the end of input after */
};

/* The results. `unfinished` counts what was still in flight after the grace period. */
struct report {
    uint64_t operations;
    uint64_t bytes; /* received */
    uint64_t refused, reset, ended, no_address, tls, replies, failed, unfinished;
    uint64_t begun, finished; /* monotonic clock */
    uint64_t latency[LATENCY_BUCKETS];
    uint64_t late;
    struct {
        unsigned long server; /* the number that its greetings end with */
        uint64_t count;
    } tally[LOAD_SERVERS];
    unsigned servers;
};

/* One connection that is kept open. */
struct peer {
    int fd;
    bool shaking, open, busy, writing;
    struct ssl_st *tls;
    uint64_t begun;
    size_t sent, received; /* of the message in flight; both 0 if there is none */
};

struct peers {
    struct peer *all;
    unsigned count, open;
    int poller;
    const char *message;
};

/* The result of handling an event of a peer. */
enum progress { PROGRESS_MORE, PROGRESS_DONE, PROGRESS_LOST };

uint64_t net_now(void);
void net_die(const char *what);
void net_raise_descriptors(void);
int net_connect(const struct request *request, struct report *report);
void net_watch(int poller, int operation, int fd, uint32_t events, uint32_t data);
int net_wait(int poller, struct epoll_event *events, const struct request *request);
void net_blame(struct report *report, int error);
void net_abort(int fd);
void net_record(const struct request *request, struct report *report, uint64_t nanoseconds);
/* How many connections may have been begun by now, if the first was due at `since`. */
uint64_t net_due(const struct request *request, uint64_t since);
/* Count a greeting for the server that it names. */
void net_tally(struct report *report, const char *greeting, size_t length);
uint64_t net_percentile(const struct report *report, double fraction);

extern const bool tls_built; /* this program supports TLS */
void tls_prepare(void);
struct ssl_st *tls_new(int fd);
void tls_free(struct ssl_st *tls);
/* Continue a handshake: 1 when it is done, 0 to wait for the events, -1 and errno on failure. */
int tls_shake(struct ssl_st *tls, uint32_t *events);
/* Send close_notify; the connection can still be read. */
void tls_say_goodbye(struct ssl_st *tls);
/* Print what was negotiated, as a member of the JSON object. */
void tls_report(void);
ssize_t stream_send(int fd, struct ssl_st *tls, const char *bytes, size_t length);
ssize_t stream_recv(int fd, struct ssl_st *tls, char *bytes, size_t length);

void peers_open(struct peers *peers, const struct request *request, struct report *report);
void peers_send(struct peers *peers, unsigned index, const struct request *request);
enum progress peers_progress(struct peers *peers, unsigned index, uint32_t events,
                             const struct request *request, struct report *report);
void peers_lose(struct peers *peers, unsigned index, struct report *report, int error);

/* The modes. Each calls step_ready() before the measured part. */
void load_accept(const struct request *request, struct report *report);
void load_echo(const struct request *request, struct report *report);
void load_hold(const struct request *request, struct report *report);
void load_imap(const struct request *request, struct report *report);
void load_smtp(const struct request *request, struct report *report);

/* Print "ready" and wait for the line that starts the measurement; resets the report. */
void step_ready(const struct request *request, struct report *report);
/* Print the report as one line of JSON with this event. */
void step_report(const char *event, const struct report *report, unsigned open);
/* Wait until standard input ends, if steps were asked for. */
void step_end(const struct request *request);

#endif
