/* The agent's init, over a real process: here not PID 1, but in nothing else another. */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "client.h"
#include "test.h"

#define BEHIND_INIT (EXEC_FIRST | EXEC_INIT)
#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})
#define SHELL(script) ARGV("sh", "-c", script)

static struct client client;
static struct client_agent agent;

static int run(const char *const *argv)
{
    int error = client_exec(&client, BEHIND_INIT, "/", argv);
    if (!error)
        client_until(&client, &client.exit.seen);
    return error;
}

static void a_command_runs_behind_it(void)
{
    CHECK(run(SHELL("ps -o args= $PPID; exit 7")) == 0 && client.exit.code == 7 && client.exit.signal == 0);
    CHECK(client.received[0] > 12 && !memcmp(client.bytes[0], "mayfly-init ", 12));
    client_release(&client);
}

static void failures_to_start_have_their_errno(void)
{
    CHECK(run(ARGV("no-such-program")) == ENOENT);
    CHECK(run(ARGV("/etc/passwd")) == EACCES);
    CHECK(client_exec(&client, BEHIND_INIT, "/no/such/directory", ARGV("true")) == ENOENT);
}

static void signals_reach_the_command_and_not_init(void)
{
    uint8_t terminate[8] = {SIGTERM};
    CHECK(client_exec(&client, BEHIND_INIT, "/", SHELL("trap 'exit 5' TERM; echo; while :; do sleep 0.01; done")) == 0);
    client_until_bytes(&client, CHANNEL_OUTPUT, 1);
    CHECK(client_request(&client, TYPE_SIGNAL, client.object << 2, terminate, sizeof terminate, NULL) == 0);
    client_until(&client, &client.exit.seen);
    CHECK(client.exit.code == 5 && client.exit.signal == 0 && client_release(&client) == 0);
}

static void a_signal_that_ends_the_command_is_a_code(void)
{
    CHECK(run(SHELL("kill -9 $$")) == 0 && client.exit.code == 128 + SIGKILL && client.exit.signal == 0);
    client_release(&client);
}

static void its_output_ends_with_the_command(void)
{
    CHECK(run(SHELL("echo out; echo err >&2; exec >&- 2>&-; sleep 0.05; exit 3")) == 0);
    CHECK(client.received[0] == 4 && client.received[1] == 4 && client.exit.code == 3);
    client_release(&client);
}

int main(int argc, char **argv)
{
    static const uint8_t container[] = {[20] = 5, 0, 'e', 'r', 'o', 'f', 's', 0, 0};
    static const uint8_t flags[4];
    if (argc != 2)
        return 2;
    client_agent_start(&agent, argv[1]);
    client_connect(&client, agent.socket_path);
    if (client_request(&client, TYPE_CONTAINER, 0, container, sizeof container, NULL))
        return 1;
    RUN(a_command_runs_behind_it);
    RUN(failures_to_start_have_their_errno);
    RUN(signals_reach_the_command_and_not_init);
    RUN(a_signal_that_ends_the_command_is_a_code);
    RUN(its_output_ends_with_the_command);
    if (client_request(&client, TYPE_TEARDOWN, 0, flags, sizeof flags, NULL))
        return 1;
    client_agent_stop(&agent);
    return test_summary("init_test");
}
