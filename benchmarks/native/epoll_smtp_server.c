/*
 * The baseline for SMTP: the least work with which one Linux thread can answer sessions.
 *
 * Rules of this file: as in epoll_server.c, nothing that a measurement does not need. It finds the
 * lines, recognises verbs by their first letters, answers everything in one read with one send, and
 * discards the messages. It checks no address, order or syntax, has no limits, and closes a
 * connection whose client does not read its replies. In LMTP it sends one reply per message, which
 * is correct for one recipient.
 *
 * Usage: epoll_smtp_server [--greeting TEXT] [--backlog N]; like epoll_server it prints its port
 * and ends when standard input ends.
 */

#define _GNU_SOURCE
#include "server.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* The longest command line (RFC 5321 4.5.3.1.4). The rest of a longer line is dropped. */
enum { LINE = 512 };

/* The state of a connection: whether a message is being received by DATA, how many octets of a BDAT
 * chunk are missing, and the beginning of an unfinished line. */
struct talk {
    bool content;
    size_t chunk;
    unsigned short used;
    char line[LINE];
};

/* Replies to the commands of one read. */
struct replies {
    size_t used;
    bool over;
    char bytes[64 * 1024];
};

static struct server server;
static struct talk *talks; /* by descriptor */
static struct replies replies;
static char buffer[SERVER_BUFFER];

static const char HELLO[] = "250-mail.example.org\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n"
                            "250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 HELP\r\n";
static const char DONE[] = "250 2.0.0 Ok\r\n";
static const char GO_ON[] = "354 End data with <CR><LF>.<CR><LF>\r\n";
static const char BYE[] = "221 2.0.0 Bye\r\n";
static const char UNKNOWN[] = "500 5.5.2 Unknown command\r\n";

static void answer(const char *reply, size_t length)
{
    /* A client that pipelines without end gets no more than this at once. */
    if (replies.used + length > sizeof replies.bytes) {
        replies.over = true;
        return;
    }
    memcpy(replies.bytes + replies.used, reply, length);
    replies.used += length;
}

#define ANSWER(reply) answer(reply, sizeof(reply) - 1)

static bool is(const char *line, const char *verb)
{
    return strncasecmp(line, verb, 4) == 0;
}

static void command(struct talk *talk, const char *line, size_t length)
{
    if (length < 6)
        ANSWER(UNKNOWN);
    else if (is(line, "MAIL") || is(line, "RCPT") || is(line, "RSET") || is(line, "NOOP"))
        ANSWER(DONE);
    else if (is(line, "DATA")) {
        talk->content = true;
        ANSWER(GO_ON);
    } else if (is(line, "BDAT")) {
        talk->chunk = strtoul(line + 5, NULL, 10);
        if (talk->chunk == 0)
            ANSWER(DONE);
    } else if (is(line, "EHLO") || is(line, "LHLO") || is(line, "HELO"))
        ANSWER(HELLO);
    else if (is(line, "QUIT")) {
        ANSWER(BYE);
        replies.over = true;
    } else
        ANSWER(UNKNOWN);
}

static void take(struct talk *talk, const char *bytes, size_t length)
{
    const char *end = bytes + length;
    while (bytes < end && !replies.over) {
        if (talk->chunk != 0) {
            size_t left = (size_t)(end - bytes);
            size_t used = left < talk->chunk ? left : talk->chunk;
            bytes += used;
            talk->chunk -= used;
            if (talk->chunk == 0)
                ANSWER(DONE);
            continue;
        }
        const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
        const char *line = bytes, *next = newline != NULL ? newline + 1 : end;
        size_t found = (size_t)(next - bytes);
        bytes = next;
        if (newline == NULL || talk->used != 0) {
            size_t room = sizeof talk->line - talk->used, kept = found < room ? found : room;
            memcpy(talk->line + talk->used, line, kept);
            talk->used = (unsigned short)(talk->used + kept);
            if (newline == NULL)
                return;
            line = talk->line;
            found = talk->used;
            talk->used = 0;
        }
        if (!talk->content)
            command(talk, line, found);
        else if (found == 3 && line[0] == '.') {
            talk->content = false;
            ANSWER(DONE);
        }
    }
}

static void receive(int fd)
{
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        close(fd);
        return;
    }
    replies.used = 0;
    replies.over = false;
    take(&talks[fd], buffer, (size_t)got);
    bool sent = replies.used == 0 ||
                send(fd, replies.bytes, replies.used, MSG_NOSIGNAL) == (ssize_t)replies.used;
    if (!sent || replies.over)
        close(fd);
}

static void accept_some(void)
{
    for (int count = 0; count < SERVER_ACCEPTS; count++) {
        int fd = server_accept(&server);
        if (fd < 0)
            return;
        talks[fd].content = false;
        talks[fd].chunk = 0;
        talks[fd].used = 0;
        server_interest(&server, fd, EPOLL_CTL_ADD, EPOLLIN);
        if (send(fd, server.greeting, server.greeting_length, MSG_NOSIGNAL) < 0)
            close(fd);
    }
}

int main(int count, char **words)
{
    static struct epoll_event events[SERVER_EVENTS];
    static const char GREETING[] = "220 mail.example.org ESMTP\r\n";
    memcpy(server.greeting, GREETING, sizeof GREETING);
    server.greeting_length = sizeof GREETING - 1;
    server_arguments(&server, count, words, 0);
    talks = server_table(sizeof *talks);
    server_listen(&server);
    for (;;) {
        int ready = epoll_wait(server.poller, events, SERVER_EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            server_die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == server.listener)
                accept_some();
            else if (fd == STDIN_FILENO)
                server_input();
            else
                receive(fd);
        }
    }
}
