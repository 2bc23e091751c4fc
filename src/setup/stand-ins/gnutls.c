/*
 * What QEMU calls of GnuTLS when it speaks no TLS: its source of random numbers. These come from the kernel, as in a QEMU
 * that is built without GnuTLS (crypto/random-platform.c).
 */
#include <errno.h>
#include <stddef.h>
#include <sys/random.h>

#define E_RANDOM_FAILED (-206) /* gnutls/gnutls.h */

int gnutls_global_init(void)
{
    return 0;
}

int gnutls_rnd(int level, void *data, size_t length)
{
    char *bytes = data;
    (void)level;
    while (length > 0) {
        ssize_t got = getrandom(bytes, length, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return E_RANDOM_FAILED;
        bytes += got;
        length -= (size_t)got;
    }
    return 0;
}
