/* The system's chance and its clocks, the same in every run. Loaded before a simulation's process (`again.rs`), for what draws or asks by itself: the maps of the
 * standard library, tokio when it wakes several who watch the same, the date in answers of hyper, h2 which forgets a stream a second after it was reset. Chance is
 * each thread's own, so that it is so much for which thread comes first. Clocks stand still: a slow machine is none that more happens on. */

#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { SECONDS = 1795000000 };

static uint64_t draw(void) {
  static __thread uint64_t state;
  state += 0x9e3779b97f4a7c15;
  uint64_t mixed = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

ssize_t getrandom(void *buffer, size_t length, unsigned flags) {
  (void)flags;
  for (size_t at = 0; at < length; at++) ((unsigned char *)buffer)[at] = (unsigned char)(draw() >> 56);
  return (ssize_t)length;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC) return (int)syscall(SYS_clock_gettime, clock, time);
  time->tv_sec = SECONDS;
  time->tv_nsec = 0;
  return 0;
}
