// Preloaded into a daemon: while a file exists, its disk answers no call on the files whose paths begin as told.
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void hang(int file, const char *variable)
{
    char entry[32], path[PATH_MAX + 1] = "";
    const char *wanted = getenv(variable), *while_there = getenv("HANGS_WHILE");
    if (!wanted || access(while_there, F_OK))
        return;
    snprintf(entry, sizeof entry, "/proc/self/fd/%d", file);
    if (readlink(entry, path, PATH_MAX) <= 0 || strncmp(path, wanted, strlen(wanted)))
        return;
    if (strstr(path, ".captured")) // one page, written over and over, which the system's memory takes
        return;
    while (!access(while_there, F_OK))
        usleep(10000);
}

int fdatasync(int file)
{
    hang(file, "HANGING_SYNC");
    return syscall(SYS_fdatasync, file);
}

int fsync(int file)
{
    hang(file, "HANGING_SYNC");
    return syscall(SYS_fsync, file);
}

ssize_t pwrite64(int file, const void *data, size_t length, off64_t offset)
{
    hang(file, "HANGING_WRITE");
    return syscall(SYS_pwrite64, file, data, length, offset);
}

ssize_t pwrite(int file, const void *data, size_t length, off_t offset)
{
    hang(file, "HANGING_WRITE");
    return syscall(SYS_pwrite64, file, data, length, offset);
}
