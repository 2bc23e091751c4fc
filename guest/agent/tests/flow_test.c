/* Bytes in both directions over the real code: windows, acknowledgements, resuming after a hello. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "host_side.h"
#include "session.h"
#include "test.h"
#include "wire.h"

static void an_exit_is_told_again_until_released(void)
{
    uint8_t offsets[12];
    struct writer w = {offsets, offsets + sizeof offsets, false};
    begin();
    struct world_process *p = start(5, 0);
    put_out(p, "0123456789");
    world_exit(p, SIGTERM);
    world_run();
    CHECK(next_of(TYPE_EXIT) && u32_at(frame.payload) == (uint32_t)-1 && u32_at(frame.payload + 4) == SIGTERM);
    for (uint32_t k = 1; k < 4; k++) { /* the daemon comes back, each time a little further */
        w.at = offsets;
        put_u32(&w, out_of(5));
        put_u64(&w, k * 3);
        world_hello(EPOCH + k, offsets, 1);
        world_run();
        CHECK(world_next(&frame) == TYPE_HELLO_ACK && u32_at(frame.payload + 40) == 1);
        CHECK(frame.payload[48] == KIND_PROCESS && frame.payload[49] == STATE_ENDED);
        CHECK(world_next(&frame) == TYPE_DATA && u64_at(frame.payload) == k * 3);
        CHECK(frame.length == 8 + 10 - k * 3 && frame.payload[8] == '0' + k * 3);
        CHECK(next_of(TYPE_EXIT));
    }
}

static void what_is_not_named_goes_on_from_the_acknowledged(void)
{
    begin();
    struct world_process *p = start(5, 0);
    put_out(p, "0123456789");
    world_run();
    CHECK(next_of(TYPE_DATA));
    send_u64(TYPE_ACK, out_of(5), 4);
    send_u64(TYPE_ACK, out_of(5), 11); /* beyond what was sent */
    send_u64(TYPE_ACK, out_of(5), 2);  /* back */
    world_run();
    world_hello(EPOCH + 1, NULL, 0);
    world_run();
    CHECK(next_of(TYPE_DATA) && u64_at(frame.payload) == 4 && frame.length == 8 + 6);
}

static void offsets_of_a_hello_that_make_no_sense_are_ignored(void)
{
    uint8_t offsets[36];
    struct writer w = {offsets, offsets + sizeof offsets, false};
    begin();
    struct world_process *p = start(5, 0);
    put_out(p, "0123456789");
    world_run();
    put_u32(&w, out_of(5));
    put_u64(&w, 1000);
    put_u32(&w, out_of(77));
    put_u64(&w, 1);
    put_u32(&w, 5 << 2 | CHANNEL_INPUT);
    put_u64(&w, 3);
    world_hello(EPOCH + 1, offsets, 3);
    world_run();
    CHECK(next_of(TYPE_HELLO_ACK) && next_of(TYPE_DATA) && u64_at(frame.payload) == 0 && frame.length == 18);
}

static void output_waits_for_the_window(void)
{
    static char block[65536];
    uint64_t sent = 0, written = 0;
    begin();
    struct world_process *p = start(5, 0);
    for (int i = 0; i < 200; i++) {
        ssize_t n = write(p->outputs[0], block, sizeof block);
        written += n > 0 ? (uint64_t)n : 0;
        world_run();
    }
    while (world_next(&frame) == TYPE_DATA) {
        CHECK(u64_at(frame.payload) == sent);
        sent += frame.length - 8;
    }
    CHECK(sent == STREAM_WINDOW_BYTES && written > sent);
    send_u64(TYPE_ACK, out_of(5), 1000);
    world_run();
    CHECK(world_next(&frame) == TYPE_DATA && frame.length == 8 + 1000);
}

static void one_stream_does_not_starve_another(void)
{
    static char block[65536];
    begin();
    struct world_process *first = start(5, 0);
    world_accept(0, 0); /* the host is slow: everything queues up */
    for (int i = 0; i < 20; i++) {
        CHECK(write(first->outputs[0], block, sizeof block) != 0);
        world_run();
    }
    CHECK(write(first->outputs[1], "urgent", 6) == 6);
    world_run();
    world_accept(SIZE_MAX, SIZE_MAX);
    world_run();
    int before = 0;
    while (world_next(&frame) == TYPE_DATA && frame.stream == out_of(5))
        before++;
    CHECK(frame.type == TYPE_DATA && !memcmp(frame.payload + 8, "urgent", 6));
    CHECK(before <= 10);
}

static void a_port_that_takes_one_byte_at_a_time_gets_whole_frames(void)
{
    begin();
    struct world_process *p = start(5, 0);
    for (int i = 0; i < 40; i++) {
        put_out(p, "some output that is cut everywhere");
        world_frame(TYPE_PING, EPOCH, 400, "pong", 4);
        for (int k = 0; k < 70; k++) {
            world_accept(1, 1);
            world_run();
        }
    }
    world_accept(SIZE_MAX, 7);
    world_exit(p, 0);
    world_run();
    uint64_t offset = 0;
    int pings = 0;
    while (world_next(&frame) != TYPE_EXIT && frame.type) {
        pings += frame.type == TYPE_REPLY;
        if (frame.type == TYPE_DATA && frame.stream == out_of(5)) {
            CHECK(u64_at(frame.payload) == offset);
            offset += frame.length - 8;
        }
    }
    CHECK(frame.type == TYPE_EXIT && pings == 40 && offset == 40 * 34);
}

static void a_host_that_does_not_read_gets_every_answer_later(void)
{
    static uint8_t thousand[1000];
    begin();
    world_accept(0, 0);
    for (uint32_t i = 1; i <= 300; i++)
        world_frame(TYPE_PING, EPOCH, i << 2, thousand, sizeof thousand);
    world_run();
    world_accept(SIZE_MAX, SIZE_MAX);
    world_run();
    for (uint32_t i = 1; i <= 300; i++)
        CHECK(next_reply() == 0 && frame.stream == i << 2);
}

static void input_is_acknowledged_when_the_process_has_it(void)
{
    static uint8_t block[60000];
    char got[64];
    begin();
    struct world_process *p = start(5, EXEC_STDIN);
    send_data(5, 0, "abc", 3);
    send_data(5, 3, "def", 3);
    world_run();
    CHECK(next_of(TYPE_ACK) && frame.stream == (5 << 2 | CHANNEL_INPUT) && u64_at(frame.payload) == 6);
    CHECK(read(p->input, got, sizeof got) == 6);
    send_data(5, 6, block, sizeof block);
    send_data(5, 60006, block, sizeof block); /* more than a pipe holds */
    world_run();
    CHECK(next_of(TYPE_ACK));
    uint64_t kept = u64_at(frame.payload);
    CHECK(kept >= 60006 && kept < 120006);
    world_hello(EPOCH + 1, NULL, 0); /* the rest is for the host to send again */
    world_run();
    CHECK(next_of(TYPE_HELLO_ACK) && u64_at(frame.payload + 52) == kept);
}

static void end_of_input_closes_it_once_all_is_delivered(void)
{
    char got[64];
    begin();
    struct world_process *p = start(5, EXEC_STDIN);
    send_data(5, 0, "abc", 3);
    send_u64(TYPE_EOF, 5 << 2 | CHANNEL_INPUT, 4); /* not where the stream stands */
    world_run();
    CHECK(read(p->input, got, sizeof got) == 3 && read(p->input, got, sizeof got) == -1);
    send_u64(TYPE_EOF, 5 << 2 | CHANNEL_INPUT, 3);
    world_run();
    CHECK(read(p->input, got, sizeof got) == 0);
}

static void a_process_that_closes_its_input_takes_everything(void)
{
    static uint8_t block[60000];
    begin();
    struct world_process *p = start(5, EXEC_STDIN);
    close(p->input);
    p->input = -1;
    for (uint64_t i = 0; i < 10; i++) /* far more than the window: it is acknowledged and dropped */
        send_data(5, i * sizeof block, block, sizeof block);
    world_run();
    uint64_t kept = 0;
    while (next_of(TYPE_ACK))
        kept = u64_at(frame.payload);
    CHECK(kept == 10 * sizeof block);
}

static void an_expected_frame_is_read_as_soon_as_it_is_there(void)
{
    begin();
    world_frame(TYPE_PING, EPOCH, 4, "a", 1);
    world_late(200);
    session_expect();
    session_receive();
    session_send();
    CHECK(world_next(&frame) == TYPE_REPLY && frame.stream == 4);
    /* From then on nothing more is expected. */
    world_frame(TYPE_PING, EPOCH, 8, "b", 1);
    world_late(1);
    session_port_event();
    session_receive();
    session_send();
    CHECK(!world_next(&frame));
    session_port_event();
    session_receive();
    session_send();
    CHECK(world_next(&frame) == TYPE_REPLY && frame.stream == 8);
}

int main(void)
{
    world_init();
    RUN(an_expected_frame_is_read_as_soon_as_it_is_there);
    RUN(an_exit_is_told_again_until_released);
    RUN(what_is_not_named_goes_on_from_the_acknowledged);
    RUN(offsets_of_a_hello_that_make_no_sense_are_ignored);
    RUN(output_waits_for_the_window);
    RUN(one_stream_does_not_starve_another);
    RUN(a_port_that_takes_one_byte_at_a_time_gets_whole_frames);
    RUN(a_host_that_does_not_read_gets_every_answer_later);
    RUN(input_is_acknowledged_when_the_process_has_it);
    RUN(end_of_input_closes_it_once_all_is_delivered);
    RUN(a_process_that_closes_its_input_takes_everything);
    world_reset();
    return test_summary("flow_test");
}
