"""``mmsa bench gpu``: checks everything on a GPU and measures its speed, in one short run.

It needs no data, weights or network: posts, encoders (random weights) and features are generated
in realistic sizes. `plan.STEPS` lists the measurements. `runner` runs each step in a process with a
time limit, so that a failure, a hang or a broken CUDA context costs one step. `results` has the
record.
"""
