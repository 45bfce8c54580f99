"""The shape of the call: unrolled, folded, fused."""
