/*
 * For tests of processes that are copied while they run: has an event that has happened seven times, a connection to itself with a byte in it, and a
 * thread that counts. Reads one byte from its standard input, then tells on its output what it has found.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

static atomic_ulong counter;

static void *count(void *unused)
{
    (void)unused;
    for (;;) {
        counter++;
        usleep(1000);
    }
    return NULL;
}

int main(void)
{
    pthread_t thread;
    int ends[2];
    char line, byte;
    uint64_t happened = 0;
    int event = eventfd(7, EFD_NONBLOCK);
    if (event < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) || write(ends[1], "x", 1) != 1 || pthread_create(&thread, NULL, count, NULL))
        return 1;
    if (read(STDIN_FILENO, &line, 1) != 1)
        return 2;
    if (read(event, &happened, sizeof happened) != sizeof happened)
        happened = 0;
    int connected = (int)read(ends[0], &byte, 1);
    unsigned long before = counter;
    usleep(20000);
    dprintf(STDOUT_FILENO, "%c: %lu times, %s, its thread %s, user %u\n", line, (unsigned long)happened, connected == 1 ? "connected" : "alone",
            counter > before ? "counts" : "stands still", (unsigned)getuid());
    return 0;
}
