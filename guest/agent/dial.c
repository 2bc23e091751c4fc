#include "dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Returns the length of what was parsed, 0 if it is no address. */
static socklen_t parse(const char *text, uint16_t port, union address *address)
{
    *address = (union address){.v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)}};
    if (inet_pton(AF_INET6, text, &address->v6.sin6_addr) == 1)
        return sizeof address->v6;
    *address = (union address){.v4 = {.sin_family = AF_INET, .sin_port = htons(port)}};
    return inet_pton(AF_INET, text, &address->v4.sin_addr) == 1 ? sizeof address->v4 : 0;
}

int dial_result(int fd)
{
    union address peer;
    int error = 0;
    socklen_t error_length = sizeof error, peer_length = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_length))
        return -errno;
    if (error)
        return -error;
    return getpeername(fd, &peer.any, &peer_length) ? -EINPROGRESS : 0;
}

int dial(const char *address, uint16_t port, int *fd)
{
    static const int yes = 1;
    union address peer;
    socklen_t length = parse(address, port, &peer);
    *fd = -1;
    if (!length)
        return -EINVAL;
    *fd = socket(peer.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0)
        return -errno;
    setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    int error = connect(*fd, &peer.any, length) ? -errno : 0;
    if (error == -EINPROGRESS) /* over the loopback device it has usually been decided within the call */
        error = dial_result(*fd);
    if (error && error != -EINPROGRESS) {
        close(*fd);
        *fd = -1;
    }
    return error;
}
