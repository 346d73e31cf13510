/* What arrived in a window of time: how many messages, and how old each was. */
enum { AGE_SLOTS = 2000000 }; /* one for each microsecond; the last one holds what is older */

static struct {
    unsigned long messages, payload_bytes, stampless, compressed;
} seen;
static uint32_t ages[AGE_SLOTS];
static bool counting;
static unsigned long statuses; /* of all time, counting or not: a beat of the server makes one a client */

static void start_counting(void) {
    memset(&seen, 0, sizeof seen);
    memset(ages, 0, sizeof ages);
    counting = true;
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
    static const char STATUS[] = "\"type\":\"status_update\"";
    if (c->compressed || memmem(c->start, c->start_have, STATUS, sizeof STATUS - 1)) statuses++;
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

/* The age that this share of the messages did not exceed; -1 without any. */
static double age_ms(double share) {
    unsigned long total = seen.messages - seen.stampless - seen.compressed, below = 0;
    for (int i = 0; total && i < AGE_SLOTS; i++)
        if ((double)(below += ages[i]) >= share * (double)total) return i / 1000.0;
    return -1;
}
