#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "connection.h"
#include "events.h"
#include "protocol.h"

static int listener = -1, watched[MAX_CONNECTIONS], watched_end; /* by place: a descriptor and one, or 0 */
static struct sockaddr_in server;
static int undecided = -1; /* the last socket that was to connect to SILENT_PORT */

int __real_connect(int fd, const struct sockaddr *address, socklen_t length);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length);

int events_watch(int fd, uint32_t event, uint32_t epoll_events)
{
    (void)epoll_events;
    if (!(event & EVENT_CONNECTION))
        return 0;
    int place = (int)(event & (MAX_CONNECTIONS - 1));
    watched[place] = fd + 1;
    if (place >= watched_end)
        watched_end = place + 1;
    return 0;
}

static void open_server(void)
{
    socklen_t length = sizeof server;
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&server, length) || listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&server, &length))
        abort();
}

/* Nothing leaves this program, whatever the agent was told to connect to. */
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    int port = ntohs(((const struct sockaddr_in *)address)->sin_port); /* at the same place in both families */
    (void)length;
    errno = port == SILENT_PORT ? EINPROGRESS : ECONNREFUSED;
    if (port == SILENT_PORT)
        undecided = fd;
    if (port != SERVER_PORT || address->sa_family != AF_INET)
        return -1;
    if (listener < 0)
        open_server();
    return __real_connect(fd, (struct sockaddr *)&server, sizeof server);
}

int network_accept(void) { return listener < 0 ? -1 : accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK); }

void network_decide(bool works)
{
    struct sockaddr_in nowhere = {.sin_family = AF_INET, .sin_port = htons(1), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (listener < 0)
        open_server();
    __real_connect(undecided, (struct sockaddr *)(works ? &server : &nowhere), sizeof server);
}

void network_abort(int fd)
{
    struct linger at_once = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
}

void network_events(void)
{
    for (int place = 0; place < watched_end; place++) {
        struct pollfd entry = {watched[place] - 1, POLLIN | POLLOUT | POLLRDHUP, 0};
        if (!watched[place] || poll(&entry, 1, 0) < 1)
            continue;
        if (entry.revents & POLLNVAL)
            watched[place] = 0;
        else if ((entry.revents & ~POLLHUP) != POLLOUT || entry.revents == POLLOUT) /* not what an unconnected one says */
            connection_event((unsigned)place, (uint32_t)(unsigned short)entry.revents); /* the same bits as epoll's */
    }
}

void network_reset(void)
{
    if (listener >= 0)
        close(listener);
    listener = -1;
    memset(watched, 0, sizeof *watched * (size_t)watched_end);
    watched_end = 0;
}
