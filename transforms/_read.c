/* Stretches of files read into one buffer without the interpreter's lock: the loop of stored_bits.py, which does the
 * same in Python and says what is wrong where this stops.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
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
static Py_ssize_t read_stretches(const char **names, const char *offsets, char *out, Py_ssize_t count, Py_ssize_t size)
{
    int files[AHEAD];
    int64_t starts[AHEAD];
    for (Py_ssize_t first = 0; first < count; first += AHEAD) {
        const Py_ssize_t some = count - first < AHEAD ? count - first : AHEAD;
        Py_ssize_t whole = 0;
        memcpy(starts, offsets + first * (Py_ssize_t)sizeof *starts, (size_t)some * sizeof *starts);
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

static PyObject *read_all(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *paths, *found = NULL;
    Py_buffer offsets, out;
    if (!PyArg_ParseTuple(arguments, "O!y*w*", &PyTuple_Type, &paths, &offsets, &out))
        return NULL;
    Py_ssize_t count = PyTuple_Size(paths), done = 0;
    const char **names = PyMem_Malloc((size_t)(count ? count : 1) * sizeof *names);
    if (!names) {
        PyErr_NoMemory();
    } else if (offsets.len != count * (Py_ssize_t)sizeof(int64_t) || (count && out.len % count)) {
        PyErr_SetString(PyExc_ValueError, "as many 64-bit offsets as paths, and equal parts of the buffer");
    } else {
        for (Py_ssize_t n = 0; n < count; n++)
            if (!(names[n] = PyBytes_AsString(PyTuple_GetItem(paths, n))))
                break;
        if (!PyErr_Occurred()) {
            Py_BEGIN_ALLOW_THREADS
            done = read_stretches(names, offsets.buf, out.buf, count, count ? out.len / count : 0);
            Py_END_ALLOW_THREADS
            found = PyLong_FromSsize_t(done);
        }
    }
    PyMem_Free((void *)names);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&out);
    return found;
}

static PyMethodDef METHODS[] = {
    {"read_all", read_all, METH_VARARGS, "How many of the stretches, from the first, were read whole."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_read", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__read(void)
{
    return PyModule_Create(&MODULE);
}
