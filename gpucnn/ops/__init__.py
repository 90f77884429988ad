"""One module an op: its autograd Functions and its tables of kernels. Ops work on arrays and never see a Tensor."""
