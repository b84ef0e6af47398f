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
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_scan", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__scan(void)
{
    return PyModule_Create(&MODULE);
}
