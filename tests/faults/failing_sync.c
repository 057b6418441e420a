// Preloaded into a daemon: its disk fails to take the file whose path a file says, and all others are taken.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int file)
{
    char wanted[PATH_MAX + 1] = "", entry[32], path[PATH_MAX + 1] = "";
    int told = open(getenv("FAILING_SYNC"), O_RDONLY | O_CLOEXEC);
    if (told < 0)
        return 0;
    ssize_t length = read(told, wanted, PATH_MAX);
    close(told);
    snprintf(entry, sizeof entry, "/proc/self/fd/%d", file);
    return length > 0 && readlink(entry, path, PATH_MAX) > 0 && !strcmp(path, wanted);
}

int fdatasync(int file)
{
    if (fails(file)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_fdatasync, file);
}
