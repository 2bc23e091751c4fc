#include "drain.h"

#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "events.h"

#define MAX_DRAINS 64
#define READ_BYTES 4096
#define READS_AT_ONCE 16

static int fds[MAX_DRAINS];
static uint64_t used, ready;

void drain_take(int fd)
{
    if (~used == 0) {
        close(fd);
        return;
    }
    unsigned slot = (unsigned)__builtin_ctzll(~used);
    fds[slot] = fd;
    used |= 1ull << slot;
    ready |= 1ull << slot;
    events_watch(fd, EVENT_DRAIN | slot << 2, EPOLLIN);
}

void drain_event(unsigned slot) { ready |= used & 1ull << slot; }

static void drain(unsigned slot)
{
    static char dropped[READ_BYTES];
    for (int i = 0; i < READS_AT_ONCE; i++) {
        ssize_t n = read(fds[slot], dropped, sizeof dropped);
        if (n > 0 || (n < 0 && errno == EINTR))
            continue;
        ready &= ~(1ull << slot);
        if (n == 0 || errno != EAGAIN) {
            close(fds[slot]);
            used &= ~(1ull << slot);
        }
        return;
    }
}

bool drain_pump(void)
{
    for (uint64_t left = ready; left; left &= left - 1)
        drain((unsigned)__builtin_ctzll(left));
    return ready != 0;
}
