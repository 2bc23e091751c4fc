/* The agent as a whole, on this machine: real processes, terminals and files behind the real loop. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "test.h"

static struct client client;
static struct client_agent agent;

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})
#define SHELL(script) ARGV("sh", "-c", script)

static int run(uint32_t flags, const char *const *argv)
{
    int error = client_exec(&client, flags, "/", argv);
    if (!error)
        client_until(&client, &client.exit.seen);
    return error;
}

static bool output_is(unsigned channel, const char *expected)
{
    unsigned which = channel == CHANNEL_ERROR;
    return client.received[which] == strlen(expected) && !memcmp(client.bytes[which], expected, strlen(expected));
}

static void output_errors_and_status_come_apart(void)
{
    CHECK(run(0, SHELL("echo out; echo err >&2; exit 7")) == 0);
    CHECK(output_is(CHANNEL_OUTPUT, "out\n") && output_is(CHANNEL_ERROR, "err\n"));
    CHECK(client.exit.code == 7 && client.exit.signal == 0 && client.ended[0] && client.ended[1]);
    CHECK(client_release(&client) == 0 && client_release(&client) == ENOENT);
}

static void a_signal_is_told_from_a_code(void)
{
    CHECK(run(0, SHELL("kill -TERM $$")) == 0 && client.exit.code == -1 && client.exit.signal == SIGTERM);
    client_release(&client);
}

static void failures_to_start_have_their_errno(void)
{
    CHECK(client_exec(&client, 0, "/", ARGV("no-such-program")) == ENOENT);
    CHECK(client_exec(&client, 0, "/", ARGV("/no/such/program")) == ENOENT);
    CHECK(client_exec(&client, 0, "/", ARGV("/etc/passwd")) == EACCES);
    CHECK(client_exec(&client, 0, "/no/such/directory", ARGV("true")) == ENOENT);
    CHECK(client_exec(&client, 0, "/etc/passwd", ARGV("true")) == ENOTDIR);
}

static void input_reaches_the_process_and_ends(void)
{
    CHECK(client_exec(&client, EXEC_STDIN, "/", ARGV("cat")) == 0);
    client_input(&client, 0, "hello ", 6);
    client_input(&client, 6, "world", 5);
    client_input_end(&client, 11);
    client_until(&client, &client.exit.seen);
    CHECK(output_is(CHANNEL_OUTPUT, "hello world") && client.exit.code == 0 && client.input_kept == 11);
    client_release(&client);
}

static void without_input_there_is_an_end_at_once(void)
{
    CHECK(run(0, ARGV("cat")) == 0 && client.received[0] == 0 && client.exit.code == 0);
    client_release(&client);
}

static void a_terminal_is_one(void)
{
    CHECK(run(EXEC_TERMINAL, SHELL("test -t 0 && test -t 1 && test -t 2 && stty size && echo ok >/dev/tty")) == 0);
    CHECK(output_is(CHANNEL_OUTPUT, "33 99\r\nok\r\n") && client.exit.code == 0);
    client_release(&client);
}

static void a_terminal_can_be_resized_typed_at_and_ended(void)
{
    uint8_t size[4] = {50, 0, 132, 0};
    CHECK(client_exec(&client, EXEC_TERMINAL | EXEC_STDIN, "/", SHELL("read line; stty size; cat")) == 0);
    CHECK(client_request(&client, TYPE_RESIZE, client.object << 2, size, 4, NULL) == 0);
    client_input(&client, 0, "\nabc\n", 5);
    client_input_end(&client, 5);
    client_until(&client, &client.exit.seen);
    CHECK(client.exit.code == 0);
    CHECK(memmem(client.bytes[0], client.received[0], "\r\nabc\r\n50 132\r\nabc\r\n", 20));
    client_release(&client);
}

static void control_c_interrupts(void)
{
    CHECK(client_exec(&client, EXEC_TERMINAL | EXEC_STDIN, "/", SHELL("echo ready; exec cat")) == 0);
    client_until_bytes(&client, CHANNEL_OUTPUT, 7);
    client_input(&client, 0, "\x03", 1);
    client_until(&client, &client.exit.seen);
    CHECK(client.exit.signal == SIGINT);
    client_release(&client);
}

static void a_process_starts_with_clean_signals_and_descriptors(void)
{
    CHECK(run(0, SHELL("grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd; umask")) == 0);
    const char *expected = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n0\n1\n2\n3\n0022\n";
    CHECK(output_is(CHANNEL_OUTPUT, expected));
    client_release(&client);
}

static void what_is_left_behind_goes_on_and_its_output_is_dropped(void)
{
    char script[256], path[128];
    snprintf(path, sizeof path, "%s/left-behind", agent.directory);
    snprintf(script, sizeof script, "(sleep 0.3; echo late; echo later; : >%s) & echo early", path);
    CHECK(run(0, SHELL(script)) == 0);
    CHECK(output_is(CHANNEL_OUTPUT, "early\n") && client_release(&client) == 0);
    for (int i = 0; i < 300 && access(path, F_OK); i++)
        poll(NULL, 0, 10);
    CHECK(access(path, F_OK) == 0); /* a closed pipe would have ended it before */
}

static void releasing_kills(void)
{
    CHECK(client_exec(&client, 0, "/", SHELL("echo $$; exec sleep 100")) == 0);
    client_until_bytes(&client, CHANNEL_OUTPUT, 2);
    pid_t pid = atoi((const char *)client.bytes[0]);
    CHECK(kill(pid, 0) == 0 && client_release(&client) == 0);
    for (int i = 0; i < 200 && kill(pid, 0) == 0; i++) /* it is the agent's child: reaped there */
        poll(NULL, 0, 10);
    CHECK(kill(pid, 0) == -1);
}

static void resuming_loses_and_doubles_nothing(void)
{
    CHECK(client_exec(&client, 0, "/", SHELL("seq 1 150000; exit 3")) == 0);
    for (uint64_t step = 1; !client.exit.seen && step < 6; step++) {
        client_until_bytes(&client, CHANNEL_OUTPUT, step * 100000);
        client_disconnect(&client); /* in the middle of whatever is on its way */
        client_connect(&client, agent.socket_path);
        CHECK(client.hello_count == 1);
    }
    client_until(&client, &client.exit.seen);
    CHECK(client.exit.code == 3 && client.received[0] == client.exit.output_end);
    char line[16];
    uint64_t at = 0;
    for (int i = 1; i <= 150000; i++) {
        int n = snprintf(line, sizeof line, "%d\n", i);
        if (memcmp(client.bytes[0] + at, line, (size_t)n)) {
            CHECK(!"every line once");
            break;
        }
        at += (uint64_t)n;
    }
    CHECK(at == client.received[0]);
    client_disconnect(&client);
    client_connect(&client, agent.socket_path);
    CHECK(client.hello_count == 1 && client.hello_state == STATE_ENDED);
    CHECK(client_release(&client) == 0);
}

static void a_half_frame_of_a_dead_host_does_no_harm(void)
{
    CHECK(client_exec(&client, EXEC_STDIN, "/", ARGV("cat")) == 0);
    client_input(&client, 0, "whole ", 6);
    client_until_bytes(&client, CHANNEL_OUTPUT, 6);
    uint8_t half[FRAME_HEADER_BYTES + 10] = {FRAME_MAGIC, TYPE_DATA};
    struct writer w = {half + 4, half + sizeof half, false};
    put_u32(&w, client.epoch);
    put_u32(&w, client.object << 2 | CHANNEL_INPUT);
    put_u32(&w, 8 + 5); /* three bytes short */
    put_u64(&w, 6);
    CHECK(send(client.fd, half, sizeof half, 0) == sizeof half);
    client_disconnect(&client);
    client_connect(&client, agent.socket_path);
    CHECK(client.input_kept == 6);
    client_input(&client, 6, "again", 5);
    client_input_end(&client, 11);
    client_until(&client, &client.exit.seen);
    CHECK(output_is(CHANNEL_OUTPUT, "whole again"));
    client_release(&client);
}

static int write_file(const char *path, uint32_t flags, const char *text)
{
    uint8_t body[512];
    struct writer w = {body, body + sizeof body, false};
    client.object = 1000 + ++client.next_id;
    client.received[0] = client.received[1] = client.input_kept = 0;
    client.exit.seen = false;
    put_u32(&w, flags);
    put_u32(&w, 0640);
    put_u32(&w, getuid());
    put_u32(&w, getgid());
    put_string(&w, path);
    int error = client_request(&client, TYPE_FILE_WRITE, client.object << 2, body, (size_t)(w.at - body), NULL);
    if (error)
        return error;
    client_input(&client, 0, text, strlen(text));
    client_input_end(&client, strlen(text));
    client_until(&client, &client.exit.seen);
    client_release(&client);
    return client.exit.error;
}

static int read_file(const char *path)
{
    uint8_t body[512];
    struct writer w = {body, body + sizeof body, false};
    client.object = 1000 + ++client.next_id;
    client.received[0] = client.received[1] = 0;
    client.exit.seen = false;
    put_u64(&w, 0);
    put_u64(&w, UINT64_MAX);
    put_u32(&w, 0);
    put_string(&w, path);
    int error = client_request(&client, TYPE_FILE_READ, client.object << 2, body, (size_t)(w.at - body), NULL);
    if (error)
        return error;
    client_until(&client, &client.exit.seen);
    client_release(&client);
    return client.exit.error;
}

static int request_path(uint8_t type, uint32_t flags, const char *path, struct reader *result)
{
    uint8_t body[512];
    struct writer w = {body, body + sizeof body, false};
    put_u32(&w, flags);
    if (type == TYPE_FILE_MKDIR)
        put_u32(&w, 01755);
    if (type == TYPE_FILE_LIST)
        put_u32(&w, 0); /* the other half of the cookie */
    put_string(&w, path);
    return client_request(&client, type, 0, body, (size_t)(w.at - body), result);
}

static void files_are_written_and_read(void)
{
    CHECK(write_file("/a/file", 0, "x") == ENOENT);
    CHECK(write_file("/a/b/file", WRITE_PARENTS, "first") == 0);
    CHECK(write_file("/a/b/file", WRITE_EXCLUSIVE, "second") == EEXIST);
    CHECK(write_file("/a/b/file", WRITE_APPEND, " and more") == 0);
    CHECK(read_file("/a/b/file") == 0 && output_is(CHANNEL_OUTPUT, "first and more"));
    CHECK(write_file("/a/b/file", 0, "other") == 0);
    CHECK(read_file("a/b/../b/file") == 0 && output_is(CHANNEL_OUTPUT, "other"));
    CHECK(write_file("/a/b", 0, "x") == EISDIR && read_file("/a/b") == EISDIR && read_file("/a/none") == ENOENT);
    CHECK(write_file("/", 0, "x") == EISDIR && write_file("/a/b/..", 0, "x") == EINVAL);
}

static void paths_and_symlinks_stay_in_the_root(void)
{
    char link[128];
    snprintf(link, sizeof link, "%s/out", agent.root_path);
    CHECK(symlink("../../../../../../../../etc", link) == 0);
    snprintf(link, sizeof link, "%s/absolute", agent.root_path);
    CHECK(symlink("/etc/passwd", link) == 0);
    CHECK(read_file("/out/passwd") == ENOENT && read_file("/absolute") == ENOENT);
    CHECK(read_file("/../../../../../../../etc/passwd") == ENOENT);
    CHECK(write_file("/etc/passwd", WRITE_PARENTS, "inside") == 0);
    CHECK(read_file("/out/passwd") == 0 && output_is(CHANNEL_OUTPUT, "inside"));
}

static void a_write_that_is_given_up_leaves_nothing(void)
{
    uint8_t body[64];
    char name[128];
    struct writer w = {body, body + sizeof body, false};
    client.object = 1000 + ++client.next_id;
    put_u32(&w, 0);
    put_u32(&w, 0644);
    put_u64(&w, 0);
    put_string(&w, "/given-up");
    CHECK(client_request(&client, TYPE_FILE_WRITE, client.object << 2, body, (size_t)(w.at - body), NULL) == 0);
    client_input(&client, 0, "half", 4);
    CHECK(client_release(&client) == 0);
    snprintf(name, sizeof name, "ls -A %s | grep -E 'given-up|mayfly'", agent.root_path);
    CHECK(system(name) != 0);
}

static void directories_are_made_listed_and_removed(void)
{
    struct reader r;
    char name[64];
    CHECK(request_path(TYPE_FILE_MKDIR, 0, "/x/y/z", NULL) == ENOENT);
    CHECK(request_path(TYPE_FILE_MKDIR, MKDIR_PARENTS, "/x/y/z", NULL) == 0);
    CHECK(request_path(TYPE_FILE_MKDIR, MKDIR_PARENTS, "/x/y/z", NULL) == 0);
    CHECK(request_path(TYPE_FILE_MKDIR, 0, "/x/y/z", NULL) == EEXIST);
    CHECK(write_file("/x/y/z/file", 0, "x") == 0);
    CHECK(request_path(TYPE_FILE_STAT, 0, "/x/y/z", &r) == 0 && take_u32(&r) == (S_IFDIR | 01755));
    CHECK(request_path(TYPE_FILE_LIST, 0, "/x/y/z", &r) == 0 && take_u64(&r) == 0);
    take_bytes(&r, 48);
    take_string(&r, name, sizeof name);
    CHECK(name[0] == 0);
    take_string(&r, name, sizeof name);
    CHECK(!strcmp(name, "file") && reader_done(&r));
    CHECK(request_path(TYPE_FILE_REMOVE, 0, "/x", NULL) == ENOTEMPTY);
    CHECK(request_path(TYPE_FILE_REMOVE, REMOVE_RECURSIVE, "/x", NULL) == 0);
    CHECK(request_path(TYPE_FILE_REMOVE, REMOVE_RECURSIVE, "/x", NULL) == ENOENT);
    CHECK(request_path(TYPE_FILE_REMOVE, REMOVE_RECURSIVE | REMOVE_MISSING_OK, "/x", NULL) == 0);
    CHECK(request_path(TYPE_FILE_REMOVE, REMOVE_RECURSIVE, "/", NULL) == EBUSY);
    CHECK(request_path(TYPE_FILE_STAT, STAT_NOFOLLOW, "/absolute", &r) == 0 && (take_u32(&r) & S_IFMT) == S_IFLNK);
    take_bytes(&r, 44);
    take_string(&r, name, sizeof name);
    CHECK(!strcmp(name, "/etc/passwd") && reader_done(&r));
}

/* No spinning: half a second of waiting costs next to no processor time. */
static long processor_ticks(void)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)agent.pid);
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n < 0 ? 0 : n] = 0;
    unsigned long user = 0, kernel = 0;
    sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel);
    return (long)(user + kernel);
}

static void an_agent_without_a_host_does_not_spin(void)
{
    CHECK(client_exec(&client, 0, "/", ARGV("yes")) == 0);
    client_until_bytes(&client, CHANNEL_OUTPUT, 100000);
    client_disconnect(&client);
    poll(NULL, 0, 100); /* until the window is full */
    long before = processor_ticks();
    poll(NULL, 0, 500);
    CHECK(processor_ticks() - before <= 5);
    client_connect(&client, agent.socket_path);
    CHECK(client_release(&client) == 0);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    client_agent_start(&agent, argv[1]);
    client_connect(&client, agent.socket_path);
    RUN(output_errors_and_status_come_apart);
    RUN(a_signal_is_told_from_a_code);
    RUN(failures_to_start_have_their_errno);
    RUN(input_reaches_the_process_and_ends);
    RUN(without_input_there_is_an_end_at_once);
    RUN(a_terminal_is_one);
    RUN(a_terminal_can_be_resized_typed_at_and_ended);
    RUN(control_c_interrupts);
    RUN(a_process_starts_with_clean_signals_and_descriptors);
    RUN(what_is_left_behind_goes_on_and_its_output_is_dropped);
    RUN(releasing_kills);
    RUN(resuming_loses_and_doubles_nothing);
    RUN(a_half_frame_of_a_dead_host_does_no_harm);
    RUN(files_are_written_and_read);
    RUN(paths_and_symlinks_stay_in_the_root);
    RUN(a_write_that_is_given_up_leaves_nothing);
    RUN(directories_are_made_listed_and_removed);
    RUN(an_agent_without_a_host_does_not_spin);
    client_agent_stop(&agent);
    return test_summary("agent_test");
}
