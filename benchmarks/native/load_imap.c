/*
 * Mode imap: clients that log in, say some commands once and others again and again, or wait in IDLE.
 *
 * Rules of this file: every response is read to its end, its literals included, and every tagged
 * one must be OK; any other is counted as a wrong reply and ends the client. An operation is a
 * command that was answered; with --sessions it is a whole session, from connect() to the answer to
 * LOGOUT. With --idle, each client waits in IDLE, and lines on standard input say what is done: see
 * `obey`. What is received is looked at line by line, so that this program costs less than a server.
 */

#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What a client waits for: an answer, or in IDLING for nothing. */
enum step { GREETING, FIRST, COMMAND, LOGOUT, GO_AHEAD, IDLING, DONE, READY };

/* The beginning of a line that tells what it is, and the end in which a literal is announced. */
enum { HEAD = 4, TAIL = 24 };

/* What is read at once. */
static char scratch[256 * 1024];

struct words {
    char *bytes;
    size_t length;
};

struct client {
    int fd; /* -1: none */
    struct ssl_st *tls;
    bool shaking, continued, delivered, writing;
    enum step step;
    unsigned next; /* of the commands */
    uint64_t begun;
    size_t skip; /* octets of a literal still to come */
    size_t in_line;
    unsigned head_length, tail_length;
    char head[HEAD], tail[TAIL];
    struct words unsent;
};

/* A connection that delivers by LMTP; `left` replies are due. */
struct courier {
    int fd;
    unsigned left, in_line, user;
    bool message; /* it has been sent */
    bool busy;
    char line[4];
};

enum { COURIERS = 16 };

/* Stands for standard input among the indexes of connections. */
static const uint32_t COMMANDS = UINT32_MAX;

static struct {
    struct client *clients;
    unsigned count, active, idling;
    int poller;
    uint64_t begun, until;
    struct words commands[LOAD_WORDS];
    struct courier couriers[COURIERS];
    uint64_t delivered, shown;
} work;

static struct words words_of(const char *bytes, size_t length)
{
    struct words words = {malloc(length), length};
    if (words.bytes == NULL)
        net_die("malloc");
    memcpy(words.bytes, bytes, length);
    return words;
}

/* The user's name, with the number of the client in place of %u. */
static void user_of(const struct request *request, unsigned index, char *name, size_t size)
{
    const char *place = strstr(request->user, "%u");
    if (place == NULL)
        snprintf(name, size, "%s", request->user);
    else
        snprintf(name, size, "%.*s%u%s", (int)(place - request->user), request->user, index,
                 place + 2);
}

/* A command as it is sent; after {N+} at its end, the message of that many octets. */
static struct words command_of(const char *text)
{
    static const char HEADER[] = "From: <sender@example.com>\r\nTo: <alice@example.org>\r\n"
                                 "Subject: hello\r\n\r\n";
    char *line;
    int length = asprintf(&line, "a %s\r\n", text);
    if (length < 0)
        net_die("asprintf");
    struct words words = words_of(line, (size_t)length);
    char *brace = strrchr(line, '{');
    if (brace != NULL && strcmp(line + length - 4, "+}\r\n") == 0) {
        size_t size = strtoul(brace + 1, NULL, 10), header = sizeof HEADER - 1;
        words.length += size + 2;
        words.bytes = realloc(words.bytes, words.length);
        if (words.bytes == NULL)
            net_die("realloc");
        char *message = words.bytes + length;
        for (size_t i = 0; i < size; i++)
            message[i] = i < header ? HEADER[i] : i % 72 == 70 ? '\r' : i % 72 == 71 ? '\n' : 'x';
        memcpy(message + size, "\r\n", 2);
    }
    free(line);
    return words;
}

static void end(struct client *client)
{
    tls_free(client->tls);
    client->tls = NULL;
    close(client->fd);
    client->fd = -1;
    if (client->step == IDLING)
        work.idling--;
    work.active--;
}

static void lose(struct client *client, struct report *report, int error)
{
    net_blame(report, error);
    end(client);
}

static bool begin(unsigned index, const struct request *request, struct report *report)
{
    struct client *client = &work.clients[index];
    memset(client, 0, sizeof *client);
    client->fd = net_connect(request, report);
    if (client->fd < 0)
        return false;
    client->begun = net_now();
    if (request->tls) {
        client->tls = tls_new(client->fd);
        client->shaking = true;
    }
    work.active++;
    net_watch(work.poller, EPOLL_CTL_ADD, client->fd, request->tls ? EPOLLOUT : EPOLLIN, index);
    return true;
}

/* Send; the error, or 0. What does not fit is sent later. */
static int say(unsigned index, const char *bytes, size_t length)
{
    struct client *client = &work.clients[index];
    ssize_t sent = stream_send(client->fd, client->tls, bytes, length);
    if (sent < 0) {
        if (errno != EAGAIN)
            return errno;
        sent = 0;
    }
    /* Only the commands of `work`, which stay where they are, are too long to be sent at once. */
    client->unsent = (struct words){(char *)bytes + sent, length - (size_t)sent};
    bool writing = client->unsent.length != 0;
    if (writing != client->writing) {
        client->writing = writing;
        net_watch(work.poller, EPOLL_CTL_MOD, client->fd, writing ? EPOLLIN | EPOLLOUT : EPOLLIN,
                  index);
    }
    return 0;
}

static int say_line(unsigned index, const char *text)
{
    char line[1024];
    int length = snprintf(line, sizeof line, "%s\r\n", text);
    int error = length < (int)sizeof line ? say(index, line, (size_t)length) : EMSGSIZE;
    return error == 0 && work.clients[index].writing ? EMSGSIZE : error;
}

static bool may_begin(const struct request *request)
{
    return net_now() < work.until && (request->count == 0 || work.begun < request->count);
}

static int say_command(unsigned index, const struct request *request)
{
    struct client *client = &work.clients[index];
    struct words words = work.commands[client->next++ % request->commands];
    client->step = COMMAND;
    return say(index, words.bytes, words.length);
}

/* Go on after the expected answer; the error, or 0; -1: the session is over. */
static int proceed(unsigned index, const struct request *request, struct report *report)
{
    struct client *client = &work.clients[index];
    char line[512], name[256];
    switch (client->step) {
    case GREETING:
        user_of(request, index, name, sizeof name);
        snprintf(line, sizeof line, "a LOGIN \"%s\" \"%s\"", name, request->password);
        client->step = FIRST;
        client->next = 0;
        return say_line(index, line);
    case FIRST:
        if (client->next < request->firsts) {
            snprintf(line, sizeof line, "a %s", request->first[client->next++]);
            return say_line(index, line);
        }
        client->next = 0;
        if (request->idle) {
            client->step = GO_AHEAD;
            return say_line(index, "a IDLE");
        }
        if (request->sessions && request->commands != 0)
            return say_command(index, request);
        if (request->sessions) {
            client->step = LOGOUT;
            return say_line(index, "a LOGOUT");
        }
        client->step = READY;
        return 0;
    case COMMAND:
        if (request->sessions) {
            if (client->next < request->commands)
                return say_command(index, request);
            client->step = LOGOUT;
            return say_line(index, "a LOGOUT");
        }
        net_record(request, report, net_now() - client->begun);
        client->step = READY;
        if (!may_begin(request))
            return 0;
        work.begun++;
        client->begun = net_now();
        return say_command(index, request);
    case LOGOUT:
        net_record(request, report, net_now() - client->begun);
        return -1;
    case GO_AHEAD:
        client->step = IDLING;
        work.idling++;
        return 0;
    case DONE:
        net_record(request, report, net_now() - client->begun);
        client->step = GO_AHEAD;
        return say_line(index, "a IDLE");
    default:
        return 0;
    }
}

/* Handle a whole line of a response's beginning: the error, 0, or -1 if the session is over. */
static int hear_line(unsigned index, const struct request *request, struct report *report)
{
    struct client *client = &work.clients[index];
    const char *head = client->head;
    if (client->head_length < HEAD)
        return EPROTO;
    if (client->step == GREETING)
        return memcmp(head, "* OK", 4) == 0 ? proceed(index, request, report) : EPROTO;
    if (client->step == GO_AHEAD && head[0] == '+')
        return proceed(index, request, report);
    if (head[0] == '*') {
        bool exists = client->tail_length > 9 &&
                      memcmp(client->tail + client->tail_length - 9, " EXISTS\r\n", 9) == 0;
        if (exists && client->delivered) {
            net_record(request, report, net_now() - client->begun);
            client->delivered = false;
            work.shown++;
        }
        return 0;
    }
    if (memcmp(head, "a OK", 4) != 0) {
        report->replies++;
        fprintf(stderr, "loadgen: %.*s\n", (int)client->tail_length, client->tail);
        return EINPROGRESS; /* counted already */
    }
    return proceed(index, request, report);
}

/* Handle input; the error, 0, or -1 if the session is over. */
static int hear(unsigned index, const char *bytes, size_t length, const struct request *request,
                struct report *report)
{
    struct client *client = &work.clients[index];
    while (length != 0) {
        if (client->skip != 0) {
            size_t part = client->skip < length ? client->skip : length;
            client->skip -= part;
            bytes += part;
            length -= part;
            continue;
        }
        const char *feed = memchr(bytes, '\n', length);
        size_t part = feed == NULL ? length : (size_t)(feed + 1 - bytes);
        for (size_t i = 0; i < part && client->head_length < HEAD; i++)
            client->head[client->head_length++] = bytes[i];
        if (part >= TAIL) {
            memcpy(client->tail, bytes + part - TAIL, TAIL);
            client->tail_length = TAIL;
        } else {
            unsigned kept = client->tail_length;
            if (kept + part > TAIL) {
                kept = TAIL - (unsigned)part;
                memmove(client->tail, client->tail + client->tail_length - kept, kept);
            }
            memcpy(client->tail + kept, bytes, part);
            client->tail_length = kept + (unsigned)part;
        }
        bytes += part;
        length -= part;
        if (feed == NULL)
            return 0;
        const char *tail = client->tail;
        unsigned last = client->tail_length;
        if (last > 4 && memcmp(tail + last - 3, "}\r\n", 3) == 0) {
            unsigned at = last - 3;
            size_t place = 1;
            while (at != 0 && tail[at - 1] >= '0' && tail[at - 1] <= '9') {
                client->skip += place * (size_t)(tail[--at] - '0');
                place *= 10;
            }
            if (place > 1 && at != 0 && tail[at - 1] == '{') {
                client->continued = true;
                client->tail_length = 0;
                continue;
            }
            client->skip = 0;
        }
        int result = client->continued && client->head[0] != '*'
                         ? EPROTO
                         : hear_line(index, request, report);
        if (result != 0)
            return result;
        client->continued = false;
        client->head_length = client->tail_length = 0;
    }
    return 0;
}

/* Handle an event of a client; true if it is gone. */
static bool look(unsigned index, uint32_t events, const struct request *request,
                 struct report *report)
{
    struct client *client = &work.clients[index];
    if (client->fd < 0)
        return true;
    if (client->shaking) {
        uint32_t wanted;
        int done = tls_shake(client->tls, &wanted);
        if (done < 0) {
            lose(client, report, errno);
            return true;
        }
        net_watch(work.poller, EPOLL_CTL_MOD, client->fd, done ? EPOLLIN : wanted, index);
        client->shaking = !done;
        return false;
    }
    if ((events & EPOLLOUT) != 0 && client->unsent.length != 0) {
        int error = say(index, client->unsent.bytes, client->unsent.length);
        if (error != 0) {
            lose(client, report, error);
            return true;
        }
    }
    do {
        ssize_t got = stream_recv(client->fd, client->tls, scratch, sizeof scratch);
        if (got < 0 && errno == EAGAIN)
            return false;
        if (got <= 0) {
            lose(client, report, got < 0 ? errno : 0);
            return true;
        }
        report->bytes += (uint64_t)got;
        int result = hear(index, scratch, (size_t)got, request, report);
        if (result < 0 || result == EINPROGRESS) {
            end(client);
            return true;
        }
        if (result != 0) {
            lose(client, report, result);
            return true;
        }
    } while (client->tls != NULL);
    return false;
}

/* --- deliveries --------------------------------------------------------------------------------- */

static int send_text(int fd, const char *text, size_t length)
{
    return send(fd, text, length, MSG_NOSIGNAL) == (ssize_t)length ? 0 : EPROTO;
}

static void deliver(unsigned number, unsigned user, const struct request *request)
{
    struct courier *courier = &work.couriers[number];
    char name[256], text[1024];
    user_of(request, user, name, sizeof name);
    int length = snprintf(text, sizeof text,
                          "MAIL FROM:<sender@example.com>\r\nRCPT TO:<%s>\r\nDATA\r\n", name);
    work.clients[user].delivered = true;
    courier->busy = true;
    courier->user = user;
    courier->left = 3;
    courier->message = false;
    if (send_text(courier->fd, text, (size_t)length) != 0)
        net_die("deliver");
}

/* Handle replies of the LMTP server; any that is not as expected ends the program. */
static void hear_courier(unsigned number)
{
    static const char MESSAGE[] = "From: <sender@example.com>\r\nTo: <alice@example.org>\r\n"
                                  "Subject: hello\r\n\r\nbody\r\n.\r\n";
    struct courier *courier = &work.couriers[number];
    ssize_t got = recv(courier->fd, scratch, sizeof scratch, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        net_die("LMTP");
    for (ssize_t i = 0; i < got; i++) {
        if (courier->in_line < sizeof courier->line)
            courier->line[courier->in_line] = scratch[i];
        courier->in_line++;
        if (scratch[i] != '\n')
            continue;
        courier->in_line = 0;
        if (courier->line[0] != '2' && courier->line[0] != '3') {
            fprintf(stderr, "loadgen: LMTP answers %.4s\n", courier->line);
            exit(1);
        }
        if (courier->line[3] == '-' || courier->left == 0 || --courier->left != 0)
            continue;
        if (courier->busy && !courier->message) {
            struct client *client = &work.clients[courier->user];
            courier->message = true;
            courier->left = 1;
            client->begun = net_now();
            if (send_text(courier->fd, MESSAGE, sizeof MESSAGE - 1) != 0)
                net_die("deliver");
        } else
            courier->busy = false;
    }
}

static void open_couriers(const struct request *request, struct report *report)
{
    struct request there = *request;
    there.server.sin_port = htons(request->lmtp_port);
    for (unsigned i = 0; i < COURIERS; i++) {
        struct courier *courier = &work.couriers[i];
        courier->fd = net_connect(&there, report);
        if (courier->fd < 0)
            net_die("LMTP");
        courier->busy = courier->message = true;
        courier->left = 2; /* the greeting, the answer to LHLO */
        net_watch(work.poller, EPOLL_CTL_ADD, courier->fd, EPOLLIN, work.count + i);
        /* On loopback the connection is there when connect() has returned. */
        if (send_text(courier->fd, "LHLO client.example.com\r\n", 25) != 0)
            net_die("LHLO");
    }
}

/* --- what is done -------------------------------------------------------------------------------- */

static void report_done(const char *event, struct report *report)
{
    report->finished = net_now();
    step_report(event, report, work.active);
}

static void restart(struct report *report)
{
    memset(report, 0, sizeof *report);
    report->begun = net_now();
}

/* Handle events once. */
static void turn(const struct request *request, struct report *report)
{
    static struct epoll_event events[LOAD_EVENTS];
    int ready = net_wait(work.poller, events, request);
    for (int i = 0; i < ready; i++) {
        uint32_t index = events[i].data.u32;
        if (index < work.count)
            look(index, events[i].events, request, report);
        else if (index != COMMANDS)
            hear_courier(index - work.count);
    }
}

/* Open all clients and let them say what they say once; false if not all could. */
static bool open_all(enum step wanted, const struct request *request, struct report *report)
{
    uint64_t last = net_now() + 600000000000u;
    unsigned begun = 0, open = 0;
    report->begun = net_now();
    while (open < work.count && net_now() < last) {
        while (begun < work.count && begun - open < request->in_flight)
            if (!begin(begun++, request, report))
                return false;
        turn(request, report);
        open = 0;
        for (unsigned i = 0; i < begun; i++)
            if (work.clients[i].fd >= 0 && work.clients[i].step == wanted)
                open++;
            else if (work.clients[i].fd < 0)
                return false;
    }
    return open == work.count;
}

/* Say the commands on all clients until the time or the count is reached. */
static void repeat(const struct request *request, struct report *report, uint64_t duration)
{
    uint64_t last = net_now() + duration + request->grace;
    bool more = true;
    work.until = net_now() + duration;
    work.begun = 0;
    for (unsigned i = 0; i < work.count; i++)
        if (work.clients[i].fd >= 0 && work.clients[i].step == READY && may_begin(request)) {
            work.begun++;
            work.clients[i].begun = net_now();
            int error = say_command(i, request);
            if (error != 0)
                lose(&work.clients[i], report, error);
        }
    while (more && net_now() < last) {
        turn(request, report);
        more = false;
        for (unsigned i = 0; i < work.count; i++)
            more |= work.clients[i].fd >= 0 && work.clients[i].step != READY;
    }
    if (more)
        report->unfinished++;
}

/* Whole sessions, `connections` at once. */
static void sessions(const struct request *request, struct report *report, uint64_t duration)
{
    uint64_t last = net_now() + duration + request->grace;
    work.until = net_now() + duration;
    work.begun = 0;
    do {
        for (unsigned i = 0; i < work.count; i++)
            if (work.clients[i].fd < 0 && may_begin(request)) {
                work.begun++;
                begin(i, request, report);
            }
        turn(request, report);
    } while ((work.active != 0 || may_begin(request)) && net_now() < last);
    for (unsigned i = 0; i < work.count; i++)
        if (work.clients[i].fd >= 0) {
            report->unfinished++;
            end(&work.clients[i]);
        }
}

/* DONE and IDLE again on all clients, `in_flight` at once. */
static void ping(const struct request *request, struct report *report)
{
    uint64_t last = net_now() + request->grace + 60000000000u;
    unsigned next = 0;
    restart(report);
    while (net_now() < last && (next < work.count || work.idling < work.active)) {
        for (; next < work.count && work.active - work.idling < request->in_flight; next++)
            if (work.clients[next].fd >= 0) {
                work.clients[next].step = DONE;
                work.clients[next].begun = net_now();
                work.idling--;
                int error = say_line(next, "DONE");
                if (error != 0)
                    lose(&work.clients[next], report, error);
            }
        turn(request, report);
    }
    report->unfinished += work.active - work.idling;
    report_done("ping", report);
}

/* Deliver to one client after the other at the rate, until each has been told or it takes too long;
 * latencies are from the end of a message to EXISTS. */
static void deliver_all(const struct request *request, struct report *report)
{
    uint64_t wanted = (uint64_t)(request->rate * (double)request->duration / 1e9);
    uint64_t last = net_now() + request->duration + request->grace;
    unsigned user = 0;
    open_couriers(request, report);
    restart(report);
    work.delivered = work.shown = 0;
    while (work.shown < wanted && net_now() < last) {
        uint64_t due = net_due(request, report->begun);
        for (unsigned i = 0; i < COURIERS; i++)
            if (!work.couriers[i].busy && work.delivered < wanted && work.delivered < due) {
                /* 7,919 is prime: neighbours do not follow each other. One who still waits for the
                 * mail before is left out. */
                unsigned tries = work.count;
                do
                    user = (user + 7919) % work.count;
                while (work.clients[user].delivered && --tries != 0);
                if (tries == 0)
                    break;
                deliver(i, user, request);
                work.delivered++;
            }
        turn(request, report);
    }
    report->unfinished += wanted - work.shown;
    report_done("delivered", report);
}

/* Lines on standard input: "ping", "deliver"; their end ends the program. */
static void obey(const struct request *request, struct report *report)
{
    uint64_t last = net_now() + 600000000000u;
    struct epoll_event events[LOAD_EVENTS];
    net_watch(work.poller, EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, COMMANDS);
    while (net_now() < last) {
        int ready = epoll_wait(work.poller, events, LOAD_EVENTS, LOAD_TICK);
        for (int i = 0; i < ready; i++) {
            char line[16] = "";
            if (events[i].data.u32 != COMMANDS) {
                look(events[i].data.u32, events[i].events, request, report);
                continue;
            }
            if (read(STDIN_FILENO, line, sizeof line - 1) <= 0)
                return;
            if (strncmp(line, "ping", 4) == 0)
                ping(request, report);
            else if (strncmp(line, "deliver", 7) == 0)
                deliver_all(request, report);
            break; /* the events of this wake-up have been used up */
        }
    }
}

void load_imap(const struct request *request, struct report *report)
{
    work.count = request->connections;
    work.poller = epoll_create1(EPOLL_CLOEXEC);
    work.clients = calloc(work.count, sizeof *work.clients);
    if (work.clients == NULL || work.poller < 0)
        net_die("load_imap");
    for (unsigned i = 0; i < work.count; i++)
        work.clients[i].fd = -1;
    for (unsigned i = 0; i < request->commands; i++)
        work.commands[i] = command_of(request->command[i]);
    if (request->sessions) {
        if (request->warm_up != 0)
            sessions(request, report, request->warm_up);
        step_ready(request, report);
        sessions(request, report, request->duration);
        report_done("done", report);
        step_end(request);
        return;
    }
    bool open = open_all(request->idle ? IDLING : READY, request, report);
    if (!open)
        report->unfinished++;
    if (request->idle) {
        report_done("open", report);
        restart(report);
        if (open)
            obey(request, report);
    } else if (open) {
        if (request->warm_up != 0)
            repeat(request, report, request->warm_up);
        step_ready(request, report);
        repeat(request, report, request->duration);
    }
    report_done("done", report);
    step_end(request);
    for (unsigned i = 0; i < work.count; i++)
        if (work.clients[i].fd >= 0)
            net_abort(work.clients[i].fd);
}
