/*
 * Takes the place of libfdt's fdt_create() in a lean QEMU (ld's --wrap). QEMU makes a device tree in a buffer of 1 MiB that is zero
 * already, and fdt_create() writes zeroes over all of it: a megabyte of every microvm that nobody reads. A tree is empty when it is
 * created; QEMU gives it the whole buffer right afterwards (fdt_open_into() in system/device_tree.c), which writes nothing beyond
 * the tree's end.
 */
#include <stdint.h>

/* Room for what QEMU writes before that: an empty root node. */
#define EMPTY_TREE_BYTES 4096

extern int fdt_create_with_flags(void *buffer, int size, uint32_t flags);

int __wrap_fdt_create(void *buffer, int size)
{
    return fdt_create_with_flags(buffer, size < EMPTY_TREE_BYTES ? size : EMPTY_TREE_BYTES, 0);
}
