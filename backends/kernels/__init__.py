"""Triton kernels, one file each: an operator that torch.compile and CUDA graphs see through, and its torch reference.

On a device without Triton, and for dtypes a kernel is not written for, the operator computes its reference.
"""
