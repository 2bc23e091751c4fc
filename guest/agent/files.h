/* Files inside the workload's root. Paths and symlinks cannot lead out of it. Functions return 0 or more, or -errno. */
#ifndef MAYFLY_FILES_H
#define MAYFLY_FILES_H

#include <stdint.h>
#include <sys/types.h>

#include "wire.h"

/* Replaces the root (a directory's descriptor, owned from now on). */
void files_set_root(int fd);

/* Opens with openat2 in the root; O_CLOEXEC is added. */
int files_open(const char *path, uint64_t flags, mode_t mode);

/* Opens the directory of a path's last component and copies that into name (256 bytes). With `parents`, makes what is
 * missing on the way. */
int files_open_parent(const char *path, int parents, char *name);

int files_stat(const char *path, uint32_t flags, struct writer *result);
int files_list(const char *path, uint64_t cookie, struct writer *result);
int files_make_directory(const char *path, uint32_t flags, uint32_t mode);
int files_remove(const char *path, uint32_t flags);

/* Replaces a file's contents; its directory is made if missing. */
int files_replace(const char *path, const char *text, mode_t mode);

#endif
