"""Evaluation offline: benchmarks from a folder, runs that can be killed, metrics that know "no".

`benchmark` is the seam: a benchmark gives items, `run` puts them to a model through the engine's own code,
`answers` and `scored` judge without another model, `metrics` and `page` say what came of it.
"""
