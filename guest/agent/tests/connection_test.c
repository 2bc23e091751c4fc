/* Connections over the real code and real sockets: both directions, ends, resets, bounds. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blocks.h"
#include "connection.h"
#include "host_side.h"
#include "network.h"
#include "test.h"
#include "wire.h"

#define ID (FIRST_CONNECTION_ID + 7u)

static uint8_t block[65528];

static void send_connect(uint32_t id, uint16_t port, const char *address)
{
    uint8_t payload[128];
    struct writer w = {payload, payload + sizeof payload, false};
    put_u16(&w, port);
    put_u16(&w, 0);
    put_string(&w, address);
    world_frame(TYPE_CONNECT, EPOCH, id << 2, payload, (size_t)(w.at - payload));
}

static int connect_errno(uint32_t id, uint16_t port, const char *address)
{
    send_connect(id, port, address);
    world_run();
    return next_reply();
}

/* A connection that stands. Returns the server's end. */
static int connected(uint32_t id)
{
    CHECK(connect_errno(id, SERVER_PORT, "") == 0);
    int fd = network_accept();
    CHECK(fd >= 0);
    return fd;
}

static int release(uint32_t id)
{
    world_frame(TYPE_RELEASE, EPOCH, id << 2, NULL, 0);
    world_run();
    return next_reply();
}

static uint32_t in_of(uint32_t id) { return id << 2 | CHANNEL_INPUT; }

/* The errno of the next EXIT, -1 without one. */
static int next_exit(void) { return next_of(TYPE_EXIT) ? (int)u32_at(frame.payload + 8) : -1; }

/* Everything that was sent on channel 2, and is there now. Returns its length. */
static uint64_t received_of(uint32_t id)
{
    uint64_t length = 0;
    while (world_next(&frame))
        if (frame.type == TYPE_DATA && frame.stream == out_of(id))
            length += frame.length - 8;
    return length;
}

static void a_request_goes_out_with_the_connect(void)
{
    char got[16];
    begin();
    send_connect(ID, SERVER_PORT, "");
    send_data(ID, 0, "hello", 5);
    world_run();
    CHECK(next_reply() == 0 && frame.stream >> 2 == ID);
    int fd = network_accept();
    CHECK(read(fd, got, sizeof got) == 5 && !memcmp(got, "hello", 5));
    CHECK(write(fd, "answer", 6) == 6 && !close(fd));
    world_run();
    CHECK(world_next(&frame) == TYPE_DATA && frame.stream == out_of(ID) && frame.length == 8 + 6);
    CHECK(world_next(&frame) == TYPE_ACK && frame.stream == in_of(ID) && u64_at(frame.payload) == 5);
    CHECK(world_next(&frame) == TYPE_EOF && u64_at(frame.payload) == 6);
    CHECK(!world_next(&frame)); /* this side has not ended */
    send_u64(TYPE_EOF, in_of(ID), 5);
    world_run();
    CHECK(next_exit() == 0 && u64_at(frame.payload + 40) == 6 && u64_at(frame.payload + 48) == 0);
    CHECK(release(ID) == 0 && release(ID) == ENOENT && connections_count() == 0);
}

static void what_cannot_be_connected_has_an_errno_and_no_object(void)
{
    begin();
    CHECK(connect_errno(ID, SERVER_PORT + 3, "") == ECONNREFUSED);
    CHECK(connect_errno(ID, SERVER_PORT + 3, "10.0.0.1") == ECONNREFUSED);
    CHECK(connect_errno(ID, 0, "") == EINVAL);
    CHECK(connect_errno(ID, SERVER_PORT, "localhost") == EINVAL);
    CHECK(connect_errno(ID, SERVER_PORT, "1.2.3.4.5") == EINVAL);
    CHECK(connect_errno(5, SERVER_PORT, "") == EINVAL);
    CHECK(release(ID) == ENOENT && connections_count() == 0);
    int fd = connected(ID);
    CHECK(connect_errno(ID, SERVER_PORT, "") == EEXIST);
    CHECK(connect_errno(ID + MAX_CONNECTIONS, SERVER_PORT, "") == EEXIST);
    CHECK(release(ID) == 0);
    close(fd);
    close(connected(ID + MAX_CONNECTIONS)); /* its place is free, and this is another one */
}

static void frames_for_an_earlier_one_in_the_place_are_ignored(void)
{
    char got[16];
    begin();
    close(connected(ID));
    CHECK(release(ID) == 0);
    int fd = connected(ID + MAX_CONNECTIONS);
    send_data(ID, 0, "old", 3);
    send_u64(TYPE_EOF, in_of(ID), 3);
    send_data(ID + MAX_CONNECTIONS, 0, "new", 3);
    world_run();
    CHECK(read(fd, got, sizeof got) == 3 && !memcmp(got, "new", 3));
    CHECK(release(ID) == ENOENT);
    close(fd);
}

static void each_direction_ends_by_itself(void)
{
    char got[16];
    begin();
    int fd = connected(ID);
    send_data(ID, 0, "last", 4);
    send_u64(TYPE_EOF, in_of(ID), 4);
    world_run();
    CHECK(read(fd, got, sizeof got) == 4 && read(fd, got, sizeof got) == 0);
    CHECK(write(fd, "goes on", 7) == 7);
    world_run();
    CHECK(next_of(TYPE_DATA) && frame.length == 8 + 7);
    CHECK(write(fd, "!", 1) == 1 && !close(fd));
    world_run();
    CHECK(next_of(TYPE_DATA) && next_of(TYPE_EOF) && u64_at(frame.payload) == 8);
    CHECK(next_exit() == 0);
    CHECK(release(ID) == 0);
}

static void a_server_that_ends_first_still_gets_everything(void)
{
    char got[16];
    begin();
    int fd = connected(ID);
    CHECK(!shutdown(fd, SHUT_WR));
    world_run();
    CHECK(next_of(TYPE_EOF) && u64_at(frame.payload) == 0);
    send_data(ID, 0, "more", 4);
    world_run();
    CHECK(read(fd, got, sizeof got) == 4);
    send_u64(TYPE_EOF, in_of(ID), 4);
    world_run();
    CHECK(read(fd, got, sizeof got) == 0 && next_exit() == 0);
    close(fd);
}

static void a_reset_is_told_after_what_came_before_it(void)
{
    begin();
    int fd = connected(ID);
    CHECK(write(fd, "some", 4) == 4);
    world_run();
    network_abort(fd);
    world_run();
    CHECK(next_of(TYPE_DATA) && frame.length == 8 + 4);
    CHECK(next_exit() == ECONNRESET && u64_at(frame.payload + 40) == 4);
    send_data(ID, 0, "late", 4);
    world_run();
    CHECK(!world_next(&frame) && release(ID) == 0);
}

static void a_server_that_takes_nothing_more_resets_after_its_answer(void)
{
    begin();
    int fd = connected(ID);
    CHECK(write(fd, "too much", 8) == 8);
    close(fd);
    world_run(); /* its end is told */
    for (uint64_t i = 0; i < 3; i++) {
        send_data(ID, i * 1000, block, 1000);
        world_run();
    }
    CHECK(next_of(TYPE_DATA) && next_of(TYPE_EOF) && next_exit() == ECONNRESET);
    CHECK(release(ID) == 0);
}

static void releasing_an_open_one_resets_it(void)
{
    char got[16];
    begin();
    int fd = connected(ID);
    CHECK(release(ID) == 0 && connections_count() == 0);
    CHECK(read(fd, got, sizeof got) == -1 && errno == ECONNRESET);
    close(fd);
}

static void an_ended_one_is_released_without_a_reset(void)
{
    char got[16];
    begin();
    int fd = connected(ID);
    shutdown(fd, SHUT_WR);
    world_run();
    send_data(ID, 0, "bye", 3);
    send_u64(TYPE_EOF, in_of(ID), 3);
    world_frame(TYPE_RELEASE, EPOCH, ID << 2, NULL, 0); /* in one go, without waiting for the EXIT */
    world_run();
    CHECK(read(fd, got, sizeof got) == 3 && read(fd, got, sizeof got) == 0);
    CHECK(next_reply() == 0 && connections_count() == 0);
    close(fd);
}

static void giving_up_while_connecting_gets_two_answers(void)
{
    begin();
    send_connect(ID, SILENT_PORT, "");
    world_run();
    CHECK(!world_next(&frame) && connections_count() == 1);
    send_data(ID, 0, "waits", 5);
    world_frame(TYPE_RELEASE, EPOCH, ID << 2, NULL, 0);
    world_run();
    CHECK(next_reply() == ECANCELED && next_reply() == 0 && connections_count() == 0 && blocks_used() == 0);
}

static void what_is_decided_later_is_answered_later(void)
{
    char got[16];
    begin();
    send_connect(ID, SILENT_PORT, "127.0.0.1");
    send_data(ID, 0, "early", 5);
    world_run();
    CHECK(!world_next(&frame));
    network_decide(true);
    world_run();
    CHECK(next_reply() == 0 && frame.stream >> 2 == ID);
    int fd = network_accept();
    CHECK(read(fd, got, sizeof got) == 5 && release(ID) == 0);
    close(fd);
    send_connect(ID, SILENT_PORT, "127.0.0.1");
    send_data(ID, 0, "early", 5);
    world_run();
    network_decide(false);
    world_run();
    CHECK(next_reply() == ECONNREFUSED && connections_count() == 0 && blocks_used() == 0);
}

static void a_new_host_finds_none(void)
{
    char got[16];
    int fds[3];
    begin();
    int before = world_descriptors();
    for (uint32_t i = 0; i < 3; i++)
        fds[i] = connected(ID + i);
    send_connect(ID + 3, SILENT_PORT, "");
    world_run();
    world_hello(EPOCH + 1, NULL, 0);
    world_run();
    CHECK(next_of(TYPE_HELLO_ACK) && u32_at(frame.payload + 40) == 0 && connections_count() == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(read(fds[i], got, sizeof got) == -1 && errno == ECONNRESET);
        close(fds[i]);
    }
    CHECK(world_descriptors() == before + 1); /* the server's */
}

static void output_waits_for_the_window_and_goes_on(void)
{
    uint64_t total = 0, sent = 0;
    begin();
    int fd = connected(ID);
    for (int i = 0; i < 40; i++) {
        ssize_t n = write(fd, block, sizeof block);
        total += n > 0 ? (uint64_t)n : 0;
        world_run();
    }
    sent = received_of(ID);
    CHECK(sent == STREAM_WINDOW_BYTES && total > sent);
    while (sent < total) {
        send_u64(TYPE_ACK, out_of(ID), sent);
        world_run();
        uint64_t more = received_of(ID);
        CHECK(more > 0 && more <= STREAM_WINDOW_BYTES);
        if (!more)
            break;
        sent += more;
    }
    CHECK(sent == total);
    close(fd);
}

static void stuck_ones_leave_room_for_others(void)
{
    enum { MANY = 200 };
    static int fds[MANY];
    uint64_t sum = 0, above = 0;
    begin();
    for (uint32_t i = 0; i < MANY; i++) {
        fds[i] = connected(ID + i);
        for (int k = 0; k < 6; k++) {
            CHECK(write(fds[i], block, sizeof block) != 0);
            world_run();
        }
        uint64_t n = received_of(ID + i);
        CHECK(n >= CONNECTION_FREE_BYTES && n <= STREAM_WINDOW_BYTES);
        sum += n;
        above += n - CONNECTION_FREE_BYTES;
    }
    CHECK(above <= MAX_BUFFERED_BYTES && sum > MAX_BUFFERED_BYTES / 2);
    int fd = connected(ID + MANY); /* nobody reads the others, and yet this one moves */
    uint64_t moved = 0;
    for (int i = 0; i < 200 && moved < 300000; i++) {
        CHECK(write(fd, block, sizeof block) != 0);
        world_run();
        moved += received_of(ID + MANY);
        send_u64(TYPE_ACK, out_of(ID + MANY), moved);
    }
    CHECK(moved >= 300000);
    for (uint32_t i = 0; i < MANY; i++)
        close(fds[i]);
    close(fd);
    for (uint32_t i = 0; i <= MANY; i++) {
        CHECK(release(ID + i) == 0);
        received_of(ID); /* drops what the others send with the room that this one had */
    }
    fd = connected(ID); /* and what they had comes back */
    uint64_t sent = 0;
    for (int i = 0; i < 8; i++) {
        CHECK(write(fd, block, sizeof block) != 0);
        world_run();
        sent += received_of(ID);
    }
    CHECK(sent == STREAM_WINDOW_BYTES);
    close(fd);
}

static void input_is_acknowledged_when_the_socket_has_it(void)
{
    uint64_t sent = 0, kept = 0, got = 0;
    begin();
    int fd = connected(ID);
    while (sent - kept + sizeof block <= STREAM_WINDOW_BYTES) { /* until the sockets are full */
        send_data(ID, sent, block, sizeof block);
        sent += sizeof block;
        world_run();
        while (next_of(TYPE_ACK))
            kept = u64_at(frame.payload);
    }
    CHECK(kept > 0 && sent > kept && blocks_used() >= (sent - kept) / BLOCK_BYTES);
    while (got < sent) {
        ssize_t n = read(fd, block, sizeof block);
        got += n > 0 ? (uint64_t)n : 0;
        world_run();
    }
    while (next_of(TYPE_ACK))
        kept = u64_at(frame.payload);
    CHECK(kept == sent && blocks_used() == 0);
    close(fd);
}

static void a_host_beyond_its_rights_loses_the_connection(void)
{
    begin();
    int fd = connected(ID);
    send_data(ID, 1, "gap", 3);
    world_run();
    CHECK(next_exit() == EPROTO && release(ID) == 0);
    close(fd);
    fd = connected(ID);
    send_u64(TYPE_EOF, in_of(ID), 0);
    send_data(ID, 0, "after the end", 13);
    world_run();
    CHECK(next_exit() == EPROTO && release(ID) == 0);
    close(fd);
    fd = connected(ID);
    for (uint64_t sent = 0; sent < 100u << 20 && connections_count(); sent += sizeof block) {
        send_data(ID, sent, block, sizeof block); /* the server reads nothing, the host does not mind */
        world_run();
        if (next_exit() == EPROTO)
            CHECK(release(ID) == 0);
    }
    CHECK(connections_count() == 0 && blocks_used() == 0);
    close(fd);
    send_connect(ID, SILENT_PORT, "");
    send_data(ID, 5, "gap", 3);
    world_run();
    CHECK(next_reply() == EPROTO && connections_count() == 0);
}

static void thousands_at_once(void)
{
    enum { MANY = 2000 };
    static int fds[MANY];
    char got[16];
    begin();
    for (uint32_t i = 0; i < MANY; i++) {
        send_connect(ID + i, SERVER_PORT, "");
        send_data(ID + i, 0, &i, sizeof i);
    }
    world_run();
    for (int i = 0; i < MANY; i++) {
        uint32_t number = MANY;
        CHECK(next_reply() == 0);
        fds[i] = network_accept();
        CHECK(read(fds[i], &number, sizeof number) == sizeof number && number < MANY);
        CHECK(write(fds[i], &number, sizeof number) == sizeof number);
        close(fds[i]);
    }
    world_run();
    int answers = 0;
    while (world_next(&frame))
        if (frame.type == TYPE_DATA)
            answers += frame.stream >> 2 == ID + u32_at(frame.payload + 8);
    CHECK(answers == MANY && read(-1, got, 1) == -1);
    for (uint32_t i = 0; i < MANY; i++)
        CHECK(release(ID + i) == 0);
    CHECK(connections_count() == 0);
}

int main(void)
{
    world_init();
    RUN(a_request_goes_out_with_the_connect);
    RUN(what_cannot_be_connected_has_an_errno_and_no_object);
    RUN(frames_for_an_earlier_one_in_the_place_are_ignored);
    RUN(each_direction_ends_by_itself);
    RUN(a_server_that_ends_first_still_gets_everything);
    RUN(a_reset_is_told_after_what_came_before_it);
    RUN(a_server_that_takes_nothing_more_resets_after_its_answer);
    RUN(releasing_an_open_one_resets_it);
    RUN(an_ended_one_is_released_without_a_reset);
    RUN(giving_up_while_connecting_gets_two_answers);
    RUN(what_is_decided_later_is_answered_later);
    RUN(a_new_host_finds_none);
    RUN(output_waits_for_the_window_and_goes_on);
    RUN(stuck_ones_leave_room_for_others);
    RUN(input_is_acknowledged_when_the_socket_has_it);
    RUN(a_host_beyond_its_rights_loses_the_connection);
    RUN(thousands_at_once);
    world_reset();
    return test_summary("connection_test");
}
