"""RadFM, which sees whole volumes: our own implementation of the published architecture.

`sizes` and `layout` say what the checkpoint holds, `pickled` and `convert` read it, `architecture` and
`modeling` compute, `cubes` turns pictures into what it takes. Prompts are made in `families.radfm`.
"""
