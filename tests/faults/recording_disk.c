// Preloaded into a daemon: records what it does to the files in a folder, in order, with all that it writes.
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct record {
    uint64_t time_ns, inode, offset;
    uint32_t path_bytes, data_bytes, thread;
    char what;
} __attribute__((packed));

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static size_t folder_bytes;
static int recording = -1;

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("RECORDING");
    folder = getenv("RECORDED_FOLDER");
    if (!file || !folder)
        return;
    folder_bytes = strlen(folder);
    recording = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static int is_ours(const char *path)
{
    return !strncmp(path, folder, folder_bytes) && (!path[folder_bytes] || path[folder_bytes] == '/');
}

// Whether it is open on something in the folder; a path that lost its name is one, too.
static int path_of(int file, char *path)
{
    char entry[32] = "/proc/self/fd/", *end = entry + strlen(entry);
    struct stat found;
    if (recording < 0 || fstat(file, &found) || !(S_ISREG(found.st_mode) || S_ISDIR(found.st_mode)))
        return 0;
    char digits[12];
    int count = 0;
    for (int rest = file; rest || !count; rest /= 10)
        digits[count++] = '0' + rest % 10;
    while (count)
        *end++ = digits[--count];
    *end = 0;
    ssize_t length = readlink(entry, path, PATH_MAX);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return is_ours(path);
}

static uint64_t inode_of(int file)
{
    struct stat found;
    return fstat(file, &found) ? 0 : found.st_ino;
}

static int is_folder(int file)
{
    struct stat found;
    return !fstat(file, &found) && S_ISDIR(found.st_mode);
}

// One process and one thread at a time: the order of the records is that of what they tell.
static void take_turn(void)
{
    pthread_mutex_lock(&turn);
    flock(recording, LOCK_EX);
}

static void give_turn(void)
{
    flock(recording, LOCK_UN);
    pthread_mutex_unlock(&turn);
}

static void tell(char what, uint64_t inode, uint64_t offset, const char *path, const void *data, size_t length)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct record record = {now.tv_sec * 1000000000ull + now.tv_nsec, inode, offset, strlen(path), length,
                            syscall(SYS_gettid), what};
    struct iovec parts[] = {{&record, sizeof record}, {(void *)path, record.path_bytes}, {(void *)data, length}};
    if (syscall(SYS_writev, recording, parts, 3) < 0)
        abort();
}

static ssize_t written(int file, const void *data, size_t length, off_t offset, int at_position)
{
    char path[PATH_MAX + 1];
    int ours = path_of(file, path);
    if (ours) {
        take_turn();
        if (at_position)
            offset = lseek(file, 0, SEEK_CUR);
    }
    ssize_t done = at_position ? syscall(SYS_write, file, data, length)
                               : syscall(SYS_pwrite64, file, data, length, offset);
    if (ours) {
        if (done > 0)
            tell('w', inode_of(file), offset, path, data, done);
        give_turn();
    }
    return done;
}

ssize_t write(int file, const void *data, size_t length) { return written(file, data, length, 0, 1); }
ssize_t pwrite64(int file, const void *data, size_t length, off64_t at) { return written(file, data, length, at, 0); }
ssize_t pwrite(int file, const void *data, size_t length, off_t at) { return written(file, data, length, at, 0); }

static int truncated(int file, off_t length)
{
    char path[PATH_MAX + 1];
    int ours = path_of(file, path);
    if (ours)
        take_turn();
    int done = syscall(SYS_ftruncate, file, length);
    if (ours) {
        if (!done)
            tell('t', inode_of(file), length, path, "", 0);
        give_turn();
    }
    return done;
}

int ftruncate(int file, off_t length) { return truncated(file, length); }
int ftruncate64(int file, off64_t length) { return truncated(file, length); }

// What was written before it began is on the disk when it ends.
static int synced(int file, long call)
{
    char path[PATH_MAX + 1];
    int ours = path_of(file, path);
    if (ours) {
        take_turn();
        tell(is_folder(file) ? 'B' : 'b', inode_of(file), 0, path, "", 0);
        give_turn();
    }
    int done = syscall(call, file);
    if (ours && !done) {
        take_turn();
        tell(is_folder(file) ? 'S' : 's', inode_of(file), 0, path, "", 0);
        give_turn();
    }
    return done;
}

int fsync(int file) { return synced(file, SYS_fsync); }
int fdatasync(int file) { return synced(file, SYS_fdatasync); }

static int opened(int at, const char *path, int flags, mode_t mode)
{
    if (recording < 0 || !(flags & (O_CREAT | O_TRUNC)) || !is_ours(path))
        return syscall(SYS_openat, at, path, flags, mode);
    take_turn();
    int is_new = syscall(SYS_faccessat, at, path, F_OK);
    int file = syscall(SYS_openat, at, path, flags, mode);
    if (file >= 0 && is_new)
        tell('c', inode_of(file), 0, path, "", 0);
    else if (file >= 0 && flags & O_TRUNC)
        tell('t', inode_of(file), 0, path, "", 0);
    give_turn();
    return file;
}

#define OPENED(at)                                                                                             \
    mode_t mode = 0;                                                                                           \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                       \
        va_list more;                                                                                          \
        va_start(more, flags);                                                                                 \
        mode = va_arg(more, mode_t);                                                                           \
        va_end(more);                                                                                          \
    }                                                                                                          \
    return opened(at, path, flags, mode)

int open(const char *path, int flags, ...) { OPENED(AT_FDCWD); }
int open64(const char *path, int flags, ...) { OPENED(AT_FDCWD); }
int openat(int at, const char *path, int flags, ...) { OPENED(at); }
int openat64(int at, const char *path, int flags, ...) { OPENED(at); }

int rename(const char *from, const char *to)
{
    int ours = recording >= 0 && is_ours(from);
    if (ours)
        take_turn();
    int done = syscall(SYS_rename, from, to);
    if (ours) {
        if (!done)
            tell('r', 0, 0, from, to, strlen(to));
        give_turn();
    }
    return done;
}

int unlink(const char *path)
{
    int ours = recording >= 0 && is_ours(path);
    if (ours)
        take_turn();
    int done = syscall(SYS_unlink, path);
    if (ours) {
        if (!done)
            tell('u', 0, 0, path, "", 0);
        give_turn();
    }
    return done;
}

int mkdir(const char *path, mode_t mode)
{
    int ours = recording >= 0 && is_ours(path);
    if (ours)
        take_turn();
    int done = syscall(SYS_mkdir, path, mode);
    if (ours) {
        if (!done)
            tell('d', 0, 0, path, "", 0);
        give_turn();
    }
    return done;
}
