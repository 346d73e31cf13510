/* The load client: N WebSocket connections to one server, and what arrived on them in a window of time.
 *
 * usage: [LOAD_TARGET=/ws/cluster?token=...] [LOAD_DEFLATE=1] load HOST:PORT CLIENTS WARMUP_SECONDS WINDOW_SECONDS SERVER_PID
 *
 * It connects everyone, waits WARMUP_SECONDS, then for WINDOW_SECONDS counts complete text messages, and takes from each
 * its age: the time of day now, less the RFC 3339 "timestamp" near its start (so only on the machine of the server).
 * The server's CPU time is read by its CPU-time clock (nanoseconds, all threads, user and system) at both ends of the
 * window. The request target comes by the environment, for it may hold a token. With LOAD_DEFLATE=1 it takes compression
 * and tells how many messages came compressed; it inflates none, and so has no age of those. One JSON object goes to standard
 * output; with CLIENTS = 0 it tells what the server costs by itself. Exit 1 if not everyone connects in 30 s or a
 * connection is lost.
 */
#define _GNU_SOURCE
#define START_BYTES 192 /* enough for "timestamp" */
#include "connection.h"

enum {
    CONNECTING = 256,    /* handshakes under way at once */
    AGE_SLOTS = 2000000, /* one for each microsecond; the last one holds what is older */
    CONNECT_SECONDS = 30,
};

static struct {
    unsigned long messages, payload_bytes, stampless, compressed;
} seen;
static uint32_t ages[AGE_SLOTS];
static bool counting;

static void lost(Connection *c, const char *what) {
    (void)c;
    fail(what);
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
    if (c->compressed) {
        seen.compressed++;
        return;
    }
    int64_t sent = stamp_of(c->start, c->start_have);
    if (sent < 0) {
        seen.stampless++;
        return;
    }
    int64_t age = (int64_t)(seconds_on(CLOCK_REALTIME) * 1e6) - sent;
    ages[age < 0 ? 0 : age >= AGE_SLOTS ? AGE_SLOTS - 1 : age]++;
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
    unsigned long total = seen.messages - seen.stampless - seen.compressed, below = 0;
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
    struct sockaddr_in address = {0};
    int port;
    if (argc != 6 || !read_address(argv[1], &address, &port)) {
        fprintf(stderr, "usage: load IPV4:PORT CLIENTS WARMUP_SECONDS WINDOW_SECONDS SERVER_PID\n");
        return 2;
    }
    int clients = atoi(argv[2]), pid = atoi(argv[5]);
    double warmup = atof(argv[3]), window = atof(argv[4]);
    allow_files(clients);

    const char *target = getenv("LOAD_TARGET") ? getenv("LOAD_TARGET") : "/ws/cluster";
    if (getenv("LOAD_DEFLATE")) wanted_in_answer = "permessage-deflate";
    const char *offer = wanted_in_answer ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "";
    char *request = request_for(target, argv[1], port, offer);

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
           "\"deliveries\":%lu,\"payload_bytes\":%lu,\"stampless\":%lu,\"compressed\":%lu,\"pings\":%lu,\"p50_ms\":%.3f,\"p99_ms\":%.3f,"
           "\"resident_before\":%ld,\"resident_after\":%ld}\n",
           clients, connect_seconds, connect_cpu, seconds, cpu, seen.messages, seen.payload_bytes, seen.stampless,
           seen.compressed, pings, age_ms(0.50), age_ms(0.99), resident_before, resident_bytes(pid));
    return 0;
}
