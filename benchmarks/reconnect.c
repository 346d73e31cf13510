/* Everybody comes back at once: N clients lose their connections together and resume together.
 *
 * usage: RECONNECT_TARGET=/ws/cluster?token=... reconnect HOST:PORT CLIENTS AWAY_SECONDS LIVE_SECONDS
 *
 * It connects everyone with `after=now`, cuts all connections with a reset in one moment, waits AWAY_SECONDS, opens all
 * of them again in one moment, each with the epoch and the newest number that it has, and follows for LIVE_SECONDS more.
 * Somebody else makes events meanwhile. Each client checks that it gets `recovered: true` and exactly the events
 * that it has not had, in order and as many as announced, then `status`, then whatever happens without a hole. One JSON
 * object goes to standard output. Exit 1 at the first thing that is wrong, or if not everybody is there within 30 s.
 */
#define _GNU_SOURCE
#define START_BYTES 512 /* enough for a whole welcome, and for an event's number */
#define FIELDS                                   \
    enum { WELCOME, REPLAY, STATUS, LIVE } next; \
    long seq;                                    \
    long to_replay;
#include "connection.h"

enum { COMING_SECONDS = 30 };

static char epoch[65];
static int live;
static bool away; /* the clients have been, and come back */
static unsigned long replayed, events;

static void lost(Connection *c, const char *what) {
    fprintf(stderr, "reconnect: client at %ld: %s\n", c->seq, what);
    exit(1);
}

/* Where the value of a key begins in what is kept of a message; each key stands once in what is asked about here. */
static const char *value_of(Connection *c, const char *key) {
    const char *at = memmem(c->start, c->start_have, key, strlen(key));
    return at ? at + strlen(key) : NULL;
}

static long number_of(Connection *c, const char *key) {
    const char *at = value_of(c, key);
    if (!at) lost(c, key);
    return atol(at);
}

static bool is_type(Connection *c, const char *type) {
    const char *at = value_of(c, "{\"type\":\"");
    return at && strncmp(at, type, strlen(type)) == 0 && at[strlen(type)] == '"';
}

/* The number of an event: the envelope has it right behind the timestamp. 0: the message is no event. */
static long seq_of(Connection *c) {
    const char *at = value_of(c, "\"timestamp\":\"");
    at = at ? strchr(at, '"') : NULL;
    return at && strncmp(at, "\",\"seq\":", 8) == 0 ? atol(at + 8) : 0;
}

static void welcome(Connection *c) {
    const char *given = value_of(c, "\"epoch\":\"");
    if (!is_type(c, "welcome") || !given) lost(c, "no welcome");
    if (strncmp(value_of(c, "\"recovered\":") ?: "", "true", 4) != 0) lost(c, c->start);
    size_t length = strcspn(given, "\"");
    if (!*epoch) memcpy(epoch, given, length < sizeof epoch ? length : 0);
    if (strlen(epoch) != length || strncmp(given, epoch, length) != 0) lost(c, "another epoch");
    long newest = number_of(c, "\"seq\":");
    c->to_replay = number_of(c, "\"replayed\":");
    if (!away) c->seq = newest;
    if (c->to_replay != newest - c->seq) lost(c, "what is announced is not what is missing");
    replayed += (unsigned long)c->to_replay;
    c->next = c->to_replay ? REPLAY : STATUS;
}

static void message_complete(Connection *c) {
    c->start[c->start_have < START_BYTES ? c->start_have : START_BYTES - 1] = 0;
    long seq = c->next == WELCOME ? 0 : seq_of(c);
    if (seq) {
        if (seq != c->seq + 1) lost(c, c->start);
        if (c->next == STATUS) lost(c, "an event before the status");
        c->seq = seq;
        events++;
    }
    switch (c->next) {
    case WELCOME:
        welcome(c);
        break;
    case REPLAY:
        if (!seq) lost(c, "something else amid the replay");
        if (--c->to_replay == 0) c->next = STATUS;
        break;
    case STATUS:
        if (!is_type(c, "status")) lost(c, "no status");
        c->next = LIVE;
        live++;
        break;
    case LIVE:
        if (is_type(c, "gap") || is_type(c, "welcome")) lost(c, c->start);
    }
}

static char *request_of(const Connection *c, const char *target, const char *host, int port) {
    char *full;
    int made = away ? asprintf(&full, "%s&epoch=%s&after=%ld", target, epoch, c->seq)
                    : asprintf(&full, "%s&after=now", target);
    if (made < 0) fail("memory");
    char *request = request_for(full, host, port, "");
    free(full);
    return request;
}

/* Serves the connections until `deadline` (monotonic seconds) or, if `want` is given, until that many are live. */
static void serve(double deadline, int want, const char *target, const char *host, int port) {
    double left;
    while ((left = deadline - seconds_on(CLOCK_MONOTONIC)) > 0 && (!want || live < want)) {
        struct epoll_event found[512];
        int count = epoll_wait(poller, found, 512, (int)(left * 1000) + 1);
        if (count < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < count; i++) {
            Connection *c = found[i].data.ptr;
            if (found[i].events & EPOLLOUT) {
                char *request = request_of(c, target, host, port);
                send_request(c, request);
                free(request);
            } else {
                receive(c);
            }
        }
    }
    errno = 0;
    if (live < want) {
        fprintf(stderr, "reconnect: %d of %d are there in time\n", live, want);
        exit(1);
    }
}

static void cut(Connection *c) {
    struct linger reset = {.l_onoff = 1};
    if (setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) < 0 || close(c->fd) < 0) fail("close");
    *c = (Connection){.seq = c->seq};
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {0};
    int port;
    const char *target = getenv("RECONNECT_TARGET");
    if (argc != 5 || !target || !read_address(argv[1], &address, &port)) {
        fprintf(stderr, "usage: RECONNECT_TARGET=/ws/cluster?token=... reconnect IPV4:PORT CLIENTS AWAY_SECONDS LIVE_SECONDS\n");
        return 2;
    }
    int clients = atoi(argv[2]);
    allow_files(clients);
    Connection *all = calloc((size_t)clients, sizeof *all);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!all || poller < 0) fail("memory");

    double started = seconds_on(CLOCK_MONOTONIC);
    for (int i = 0; i < clients; i++) begin(&all[i], &address, false);
    serve(started + COMING_SECONDS, clients, target, argv[1], port);
    double first_seconds = seconds_on(CLOCK_MONOTONIC) - started;

    for (int i = 0; i < clients; i++) cut(&all[i]);
    usleep((useconds_t)(atof(argv[3]) * 1e6));
    away = true;
    live = 0;
    started = seconds_on(CLOCK_MONOTONIC);
    for (int i = 0; i < clients; i++) begin(&all[i], &address, false);
    serve(started + COMING_SECONDS, clients, target, argv[1], port);
    double back_seconds = seconds_on(CLOCK_MONOTONIC) - started;
    serve(seconds_on(CLOCK_MONOTONIC) + atof(argv[4]), 0, target, argv[1], port);

    long least = all[0].seq, most = all[0].seq;
    for (int i = 0; i < clients; i++) {
        least = all[i].seq < least ? all[i].seq : least;
        most = all[i].seq > most ? all[i].seq : most;
    }
    printf("{\"clients\":%d,\"first_seconds\":%.3f,\"back_seconds\":%.3f,\"replayed\":%lu,\"events\":%lu,"
           "\"epoch\":\"%s\",\"least_seq\":%ld,\"most_seq\":%ld}\n",
           clients, first_seconds, back_seconds, replayed, events, epoch, least, most);
    return 0;
}
