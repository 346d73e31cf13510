/* A WebSocket client's connection, for programs that hold thousands of them in one epoll loop.
 *
 * Who includes it defines START_BYTES (of each message so many are kept), may define a FIELDS of its own for each
 * connection, and has a `message_complete`, and a `lost` for a connection that ended without being asked.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef FIELDS
#define FIELDS
#endif

enum {
    CONTROL_BYTES = 125,  /* the longest payload of a ping or close */
    READ_BYTES = 1 << 18, /* one buffer for all connections */
    NARROW_BYTES = 4096,
    NARROW_SEGMENT = 1200, /* the other side's buffer grows with it; a status message fits into one */
};

typedef struct {
    int fd;
#ifdef LOAD_TLS
    struct ssl_st *tls;
#endif
    bool asked; /* the upgrade request is on its way */
    bool upgraded;
    bool compressed; /* the message under way is (RFC 7692: RSV1 on its first frame) */
    uint8_t header[14];
    unsigned header_have;
    uint64_t payload_left;
    uint64_t message_bytes; /* of the fragments so far */
    unsigned start_have;
    unsigned control_have; /* apart from `start`, for a ping may come between two fragments */
    char start[START_BYTES];
    char control[CONTROL_BYTES];
    FIELDS
} Connection;

static void message_complete(Connection *c);
static void lost(Connection *c, const char *what);

static int poller;
static unsigned long pings;

static void fail(const char *what) {
    fprintf(stderr, "%s: %s%s%s\n", program_invocation_short_name, what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

#include "transport.h"

static double seconds_on(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) < 0) fail("clock_gettime");
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A masked pong with the ping's payload; a mask of zeros is a mask (RFC 6455 section 5.3 leaves it to the client). */
static void pong(Connection *c) {
    uint8_t frame[6 + CONTROL_BYTES] = {0x8a, (uint8_t)(0x80 | c->control_have)};
    memcpy(frame + 6, c->control, c->control_have);
    pings++;
    if (put(c, frame, 6 + c->control_have) < 0) lost(c, "pong");
}

static void frame_complete(Connection *c) {
    int opcode = c->header[0] & 0x0f;
    bool last = c->header[0] & 0x80;
    c->header_have = 0;
    if (opcode == 8) {
        lost(c, "the server closed a connection");
        return;
    }
    if (opcode == 9) pong(c);
    if (opcode <= 1 && last) {
        message_complete(c);
        c->message_bytes = c->start_have = 0;
    }
}

static unsigned header_bytes(const Connection *c) {
    unsigned length = c->header[1] & 0x7f;
    return c->header_have < 2 ? 2 : length == 126 ? 4 : length == 127 ? 10 : 2;
}

static void parse(Connection *c, const uint8_t *data, size_t n) {
    while (n && c->fd >= 0) {
        unsigned need = header_bytes(c);
        if (c->header_have < need) {
            c->header[c->header_have++] = *data++;
            n--;
            need = header_bytes(c);
            if (c->header_have < need || c->header_have < 2) continue;
            c->payload_left = c->header[1] & 0x7f;
            if (need > 2)
                for (unsigned i = c->payload_left = 0; i < need - 2; i++)
                    c->payload_left = c->payload_left << 8 | c->header[2 + i];
            c->control_have = 0;
            if ((c->header[0] & 0x0f) == 1) c->compressed = c->header[0] & 0x40;
            if ((c->header[0] & 0x08) == 0) c->message_bytes += c->payload_left;
            if (!c->payload_left) frame_complete(c);
            continue;
        }
        bool control = c->header[0] & 0x08;
        unsigned *have = control ? &c->control_have : &c->start_have;
        size_t take = n < c->payload_left ? n : c->payload_left;
        size_t room = (control ? CONTROL_BYTES : START_BYTES) - *have;
        size_t keep = take < room ? take : room;
        memcpy((control ? c->control : c->start) + *have, data, keep);
        *have += (unsigned)keep;
        c->payload_left -= take;
        data += take;
        n -= take;
        if (!c->payload_left) frame_complete(c);
    }
}

/* Starts to connect. A narrow one has room for little on its way: what it does not read is soon noticed. */
static void begin(Connection *c, const struct sockaddr_in *address, bool narrow) {
    int on = 1, room = NARROW_BYTES, segment = NARROW_SEGMENT;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (narrow && (setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room) < 0 ||
                   setsockopt(c->fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment) < 0))
        fail("a narrow socket");
    if (connect(c->fd, (const struct sockaddr *)address, sizeof *address) < 0 && errno != EINPROGRESS) fail("connect");
    struct epoll_event interest = {.events = EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &interest) < 0) fail("epoll_ctl");
    transport_begin(c);
}

/* To be called when the socket can be written to, and until it is `asked` whenever it can be read. */
static void send_request(Connection *c, const char *request) {
    ssize_t length = (ssize_t)strlen(request), open = transport_open(c);
    if (open <= 0 && errno != EAGAIN) fail("TLS handshake");
    if (open > 0) {
        if (put(c, request, (size_t)length) != length) fail("upgrade request");
        c->asked = true;
    }
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &interest) < 0) fail("epoll_ctl");
}

static const char *wanted_in_answer; /* part of every answer to an upgrade, if any */

/* True if this completed the handshake. Frames may follow the answer's head in the same piece. */
static bool received(Connection *c, uint8_t *data, ssize_t n) {
    if (n <= 0) {
        lost(c, "a connection was lost");
        return false;
    }
    if (c->upgraded) {
        parse(c, data, (size_t)n);
        return false;
    }
    data[n] = 0;
    uint8_t *end = memmem(data, (size_t)n, "\r\n\r\n", 4);
    if (!end || strncmp((char *)data, "HTTP/1.1 101", 12) != 0) {
        data[n < 200 ? n : 200] = 0;
        errno = 0;
        lost(c, (char *)data);
        return false;
    }
    if (wanted_in_answer && !memmem(data, (size_t)(end - data), wanted_in_answer, strlen(wanted_in_answer))) {
        errno = 0;
        fail("the server did not agree to what was offered");
    }
    c->upgraded = true;
    parse(c, end + 4, (size_t)(data + n - end - 4));
    return true;
}

/* Reads what is there; true if this completed the handshake. */
static bool receive(Connection *c) {
    static uint8_t data[READ_BYTES + 1];
    bool completed = false;
    do {
        ssize_t n = take(c, data, READ_BYTES);
        if (n < 0 && errno == EAGAIN) break;
        completed |= received(c, data, n);
    } while (TAKE_ALL && c->fd >= 0);
    return completed;
}

static void allow_files(int connections) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    errno = 0;
    if ((rlim_t)connections + 16 > files.rlim_cur) fail("more connections than RLIMIT_NOFILE allows");
    signal(SIGPIPE, SIG_IGN);
}

/* The upgrade request for a target; `more` are further header lines, each with its line end. */
static char *request_for(const char *target, const char *host, int port, const char *more) {
    char *request;
    if (asprintf(&request,
                 "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%s"
                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                 target, host, port, more) < 0)
        fail("memory");
    return request;
}

/* HOST:PORT taken apart in place; false if it is none. */
static bool read_address(char *text, struct sockaddr_in *address, int *port) {
    char *colon = strrchr(text, ':');
    if (!colon) return false;
    *colon = 0;
    *port = atoi(colon + 1);
    address->sin_family = AF_INET;
    address->sin_port = htons((uint16_t)*port);
    return inet_pton(AF_INET, text, &address->sin_addr) == 1;
}
