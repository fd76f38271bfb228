/* Calls that change a disk, counted below one folder; one of them, or all from it on, fails or ends the process.

   Preloaded into Python, it stands between SQLite, DuckDB and the interpreter on one side and the kernel on the
   other. Nothing is counted before `shim_arm`. Each counted call is logged with what a model of the disk needs to
   make it again: one struct `entry`, then the path, the second path and the bytes written. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { COUNT, KILL_BEFORE, KILL_AFTER, TEAR, FAIL_BEFORE, FAIL_AFTER };

struct entry {
    char call[16];
    uint64_t inode;
    int64_t offset; /* of a write; the size that a file is cut or extended to */
    uint32_t made;  /* the call made the file or folder */
    uint32_t emptied;
    uint32_t path, other, bytes; /* lengths of what follows */
    uint32_t failed;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static enum action action;
static long place, count;
static int failure, lasting, log_file = -1;

/* Arms the shim: from now on calls below `folder` count, and the one of number `at` meets its fate. */
void shim_arm(const char *folder, int what, long at, int error, int forever, const char *log) {
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    action = what, place = at, failure = error, lasting = forever, count = 0;
    log_file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

static int below(const char *path) {
    return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* Gives the path of an open file; what has lost its name keeps the one it had, with a mark that is cut off. */
static int named(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0 && below(path);
}

static int placed(int folder, const char *name, char *path) {
    if (!root_length || !name) return 0;
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return below(path);
    }
    char base[PATH_MAX];
    if (folder == AT_FDCWD) {
        if (syscall(SYS_getcwd, base, sizeof base) < 0) return 0;
    } else if (!named(folder, base)) {
        return 0;
    }
    return snprintf(path, PATH_MAX, "%s/%s", base, name) < PATH_MAX && below(path);
}

static uint64_t inode_of(const char *path) {
    struct stat found;
    return fstatat(AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) ? 0 : found.st_ino;
}

static uint64_t inode_at(int descriptor) {
    struct stat found;
    return fstat(descriptor, &found) ? 0 : found.st_ino;
}

static void record(struct entry *entry, const char *path, const char *other, const void *bytes, long length) {
    entry->path = strlen(path), entry->other = other ? strlen(other) : 0, entry->bytes = length > 0 ? length : 0;
    struct iovec parts[] = {
        {entry, sizeof *entry},
        {(void *)path, entry->path},
        {(void *)other, entry->other},
        {(void *)bytes, entry->bytes},
    };
    if (log_file >= 0) syscall(SYS_writev, log_file, parts, 4);
}

static void die(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

static int struck(void) { return action != COUNT && (count == place || (lasting && count > place)); }

/* Runs one call under the lock: `MAKE` gives its result, `entry`, `path` and the rest are the caller's. */
#define COUNTED(name, MAKE, OTHER, BYTES, LENGTH)                                        \
    do {                                                                                 \
        snprintf(entry.call, sizeof entry.call, "%s", name);                             \
        count++;                                                                         \
        if (struck() && action == KILL_BEFORE) die();                                    \
        if (struck() && action == FAIL_BEFORE) {                                         \
            entry.failed = 1;                                                            \
            record(&entry, path, OTHER, NULL, 0);                                        \
            result = -1, errno = failure;                                                \
        } else {                                                                         \
            MAKE;                                                                        \
            int found = errno;                                                           \
            if (result < 0) entry.failed = 1;                                            \
            record(&entry, path, OTHER, BYTES, result < 0 ? 0 : (long)(LENGTH));         \
            if (struck() && (action == KILL_AFTER || action == TEAR)) die();             \
            errno = found;                                                               \
            if (struck() && action == FAIL_AFTER && result >= 0) result = -1, errno = failure; \
        }                                                                                \
        pthread_mutex_unlock(&mutex);                                                    \
    } while (0)

static int opened(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    int changes = (flags & (O_CREAT | O_TRUNC)) || (flags & O_ACCMODE) != O_RDONLY;
    if (!changes || !placed(folder, name, path)) return syscall(SYS_openat, folder, name, flags, mode);
    struct entry entry = {0};
    int result;
    pthread_mutex_lock(&mutex);
    entry.made = !inode_of(path);
    entry.emptied = !!(flags & O_TRUNC);
    COUNTED("open",
            {
                result = syscall(SYS_openat, folder, name, flags, mode);
                if (result >= 0) entry.inode = inode_at(result);
                if (result >= 0 && struck() && action == FAIL_AFTER) syscall(SYS_close, result);
            },
            NULL, NULL, 0);
    return result;
}

#define MODE                               \
    mode_t mode = 0;                       \
    if (flags & (O_CREAT | O_TMPFILE)) {   \
        va_list more;                      \
        va_start(more, flags);             \
        mode = va_arg(more, mode_t);       \
        va_end(more);                      \
    }

int open(const char *name, int flags, ...) { MODE return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE return opened(AT_FDCWD, name, flags, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE return opened(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE return opened(folder, name, flags, mode); }

static ssize_t written(int descriptor, const void *bytes, size_t length, int64_t offset) {
    char path[PATH_MAX];
    if (!root_length || !named(descriptor, path))
        return offset < 0 ? syscall(SYS_write, descriptor, bytes, length)
                          : syscall(SYS_pwrite64, descriptor, bytes, length, offset);
    struct entry entry = {0};
    ssize_t result;
    pthread_mutex_lock(&mutex);
    entry.inode = inode_at(descriptor);
    int end = syscall(SYS_fcntl, descriptor, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR;
    entry.offset = offset >= 0 ? offset : syscall(SYS_lseek, descriptor, 0, end);
    COUNTED("write",
            {
                size_t part = struck() && action == TEAR ? length / 2 : length;
                result = offset < 0 ? syscall(SYS_write, descriptor, bytes, part)
                                    : syscall(SYS_pwrite64, descriptor, bytes, part, offset);
            },
            NULL, bytes, result);
    return result;
}

ssize_t write(int descriptor, const void *bytes, size_t length) { return written(descriptor, bytes, length, -1); }
ssize_t pwrite(int d, const void *bytes, size_t length, off_t at) { return written(d, bytes, length, at); }
ssize_t pwrite64(int d, const void *bytes, size_t length, off64_t at) { return written(d, bytes, length, at); }

/* What a descriptor names changes or is synced. */
static int changed(int descriptor, const char *name, int64_t size, long call, long a, long b, long c) {
    char path[PATH_MAX];
    if (!root_length || !named(descriptor, path)) return syscall(call, descriptor, a, b, c);
    struct entry entry = {0};
    int result;
    pthread_mutex_lock(&mutex);
    entry.inode = inode_at(descriptor), entry.offset = size;
    COUNTED(name, { result = syscall(call, descriptor, a, b, c); }, NULL, NULL, 0);
    return result;
}

int fsync(int descriptor) { return changed(descriptor, "sync", 0, SYS_fsync, 0, 0, 0); }
int fdatasync(int descriptor) { return changed(descriptor, "sync", 0, SYS_fdatasync, 0, 0, 0); }
int ftruncate(int d, off_t size) { return changed(d, "truncate", size, SYS_ftruncate, size, 0, 0); }
int ftruncate64(int d, off64_t size) { return changed(d, "truncate", size, SYS_ftruncate, size, 0, 0); }
int fchmod(int d, mode_t mode) { return changed(d, "chmod", 0, SYS_fchmod, mode, 0, 0); }
int fallocate(int d, int mode, off_t at, off_t length) {
    return changed(d, "allocate", at + length, SYS_fallocate, mode, at, length);
}

/* A name is made, taken away or given to something else. */
static int renamed(int folder, const char *name, int folder2, const char *name2) {
    char path[PATH_MAX], other[PATH_MAX];
    if (!placed(folder, name, path) || !placed(folder2, name2, other))
        return syscall(SYS_renameat2, folder, name, folder2, name2, 0);
    struct entry entry = {0};
    int result;
    pthread_mutex_lock(&mutex);
    entry.inode = inode_of(path);
    COUNTED("rename", { result = syscall(SYS_renameat2, folder, name, folder2, name2, 0); }, other, NULL, 0);
    return result;
}

int rename(const char *name, const char *to) { return renamed(AT_FDCWD, name, AT_FDCWD, to); }
int renameat(int folder, const char *name, int folder2, const char *to) { return renamed(folder, name, folder2, to); }

static int unlinked(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    if (!placed(folder, name, path)) return syscall(SYS_unlinkat, folder, name, flags);
    struct entry entry = {0};
    int result;
    pthread_mutex_lock(&mutex);
    entry.inode = inode_of(path);
    COUNTED(flags ? "rmdir" : "unlink", { result = syscall(SYS_unlinkat, folder, name, flags); }, NULL, NULL, 0);
    return result;
}

int unlink(const char *name) { return unlinked(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinked(AT_FDCWD, name, AT_REMOVEDIR); }
int unlinkat(int folder, const char *name, int flags) { return unlinked(folder, name, flags); }
int remove(const char *name) {
    struct stat found;
    int is_folder = !fstatat(AT_FDCWD, name, &found, AT_SYMLINK_NOFOLLOW) && S_ISDIR(found.st_mode);
    return unlinked(AT_FDCWD, name, is_folder ? AT_REMOVEDIR : 0);
}

static int folder_made(int folder, const char *name, mode_t mode) {
    char path[PATH_MAX];
    if (!placed(folder, name, path)) return syscall(SYS_mkdirat, folder, name, mode);
    struct entry entry = {0};
    int result;
    pthread_mutex_lock(&mutex);
    entry.made = 1;
    COUNTED("mkdir",
            {
                result = syscall(SYS_mkdirat, folder, name, mode);
                if (!result) entry.inode = inode_of(path);
            },
            NULL, NULL, 0);
    return result;
}

int mkdir(const char *name, mode_t mode) { return folder_made(AT_FDCWD, name, mode); }
int mkdirat(int folder, const char *name, mode_t mode) { return folder_made(folder, name, mode); }

static int mode_set(int folder, const char *name, mode_t mode) {
    char path[PATH_MAX];
    if (!placed(folder, name, path)) return syscall(SYS_fchmodat, folder, name, mode);
    struct entry entry = {0};
    int result;
    pthread_mutex_lock(&mutex);
    COUNTED("chmod", { result = syscall(SYS_fchmodat, folder, name, mode); }, NULL, NULL, 0);
    return result;
}

int chmod(const char *name, mode_t mode) { return mode_set(AT_FDCWD, name, mode); }
int fchmodat(int folder, const char *name, mode_t mode, int flags) { return (void)flags, mode_set(folder, name, mode); }
