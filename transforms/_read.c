/* Stretches of files read into one buffer without the interpreter's lock: the loops of stored_bits.py and
 * beginnings.py, which do the same in Python and say what is wrong where this stops.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

enum { AHEAD = 16 };

/* Whether `size` bytes at `offset` were all there; closes the file. */
static int read_whole(int file, int64_t offset, char *into, Py_ssize_t size)
{
    while (file >= 0 && size > 0) {
        ssize_t count = pread(file, into, (size_t)size, (off_t)offset);
        if (count <= 0)
            break;
        into += count;
        offset += count;
        size -= count;
    }
    if (file >= 0)
        close(file);
    return file >= 0 && size == 0;
}

/* How many of `count` stretches of `size` bytes were read, up to the first that isn't there. */
static Py_ssize_t read_stretches(const char **names, int64_t *offsets, char *out, Py_ssize_t count, Py_ssize_t size)
{
    int files[AHEAD];
    for (Py_ssize_t first = 0; first < count; first += AHEAD) {
        const Py_ssize_t some = count - first < AHEAD ? count - first : AHEAD;
        Py_ssize_t whole = 0;
        const int64_t *starts = offsets + first;
        for (Py_ssize_t n = 0; n < some; n++) { /* a cold disk fetches the next while the first is read */
            files[n] = starts[n] < 0 ? -1 : open(names[first + n], O_RDONLY | O_CLOEXEC);
#if defined(POSIX_FADV_WILLNEED)
            if (files[n] >= 0)
                posix_fadvise(files[n], (off_t)starts[n], (off_t)size, POSIX_FADV_WILLNEED);
#endif
        }
        for (Py_ssize_t n = 0; n < some; n++)
            if (read_whole(files[n], starts[n], out + (first + n) * size, size) && whole == n)
                whole++;
        if (whole < some)
            return first + whole;
    }
    return count;
}

/* The first bytes of `count` files, up to `size` of each; `found` gets how many there were, and the bytes of the file,
 * below 0 where it can't be read.
 */
static Py_ssize_t read_beginnings(const char **names, int64_t *found, char *out, Py_ssize_t count, Py_ssize_t size)
{
    int files[AHEAD];
    for (Py_ssize_t n = 0; n < count + AHEAD; n++) {
        int *file = &files[n % AHEAD];
        if (n >= AHEAD) {
            int64_t *mine = found + 2 * (n - AHEAD);
            mine[0] = *file < 0 ? -1 : pread(*file, out + (n - AHEAD) * size, (size_t)size, 0);
            mine[1] = mine[0] < 0 ? -1 : lseek(*file, 0, SEEK_END);
            if (*file >= 0)
                close(*file);
        }
        *file = n < count ? open(names[n], O_RDONLY | O_CLOEXEC) : -1;
#if defined(POSIX_FADV_RANDOM)
        if (*file >= 0) { /* a cold disk would also read ahead into pixels that nobody asked for */
            posix_fadvise(*file, 0, 0, POSIX_FADV_RANDOM);
            posix_fadvise(*file, 0, (off_t)size, POSIX_FADV_WILLNEED);
        }
#endif
    }
    return count;
}

typedef Py_ssize_t Work(const char **, int64_t *, char *, Py_ssize_t, Py_ssize_t);

/* What `work` does with (paths, 64-bit numbers, `each` for a path, and the buffer of which each path has its part). */
static PyObject *do_all(PyObject *arguments, Work *work, Py_ssize_t each)
{
    PyObject *paths, *result = NULL;
    Py_buffer numbers, out;
    if (!PyArg_ParseTuple(arguments, "O!w*w*", &PyTuple_Type, &paths, &numbers, &out))
        return NULL;
    Py_ssize_t count = PyTuple_Size(paths), done = 0;
    const char **names = PyMem_Malloc((size_t)(count ? count : 1) * sizeof *names);
    if (!names) {
        PyErr_NoMemory();
    } else if (numbers.len != each * count * (Py_ssize_t)sizeof(int64_t) || (uintptr_t)numbers.buf % sizeof(int64_t) ||
               (count && out.len % count)) {
        PyErr_SetString(PyExc_ValueError, "as many 64-bit numbers as paths need, and equal parts of the buffer");
    } else {
        char *name;
        for (Py_ssize_t n = 0; n < count && !PyBytes_AsStringAndSize(PyTuple_GetItem(paths, n), &name, NULL); n++)
            names[n] = name;
        if (!PyErr_Occurred()) {
            Py_BEGIN_ALLOW_THREADS
            done = work(names, numbers.buf, out.buf, count, count ? out.len / count : 0);
            Py_END_ALLOW_THREADS
            result = PyLong_FromSsize_t(done);
        }
    }
    PyMem_Free((void *)names);
    PyBuffer_Release(&numbers);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *read_all(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    return do_all(arguments, read_stretches, 1);
}

static PyObject *read_first(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    return do_all(arguments, read_beginnings, 2);
}

static PyMethodDef METHODS[] = {
    {"read_all", read_all, METH_VARARGS, "How many of the stretches, from the first, were read whole."},
    {"read_first", read_first, METH_VARARGS, "The first bytes of each file, how many, and the bytes of the file."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_read", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__read(void)
{
    return PyModule_Create(&MODULE);
}
