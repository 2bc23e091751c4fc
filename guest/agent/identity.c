#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "container.h"
#include "files.h"

#define ADD_ENTROPY _IOW('R', 0x03, int[2]) /* RNDADDENTROPY */
#define RESEED_GENERATOR _IO('R', 0x07)     /* RNDRESEEDCRNG */
#define NETWORK_DEVICE "eth0"
#define ETHERNET_HARDWARE 1
#define MACHINE_ID "/etc/machine-id"
#define MACHINE_ID_MAPPING 4096

static char machine_id[2 * IDENTITY_MACHINE_ID_BYTES + 2]; /* empty before the first identity */
static char hostname[MAX_HOSTNAME_BYTES + 1];

/* What containers see instead of files of their image: /run is none of the image's, and outlives each container. */
#define FILES "/run/etc"
const struct identity_file identity_files[] = {
    {FILES "/hostname", "/etc/hostname"},
    {FILES "/hosts", "/etc/hosts"},
    {FILES "/resolv.conf", "/etc/resolv.conf"},
    {MACHINE_ID, "/etc/machine-id"},
    {NULL, NULL},
};
enum { HOSTNAME_FILE, HOSTS_FILE, RESOLVER_FILE, MACHINE_ID_FILE, FILE_COUNT };
static int file_fds[FILE_COUNT] = {-1, -1, -1, -1}; /* kept open: a clone then walks no path */

/*
 * The machine-id of the agent's own root as a page of memory, mapped before a template is saved: a clone then only copies bytes.
 * (Under emulation every kernel path that a clone is the first to take costs milliseconds.)
 */
static char *machine_id_page;
static int machine_id_fd = -1;
static int random_fd = -1;

static bool own_root(void) { return !container_exists(); }

void identity_prepare(void)
{
    struct stat status;
    if (!own_root() || !machine_id[0])
        return;
    if (machine_id_page && !fstat(machine_id_fd, &status) && status.st_nlink == 1 &&
        status.st_size == (off_t)strlen(machine_id)) {
        memcpy(machine_id_page, machine_id, strlen(machine_id));
        return;
    }
    if (machine_id_page)
        munmap(machine_id_page, MACHINE_ID_MAPPING);
    if (machine_id_fd >= 0)
        close(machine_id_fd);
    machine_id_page = NULL; /* whatever fails now, the next identity writes the file */
    if (files_replace(MACHINE_ID, machine_id, 0444))
        return;
    machine_id_fd = files_open(MACHINE_ID, O_RDWR, 0);
    if (machine_id_fd < 0)
        return;
    void *page = mmap(NULL, MACHINE_ID_MAPPING, PROT_READ | PROT_WRITE, MAP_SHARED, machine_id_fd, 0);
    if (page == MAP_FAILED)
        return;
    machine_id_page = page;
    memcpy(machine_id_page, machine_id, strlen(machine_id));
}

static int reseed(const uint8_t *entropy)
{
    struct {
        int bits, bytes;
        uint8_t pool[IDENTITY_ENTROPY_BYTES];
    } request = {IDENTITY_ENTROPY_BYTES * 8, IDENTITY_ENTROPY_BYTES, {0}};
    int error = 0;
    if (random_fd < 0)
        random_fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (random_fd < 0)
        return -errno;
    memcpy(request.pool, entropy, sizeof request.pool);
    if (ioctl(random_fd, ADD_ENTROPY, &request) || ioctl(random_fd, RESEED_GENERATOR))
        error = -errno;
    memset(&request, 0, sizeof request);
    __asm__ volatile("" : : "r"(&request) : "memory"); /* keep the memset */
    return error;
}

int clock_set_realtime(uint64_t realtime_ns)
{
    struct timespec time = {(time_t)(realtime_ns / 1000000000u), (long)(realtime_ns % 1000000000u)};
    return clock_settime(CLOCK_REALTIME, &time) ? -errno : 0;
}

/* Writes a file of the agent's; it stays the same file, which a container has mounted. */
static int write_file(unsigned file, const char *text, mode_t mode)
{
    size_t length = strlen(text);
    if (file_fds[file] < 0)
        file_fds[file] = open(identity_files[file].path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, mode);
    if (file_fds[file] < 0 || ftruncate(file_fds[file], (off_t)length))
        return -errno;
    ssize_t n = pwrite(file_fds[file], text, length, 0);
    return n == (ssize_t)length ? 0 : n < 0 ? -errno : -ENOSPC;
}

int identity_write_files(void)
{
    char text[2 * MAX_HOSTNAME_BYTES + 128];
    if (mkdir(FILES, 0755) && errno != EEXIST)
        return -errno;
    strcat(strcpy(text, hostname), "\n");
    int error = write_file(HOSTNAME_FILE, text, 0644);
    strcpy(text, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t");
    strcat(strcat(text, hostname), "\n");
    if (!error)
        error = write_file(HOSTS_FILE, text, 0644);
    if (!error)
        error = write_file(RESOLVER_FILE, "", 0644);
    return error ? error : write_file(MACHINE_ID_FILE, machine_id, 0444);
}

/* In the agent's own root. */
static int write_machine_id(void)
{
    /* Only since a freeze is it sure that nothing has truncated the file under the mapping. */
    if (machine_id_page && cgroup_state.identity_pending) {
        memcpy(machine_id_page, machine_id, strlen(machine_id));
        return 0;
    }
    return files_replace(MACHINE_ID, machine_id, 0444);
}

static int set_hostname(const char *name)
{
    if (sethostname(name, strlen(name)))
        return -errno;
    return container_exists() ? container_set_hostname(name) : 0;
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
    if (!error)
        error = set_hostname(identity->hostname);
    if (error)
        return error;
    strcpy(hostname, identity->hostname);
    char *hex = machine_id;
    for (int i = 0; i < IDENTITY_MACHINE_ID_BYTES; i++) {
        *hex++ = "0123456789abcdef"[identity->machine_id[i] >> 4];
        *hex++ = "0123456789abcdef"[identity->machine_id[i] & 15];
    }
    strcpy(hex, "\n");
    error = own_root() ? write_machine_id() : identity_write_files();
    if (!error && memcmp(identity->mac, no_mac, sizeof no_mac))
        error = set_mac(identity->mac);
    return error;
}
