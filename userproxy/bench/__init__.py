"""The benchmark: every way to reach a Service that this machine can run, side by side in one run.

`session.run` measures, `report` tells. `site` and `paths` say what makes the comparison fair.
"""
