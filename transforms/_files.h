/* Stretches of files: what lies in memory is copied at once, and what a disk must fetch is asked for ahead. */

#ifndef MEDMLLM_FILES_H
#define MEDMLLM_FILES_H

#if !defined(_WIN32)
#define HAVE_FILES

#include <fcntl.h>
#include <stdint.h>
#include <sys/uio.h>
#include <unistd.h>

/* How many files a disk is asked for before the first of them is needed. */
enum { AHEAD = 16 };

/* How much of a stretch lies in memory, copied; 0 where that can't be asked without waiting for a disk. */
static ssize_t read_cached(int file, int64_t offset, void *into, size_t size)
{
#if defined(RWF_NOWAIT)
    struct iovec part = {into, size};
    const ssize_t count = preadv2(file, &part, 1, (off_t)offset, RWF_NOWAIT);
    return count < 0 ? 0 : count;
#else
    (void)file, (void)offset, (void)into, (void)size;
    return 0;
#endif
}

static void ask_for(int file, int64_t offset, size_t size)
{
#if defined(POSIX_FADV_WILLNEED)
    posix_fadvise(file, (off_t)offset, (off_t)size, POSIX_FADV_WILLNEED);
#else
    (void)file, (void)offset, (void)size;
#endif
}

/* Stretches of `size` bytes, one of each file, read in turn. */
typedef struct {
    const char *const *names;
    const int64_t *offsets;
    Py_ssize_t count, asked; /* how many there are, and how many were opened and asked for */
    size_t size;
    int files[AHEAD];
} Stretches;

static int open_stretch(const Stretches *all, Py_ssize_t n)
{
    return all->offsets[n] < 0 ? -1 : open(all->names[n], O_RDONLY | O_CLOEXEC);
}

/* Whether the next stretch, the `n`th, was all there. */
static int read_stretch(Stretches *all, Py_ssize_t n, char *into)
{
    int64_t offset = all->offsets[n];
    size_t left = all->size;
    const int file = n < all->asked ? all->files[n % AHEAD] : open_stretch(all, n);
    if (file < 0)
        return 0;
    for (int first = 1; left; first = 0) {
        ssize_t count = first ? read_cached(file, offset, into, left) : 0;
        if (first && (size_t)count < left) { /* the disk is needed: it shall fetch the next ones meanwhile */
            if (n >= all->asked) {
                all->files[n % AHEAD] = file;
                all->asked = n + 1;
                ask_for(file, offset, left);
            }
            for (; all->asked < all->count && all->asked < n + AHEAD; all->asked++) {
                const int next = open_stretch(all, all->asked);
                all->files[all->asked % AHEAD] = next;
                if (next >= 0)
                    ask_for(next, all->offsets[all->asked], all->size);
            }
        }
        if (!first && (count = pread(file, into, left, (off_t)offset)) <= 0)
            break;
        into += count;
        offset += count;
        left -= (size_t)count;
    }
    close(file);
    return left == 0;
}

/* Closes what was opened ahead of the `n`th. */
static void close_stretches(const Stretches *all, Py_ssize_t n)
{
    for (; n < all->asked; n++)
        if (all->files[n % AHEAD] >= 0)
            close(all->files[n % AHEAD]);
}

#endif
#endif
