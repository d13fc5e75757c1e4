"""NVIDIA GPUs: SPDM measurement reports of Hopper and Blackwell devices, beside the evidence of the CPU's TEE."""
