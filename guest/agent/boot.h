/* What PID 1 does before it can answer. */
#ifndef MAYFLY_BOOT_H
#define MAYFLY_BOOT_H

/* Says on the console what could not be done, and restarts the machine, which ends QEMU. Never returns. */
_Noreturn void boot_failed(const char *what, int error);

/* Mounts, modules, loopback, limits. Ends in boot_failed if it cannot. */
void boot_machine(void);

/* Waits for the host's port and opens it, non-blocking. Ends in boot_failed if it does not appear. */
int boot_open_port(void);

#endif
