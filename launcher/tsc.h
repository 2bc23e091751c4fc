#ifndef MAYFLY_TSC_H
#define MAYFLY_TSC_H

/*
 * Frequency of this machine's time stamp counter in kHz, measured against CLOCK_MONOTONIC for 100 ms. QEMU without
 * hardware acceleration hands its guests the host's counter as it is (`cpu_get_host_ticks`), so this is what a guest has
 * to be told; a wrong figure makes its clocks run fast or slow by the same factor.
 */
unsigned long tsc_khz(void);

#endif
