/* The agent as an ordinary process on a unix socket, to test clients against. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cgroup.h"
#include "connection.h"
#include "deferred.h"
#include "events.h"
#include "files.h"
#include "init.h"
#include "loop.h"
#include "session.h"
#include "stream.h"

static int connection = -1, listener = -1;

static _Noreturn void die(const char *what, int error)
{
    fprintf(stderr, "mayfly-agent-host: cannot %s: %s\n", what, strerror(-error));
    exit(1);
}

static void require(int error, const char *what)
{
    if (error < 0)
        die(what, error);
}

/* Takes the next host, if there is one and the last has gone: like the port, one at a time. */
static void accept_host(void)
{
    if (connection >= 0 || listener < 0)
        return;
    connection = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (connection < 0)
        return;
    require(events_watch(connection, EVENT_PORT, EPOLLIN | EPOLLOUT | EPOLLRDHUP), "watch the connection");
    session_port_event();
}

static void disconnected(void)
{
    if (listener < 0)
        exit(0);
    close(connection);
    connection = -1;
    accept_host();
}

static ssize_t port_read(void *bytes, size_t n)
{
    if (connection < 0)
        return -EAGAIN;
    ssize_t got = read(connection, bytes, n);
    if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)))
        return got < 0 ? -errno : got;
    disconnected();
    return -EINTR;
}

static ssize_t port_write(const void *bytes, size_t n)
{
    if (connection < 0)
        return -EAGAIN;
    ssize_t put = send(connection, bytes, n, MSG_NOSIGNAL);
    if (put >= 0 || errno == EAGAIN || errno == EINTR)
        return put < 0 ? -errno : put;
    disconnected();
    return -EINTR;
}

static void other_event(uint32_t event)
{
    if (event == EVENT_LISTEN)
        accept_host();
}

static void listen_on(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        die(path, -ENAMETOOLONG);
    strcpy(address.sun_path, path);
    unlink(path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8))
        die(path, -errno);
    require(events_watch(listener, EVENT_LISTEN, EPOLLIN), "watch the socket");
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: mayfly-agent-host (--fd N | --listen PATH) [--root DIR]\n");
    exit(2);
}

int main(int argc, char **argv)
{
    static const struct port port = {port_read, port_write};
    if (argc > 0 && !strcmp(argv[0], INIT_NAME))
        init_run(argv[1]);
    const char *root = "/", *listen_path = NULL, *fd_text = NULL;
    for (int i = 1; i < argc; i += 2) {
        const char **value = !strcmp(argv[i], "--fd")       ? &fd_text
                             : !strcmp(argv[i], "--listen") ? &listen_path
                             : !strcmp(argv[i], "--root")   ? &root
                                                            : NULL;
        if (!value || i + 1 == argc)
            usage();
        *value = argv[i + 1];
    }
    if (!fd_text == !listen_path)
        usage();
    umask(0);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* no test leaves one behind */
    require(loop_init(), "make the event loop");
    require(streams_init(), "reserve memory for streams");
    require(connections_init(), "reserve memory for connections");
    require(deferred_init(), "share a page with children");
    int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    require(root_fd < 0 ? -errno : 0, root);
    files_set_root(root_fd);
    session_init(&port);
    if (fd_text) {
        connection = atoi(fd_text);
        fcntl(connection, F_SETFD, FD_CLOEXEC);
        require(fcntl(connection, F_SETFL, fcntl(connection, F_GETFL) | O_NONBLOCK) ? -errno : 0, "use the descriptor");
        require(events_watch(connection, EVENT_PORT, EPOLLIN | EPOLLOUT | EPOLLRDHUP), "watch the descriptor");
    } else {
        listen_on(listen_path);
    }
    loop_run(other_event);
}
