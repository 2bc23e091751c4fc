/* Connections over the real code and real sockets: windows, acknowledgements, what they may take in sum. */
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
    RUN(output_waits_for_the_window_and_goes_on);
    RUN(stuck_ones_leave_room_for_others);
    RUN(input_is_acknowledged_when_the_socket_has_it);
    RUN(a_host_beyond_its_rights_loses_the_connection);
    RUN(thousands_at_once);
    world_reset();
    return test_summary("connection_flow_test");
}
