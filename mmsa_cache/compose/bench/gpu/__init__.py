"""``mmsa bench gpu``: whether everything works on a GPU and how fast it is, in one short run.

It needs no data, no weights and no hub: posts, encoders (random weights) and features are generated
in the sizes of the real ones. `plan.STEPS` lists what is measured; `runner` gives each step a
process and a time limit of its own, so that a failure, a hang or a broken CUDA context costs one
step; `results` is the record that it leaves.
"""
