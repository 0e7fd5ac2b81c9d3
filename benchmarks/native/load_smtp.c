/*
 * Mode smtp: SMTP or LMTP sessions, each with one or more messages, `in_flight` sessions at once.
 *
 * Rules of this file: every reply is read to its end and its code compared with the expected one;
 * any other is counted as a wrong reply and ends the session, which is replaced by the next one. An
 * operation is a message that was answered 250; with one message per session it is a whole session,
 * whose latency begins with connect(). Sessions that have begun are completed, so that the
 * operations counted are exactly the work that the server did. The client closes when it has read
 * the reply to QUIT, as mail clients do.
 */

#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The command whose reply comes next. */
enum step { STEP_GREETING, STEP_HELLO, STEP_MAIL, STEP_RCPT, STEP_DATA, STEP_MESSAGE, STEP_QUIT };

static const char *const DUE[] = {"220", "250", "250", "250", "354", "250", "221"};

/* Octets of a line of the message, CR LF included; a usual length in mail. */
enum { LINE = 72 };

struct words {
    char *bytes;
    size_t length;
};

/* One session; fd is -1 if there is none. */
struct session {
    int fd;
    enum step step;
    unsigned left;        /* messages still to be sent, including the current one */
    uint64_t begun;       /* of the current message */
    unsigned in_line;     /* octets received of a line of the reply */
    char line[4];         /* the first of them */
    struct words unsent;  /* what did not fit into the socket's buffer */
};

struct work {
    struct session *sessions;
    unsigned active;
    int poller;
    uint64_t begun; /* messages of all sessions begun so far, for `count` */
    struct words hello, mail, rcpt, data, envelope, message, quit;
};

static struct words text(const char *format, const char *value)
{
    struct words words;
    int length = asprintf(&words.bytes, format, value);
    if (length < 0)
        net_die("asprintf");
    words.length = (size_t)length;
    return words;
}

/* A message of this many octets, not counting the line with the dot; it always has a header. */
static struct words compose(size_t size, const char *recipient)
{
    struct words header = text("From: <sender@example.com>\r\nTo: <%s>\r\n"
                               "Subject: hello\r\n\r\n", recipient);
    size_t length = size > header.length + 2 ? size : header.length + 2;
    char *bytes = malloc(length + 3);
    if (bytes == NULL)
        net_die("malloc");
    memset(bytes, 'x', length);
    memcpy(bytes, header.bytes, header.length);
    /* Full lines, except the last, which takes the rest and is never a lone CR or LF. */
    for (size_t end = header.length + LINE; end + LINE < length; end += LINE)
        memcpy(bytes + end - 2, "\r\n", 2);
    memcpy(bytes + length - 2, "\r\n", 2);
    memcpy(bytes + length, ".\r\n", 3);
    free(header.bytes);
    return (struct words){bytes, length + 3};
}

/* The same message as one BDAT chunk, after its command. */
static struct words chunk(struct words message)
{
    struct words words;
    size_t length = message.length - 3; /* without the line with the dot */
    int command = asprintf(&words.bytes, "BDAT %zu LAST\r\n", length);
    if (command < 0)
        net_die("asprintf");
    words.length = (size_t)command + length;
    words.bytes = realloc(words.bytes, words.length);
    if (words.bytes == NULL)
        net_die("realloc");
    memcpy(words.bytes + command, message.bytes, length);
    free(message.bytes);
    return words;
}

static void write_all_words(struct work *work, const struct request *request)
{
    work->hello = text(request->lmtp ? "LHLO %s\r\n" : "EHLO %s\r\n", "client.example.com");
    work->mail = text("MAIL FROM:<%s>\r\n", "sender@example.com");
    work->rcpt = text("RCPT TO:<%s>\r\n", request->recipient);
    work->data = text("DATA\r\n%s", "");
    work->quit = text("QUIT\r\n%s", "");
    work->message = compose(request->size, request->recipient);
    if (request->bdat)
        work->message = chunk(work->message);
    work->envelope.length = work->mail.length + work->rcpt.length + work->data.length;
    if (asprintf(&work->envelope.bytes, "%s%s%s", work->mail.bytes, work->rcpt.bytes,
                 work->data.bytes) < 0)
        net_die("asprintf");
}

static void end(struct work *work, struct session *session)
{
    close(session->fd);
    session->fd = -1;
    work->active--;
}

/* Start a session of this many messages in this slot; it stays empty if no source has a port. */
static void begin(struct work *work, unsigned index, unsigned messages,
                  const struct request *request, struct report *report)
{
    struct session *session = &work->sessions[index];
    unsigned tries = request->sources != 0 ? request->sources : 1;
    do
        session->fd = net_connect(request, report);
    while (session->fd < 0 && --tries != 0);
    if (session->fd < 0)
        return;
    session->begun = net_now();
    session->step = STEP_GREETING;
    session->left = messages;
    session->in_line = 0;
    session->unsent.length = 0;
    work->begun += messages;
    work->active++;
    net_watch(work->poller, EPOLL_CTL_ADD, session->fd, EPOLLIN, index);
}

/* The number of messages for the next session; 0 if the count is reached. */
static unsigned allowance(const struct work *work, const struct request *request, uint64_t count)
{
    if (count == 0 || count >= work->begun + request->messages)
        return request->messages;
    return (unsigned)(count - work->begun);
}

/* Send; the error, or 0. What does not fit is sent later. */
static int say(struct work *work, unsigned index, struct words words)
{
    struct session *session = &work->sessions[index];
    bool waited = session->unsent.length != 0;
    ssize_t sent = send(session->fd, words.bytes, words.length, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN)
            return errno;
        sent = 0;
    }
    session->unsent.bytes = words.bytes + sent;
    session->unsent.length = words.length - (size_t)sent;
    bool waits = session->unsent.length != 0;
    if (waits != waited)
        net_watch(work->poller, EPOLL_CTL_MOD, session->fd,
                  waits ? EPOLLIN | EPOLLOUT : EPOLLIN, index);
    return 0;
}

/* After the expected reply: send what comes next; the error, or 0. Not called for QUIT's reply. */
static int proceed(struct work *work, unsigned index, const struct request *request,
                   struct report *report)
{
    struct session *session = &work->sessions[index];
    switch (session->step++) {
    case STEP_GREETING:
        return say(work, index, work->hello);
    case STEP_MAIL:
        return request->pipelining ? 0 : say(work, index, work->rcpt);
    case STEP_RCPT:
        if (request->bdat) {
            session->step = STEP_MESSAGE;
            return say(work, index, work->message);
        }
        return request->pipelining ? 0 : say(work, index, work->data);
    case STEP_DATA:
        return say(work, index, work->message);
    case STEP_MESSAGE:
        net_record(request, report, net_now() - session->begun);
        if (--session->left == 0)
            return say(work, index, work->quit);
        session->begun = net_now();
        break;
    default: /* STEP_HELLO: the first message follows */
        break;
    }
    session->step = STEP_MAIL;
    return say(work, index, request->pipelining ? work->envelope : work->mail);
}

/* Handle input from the server; true if the session is over. */
static bool hear(struct work *work, unsigned index, const char *bytes, size_t length,
                 const struct request *request, struct report *report)
{
    struct session *session = &work->sessions[index];
    for (size_t i = 0; i < length; i++) {
        if (session->in_line < sizeof session->line)
            session->line[session->in_line] = bytes[i];
        session->in_line++;
        if (bytes[i] != '\n')
            continue;
        bool last = session->in_line < 4 || session->line[3] != '-';
        session->in_line = 0;
        if (!last)
            continue;
        if (memcmp(session->line, DUE[session->step], 3) != 0) {
            report->replies++;
            return true;
        }
        if (session->step == STEP_QUIT)
            return true;
        int error = proceed(work, index, request, report);
        if (error != 0) {
            net_blame(report, error);
            return true;
        }
    }
    return false;
}

/* Handle an event of a session; true if its slot is free again. */
static bool look(struct work *work, unsigned index, uint32_t events,
                 const struct request *request, struct report *report)
{
    struct session *session = &work->sessions[index];
    char bytes[4096];
    bool over = false;
    if ((events & EPOLLOUT) != 0) {
        int error = say(work, index, session->unsent);
        if (error != 0) {
            net_blame(report, error);
            over = true;
        }
    }
    if (!over && (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) {
        ssize_t got = recv(session->fd, bytes, sizeof bytes, 0);
        if (got > 0) {
            report->bytes += (uint64_t)got;
            over = hear(work, index, bytes, (size_t)got, request, report);
        } else if (got == 0 || errno != EAGAIN) {
            net_blame(report, got < 0 ? errno : 0);
            over = true;
        }
    }
    if (over)
        end(work, session);
    return over;
}

/* Keep all slots busy until the time or the count is reached, then wait for the remaining ones. */
static void run(struct work *work, const struct request *request, struct report *report,
                uint64_t duration, uint64_t count)
{
    static struct epoll_event events[LOAD_EVENTS];
    uint64_t now = net_now();
    uint64_t until = now + duration, last = until + request->grace;
    unsigned messages;
    work->begun = 0;
    for (unsigned i = 0; i < request->in_flight; i++)
        if ((messages = allowance(work, request, count)) != 0)
            begin(work, i, messages, request, report);
    while (work->active != 0 && now < last) {
        int ready = net_wait(work->poller, events, request);
        now = net_now();
        for (int i = 0; i < ready; i++) {
            unsigned index = events[i].data.u32;
            if (look(work, index, events[i].events, request, report) && now < until &&
                (messages = allowance(work, request, count)) != 0)
                begin(work, index, messages, request, report);
        }
    }
    for (unsigned i = 0; i < request->in_flight; i++)
        if (work->sessions[i].fd >= 0) {
            report->unfinished++;
            end(work, &work->sessions[i]);
        }
}

void load_smtp(const struct request *request, struct report *report)
{
    struct work work = {.poller = epoll_create1(EPOLL_CLOEXEC)};
    if (work.poller < 0)
        net_die("epoll_create1");
    work.sessions = calloc(request->in_flight, sizeof *work.sessions);
    if (work.sessions == NULL)
        net_die("calloc");
    for (unsigned i = 0; i < request->in_flight; i++)
        work.sessions[i].fd = -1;
    write_all_words(&work, request);
    if (request->warm_up != 0)
        run(&work, request, report, request->warm_up, 0);
    step_ready(request, report);
    run(&work, request, report, request->duration, request->count);
    report->finished = net_now();
    step_report("done", report, 0);
    step_end(request);
    close(work.poller);
}
