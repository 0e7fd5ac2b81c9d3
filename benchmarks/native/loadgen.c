/*
 * The load generator's main program: the command line, the choice of a mode, the report as JSON.
 *
 * Rules of this file: no other file reads the command line or prints. Every run is bounded in time.
 * Each line of standard output is one JSON object with an "event": "ready" (with --steps: send a
 * line to begin), "open" and "ping" (mode hold), "done". --help describes the options.
 */

#include "load.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char USAGE[] =
    "usage: loadgen MODE --port PORT [OPTION VALUE]... [FLAG]...\n"
    "\n"
    "Put load on a TCP server and report what happened, one JSON object per line.\n"
    "\n"
    "modes:\n"
    "  accept   connect, read the greeting, [say a line and read its echo,] close\n"
    "  silent   connect, read the greeting, close without having sent a byte\n"
    "  echo     one message at a time on each connection, answered in the same length\n"
    "  hold     open connections and keep them; the line \"ping\" on standard input sends a\n"
    "           message on each and waits for the answers; the end of input ends it\n"
    "  smtp     sessions: greeting, EHLO, then per message MAIL, RCPT, DATA and its text, QUIT\n"
    "  imap     sessions: greeting, LOGIN, --first, then --command again and again; or IDLE,\n"
    "           where the lines \"ping\" (DONE and IDLE on each) and \"deliver\" (by LMTP, at the\n"
    "           rate, until EXISTS is said) are obeyed, and the end of input ends it\n"
    "\n"
    "options:\n"
    "  --port PORT          port of the server\n"
    "  --host ADDRESS       IPv4 address of the server (127.0.0.1)\n"
    "  --sources N          client addresses, from 127.0.1.1 on; 0 lets the kernel choose (0)\n"
    "  --in-flight N        connections, sessions or pings under way at once (64)\n"
    "  --connections N      echo, hold: connections kept open (100)\n"
    "  --size BYTES         length of a message (64; smtp: 1024, its header included)\n"
    "  --duration SECONDS   length of the measured part, of the whole in hold, at most 3600 (2)\n"
    "  --count N            operations after which it ends earlier, 0 for no such end (0)\n"
    "  --warm-up SECONDS    the same work before it, not counted (0)\n"
    "  --rate N             accept, silent, hold: connections begun per second at most, 0 for as\n"
    "                       many as possible (0); imap: deliveries per second\n"
    "  --late SECONDS       operations that took longer are counted, 0 for none (0)\n"
    "  --grace SECONDS      how long to wait for what is under way at the end (5)\n"
    "  --say TEXT           accept: a line, CR LF is added, that the server echoes\n"
    "  --messages N         smtp: messages per session (1)\n"
    "  --recipient ADDRESS  smtp: of every message (alice@example.org)\n"
    "  --user NAME          imap: %u in it stands for the client's number (alice@example.org)\n"
    "  --password TEXT      imap (secret)\n"
    "  --first COMMAND      imap: said once by each client after LOGIN; up to eight\n"
    "  --command COMMAND    imap: said again and again; up to eight. A message follows after {N+}\n"
    "  --lmtp-port PORT     imap: where \"deliver\" delivers\n"
    "\n"
    "flags:\n"
    "  --tls                TLS from the first byte: a full handshake, the certificate is not\n"
    "                       verified; accept and silent end with close_notify on both sides\n"
    "  --greeting           echo, hold: the server speaks first, one line\n"
    "  --tally              accept, silent, hold: count greetings by the number that they end\n"
    "                       with, which tells servers apart\n"
    "  --lmtp               smtp: LMTP instead (LHLO)\n"
    "  --pipelining         smtp: MAIL, RCPT and DATA are sent in one piece\n"
    "  --sessions           imap: each operation is a session, --command said once, LOGOUT\n"
    "  --idle               imap: clients wait in IDLE\n"
    "  --bdat               smtp: the message is one chunk of BDAT (RFC 3030) instead of DATA\n"
    "  --spin               accept, silent, echo, smtp: poll instead of sleeping, so that no server\n"
    "                       on this machine has to wake this program\n"
    "  --steps              print \"ready\", wait for a line before the measured part, and for\n"
    "                       the end of input after it\n"
    "  --help               this text\n"
    "\n"
    "output: \"event\" is ready, open, ping or done; \"operations\" are connections (accept,\n"
    "silent, open) or answered messages (echo, ping, smtp) and commands (imap), counted when finished; \"errors\" by\n"
    "kind: refused, reset, ended (by the server), no_address (ports used up), tls, reply (not the\n"
    "expected code), other, unfinished.\n"
    "\"late\" and \"tally\" (by the greetings' number) are there if they were asked for and are not\n"
    "empty.\n"
    "exit status: 0 when the mode ran, whatever the errors; 1 when it could not; 2 for a wrong\n"
    "command line.\n";

static void usage(const char *problem)
{
    if (problem != NULL)
        fprintf(stderr, "loadgen: %s\n", problem);
    fputs(USAGE, stderr);
    exit(2);
}

static double number(const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (*text == '\0' || *end != '\0' || !(value >= least && value <= most)) {
        fprintf(stderr, "loadgen: %s is not a number from %g to %g\n", text, least, most);
        exit(2);
    }
    return value;
}

static uint64_t seconds(const char *text)
{
    return (uint64_t)(number(text, 0, 3600) * 1e9);
}

/* Wait for the line on standard input that starts the measurement; exit at the end of input. */
static void await_line(void)
{
    char byte;
    do {
        if (read(STDIN_FILENO, &byte, 1) <= 0)
            exit(1);
    } while (byte != '\n');
}

void step_ready(const struct request *request, struct report *report)
{
    if (request->steps) {
        puts("{\"event\": \"ready\"}");
        fflush(stdout);
        await_line();
    }
    memset(report, 0, sizeof *report);
    report->begun = net_now();
}

void step_end(const struct request *request)
{
    char bytes[64];
    if (request->steps)
        while (read(STDIN_FILENO, bytes, sizeof bytes) > 0)
            continue;
}

void step_report(const char *event, const struct report *report, unsigned open)
{
    double elapsed = (double)(report->finished - report->begun) / 1e9;
    printf("{\"event\": \"%s\", \"operations\": %llu, \"seconds\": %.6f, \"rate\": %.1f, "
           "\"bytes\": %llu, \"open\": %u, ",
           event, (unsigned long long)report->operations, elapsed,
           elapsed > 0 ? (double)report->operations / elapsed : 0.0,
           (unsigned long long)report->bytes, open);
    printf("\"errors\": {\"refused\": %llu, \"reset\": %llu, \"ended\": %llu, "
           "\"no_address\": %llu, \"tls\": %llu, \"reply\": %llu, \"other\": %llu, "
           "\"unfinished\": %llu}, ",
           (unsigned long long)report->refused, (unsigned long long)report->reset,
           (unsigned long long)report->ended, (unsigned long long)report->no_address,
           (unsigned long long)report->tls, (unsigned long long)report->replies, (unsigned long long)report->failed,
           (unsigned long long)report->unfinished);
    printf("\"latency_us\": {\"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}",
           (double)net_percentile(report, 0.5) / 1e3, (double)net_percentile(report, 0.99) / 1e3,
           (double)net_percentile(report, 1.0) / 1e3);
    if (report->late != 0)
        printf(", \"late\": %llu", (unsigned long long)report->late);
    for (unsigned i = 0; i < report->servers; i++)
        printf("%s\"%lu\": %llu", i == 0 ? ", \"tally\": {" : ", ", report->tally[i].server,
               (unsigned long long)report->tally[i].count);
    if (report->servers != 0)
        printf("}");
    tls_report();
    puts("}");
    fflush(stdout);
}

/* Parse one option; the number of arguments it used. */
static int option(struct request *request, char **words, int left)
{
    static char line[1024];
    const char *name = words[0], *value = left > 1 ? words[1] : NULL;
    bool *flag = strcmp(name, "--greeting") == 0     ? &request->greeting
                 : strcmp(name, "--steps") == 0      ? &request->steps
                 : strcmp(name, "--spin") == 0       ? &request->spin
                 : strcmp(name, "--tls") == 0        ? &request->tls
                 : strcmp(name, "--lmtp") == 0       ? &request->lmtp
                 : strcmp(name, "--pipelining") == 0 ? &request->pipelining
                 : strcmp(name, "--bdat") == 0       ? &request->bdat
                 : strcmp(name, "--sessions") == 0   ? &request->sessions
                 : strcmp(name, "--idle") == 0       ? &request->idle
                 : strcmp(name, "--tally") == 0      ? &request->tally
                                                     : NULL;
    if (flag != NULL) {
        *flag = true;
        return 1;
    }
    if (value == NULL)
        usage(name);
    if (strcmp(name, "--host") == 0) {
        if (inet_pton(AF_INET, value, &request->server.sin_addr) != 1)
            usage("--host takes an IPv4 address");
    } else if (strcmp(name, "--port") == 0)
        request->server.sin_port = htons((uint16_t)number(value, 1, 65535));
    else if (strcmp(name, "--sources") == 0)
        request->sources = (unsigned)number(value, 0, 65000);
    else if (strcmp(name, "--in-flight") == 0)
        request->in_flight = (unsigned)number(value, 1, 1e6);
    else if (strcmp(name, "--connections") == 0)
        request->connections = (unsigned)number(value, 1, 1e6);
    else if (strcmp(name, "--size") == 0)
        request->size = (size_t)number(value, 1, 1 << 30);
    else if (strcmp(name, "--duration") == 0)
        request->duration = seconds(value);
    else if (strcmp(name, "--rate") == 0)
        request->rate = number(value, 0, 1e6);
    else if (strcmp(name, "--late") == 0)
        request->late = seconds(value);
    else if (strcmp(name, "--count") == 0)
        request->count = (uint64_t)number(value, 0, 1e15);
    else if (strcmp(name, "--warm-up") == 0)
        request->warm_up = seconds(value);
    else if (strcmp(name, "--grace") == 0)
        request->grace = seconds(value);
    else if (strcmp(name, "--say") == 0) {
        if ((size_t)snprintf(line, sizeof line, "%s\r\n", value) >= sizeof line)
            usage("--say is too long");
        request->say = line;
    } else if (strcmp(name, "--messages") == 0)
        request->messages = (unsigned)number(value, 1, 1e6);
    else if (strcmp(name, "--recipient") == 0) {
        if (*value == '\0' || strpbrk(value, "<>\r\n") != NULL)
            usage("--recipient takes an address");
        request->recipient = value;
    } else if (strcmp(name, "--user") == 0)
        request->user = value;
    else if (strcmp(name, "--password") == 0)
        request->password = value;
    else if (strcmp(name, "--first") == 0 && request->firsts < LOAD_WORDS)
        request->first[request->firsts++] = value;
    else if (strcmp(name, "--command") == 0 && request->commands < LOAD_WORDS)
        request->command[request->commands++] = value;
    else if (strcmp(name, "--lmtp-port") == 0)
        request->lmtp_port = (uint16_t)number(value, 1, 65535);
    else
        usage(name);
    return 2;
}

int main(int count, char **words)
{
    static struct report report;
    struct request request = {
        .server = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
        .in_flight = 64, .connections = 100, .messages = 1, .recipient = "alice@example.org",
        .user = "alice@example.org", .password = "secret",
        .duration = 2000000000u, .grace = 5000000000u,
    };
    for (int i = 1; i < count; i++)
        if (strcmp(words[i], "--help") == 0) {
            fputs(USAGE, stdout);
            return 0;
        }
    if (count < 2)
        usage(NULL);
    for (int i = 2; i < count;)
        i += option(&request, words + i, count - i);
    if (request.server.sin_port == 0)
        usage("--port is missing");
    if (request.sources != 0 && ntohl(request.server.sin_addr.s_addr) >> 24 != 127)
        usage("--sources is for a server on 127.0.0.0/8");
    bool accept = strcmp(words[1], "accept") == 0, silent = strcmp(words[1], "silent") == 0;
    bool echo = strcmp(words[1], "echo") == 0, hold = strcmp(words[1], "hold") == 0;
    bool smtp = strcmp(words[1], "smtp") == 0, imap = strcmp(words[1], "imap") == 0;
    if (!accept && !silent && !echo && !hold && !smtp && !imap)
        usage("no such mode");
    if (request.say != NULL && !accept)
        usage("--say is for accept");
    if (request.rate > 0 && !accept && !silent && !hold && !imap)
        usage("--rate is for accept, silent, hold and imap");
    if (request.tally && !accept && !silent && !hold)
        usage("--tally is for accept, silent and hold");
    if ((request.firsts || request.commands || request.sessions || request.idle) && !imap)
        usage("--first, --command, --sessions and --idle are for imap");
    if (imap && request.commands == 0 && !request.sessions && !request.idle)
        usage("imap needs --command, --sessions or --idle");
    if (request.greeting && !echo && !hold)
        usage("--greeting is for echo and hold; the others always read one");
    if ((request.lmtp || request.pipelining || request.bdat) && !smtp)
        usage("--lmtp, --pipelining and --bdat are for smtp");
    if (request.pipelining && request.bdat)
        usage("--bdat is not pipelined");
    if (request.tls && smtp)
        usage("--tls is for the other modes");
    if (request.size == 0)
        request.size = smtp ? 1024 : 64;
    if (request.tls && !tls_built)
        usage("this loadgen was compiled without OpenSSL");
    if (request.tls)
        tls_prepare();
    net_raise_descriptors();
    (accept || silent ? load_accept
     : echo           ? load_echo
     : hold           ? load_hold
     : imap           ? load_imap
                      : load_smtp)(&request, &report);
    return 0;
}
