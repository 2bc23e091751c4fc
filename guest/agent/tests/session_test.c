/* The session over the real code: epochs, objects, order, refusals. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "host_side.h"
#include "test.h"
#include "wire.h"

static void nothing_is_said_before_a_hello(void)
{
    size_t n;
    world_reset();
    world_frame(TYPE_PING, EPOCH, 4, "x", 1);
    world_run();
    world_sent(&n);
    CHECK(n == 0);
}

static void a_hello_is_answered(void)
{
    world_reset();
    world_hello(EPOCH, NULL, 0);
    world_run();
    CHECK(world_next(&frame) == TYPE_HELLO_ACK && frame.epoch == EPOCH && frame.length == 44);
    CHECK(frame.payload[0] == PROTOCOL_VERSION && u32_at(frame.payload + 4) == FRAME_MAX_PAYLOAD);
    CHECK(u32_at(frame.payload + 8) == STREAM_WINDOW_BYTES && u32_at(frame.payload + 12) == MAX_OBJECTS);
    CHECK(u32_at(frame.payload + 16) == MAX_BUFFERED_BYTES && u32_at(frame.payload + 20) == MAX_CONNECTIONS &&
          u32_at(frame.payload + 40) == 0);
}

static void malformed_hellos_are_not_answered(void)
{
    size_t n;
    world_reset();
    world_hello(0, NULL, 0); /* epoch 0 */
    world_receive(PREAMBLE, PREAMBLE_BYTES);
    world_frame(TYPE_HELLO, EPOCH, 0, "\1\0\0\0\2\0\0\0", 8); /* two offsets announced, none there */
    world_receive(PREAMBLE, PREAMBLE_BYTES);
    world_frame(TYPE_PING, EPOCH, 4, "", 0); /* no hello */
    world_run();
    world_sent(&n);
    CHECK(n == 0);
}

static void frames_of_other_epochs_are_ignored(void)
{
    begin();
    world_frame(TYPE_PING, EPOCH + 1, 4, "a", 1);
    world_frame(TYPE_PING, EPOCH, 8, "b", 1);
    world_run();
    CHECK(world_next(&frame) == TYPE_REPLY && frame.stream == 8 && frame.payload[4] == 'b');
    CHECK(!world_next(&frame));
}

static void requests_of_an_old_host_are_not_answered_to_a_new_one(void)
{
    begin();
    world_accept(0, 0);
    world_frame(TYPE_PING, EPOCH, 4, "old", 3);
    world_run();
    world_hello(EPOCH + 1, NULL, 0);
    world_run();
    world_accept(SIZE_MAX, SIZE_MAX);
    world_run();
    CHECK(world_next(&frame) == TYPE_HELLO_ACK && frame.epoch == EPOCH + 1);
    CHECK(!world_next(&frame));
}

static void requests_are_refused_by_errno(void)
{
    begin();
    world_frame(99, EPOCH, 4, "", 0);
    world_frame(TYPE_PING, EPOCH, 5, "", 0); /* not channel 0 */
    world_frame(TYPE_EXEC, EPOCH, 4, "short", 5);
    send_exec(0, 0, "program");
    send_exec(7, 0x80, "program"); /* unknown flag */
    send_exec(7, 0, "fails");
    world_frame(TYPE_SIGNAL, EPOCH, 4, "\0\0\0\0\0\0\0\0", 8);
    world_frame(TYPE_RELEASE, EPOCH, 4, "", 0);
    world_run();
    static const int expected[] = {ENOSYS, EINVAL, EINVAL, EINVAL, EINVAL, ENOENT, ENOENT, ENOENT};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        CHECK(next_reply() == expected[i]);
    CHECK(world_objects() == 0);
}

static void strings_with_a_nul_are_refused(void)
{
    uint8_t path[] = {0, 0, 0, 0, 3, 0, '/', 0, 'x'};
    begin();
    send_exec(7, 0, "");
    world_frame(TYPE_FILE_STAT, EPOCH, 4, path, sizeof path);
    path[7] = 'y';
    world_frame(TYPE_FILE_STAT, EPOCH, 4, path, sizeof path);
    path[4] = 4; /* longer than what is there */
    world_frame(TYPE_FILE_STAT, EPOCH, 4, path, sizeof path);
    world_run();
    CHECK(next_reply() == 0); /* an empty program is for the kernel to refuse */
    CHECK(next_reply() == EINVAL);
    CHECK(next_reply() == 0);
    CHECK(next_reply() == EINVAL);
}

static void a_process_runs_to_its_end(void)
{
    begin();
    struct world_process *p = start(5, 0);
    put_out(p, "hello");
    CHECK(write(p->outputs[1], "oops", 4) == 4);
    world_exit(p, 3 << 8);
    world_run();
    CHECK(world_next(&frame) == TYPE_DATA && frame.stream == out_of(5) && !memcmp(frame.payload + 8, "hello", 5));
    CHECK(world_next(&frame) == TYPE_EOF && frame.stream == out_of(5) && u64_at(frame.payload) == 5);
    CHECK(world_next(&frame) == TYPE_DATA && frame.stream == (5 << 2 | CHANNEL_ERROR));
    CHECK(world_next(&frame) == TYPE_EOF && u64_at(frame.payload) == 4);
    CHECK(world_next(&frame) == TYPE_EXIT && u32_at(frame.payload) == 3 && u32_at(frame.payload + 4) == 0);
    CHECK(frame.length == 56 && u64_at(frame.payload + 40) == 5 && u64_at(frame.payload + 48) == 4);
    world_frame(TYPE_RELEASE, EPOCH, 5 << 2, "", 0);
    world_run();
    CHECK(next_reply() == 0 && world_objects() == 0);
}

static void sixty_four_objects_and_no_more(void)
{
    begin();
    for (uint32_t id = 1; id <= MAX_OBJECTS + 1; id++)
        send_exec(id, 0, "program");
    send_exec(1, 0, "program");
    world_run();
    for (uint32_t id = 1; id <= MAX_OBJECTS; id++)
        CHECK(next_reply() == 0);
    CHECK(next_reply() == EAGAIN);
    CHECK(next_reply() == EEXIST);
    CHECK(world_objects() == MAX_OBJECTS);
}

static void released_means_killed_and_closed(void)
{
    begin();
    int before = world_descriptors();
    struct world_process *p = start(5, EXEC_STDIN);
    put_out(p, "never seen");
    world_frame(TYPE_RELEASE, EPOCH, 5 << 2, "", 0);
    world_run();
    world_run(); /* reaps */
    CHECK(next_reply() == 0 && world_objects() == 0 && p->pid == 0);
    CHECK(world_descriptors() == before);
}

static void the_order_after_a_freeze_is_fail_closed(void)
{
    uint8_t identity[128] = {0};
    struct writer w = {identity, identity + sizeof identity, false};
    begin();
    world_frame(TYPE_FREEZE, EPOCH, 4, "", 0);
    world_frame(TYPE_THAW, EPOCH, 4, "", 0);
    send_exec(9, 0, "program");
    world_frame(TYPE_IDENTITY, EPOCH, 4, "short", 5);
    world_frame(TYPE_THAW, EPOCH, 4, "", 0);
    w.at += 8 + 64 + 16 + 8;
    put_string(&w, "clone");
    world_frame(TYPE_IDENTITY, EPOCH, 4, identity, (size_t)(w.at - identity));
    send_exec(9, 0, "program"); /* still frozen */
    world_frame(TYPE_THAW, EPOCH, 4, "", 0);
    send_exec(9, 0, "program");
    world_run();
    static const int expected[] = {0, EPERM, EBUSY, EINVAL, EPERM, 0, EBUSY, 0, 0};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        CHECK(next_reply() == expected[i]);
}

static void a_hello_tells_what_is_pending(void)
{
    begin();
    world_frame(TYPE_FREEZE, EPOCH, 4, "", 0);
    world_run();
    world_hello(EPOCH + 1, NULL, 0);
    world_run();
    CHECK(next_of(TYPE_HELLO_ACK) && frame.payload[2] == (HELLO_FLAG_IDENTITY_PENDING | HELLO_FLAG_FROZEN));
}

static void a_slow_request_holds_back_the_next_ones(void)
{
    begin();
    world_frame(TYPE_TRIM, EPOCH, 4, "\0\0\0\1\0\0\0\0", 8);
    world_frame(TYPE_PING, EPOCH, 8, "", 0);
    world_run();
    CHECK(next_reply() == 0 && frame.stream == 4 && frame.length == 12);
    CHECK(next_reply() == 0 && frame.stream == 8);
}

int main(void)
{
    world_init();
    RUN(nothing_is_said_before_a_hello);
    RUN(a_hello_is_answered);
    RUN(malformed_hellos_are_not_answered);
    RUN(frames_of_other_epochs_are_ignored);
    RUN(requests_of_an_old_host_are_not_answered_to_a_new_one);
    RUN(requests_are_refused_by_errno);
    RUN(strings_with_a_nul_are_refused);
    RUN(a_process_runs_to_its_end);
    RUN(sixty_four_objects_and_no_more);
    RUN(released_means_killed_and_closed);
    RUN(the_order_after_a_freeze_is_fail_closed);
    RUN(a_hello_tells_what_is_pending);
    RUN(a_slow_request_holds_back_the_next_ones);
    world_reset();
    return test_summary("session_test");
}
