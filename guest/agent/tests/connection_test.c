/* Connections over the real code and real sockets: how they begin, how each direction ends, what breaks them. */
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

static uint8_t block[1000];

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
    world_reset();
    return test_summary("connection_test");
}
