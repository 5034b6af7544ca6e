/* The time of day of a case, for a process that this is loaded into before all else (LD_PRELOAD). It stands still, as in a
 * bed, at what the file says that WEIR_CASE_CLOCK names: nanoseconds since 1970, in 8 bytes. Other clocks go on. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *now;

__attribute__((constructor)) static void find(void) {
    const char *name = getenv("WEIR_CASE_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *map = file >= 0 ? mmap(NULL, sizeof *now, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
    if (map == MAP_FAILED) {
        static const char why[] = "clock.c: WEIR_CASE_CLOCK names no file that can be read\n";
        if (write(2, why, sizeof why - 1) < 0 || 1) _exit(1);
    }
    now = map;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (now && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t nanos = *now;
        time->tv_sec = nanos / 1000000000;
        time->tv_nsec = nanos % 1000000000;
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, clock, time);
}

int gettimeofday(struct timeval *time, void *zone) {
    struct timespec exact;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &exact);
    time->tv_sec = exact.tv_sec;
    time->tv_usec = exact.tv_nsec / 1000;
    return result;
}

time_t time(time_t *into) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (into) *into = exact.tv_sec;
    return exact.tv_sec;
}
