/* Whether a header is built like one that was walked before, and its values if so: the loop of scan.py, which says
 * what it means and does the same in numpy. No byte is followed here, only compared and cut out, each within bounds.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* The nth pair of offsets (start, stop); false if it is no part of `length` bytes. */
static int span(const Py_buffer *pairs, Py_ssize_t n, Py_ssize_t length, Py_ssize_t *start, Py_ssize_t *size)
{
    int32_t pair[2];
    memcpy(pair, (const char *)pairs->buf + n * (Py_ssize_t)sizeof pair, sizeof pair);
    *start = pair[0];
    *size = (Py_ssize_t)pair[1] - pair[0];
    return pair[0] >= 0 && *size >= 0 && pair[1] <= length;
}

static int alike(const Py_buffer *head, const Py_buffer *looked_at, const Py_buffer *seen)
{
    Py_ssize_t start, size, done = 0;
    for (Py_ssize_t n = 0; n < looked_at->len / 8; n++, done += size)
        if (!span(looked_at, n, head->len, &start, &size) || size > seen->len - done ||
            memcmp((const char *)head->buf + start, (const char *)seen->buf + done, (size_t)size))
            return 0;
    return done == seen->len;
}

/* The value at `n` of the values `like` these, if it is the same; else a new one. */
static PyObject *value_of(const char *start, Py_ssize_t size, PyObject *like, Py_ssize_t n)
{
    PyObject *known = n < PyTuple_Size(like) ? PyTuple_GetItem(like, n) : NULL;
    if (known && PyBytes_Check(known) && PyBytes_Size(known) == size &&
        !memcmp(PyBytes_AsString(known), start, (size_t)size))
        return Py_NewRef(known);
    return PyBytes_FromStringAndSize(start, size);
}

static PyObject *values(const Py_buffer *head, const Py_buffer *cuts, PyObject *like)
{
    Py_ssize_t start, size, count = cuts->len / 8;
    PyObject *found = PyTuple_New(count);
    for (Py_ssize_t n = 0; found && n < count; n++) {
        PyObject *value = NULL;
        if (span(cuts, n, head->len, &start, &size))
            value = value_of((const char *)head->buf + start, size, like, n);
        else
            PyErr_SetString(PyExc_ValueError, "a value lies outside of the header");
        if (!value || PyTuple_SetItem(found, n, value)) {
            Py_DECREF(found);
            return NULL;
        }
    }
    return found;
}

/* How headers are built that were walked before: as many as scan.py keeps. */
enum { BUILDS = 8 };

typedef struct {
    Py_buffer looked_at, seen, cuts;
} Build;

/* Reads a tuple of (looked_at, seen, cuts); how many, or -1 with an error set. */
static Py_ssize_t read_builds(PyObject *tuple, Build *builds)
{
    Py_ssize_t count = PyTuple_Size(tuple);
    if (count > BUILDS) {
        PyErr_SetString(PyExc_ValueError, "more builds than are kept");
        return -1;
    }
    for (Py_ssize_t n = 0; n < count; n++) {
        Py_buffer *parts[] = {&builds[n].looked_at, &builds[n].seen, &builds[n].cuts};
        PyObject *one = PyTuple_GetItem(tuple, n);
        for (int k = 0; k < 3; k++) {
            PyObject *part = PyTuple_Check(one) && PyTuple_Size(one) == 3 ? PyTuple_GetItem(one, k) : NULL;
            if (!part || !PyBytes_Check(part) || (k != 1 && PyBytes_Size(part) % 8)) {
                PyErr_SetString(PyExc_ValueError, "a build is spans, what was seen there, and spans");
                return -1;
            }
            parts[k]->buf = PyBytes_AsString(part); /* the caller's tuple keeps it */
            parts[k]->len = PyBytes_Size(part);
        }
    }
    return count;
}

/* The values of heads that lie `size` bytes apart, as many from the first as are built like one of the builds, and of
 * each which one; `lengths` has for each how many bytes it has, below 0 for none, and another number.
 */
static PyObject *values_of_all(const Py_buffer *heads, Py_ssize_t size, const Py_buffer *lengths, const Build *builds,
                               Py_ssize_t count, PyObject *like)
{
    const Py_ssize_t most = lengths->len / 16;
    unsigned char order[BUILDS], *which = PyMem_Malloc((size_t)(most ? most : 1));
    PyObject *all = PyList_New(0), *result = NULL;
    Py_ssize_t done = 0;
    for (int k = 0; k < BUILDS; k++)
        order[k] = (unsigned char)k;
    for (; which && all && done < most; done++) {
        int64_t length;
        Py_buffer head = *heads;
        Py_ssize_t k = 0;
        memcpy(&length, (const char *)lengths->buf + 16 * done, sizeof length);
        head.buf = (char *)heads->buf + done * size;
        head.len = (Py_ssize_t)length;
        if (length < 0 || length > size)
            break;
        while (k < count && !alike(&head, &builds[order[k]].looked_at, &builds[order[k]].seen))
            k++;
        if (k == count)
            break;
        const unsigned char found = which[done] = order[k];
        memmove(order + 1, order, (size_t)k); /* the next one is likely built so too */
        order[0] = found;
        PyObject *those = values(&head, &builds[found].cuts, like);
        if (!those || PyList_Append(all, those)) {
            Py_XDECREF(those);
            goto end;
        }
        Py_DECREF(those); /* the list holds it */
        like = those;
    }
    if (!which)
        PyErr_NoMemory();
    else if (all)
        result = Py_BuildValue("(Oy#)", all, (const char *)which, done);
end:
    Py_XDECREF(all);
    PyMem_Free(which);
    return result;
}

static PyObject *cut_all(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer heads, lengths;
    Build builds[BUILDS];
    Py_ssize_t size, count;
    PyObject *tuple, *like, *found = NULL;
    if (!PyArg_ParseTuple(arguments, "y*ny*O!O!", &heads, &size, &lengths, &PyTuple_Type, &tuple, &PyTuple_Type,
                          &like))
        return NULL;
    memset(builds, 0, sizeof builds);
    if (lengths.len % 16 || size < 0 || (lengths.len && size > heads.len / (lengths.len / 16)))
        PyErr_SetString(PyExc_ValueError, "as many heads as pairs of 64-bit numbers");
    else if ((count = read_builds(tuple, builds)) >= 0)
        found = values_of_all(&heads, size, &lengths, builds, count, like);
    PyBuffer_Release(&heads);
    PyBuffer_Release(&lengths);
    return found;
}

static PyObject *cut(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer head, looked_at, seen, cuts;
    PyObject *like, *found = NULL;
    if (!PyArg_ParseTuple(arguments, "y*y*y*y*O!", &head, &looked_at, &seen, &cuts, &PyTuple_Type, &like))
        return NULL;
    if (looked_at.len % 8 || cuts.len % 8)
        PyErr_SetString(PyExc_ValueError, "spans are pairs of 32-bit offsets");
    else if (alike(&head, &looked_at, &seen))
        found = values(&head, &cuts, like);
    else
        found = Py_NewRef(Py_None);
    PyBuffer_Release(&head);
    PyBuffer_Release(&looked_at);
    PyBuffer_Release(&seen);
    PyBuffer_Release(&cuts);
    return found;
}

static PyMethodDef METHODS[] = {
    {"cut", cut, METH_VARARGS, "The values of a header that is built as another, else None."},
    {"cut_all", cut_all, METH_VARARGS, "The values of headers, as many from the first as are built as another."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_scan", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__scan(void)
{
    return PyModule_Create(&MODULE);
}
