#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "files.h"

#define ADD_ENTROPY _IOW('R', 0x03, int[2]) /* RNDADDENTROPY */
#define RESEED_GENERATOR _IO('R', 0x07)     /* RNDRESEEDCRNG */
#define NETWORK_DEVICE "eth0"
#define ETHERNET_HARDWARE 1

static char machine_id[2 * IDENTITY_MACHINE_ID_BYTES + 2]; /* empty before the first identity */
static char hostname[MAX_HOSTNAME_BYTES + 1];
static bool wrote_hostname, wrote_hosts;

static int reseed(const uint8_t *entropy)
{
    struct {
        int bits, bytes;
        uint8_t pool[IDENTITY_ENTROPY_BYTES];
    } request = {IDENTITY_ENTROPY_BYTES * 8, IDENTITY_ENTROPY_BYTES, {0}};
    int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC), error = 0;
    if (fd < 0)
        return -errno;
    memcpy(request.pool, entropy, sizeof request.pool);
    if (ioctl(fd, ADD_ENTROPY, &request) || ioctl(fd, RESEED_GENERATOR))
        error = -errno;
    close(fd);
    memset(&request, 0, sizeof request);
    __asm__ volatile("" : : "r"(&request) : "memory"); /* keep the memset */
    return error;
}

int clock_set_realtime(uint64_t realtime_ns)
{
    struct timespec time = {(time_t)(realtime_ns / 1000000000u), (long)(realtime_ns % 1000000000u)};
    return clock_settime(CLOCK_REALTIME, &time) ? -errno : 0;
}

static bool is_missing(const char *path)
{
    int fd = files_open(path, O_PATH, 0);
    if (fd >= 0)
        close(fd);
    return fd == -ENOENT;
}

int identity_write_files(void)
{
    char text[2 * MAX_HOSTNAME_BYTES + 128];
    int error = 0;
    if (!machine_id[0])
        return 0;
    error = files_replace("/etc/machine-id", machine_id, 0444);
    if (!error && (wrote_hostname || is_missing("/etc/hostname"))) {
        snprintf(text, sizeof text, "%s\n", hostname);
        error = files_replace("/etc/hostname", text, 0644);
        wrote_hostname = true;
    }
    if (!error && (wrote_hosts || is_missing("/etc/hosts"))) {
        snprintf(text, sizeof text, "127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t%s\n", hostname);
        error = files_replace("/etc/hosts", text, 0644);
        wrote_hosts = true;
    }
    return error;
}

static int set_mac(const uint8_t *mac)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    strcpy(request.ifr_name, NETWORK_DEVICE);
    request.ifr_hwaddr.sa_family = ETHERNET_HARDWARE;
    memcpy(request.ifr_hwaddr.sa_data, mac, IDENTITY_MAC_BYTES);
    int error = ioctl(fd, SIOCSIFHWADDR, &request) ? -errno : 0;
    close(fd);
    return error;
}

int identity_apply(const struct identity *identity)
{
    static const uint8_t no_mac[IDENTITY_MAC_BYTES];
    int error = reseed(identity->entropy);
    if (!error)
        error = clock_set_realtime(identity->realtime_ns);
    if (!error && sethostname(identity->hostname, strlen(identity->hostname)))
        error = -errno;
    if (error)
        return error;
    strcpy(hostname, identity->hostname);
    for (int i = 0; i < IDENTITY_MACHINE_ID_BYTES; i++)
        snprintf(machine_id + 2 * i, 3, "%02x", identity->machine_id[i]);
    strcat(machine_id, "\n");
    error = identity_write_files();
    if (!error && memcmp(identity->mac, no_mac, sizeof no_mac))
        error = set_mac(identity->mac);
    return error;
}
