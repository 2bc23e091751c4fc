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

static void only_the_vm_itself_goes_on_without_a_new_identity(void)
{
    static const uint8_t now[8] = {1}, never[8];
    begin();
    world_frame(TYPE_FREEZE, EPOCH, 4, "", 0);
    world_frame(TYPE_THAW, EPOCH, 4, never, 8);
    world_frame(TYPE_THAW, EPOCH, 4, now, 8);
    send_exec(9, 0, "program");
    world_frame(TYPE_FREEZE, EPOCH, 4, "", 0);
    world_run();
    static const int expected[] = {0, EINVAL, 0, 0, 0};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        CHECK(next_reply() == expected[i]);
    world_hello(EPOCH + 1, NULL, 0); /* a copy, or another daemon */
    world_frame(TYPE_THAW, EPOCH + 1, 4, now, 8);
    world_frame(TYPE_FREEZE, EPOCH + 1, 4, "", 0); /* does not make it this connection's */
    world_frame(TYPE_THAW, EPOCH + 1, 4, now, 8);
    world_run();
    CHECK(next_reply() == EPERM && next_reply() == 0 && next_reply() == EPERM);
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

static void put_mount(struct writer *w, uint8_t kind, uint8_t disk, uint16_t flags, const char *fstype, const char *target)
{
    put_u8(w, kind);
    put_u8(w, disk);
    put_u16(w, flags);
    put_u32(w, 0700);
    put_u64(w, 4096);
    put_string(w, fstype);
    put_string(w, target);
}

/* CONTAINER with these mounts; `count` says how many there are. */
static void send_container(uint32_t flags, const char *fstype, uint16_t count, const void *mounts, size_t n)
{
    static uint8_t payload[FRAME_MAX_PAYLOAD];
    struct writer w = {payload, payload + sizeof payload, false};
    put_u32(&w, flags);
    put_u64(&w, 0);
    put_u64(&w, 0);
    put_string(&w, fstype);
    put_u16(&w, count);
    put_bytes(&w, mounts, n);
    world_frame(TYPE_CONTAINER, EPOCH, 4, payload, (size_t)(w.at - payload));
}

static void send_teardown(uint32_t flags)
{
    uint8_t payload[4];
    struct writer w = {payload, payload + 4, false};
    put_u32(&w, flags);
    world_frame(TYPE_TEARDOWN, EPOCH, 4, payload, 4);
}

static int answer_to_mount(uint8_t kind, uint8_t disk, uint16_t flags, const char *fstype, const char *target)
{
    static uint8_t mount[MAX_PATH_BYTES + 64];
    struct writer w = {mount, mount + sizeof mount, false};
    put_mount(&w, kind, disk, flags, fstype, target);
    begin();
    send_container(0, "erofs", 1, mount, (size_t)(w.at - mount));
    world_run();
    return next_reply();
}

static void containers_are_checked(void)
{
    static char path[MAX_PATH_BYTES + 2];
    static const int expected[] = {EINVAL, EINVAL, EINVAL, EINVAL, ENOENT, 0, EALREADY, 0};
    memset(path, 'x', sizeof path - 1);
    path[0] = '/';
    CHECK(answer_to_mount(MOUNT_DISK, 2, 15, "ext4", "/data") == 0);
    CHECK(answer_to_mount(MOUNT_TMPFS, 9, 0, "", "/tmp") == 0);
    CHECK(answer_to_mount(MOUNT_DIRECTORY, 0, 0, "", "/var/lib/x") == 0);
    CHECK(answer_to_mount(0, 0, 0, "", "/x") == EINVAL && answer_to_mount(4, 0, 0, "", "/x") == EINVAL);
    CHECK(answer_to_mount(MOUNT_DISK, 3, 0, "ext4", "/x") == EINVAL);
    CHECK(answer_to_mount(MOUNT_DISK, 0, 0, "vfat", "/x") == EINVAL);
    CHECK(answer_to_mount(MOUNT_TMPFS, 0, 16, "", "/x") == EINVAL);
    CHECK(answer_to_mount(MOUNT_TMPFS, 0, 0, "", "x") == EINVAL && answer_to_mount(MOUNT_TMPFS, 0, 0, "", "") == EINVAL);
    CHECK(answer_to_mount(MOUNT_TMPFS, 0, 0, "", "/") == EINVAL && answer_to_mount(MOUNT_TMPFS, 0, 0, "", "//") == EINVAL);
    CHECK(answer_to_mount(MOUNT_TMPFS, 0, 0, "", path) == EINVAL);
    path[MAX_PATH_BYTES] = 0;
    CHECK(answer_to_mount(MOUNT_TMPFS, 0, 0, "", path) == 0);
    begin();
    send_container(8, "erofs", 0, "", 0);
    send_container(0, "vfat", 0, "", 0);
    send_container(0, "erofs", 1, "", 0);
    send_container(0, "erofs", MAX_CONTAINER_MOUNTS + 1, path, 4000);
    send_teardown(0);
    send_container(7, "ext4", 0, "", 0);
    send_container(0, "erofs", 0, "", 0);
    send_teardown(TEARDOWN_TRIM);
    world_run();
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        CHECK(next_reply() == expected[i]);
}

static void one_process_is_first(void)
{
    static const uint32_t refused[] = {EXEC_FIRST | EXEC_OUTSIDE, EXEC_FIRST | EXEC_HOOK, EXEC_INIT, EXEC_INIT | EXEC_HOOK};
    begin();
    send_exec(1, EXEC_FIRST, "program"); /* of what? */
    world_run();
    CHECK(next_reply() == EINVAL);
    send_container(0, "erofs", 0, "", 0);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        send_exec(1, refused[i], "program");
    world_run();
    CHECK(next_reply() == 0);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        CHECK(next_reply() == EINVAL);
    send_exec(1, EXEC_FIRST, "fails");
    world_run();
    CHECK(next_reply() == ENOENT);
    struct world_process *first = start(2, EXEC_FIRST | EXEC_INIT);
    CHECK(first->pid);
    send_exec(3, EXEC_FIRST, "program");
    send_exec(3, 0, "program");
    world_run();
    CHECK(next_reply() == EEXIST && next_reply() == 0);
    world_exit(first, 0);
    world_run();
    send_exec(4, 0, "program");
    send_exec(4, EXEC_HOOK, "program");
    send_exec(4, EXEC_OUTSIDE, "program");
    send_exec(5, EXEC_FIRST, "program");
    send_exec(6, 0, "program");
    world_run();
    CHECK(next_reply() == ESRCH && next_reply() == ESRCH && next_reply() == 0 && next_reply() == 0 && next_reply() == 0);
}

static void tearing_down_kills_and_waits(void)
{
    uint8_t read[32];
    struct writer w = {read, read + sizeof read, false};
    begin();
    int before = world_descriptors();
    send_container(0, "erofs", 0, "", 0);
    put_u64(&w, 0);
    put_u64(&w, UINT64_MAX);
    put_u32(&w, 0);
    put_string(&w, "/file");
    world_accept(0, 0); /* the read does not end */
    world_frame(TYPE_FILE_READ, EPOCH, 7 << 2, read, (size_t)(w.at - read));
    send_exec(8, EXEC_FIRST, "program");
    send_teardown(0);
    world_frame(TYPE_PING, EPOCH, 9 << 2, "", 0);
    world_run();
    world_accept(SIZE_MAX, SIZE_MAX);
    world_run();
    CHECK(next_reply() == 0 && next_reply() == 0 && next_reply() == 0);
    CHECK(next_of(TYPE_EXIT) && frame.stream == 7 << 2 && u32_at(frame.payload + 8) == ESTALE);
    CHECK(next_of(TYPE_EXIT) && frame.stream == 8 << 2 && u32_at(frame.payload + 4) == SIGKILL);
    CHECK(next_reply() == 0 && frame.stream == 4);
    CHECK(next_reply() == 0 && frame.stream == 9 << 2);
    world_frame(TYPE_RELEASE, EPOCH, 7 << 2, "", 0);
    world_frame(TYPE_RELEASE, EPOCH, 8 << 2, "", 0);
    send_exec(8, EXEC_FIRST, "program");
    world_run();
    CHECK(next_reply() == 0 && next_reply() == 0 && next_reply() == EINVAL && world_descriptors() == before);
}

static void a_hook_starts_while_others_may_not(void)
{
    uint8_t identity[128] = {0};
    struct writer w = {identity, identity + sizeof identity, false};
    w.at += 8 + 64 + 16 + 8;
    put_string(&w, "clone");
    begin();
    world_frame(TYPE_FREEZE, EPOCH, 4, "", 0);
    send_exec(1, EXEC_HOOK, "program");
    world_frame(TYPE_IDENTITY, EPOCH, 4, identity, (size_t)(w.at - identity));
    send_exec(2, 0, "program");
    send_exec(3, EXEC_HOOK, "program");
    world_run();
    CHECK(next_reply() == 0 && next_reply() == EBUSY && next_reply() == 0 && next_reply() == EBUSY && next_reply() == 0);
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
    RUN(only_the_vm_itself_goes_on_without_a_new_identity);
    RUN(a_hello_tells_what_is_pending);
    RUN(a_slow_request_holds_back_the_next_ones);
    RUN(containers_are_checked);
    RUN(one_process_is_first);
    RUN(tearing_down_kills_and_waits);
    RUN(a_hook_starts_while_others_may_not);
    world_reset();
    return test_summary("session_test");
}
