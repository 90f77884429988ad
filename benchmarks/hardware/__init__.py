"""Everything that matters on a machine with a GPU, checked and measured within a budget: benchmarks/hardware.sh.

steps      what is done, most valuable first, and what it takes
driver     the parts of the steps as processes, each with its share of what is left of the budget
journal    rows in a file as they come; what an earlier run has done already
readers    rows from what a process prints or writes
summary    what the file says, in 150 lines
build, golden, ceilings, sanitized     what the steps run beside pytest and gpucnn bench
"""
