/* The load client: N WebSocket connections to one server, and what arrived on them in a window of time.
 *
 * usage: [LOAD_TARGET=/ws/cluster?token=...] load HOST:PORT CLIENTS WARMUP_SECONDS WINDOW_SECONDS SERVER_PID
 *
 * It connects everyone, waits WARMUP_SECONDS, then for WINDOW_SECONDS counts complete text messages, and takes from each
 * its age: the time of day now, less the RFC 3339 "timestamp" near its start (so only on the machine of the server).
 * The server's CPU time is read by its CPU-time clock (nanoseconds, all threads, user and system) at both ends of the
 * window. The request target comes by the environment, for it may hold a token. One JSON object goes to standard
 * output; with CLIENTS = 0 it tells what the server costs by itself. Exit 1 if not everyone connects in 30 s or a
 * connection is lost.
 */
#define _GNU_SOURCE
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

enum {
    START_BYTES = 192,     /* of a message, kept: enough for "timestamp" */
    CONTROL_BYTES = 125,   /* the longest payload of a ping or close */
    READ_BYTES = 1 << 18,  /* one buffer for all connections */
    CONNECTING = 256,      /* handshakes under way at once */
    AGE_SLOTS = 2000000,   /* one for each microsecond; the last one holds what is older */
    CONNECT_SECONDS = 30,
};

typedef struct {
    int fd;
    bool upgraded;
    uint8_t header[14];
    unsigned header_have;
    uint64_t payload_left;
    uint64_t message_bytes; /* of the fragments so far */
    unsigned start_have;
    unsigned control_have; /* apart from `start`, for a ping may come between two fragments */
    char start[START_BYTES];
    char control[CONTROL_BYTES];
} Connection;

static struct {
    unsigned long messages, payload_bytes, stampless, pings;
} seen;
static uint32_t ages[AGE_SLOTS];
static bool counting;

static void fail(const char *what) {
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static double seconds_on(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) < 0) fail("clock_gettime");
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Microseconds since 1970 of the first RFC 3339 "timestamp" in UTC, or -1. */
static int64_t stamp_of(const char *text, size_t length) {
    static const char KEY[] = "\"timestamp\":";
    const char *at = memmem(text, length, KEY, sizeof KEY - 1);
    struct tm utc = {0};
    if (!at) return -1;
    char field[48] = {0};
    size_t left = length - (size_t)(at + sizeof KEY - 1 - text);
    memcpy(field, at + sizeof KEY - 1, left < sizeof field - 1 ? left : sizeof field - 1);
    const char *rest = strptime(field, " \"%Y-%m-%dT%H:%M:%S", &utc);
    if (!rest) return -1;
    int64_t micros = 0, unit = 100000;
    if (*rest == '.')
        for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10) micros += (*rest - '0') * unit;
    if (*rest != 'Z') return -1;
    /* Thousands of messages in a row share a second, so the calendar is asked once for each. */
    static int cached_fields[6];
    static int64_t cached_seconds = -1;
    int fields[6] = {utc.tm_year, utc.tm_mon, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec};
    if (cached_seconds < 0 || memcmp(fields, cached_fields, sizeof fields) != 0) {
        memcpy(cached_fields, fields, sizeof fields);
        cached_seconds = timegm(&utc);
    }
    return cached_seconds * 1000000 + micros;
}

static void message_complete(Connection *c) {
    if (!counting) return;
    seen.messages++;
    seen.payload_bytes += c->message_bytes;
    int64_t sent = stamp_of(c->start, c->start_have);
    if (sent < 0) {
        seen.stampless++;
        return;
    }
    int64_t age = (int64_t)(seconds_on(CLOCK_REALTIME) * 1e6) - sent;
    ages[age < 0 ? 0 : age >= AGE_SLOTS ? AGE_SLOTS - 1 : age]++;
}

/* A masked pong with the ping's payload; a mask of zeros is a mask (RFC 6455 section 5.3 leaves it to the client). */
static void pong(Connection *c) {
    uint8_t frame[6 + CONTROL_BYTES] = {0x8a, (uint8_t)(0x80 | c->control_have)};
    memcpy(frame + 6, c->control, c->control_have);
    seen.pings++;
    if (send(c->fd, frame, 6 + c->control_have, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) fail("pong");
}

static void frame_complete(Connection *c) {
    int opcode = c->header[0] & 0x0f;
    bool last = c->header[0] & 0x80;
    if (opcode == 8) fail("the server closed a connection");
    if (opcode == 9) pong(c);
    if (opcode <= 1 && last) {
        message_complete(c);
        c->message_bytes = c->start_have = 0;
    }
    c->header_have = 0;
}

static unsigned header_bytes(const Connection *c) {
    unsigned length = c->header[1] & 0x7f;
    return c->header_have < 2 ? 2 : length == 126 ? 4 : length == 127 ? 10 : 2;
}

static void parse(Connection *c, const uint8_t *data, size_t n) {
    while (n) {
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

static int poller;

static void begin(Connection *c, const struct sockaddr_in *address) {
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (const struct sockaddr *)address, sizeof *address) < 0 && errno != EINPROGRESS) fail("connect");
    struct epoll_event interest = {.events = EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &interest) < 0) fail("epoll_ctl");
}

static void send_request(Connection *c, const char *request) {
    size_t length = strlen(request);
    if (send(c->fd, request, length, MSG_NOSIGNAL) != (ssize_t)length) fail("upgrade request");
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &interest) < 0) fail("epoll_ctl");
}

/* Reads once; true if this completed the handshake. Frames may follow the answer's head in the same piece. */
static bool receive(Connection *c) {
    static uint8_t data[READ_BYTES + 1];
    ssize_t n = recv(c->fd, data, READ_BYTES, 0);
    if (n < 0 && errno == EAGAIN) return false;
    if (n <= 0) fail("a connection was lost");
    if (c->upgraded) {
        parse(c, data, (size_t)n);
        return false;
    }
    data[n] = 0;
    uint8_t *end = memmem(data, (size_t)n, "\r\n\r\n", 4);
    if (!end || strncmp((char *)data, "HTTP/1.1 101", 12) != 0) {
        data[n < 200 ? n : 200] = 0;
        errno = 0;
        fprintf(stderr, "load: refused: %s\n", (char *)data);
        exit(1);
    }
    c->upgraded = true;
    parse(c, end + 4, (size_t)(data + n - end - 4));
    return true;
}

/* Serves the connections until `deadline` (monotonic seconds) or, if `want` is given, until that many are upgraded. */
static void serve(double deadline, const char *request, Connection *all, int *begun, int *upgraded, int want,
                  const struct sockaddr_in *address) {
    double left;
    while ((left = deadline - seconds_on(CLOCK_MONOTONIC)) > 0 && (!want || *upgraded < want)) {
        while (*begun < want && *begun - *upgraded < CONNECTING) begin(&all[(*begun)++], address);
        struct epoll_event events[512];
        int count = epoll_wait(poller, events, 512, (int)(left * 1000) + 1);
        if (count < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < count; i++) {
            Connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                send_request(c, request);
            else if (receive(c))
                ++*upgraded;
        }
    }
}

static double age_ms(double share) {
    unsigned long total = seen.messages - seen.stampless, below = 0;
    for (int i = 0; total && i < AGE_SLOTS; i++)
        if ((double)(below += ages[i]) >= share * (double)total) return i / 1000.0;
    return -1;
}

static long resident_bytes(int pid) {
    char path[40];
    long pages = 0, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%ld %ld", &pages, &resident) != 2) fail(path);
    fclose(file);
    return resident * sysconf(_SC_PAGESIZE);
}

int main(int argc, char **argv) {
    char *colon = argc == 6 ? strrchr(argv[1], ':') : NULL;
    struct sockaddr_in address = {.sin_family = AF_INET};
    if (colon) *colon = 0;
    if (!colon || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
        fprintf(stderr, "usage: load IPV4:PORT CLIENTS WARMUP_SECONDS WINDOW_SECONDS SERVER_PID\n");
        return 2;
    }
    int port = atoi(colon + 1), clients = atoi(argv[2]), pid = atoi(argv[5]);
    double warmup = atof(argv[3]), window = atof(argv[4]);
    address.sin_port = htons((uint16_t)port);

    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if ((rlim_t)clients + 16 > files.rlim_cur) fail("more clients than RLIMIT_NOFILE allows");
    signal(SIGPIPE, SIG_IGN);

    const char *target = getenv("LOAD_TARGET") ? getenv("LOAD_TARGET") : "/ws/cluster";
    char *request;
    if (asprintf(&request,
                 "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                 target, argv[1], port) < 0)
        fail("memory");

    clockid_t server_cpu;
    errno = clock_getcpuclockid(pid, &server_cpu);
    if (errno) fail("the server's CPU clock");
    Connection *all = calloc((size_t)clients + 1, sizeof *all);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!all || poller < 0) fail("memory");

    long resident_before = resident_bytes(pid);
    int begun = 0, upgraded = 0;
    double started = seconds_on(CLOCK_MONOTONIC), cpu_started = seconds_on(server_cpu);
    if (clients) serve(started + CONNECT_SECONDS, request, all, &begun, &upgraded, clients, &address);
    double connect_seconds = seconds_on(CLOCK_MONOTONIC) - started;
    double connect_cpu = seconds_on(server_cpu) - cpu_started;
    errno = 0;
    if (upgraded < clients) fail("not everyone connected");
    serve(seconds_on(CLOCK_MONOTONIC) + warmup, request, all, &begun, &upgraded, 0, &address);

    counting = true;
    double from = seconds_on(CLOCK_MONOTONIC), cpu_from = seconds_on(server_cpu);
    serve(from + window, request, all, &begun, &upgraded, 0, &address);
    double cpu = seconds_on(server_cpu) - cpu_from, seconds = seconds_on(CLOCK_MONOTONIC) - from;

    printf("{\"clients\":%d,\"connect_seconds\":%.6f,\"connect_cpu_seconds\":%.6f,\"seconds\":%.6f,\"cpu_seconds\":%.9f,"
           "\"deliveries\":%lu,\"payload_bytes\":%lu,\"stampless\":%lu,\"pings\":%lu,\"p50_ms\":%.3f,\"p99_ms\":%.3f,"
           "\"resident_before\":%ld,\"resident_after\":%ld}\n",
           clients, connect_seconds, connect_cpu, seconds, cpu, seen.messages, seen.payload_bytes, seen.stampless,
           seen.pings, age_ms(0.50), age_ms(0.99), resident_before, resident_bytes(pid));
    return 0;
}
