/* The load client: N WebSocket connections to one server, and what arrived on them in a window of time.
 *
 * usage: load HOST:PORT CLIENTS WARMUP_SECONDS WINDOW_SECONDS SERVER_PID
 *        load HOST:PORT SERVER_PID
 *
 * The first form connects everyone, waits, and counts for a while; CLIENTS may be 0, to see what the server costs by
 * itself. The second form does what each line of standard input says:
 *
 *     connect CLIENTS NARROW   as many, of which NARROW, spread evenly, have next to no buffers
 *     rest SECONDS             reads, and counts nothing
 *     count SECONDS            counts what the server sends at its own pace, from one silence to another
 *     hush                     from now on the server sends by beats, and not at its own pace
 *     pace SECONDS INTERVAL    a beat each INTERVAL seconds
 *     rounds SECONDS BEATS     lockstep: so many beats at once, then those messages to everyone, then the next beats
 *     block                    reads the narrow ones no more; rounds wait for the others
 *
 * Either way one JSON object is written for each. It counts complete text messages and takes from each its age: the time
 * of day now, less the RFC 3339 "timestamp" near its start (so only on the machine of the server). The server's CPU time
 * is read by its CPU-time clock (nanoseconds, all threads, user and system) at both ends of the window.
 *
 * Environment: LOAD_TARGET=/ws/cluster?token=... the request's target, for it may hold a token; LOAD_DEFLATE=1 takes
 * compression and tells how many messages came compressed (it inflates none, and so has no age of those);
 * LOAD_TOKENS=FILE has a line for each client that its target ends with; LOAD_BEATS=FD where a byte makes the server send
 * a status message; LOAD_EAGER=1 never sleeps while it connects or counts, so that no server pays for waking a reader,
 * which over a network it does not either. Exit 1 if not everyone connects in 30 s, a round takes longer than 10 s, or a
 * connection is lost.
 */
#define _GNU_SOURCE
#define START_BYTES 192 /* enough for "timestamp" */
#define FIELDS char *request;
#include "connection.h"

#include "arrivals.h"

static const double QUIET_SECONDS = 0.01;

enum {
    CONNECTING = 256, /* handshakes under way at once */
    CONNECT_SECONDS = 30,
    ROUND_SECONDS = 10,
    MAX_BEATS = 64,
};

static Connection *all;
static int clients, narrow, begun;
static unsigned long upgraded;
static bool blocked, commanded; /* commanded: standard input has a line */
static bool eager, awake;  /* awake: within a window, where an eager client never sleeps */
static struct sockaddr_in address;
static const char *host;
static clockid_t server_cpu;
static int server_pid;

static void lost(Connection *c, const char *what) {
    (void)c;
    fail(what);
}

/* What the next connection asks for: the same as all others, or with a token of its own. */
static char *next_request(void) {
    static FILE *tokens;
    static char *shared;
    if (shared) return shared;
    const char *offer = wanted_in_answer ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "";
    const char *target = getenv("LOAD_TARGET") ? getenv("LOAD_TARGET") : "/ws/cluster", *file = getenv("LOAD_TOKENS");
    if (!file) return shared = request_for(target, host, ntohs(address.sin_port), offer);
    char line[1000], own[2000];
    if (!tokens && !(tokens = fopen(file, "r"))) fail(file);
    if (!fgets(line, sizeof line, tokens)) fail("no token left");
    line[strcspn(line, "\n")] = 0;
    snprintf(own, sizeof own, "%s%s", target, line);
    return request_for(own, host, ntohs(address.sin_port), offer);
}

static bool is_narrow(int number) { return (long)number * narrow % clients < narrow; }

/* Serves the connections until `deadline` (monotonic seconds), or `*have` is at least `want`; true in the latter case. */
static bool serve_until(double deadline, const unsigned long *have, unsigned long want) {
    double left;
    while (*have < want) {
        if ((left = deadline - seconds_on(CLOCK_MONOTONIC)) <= 0) return false;
        for (; begun < clients && begun - (int)upgraded < CONNECTING; begun++) {
            all[begun].request = next_request();
            begin(&all[begun], &address, is_narrow(begun));
        }
        struct epoll_event events[512];
        int count = epoll_wait(poller, events, 512, eager && awake ? 0 : (int)(left * 1000) + 1);
        if (count < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < count; i++) {
            Connection *c = events[i].data.ptr;
            if (!c)
                commanded = true;
            else if (!c->asked)
                send_request(c, c->request);
            else if (receive(c))
                upgraded++;
        }
        if (commanded) return false;
    }
    return true;
}

static void serve_for(double seconds) {
    static const unsigned long never;
    serve_until(seconds_on(CLOCK_MONOTONIC) + seconds, &never, 1);
}

/* Until nothing has come for a moment, so that a window has whole broadcasts in it; a second at most. */
static void serve_until_quiet(void) {
    double until = seconds_on(CLOCK_MONOTONIC) + 1;
    unsigned long before;
    do {
        before = statuses;
        serve_for(QUIET_SECONDS);
    } while (statuses != before && seconds_on(CLOCK_MONOTONIC) < until);
}

static long resident_bytes(void) {
    char path[40];
    long pages = 0, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", server_pid);
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%ld %ld", &pages, &resident) != 2) fail(path);
    fclose(file);
    return resident * sysconf(_SC_PAGESIZE);
}

static double window_from, cpu_from;

static void open_window(void) {
    start_counting();
    awake = true;
    window_from = seconds_on(CLOCK_MONOTONIC);
    cpu_from = seconds_on(server_cpu);
}

static void connect_all(int number, int of_them_narrow) {
    static long resident_before;
    static double connect_seconds, connect_cpu;
    clients = number;
    narrow = of_them_narrow;
    allow_files(clients);
    if (!(all = calloc((size_t)clients + 1, sizeof *all))) fail("memory");
    resident_before = resident_bytes();
    open_window();
    counting = false;
    serve_until(window_from + CONNECT_SECONDS, &upgraded, (unsigned long)clients);
    connect_seconds = seconds_on(CLOCK_MONOTONIC) - window_from;
    connect_cpu = seconds_on(server_cpu) - cpu_from;
    awake = false;
    errno = 0;
    if (upgraded < (unsigned long)clients) fail("not everyone connected");
    printf("{\"clients\":%d,\"connect_seconds\":%.6f,\"connect_cpu_seconds\":%.6f,\"resident_before\":%ld", clients,
           connect_seconds, connect_cpu, resident_before);
}

/* Ends the window and prints what was in it, as the members of a JSON object. */
static void print_window(void) {
    double cpu = seconds_on(server_cpu) - cpu_from, seconds = seconds_on(CLOCK_MONOTONIC) - window_from;
    counting = awake = false;
    printf("\"seconds\":%.6f,\"cpu_seconds\":%.9f,\"deliveries\":%lu,\"payload_bytes\":%lu,\"stampless\":%lu,"
           "\"compressed\":%lu,\"pings\":%lu,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"resident_after\":%ld",
           seconds, cpu, seen.messages, seen.payload_bytes, seen.stampless, seen.compressed, pings, age_ms(0.50),
           age_ms(0.99), resident_bytes());
}

static void beat(int times) {
    static const char bytes[MAX_BEATS];
    const char *fd = getenv("LOAD_BEATS");
    if (!fd || times < 1 || times > MAX_BEATS) fail("no beats");
    if (write(atoi(fd), bytes, (size_t)times) != times) fail("a beat");
}

/* A beat each `interval` for so long; a window's broadcasts are whole. */
static unsigned long pace_for(double seconds, double interval) {
    static const unsigned long never;
    unsigned long beats = 0;
    serve_until_quiet();
    open_window();
    for (double start = window_from; (double)beats * interval < seconds - 1e-6; beats++) {
        beat(1);
        serve_until(start + (double)(beats + 1) * interval, &never, 1);
    }
    serve_until_quiet();
    return beats;
}

/* Lockstep for so long: the next beats when everybody who reads has all messages of the last ones. */
static unsigned long rounds_for(double seconds, int beats) {
    unsigned long rounds = 0, readers = (unsigned long)(blocked ? clients - narrow : clients);
    serve_until_quiet();
    double until = seconds_on(CLOCK_MONOTONIC) + seconds;
    for (open_window(); seconds_on(CLOCK_MONOTONIC) < until; rounds++) {
        unsigned long due = statuses + readers * (unsigned long)beats;
        beat(beats);
        errno = 0;
        if (!serve_until(seconds_on(CLOCK_MONOTONIC) + ROUND_SECONDS, &statuses, due)) fail("a round did not arrive");
    }
    return rounds;
}

static void block(void) {
    blocked = true;
    for (int i = 0; i < clients; i++)
        if (is_narrow(i) && epoll_ctl(poller, EPOLL_CTL_DEL, all[i].fd, NULL) < 0) fail("epoll_ctl");
}

static void execute(const char *line) {
    double seconds = 0, interval = 0;
    int number = 0, more = 0;
    if (sscanf(line, "connect %d %d", &number, &more) == 2) {
        connect_all(number, more);
        printf("}\n");
    } else if (strncmp(line, "block", 5) == 0) {
        block();
        printf("{}\n");
    } else if (sscanf(line, "rest %lf", &seconds) == 1) {
        serve_for(seconds);
        printf("{}\n");
    } else if (sscanf(line, "count %lf", &seconds) == 1) {
        serve_until_quiet();
        open_window();
        serve_for(seconds);
        serve_until_quiet();
        printf("{");
        print_window();
        printf("}\n");
    } else if (strncmp(line, "hush", 4) == 0) {
        beat(1);
        printf("{}\n");
    } else if (sscanf(line, "pace %lf %lf", &seconds, &interval) == 2 && interval > 0) {
        printf("{\"rounds\":%lu,", pace_for(seconds, interval));
        print_window();
        printf("}\n");
    } else if (sscanf(line, "rounds %lf %d", &seconds, &more) == 2) {
        printf("{\"rounds\":%lu,", rounds_for(seconds, more));
        print_window();
        printf("}\n");
    } else {
        fail(line);
    }
    fflush(stdout);
}

static void execute_all(void) {
    struct epoll_event on_input = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &on_input) < 0) fail("standard input");
    for (;;) {
        char line[100] = "";
        while (!commanded) serve_for(ROUND_SECONDS);
        commanded = false;
        ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);
        if (n <= 0) return;
        execute(line);
    }
}

int main(int argc, char **argv) {
    int port;
    if ((argc != 6 && argc != 3) || !read_address(argv[1], &address, &port)) {
        fprintf(stderr, "usage: load IPV4:PORT [CLIENTS WARMUP_SECONDS WINDOW_SECONDS] SERVER_PID\n");
        return 2;
    }
    host = argv[1];
    eager = getenv("LOAD_EAGER") != NULL;
    if (getenv("LOAD_DEFLATE")) wanted_in_answer = "permessage-deflate";
    server_pid = atoi(argv[argc - 1]);
    errno = clock_getcpuclockid(server_pid, &server_cpu);
    if (errno) fail("the server's CPU clock");
    if ((poller = epoll_create1(EPOLL_CLOEXEC)) < 0) fail("epoll");
    if (argc == 3) {
        execute_all();
        return 0;
    }
    connect_all(atoi(argv[2]), 0);
    serve_for(atof(argv[3]));
    open_window();
    serve_for(atof(argv[4]));
    printf(",");
    print_window();
    printf("}\n");
    return 0;
}
