/* Streams: offsets, window, acknowledgements, and the bound on the sum of what is kept. */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "test.h"

static int zero_fd, pipe_ends[2];

/* A source that gives 0, 1, 2 ... 250, 0, 1 ... by offset. */
static int pattern_file(void)
{
    static uint8_t block[251 * 64];
    char name[] = "/tmp/mayfly-stream-XXXXXX";
    int fd = mkstemp(name);
    unlink(name);
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (uint8_t)(i % 251);
    for (int i = 0; i < 64; i++)
        if (write(fd, block, sizeof block) != sizeof block)
            abort();
    return fd;
}

static void sending_keeps_bytes_until_acknowledged(void)
{
    struct out_stream s;
    static uint8_t bytes[STREAM_WINDOW_BYTES];
    int fd = pattern_file();
    uint64_t expected = 0;
    out_reset(&s, 0, CHANNEL_OUTPUT);
    srand(2);
    for (int round = 0; round < 400; round++) {
        out_fill(&s, fd, (size_t)(rand() % 70000), (int64_t)out_end(&s));
        size_t n = out_take(&s, bytes, (size_t)(rand() % 70000));
        for (size_t i = 0; i < n; i++)
            if (bytes[i] != (uint8_t)(expected++ % 251)) {
                CHECK(!"bytes in order");
                return;
            }
        CHECK(s.sent == expected && out_end(&s) - s.acked <= STREAM_WINDOW_BYTES);
        if (s.sent > s.acked)
            CHECK(out_acknowledge(&s, s.acked + (uint64_t)rand() % (s.sent - s.acked + 1), s.sent));
        if (rand() % 10 == 0)
            expected = s.sent = s.acked; /* a new hello */
        if (out_end(&s) > 900000) {
            out_drop(&s);
            out_reset(&s, 0, CHANNEL_OUTPUT);
            expected = 0;
        }
    }
    out_drop(&s);
    close(fd);
}

static void an_acknowledgement_never_goes_back_nor_beyond(void)
{
    struct out_stream s;
    uint8_t bytes[100];
    out_reset(&s, 0, CHANNEL_OUTPUT);
    CHECK(out_fill(&s, zero_fd, 100, -1) == 100);
    CHECK(out_take(&s, bytes, 60) == 60);
    CHECK(!out_acknowledge(&s, 61, s.sent));
    CHECK(out_acknowledge(&s, 40, s.sent));
    CHECK(!out_acknowledge(&s, 39, s.sent));
    CHECK(!out_acknowledge(&s, UINT64_MAX, s.sent));
    CHECK(out_acknowledge(&s, 40, s.sent) && s.acked == 40 && s.ring.length == 60);
    out_drop(&s);
}

static void the_window_bounds_a_stream(void)
{
    struct out_stream s;
    out_reset(&s, 0, CHANNEL_OUTPUT);
    while (out_fill(&s, zero_fd, 65536, -1) > 0)
        continue;
    CHECK(s.ring.length == STREAM_WINDOW_BYTES && out_room(&s) == 0);
    CHECK(out_fill(&s, zero_fd, 1, -1) == -EAGAIN);
    out_drop(&s);
    CHECK(out_room(&s) == STREAM_WINDOW_BYTES);
}

static void the_sum_is_bounded_and_no_stream_starves(void)
{
    static struct out_stream all[2 * MAX_OBJECTS];
    size_t sum = 0;
    for (unsigned i = 0; i < 2 * MAX_OBJECTS; i++)
        out_reset(&all[i], i / 2, i % 2 ? CHANNEL_ERROR : CHANNEL_OUTPUT);
    for (unsigned i = 0; i < 2 * MAX_OBJECTS; i++) {
        CHECK(out_room(&all[i]) >= 16384);
        while (out_fill(&all[i], zero_fd, 65536, -1) > 0)
            continue;
        CHECK(all[i].ring.length >= 16384);
        sum += all[i].ring.length;
    }
    CHECK(sum <= MAX_BUFFERED_BYTES);
    for (unsigned i = 0; i < 2 * MAX_OBJECTS; i++)
        out_drop(&all[i]);
    CHECK(out_room(&all[0]) == STREAM_WINDOW_BYTES);
}

static void an_empty_ring_starts_over(void)
{
    struct out_stream s;
    uint8_t bytes[1000];
    out_reset(&s, 0, CHANNEL_OUTPUT);
    for (int i = 0; i < 1000; i++) {
        out_fill(&s, zero_fd, sizeof bytes, -1);
        out_take(&s, bytes, sizeof bytes);
        out_acknowledge(&s, s.sent, s.sent);
    }
    CHECK(s.ring.touched == sizeof bytes && s.acked == 1000000);
    out_drop(&s);
}

static void input_is_kept_in_order_and_once(void)
{
    struct in_stream s;
    uint8_t bytes[256], got[256];
    for (int i = 0; i < 256; i++)
        bytes[i] = (uint8_t)i;
    in_reset(&s, 0);
    s.fd = pipe_ends[1];
    s.writable = true;
    CHECK(in_accept(&s, 0, bytes, 100) && s.kept == 100);
    CHECK(in_accept(&s, 50, bytes + 50, 100) && s.kept == 150); /* half of it is known already */
    CHECK(in_accept(&s, 0, bytes, 100) && s.kept == 150);
    CHECK(!in_accept(&s, 151, bytes, 1)); /* a gap */
    CHECK(!in_accept(&s, UINT64_MAX, bytes, 2));
    CHECK(read(pipe_ends[0], got, sizeof got) == 150 && !memcmp(got, bytes, 150));
}

static void input_beyond_the_window_is_refused(void)
{
    static uint8_t bytes[DATA_MAX_BYTES];
    struct in_stream s;
    uint64_t offset = 0;
    in_reset(&s, 0);
    s.fd = pipe_ends[1];
    s.writable = false; /* as if the pipe were full */
    while (in_accept(&s, offset, bytes, sizeof bytes))
        offset += sizeof bytes;
    CHECK(offset <= STREAM_WINDOW_BYTES && offset + sizeof bytes > STREAM_WINDOW_BYTES && s.kept == 0);
    in_forget(&s);
    CHECK(in_received(&s) == 0);
    in_drop(&s);
}

static void a_broken_pipe_takes_everything(void)
{
    struct in_stream s;
    int ends[2];
    uint8_t bytes[10] = {0};
    CHECK(pipe2(ends, O_NONBLOCK) == 0);
    close(ends[0]);
    in_reset(&s, 0);
    s.fd = ends[1];
    s.writable = true;
    CHECK(in_accept(&s, 0, bytes, sizeof bytes) && s.kept == 0);
    CHECK(in_flush(&s) == -EPIPE && s.kept == 10);
    close(ends[1]);
    in_drop(&s);
}

static void input_wraps_around_the_ring(void)
{
    struct in_stream s;
    static uint8_t bytes[50000], got[50000];
    uint64_t sent = 0, read_so_far = 0;
    in_reset(&s, 0);
    s.fd = pipe_ends[1];
    srand(3);
    while (sent < 3000000) {
        size_t n = (size_t)(rand() % 50000) + 1;
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)((sent + i) % 251);
        s.writable = rand() % 2;
        if (in_accept(&s, sent, bytes, n))
            sent += n;
        s.writable = true;
        in_flush(&s);
        ssize_t part = read(pipe_ends[0], got, sizeof got);
        for (ssize_t i = 0; i < part; i++)
            if (got[i] != (uint8_t)((read_so_far++) % 251)) {
                CHECK(!"bytes in order");
                return;
            }
    }
    CHECK(s.kept <= sent && read_so_far <= s.kept);
    in_drop(&s);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* the agent blocks it */
    zero_fd = open("/dev/zero", O_RDONLY);
    if (zero_fd < 0 || pipe2(pipe_ends, O_NONBLOCK) || streams_init())
        return 1;
    RUN(sending_keeps_bytes_until_acknowledged);
    RUN(an_acknowledgement_never_goes_back_nor_beyond);
    RUN(the_window_bounds_a_stream);
    RUN(the_sum_is_bounded_and_no_stream_starves);
    RUN(an_empty_ring_starts_over);
    RUN(input_is_kept_in_order_and_once);
    RUN(input_beyond_the_window_is_refused);
    RUN(a_broken_pipe_takes_everything);
    RUN(input_wraps_around_the_ring);
    return test_summary("stream_test");
}
