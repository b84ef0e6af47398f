/* Stretches of files read into one buffer without the interpreter's lock: the loops of stored_bits.py and
 * beginnings.py, which do the same in Python and say what is wrong where this stops.
 */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "_files.h"

/* Beginnings that are looked for together. */
enum { TOGETHER = 64 };

/* How many of `count` stretches of `size` bytes were read, up to the first that isn't there. */
static Py_ssize_t read_stretches(const char **names, int64_t *offsets, char *out, Py_ssize_t count, Py_ssize_t size)
{
    Stretches all = {.names = names, .offsets = offsets, .count = count, .size = (size_t)size};
    Py_ssize_t done = 0;
    while (done < count && read_stretch(&all, done, out + done * size))
        done++;
    close_stretches(&all, done + 1);
    return done;
}

/* The first bytes of `count` files, up to `size` of each; `found` gets how many there were, and the bytes of the file,
 * below 0 where it can't be read.
 */
static Py_ssize_t read_beginnings(const char **names, int64_t *found, char *out, Py_ssize_t count, Py_ssize_t size)
{
    for (Py_ssize_t first = 0; first < count; first += TOGETHER) {
        const Py_ssize_t some = count - first < TOGETHER ? count - first : TOGETHER;
        int files[TOGETHER];
        for (Py_ssize_t k = 0; k < some; k++) {
            int64_t *mine = found + 2 * (first + k);
            const int file = open(names[first + k], O_RDONLY | O_CLOEXEC);
            files[k] = -1;
            mine[0] = mine[1] = -1;
            if (file < 0)
                continue;
            mine[0] = read_cached(file, 0, out + (first + k) * size, (size_t)size);
            mine[1] = lseek(file, 0, SEEK_END);
            if (mine[1] >= 0 && (mine[0] == size || mine[0] == mine[1])) {
                close(file);
                continue;
            }
            files[k] = file;
#if defined(POSIX_FADV_RANDOM)
            posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM); /* or it would read ahead into pixels */
#endif
            ask_for(file, 0, (size_t)size);
        }
        for (Py_ssize_t k = 0; k < some; k++) {
            if (files[k] < 0)
                continue;
            int64_t *mine = found + 2 * (first + k);
            mine[0] = pread(files[k], out + (first + k) * size, (size_t)size, 0);
            mine[1] = mine[0] < 0 ? -1 : mine[1];
            close(files[k]);
        }
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
