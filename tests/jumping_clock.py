"""A clock that jumps, for one process: the time of day is set forth and back, and nothing else changes."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

COMPILER = shutil.which("cc")

_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

/* The time of day is so many seconds later as a file says, which may change at any time; time that is counted
   from the start of the machine, and so every wait, is as it is. */
static volatile const long long *later;

__attribute__((constructor)) static void begin(void) {
  int fd = open(getenv("JUMPING_CLOCK"), O_RDONLY | O_CLOEXEC);
  later = mmap(NULL, sizeof *later, PROT_READ, MAP_SHARED, fd, 0);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (real == NULL)
    real = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(clock, now);
  if (!failed && later != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += *later;
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec found;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &found))
    return -1;
  now->tv_sec = found.tv_sec;
  now->tv_usec = found.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *now) {
  struct timespec found;
  clock_gettime(CLOCK_REALTIME, &found);
  if (now != NULL)
    *now = found.tv_sec;
  return found.tv_sec;
}
"""


class JumpingClock:
    """The time of day of processes that have its environment."""

    def __init__(self, folder: Path) -> None:
        """Make it; a C compiler is needed, see `COMPILER`."""
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(_CLOCK, "utf-8")
        subprocess.run(
            [str(COMPILER), "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True
        )
        self._later = folder / "clock"
        self.jump(0)
        self.environment = {"LD_PRELOAD": str(library), "JUMPING_CLOCK": str(self._later)}

    def jump(self, seconds: int) -> None:
        """Have it be so much later than it is, or earlier, from now on."""
        with self._later.open("r+b" if self._later.exists() else "wb") as file:
            file.write(struct.pack("q", seconds))
