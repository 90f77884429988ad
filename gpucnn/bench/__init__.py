"""Kernels, layers and networks side by side with their peers: `gpucnn bench`.

    cases, suites       what is computed: a call of a public function, described by shapes, and one of its passes
    rivals              who computes it: gpucnn by kernel; torch_rival PyTorch, plain_rival numpy; updates: optimisers
    turns               where they live and how they take turns
    machine             what they run on: device, versions, and the ceilings that it has now
    measure             correct first, then the time: the rows of a table
    static, counted     kernels that can't run here: what is known of them without a GPU, and what they do, counted
    overhead, stacks    what the layers of the stack add to a call; the stacks, layer by layer; stack_calls: on what
    networks, answers   whole networks: what is asked of contestants, and how far their first steps are apart
    contest             the rounds of these; own_network, torch_network, peers and memory are what takes part
    table, records      rows on a terminal, and in files; compare sets two of these side by side

Imported by `gpucnn bench` and by studies in benchmarks/, never by `import gpucnn`.
"""
