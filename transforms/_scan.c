/* Whether a header is built like one that was walked before, and its values if so: the loop of builds.py, which says
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

/* Whether the header has what the walk saw, and reaches to the end of the last value. */
static int alike(const Py_buffer *head, const Py_buffer *looked_at, const Py_buffer *seen, const Py_buffer *cuts)
{
    Py_ssize_t start, size, done = 0;
    if (cuts->len && !span(cuts, cuts->len / 8 - 1, head->len, &start, &size))
        return 0;
    for (Py_ssize_t n = 0; n < looked_at->len / 8; n++, done += size)
        if (!span(looked_at, n, head->len, &start, &size) || size > seen->len - done ||
            memcmp((const char *)head->buf + start, (const char *)seen->buf + done, (size_t)size))
            return 0;
    return done == seen->len;
}

/* A value of an earlier header, which the next one shares if it has the same. */
typedef struct {
    PyObject *value; /* owned by that header's tuple */
    const char *bytes;
    Py_ssize_t size;
} Known;

static int know(Known *known, PyObject *value)
{
    if (!value || !PyBytes_Check(value))
        return 0;
    *known = (Known){value, PyBytes_AsString(value), PyBytes_Size(value)};
    return 1;
}

/* The values of a header; of `known`, the last ones of each number, there are `*shared`, and then those of this one. */
static PyObject *values(const Py_buffer *head, const Py_buffer *cuts, Known *known, Py_ssize_t *shared)
{
    Py_ssize_t start, size, count = cuts->len / 8;
    PyObject *found = PyTuple_New(count);
    for (Py_ssize_t n = 0; found && n < count; n++) {
        PyObject *value = NULL;
        if (span(cuts, n, head->len, &start, &size)) {
            const char *bytes = (const char *)head->buf + start;
            if (n < *shared && known[n].size == size && !memcmp(known[n].bytes, bytes, (size_t)size))
                value = Py_NewRef(known[n].value);
            else
                know(known + n, value = PyBytes_FromStringAndSize(bytes, size));
        } else {
            PyErr_SetString(PyExc_ValueError, "a value lies outside of the header");
        }
        if (!value || PyTuple_SetItem(found, n, value)) {
            Py_DECREF(found);
            return NULL;
        }
    }
    *shared = count > *shared ? count : *shared;
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
    unsigned char order[BUILDS], *which = PyMem_Malloc((size_t)most + 1);
    PyObject *all = PyList_New(0), *result = NULL;
    Py_ssize_t done = 0, shared = 0, widest = 0;
    for (int k = 0; k < BUILDS; k++) {
        order[k] = (unsigned char)k;
        widest = builds[k].cuts.len / 8 > widest ? builds[k].cuts.len / 8 : widest;
    }
    Known *known = PyMem_Malloc((size_t)(widest + 1) * sizeof *known);
    const Py_ssize_t liked = PyTuple_Size(like) < widest ? PyTuple_Size(like) : widest;
    while (known && shared < liked && know(known + shared, PyTuple_GetItem(like, shared)))
        shared++;
    for (; which && known && all && done < most; done++) {
        int64_t length;
        Py_buffer head = *heads;
        Py_ssize_t k = 0;
        memcpy(&length, (const char *)lengths->buf + 16 * done, sizeof length);
        head.buf = (char *)heads->buf + done * size;
        head.len = (Py_ssize_t)length;
        if (length < 0 || length > size)
            break;
        for (; k < count; k++) {
            const Build *build = &builds[order[k]];
            if (alike(&head, &build->looked_at, &build->seen, &build->cuts))
                break;
        }
        if (k == count)
            break;
        const unsigned char found = which[done] = order[k];
        memmove(order + 1, order, (size_t)k); /* the next one is likely built so too */
        order[0] = found;
        PyObject *those = values(&head, &builds[found].cuts, known, &shared);
        if (!those || PyList_Append(all, those)) {
            Py_XDECREF(those);
            goto end;
        }
        Py_DECREF(those); /* the list holds it, and what is known */
    }
    if (!which || !known)
        PyErr_NoMemory();
    else if (all)
        result = Py_BuildValue("(Oy#)", all, (const char *)which, done);
end:
    Py_XDECREF(all);
    PyMem_Free(which);
    PyMem_Free(known);
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

static int same_bytes(PyObject *one, PyObject *other)
{
    return PyBytes_Check(one) && PyBytes_Check(other) && PyBytes_Size(one) == PyBytes_Size(other) &&
           !memcmp(PyBytes_AsString(one), PyBytes_AsString(other), (size_t)PyBytes_Size(one));
}

/* Which of the first `width` items of some tuples are not the same in all; false with an error set. */
static int find_differing(PyObject *rows, PyObject **first, char *differs, Py_ssize_t width)
{
    const Py_ssize_t count = PyList_Size(rows);
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *row = PyList_GetItem(rows, k);
        if (!PyTuple_Check(row) || PyTuple_Size(row) < width) {
            PyErr_SetString(PyExc_ValueError, "rows are tuples that are wide enough");
            return 0;
        }
        for (Py_ssize_t n = 0; n < width; n++) {
            PyObject *one = PyTuple_GetItem(row, n);
            if (!k)
                first[n] = one;
            else if (one != first[n] && !differs[n])
                differs[n] = !same_bytes(one, first[n]);
        }
    }
    return 1;
}

static PyObject *columns(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *rows, *all = NULL;
    Py_ssize_t width;
    if (!PyArg_ParseTuple(arguments, "O!n", &PyList_Type, &rows, &width))
        return NULL;
    const Py_ssize_t count = PyList_Size(rows);
    if (!count || width < 0) {
        PyErr_SetString(PyExc_ValueError, "no rows, or no width");
        return NULL;
    }
    PyObject **first = PyMem_Calloc((size_t)width + 1, sizeof *first);
    char *differs = PyMem_Calloc((size_t)width + 1, 1);
    if (!first || !differs)
        PyErr_NoMemory();
    else if (find_differing(rows, first, differs, width))
        all = PyList_New(width);
    for (Py_ssize_t n = 0; all && n < width; n++) {
        PyObject *one = differs[n] ? PyTuple_New(count) : Py_NewRef(first[n]);
        for (Py_ssize_t k = 0; one && differs[n] && k < count; k++)
            PyTuple_SetItem(one, k, Py_NewRef(PyTuple_GetItem(PyList_GetItem(rows, k), n)));
        if (!one || PyList_SetItem(all, n, one))
            Py_CLEAR(all);
    }
    PyMem_Free((void *)first);
    PyMem_Free(differs);
    return all;
}

static PyMethodDef METHODS[] = {
    {"columns", columns, METH_VARARGS, "Of each column of rows the value, if all have the same, else a tuple."},
    {"cut_all", cut_all, METH_VARARGS, "The values of headers, as many from the first as are built as another."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_scan", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__scan(void)
{
    return PyModule_Create(&MODULE);
}
