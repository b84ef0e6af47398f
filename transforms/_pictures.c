/* The loops of render.py, resize.py and patches.py, which say what they mean and give the same bytes in numpy.
 *
 * Python hands in contiguous buffers. Every length is checked here, against the sizes that came with it, before a
 * byte is touched, and the interpreter's lock is released while they are worked on.
 */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "_cut.h"
#include "_files.h"
#include "_resample.h"

/* No side of a picture is longer. */
enum { LONGEST = 1 << 24 };

/* True if `buffer` has exactly the product of these counts in bytes. Each count is 0 to LONGEST. */
static int holds(const Py_buffer *buffer, Py_ssize_t item, Py_ssize_t a, Py_ssize_t b, Py_ssize_t c,
                 Py_ssize_t d)
{
    Py_ssize_t counts[] = {a, b, c, d}, bytes = item;
    for (int k = 0; k < 4; k++) {
        if (counts[k] < 0 || counts[k] > LONGEST || (counts[k] && bytes > PY_SSIZE_T_MAX / counts[k]))
            return 0;
        bytes *= counts[k];
    }
    return buffer->len == bytes && (bytes == 0 || (uintptr_t)buffer->buf % (size_t)item == 0);
}

/* Reads (source, target, width, bits, starts, counts, weights); width 0 if nothing is to be resized along it. */
static int read_line(PyObject *tuple, Line *line, Py_buffer *starts, Py_buffer *counts, Py_buffer *weights)
{
    Py_ssize_t source, target, width;
    int bits;
    if (!PyArg_ParseTuple(tuple, "nnniy*y*y*", &source, &target, &width, &bits, starts, counts, weights))
        return 0;
    int right = source >= 1 && target >= 1 && source <= LONGEST && width >= 0 && width % 2 == 0
        && width <= source + source % 2 && bits >= 0 && bits <= 22;
    right = right && (width ? holds(starts, 4, target, 1, 1, 1) && holds(counts, 4, target, 1, 1, 1)
                                && holds(weights, 2, target, width, 1, 1)
                            : source == target && target <= LONGEST);
    const int32_t *first = starts->buf, *count = counts->buf;
    const int16_t *weight = weights->buf;
    for (Py_ssize_t k = 0; right && width && k < target; k++)
        right = first[k] >= 0 && first[k] <= source + source % 2 - width && count[k] >= 0 && count[k] <= width
            && count[k] % 2 == 0;
    for (Py_ssize_t k = 0; right && width && k < target; k++) {
        /* No sum of products with levels up to 255 may leave 32 bits. */
        int64_t sum = 0;
        for (Py_ssize_t j = 0; j < width; j++)
            sum += abs(weight[k * width + j]);
        right = sum <= (INT32_MAX - (1 << 22)) / 255;
    }
    if (!right) {
        PyErr_SetString(PyExc_ValueError, "these are not the taps of such a line");
        return 0;
    }
    *line = (Line){source, target, width, bits, first, count, weight};
    return 1;
}

#if defined(HAVE_FILES)
static int read_picture(void *files, Py_ssize_t picture, char *into)
{
    return read_stretch(files, picture, into);
}
#endif

/* Reads (paths, 64-bit offsets), one for each picture, of planes of so many bytes; false with an error set. */
static int read_files(PyObject *tuple, Py_ssize_t pictures, Py_ssize_t bytes, Job *job, Py_buffer *offsets,
                      const char ***names)
{
#if defined(HAVE_FILES)
    PyObject *paths;
    char *name;
    if (!PyArg_ParseTuple(tuple, "O!y*", &PyTuple_Type, &paths, offsets))
        return 0;
    if (PyTuple_Size(paths) != pictures || !holds(offsets, sizeof(int64_t), pictures, 1, 1, 1)) {
        PyErr_SetString(PyExc_ValueError, "as many paths and 64-bit offsets as pictures");
        return 0;
    }
    Stretches *all = job->files = PyMem_Calloc(1, sizeof *all);
    job->raw = PyMem_Malloc((size_t)(bytes ? bytes : 1));
    *names = PyMem_Malloc((size_t)(pictures ? pictures : 1) * sizeof **names);
    if (!all || !job->raw || !*names) {
        PyErr_NoMemory();
        return 0;
    }
    for (Py_ssize_t n = 0; n < pictures; n++) {
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(paths, n), &name, NULL))
            return 0;
        (*names)[n] = name;
    }
    *all = (Stretches){.names = *names, .offsets = offsets->buf, .count = pictures, .size = (size_t)bytes};
    job->read = read_picture;
    return 1;
#else
    (void)tuple, (void)pictures, (void)bytes, (void)job, (void)offsets, (void)names;
    PyErr_SetString(PyExc_NotImplementedError, "files can't be read here");
    return 0;
#endif
}

static PyObject *resample(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer source = {0}, levels = {0}, lines = {0}, which = {0}, out = {0}, offsets = {0};
    Py_buffer starts[2] = {{0}}, counts[2] = {{0}}, weights[2] = {{0}};
    Py_ssize_t pictures, channels;
    PyObject *from, *down, *across;
    const char **names = NULL;
    int kernel;
    Job job = {0};
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "innOy*y*y*w*O!O!", &kernel, &pictures, &channels, &from, &levels, &lines, &which,
                          &out, &PyTuple_Type, &down, &PyTuple_Type, &across))
        return NULL;
    if (!read_line(down, &job.down, &starts[0], &counts[0], &weights[0])
        || !read_line(across, &job.across, &starts[1], &counts[1], &weights[1]))
        goto end;
    job.pictures = pictures;
    job.rows = job.down.source;
    job.columns = job.across.source;
    job.channels = channels;
    job.tables = levels.len / PATTERNS;
    job.out = out.buf;
    int right = kernel >= 0 && kernel < kernels() && (channels == 1 || channels == 3)
        && holds(&out, 1, pictures, job.down.target, job.across.target, channels);
    const int files = PyTuple_Check(from);
    if (!files && PyObject_GetBuffer(from, &source, PyBUF_SIMPLE))
        goto end;
    if (job.tables) {
        job.raw = source.buf;
        job.levels = levels.buf;
        job.lines = lines.buf;
        job.which = which.buf;
        right = right && holds(&levels, 1, job.tables, PATTERNS, 1, 1)
            && holds(&lines, 4, job.tables, sizeof *job.lines / 4, 1, 1) && holds(&which, 4, pictures, channels, 1, 1)
            && (files || holds(&source, 2, pictures, job.rows, job.columns, 1));
        for (Py_ssize_t k = 0; right && k < pictures * channels; k++)
            right = job.which[k] >= 0 && job.which[k] < job.tables;
    } else {
        job.bytes = source.buf;
        right = right && !files && levels.len == 0 && holds(&source, 1, pictures, job.rows, job.columns, channels);
    }
    if (!right) {
        PyErr_SetString(PyExc_ValueError, "the buffers don't have the sizes that were said");
        goto end;
    }
    if (files && !read_files(from, pictures, 2 * job.rows * job.columns, &job, &offsets, &names))
        goto end;
    Py_ssize_t done;
    Py_BEGIN_ALLOW_THREADS
    done = resample_all(&job, &RESIZERS_THERE[kernel]);
#if defined(HAVE_FILES)
    if (job.files)
        close_stretches(job.files, done + 1);
#endif
    Py_END_ALLOW_THREADS
    result = done < 0 ? PyErr_NoMemory() : PyLong_FromSsize_t(done);
end:
    if (PyTuple_Check(from)) {
        PyMem_Free(job.files);
        PyMem_Free((void *)(uintptr_t)job.raw);
    }
    PyMem_Free((void *)names);
    for (int k = 0; k < 2; k++) {
        PyBuffer_Release(&starts[k]);
        PyBuffer_Release(&counts[k]);
        PyBuffer_Release(&weights[k]);
    }
    PyBuffer_Release(&source);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&levels);
    PyBuffer_Release(&lines);
    PyBuffer_Release(&which);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *cut(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer plane = {0}, scale = {0}, out = {0};
    Cut job = {0};
    int kernel;
    if (!PyArg_ParseTuple(args, "innnnnny*y*w*", &kernel, &job.rows, &job.columns, &job.channels, &job.patch,
                          &job.merge, &job.temporal, &plane, &scale, &out))
        return NULL;
    PyObject *result = NULL;
    job.plane = plane.buf;
    job.scale = scale.len ? scale.buf : NULL;
    job.out = out.buf;
    int right = kernel >= 0 && kernel < kernels() && (job.channels == 1 || job.channels == 3) && job.patch >= 1
        && job.patch <= LARGEST_PATCH && job.merge >= 1 && job.merge <= MOST_MERGE && job.temporal >= 1
        && job.temporal <= MOST_TEMPORAL && job.rows >= 0 && job.rows % (job.patch * job.merge) == 0
        && job.columns >= 0 && job.columns % (job.patch * job.merge) == 0
        && holds(&plane, 1, job.rows, job.columns, job.channels, 1)
        && (scale.len == 0 || holds(&scale, 4, 2, 3, 1, 1))
        && holds(&out, scale.len ? 4 : 1, job.rows, job.columns, 3, job.temporal);
    if (right) {
        Py_BEGIN_ALLOW_THREADS
        CUTTERS_THERE[kernel](&job);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    } else {
        PyErr_SetString(PyExc_ValueError, "the buffers don't have the sizes that were said");
    }
    PyBuffer_Release(&plane);
    PyBuffer_Release(&scale);
    PyBuffer_Release(&out);
    return result;
}

static PyMethodDef methods[] = {
    {"resample", resample, METH_VARARGS, "Read planes where they are in files, look up grey levels, and resize."},
    {"cut", cut, METH_VARARGS, "Cut a picture into patches."},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module)
{
    return PyModule_AddIntConstant(module, "KERNELS", kernels());
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill},
    {0, NULL},
};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_pictures",
    .m_doc = "Loops of window, resize and patches.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__pictures(void)
{
    return PyModuleDef_Init(&module);
}
