"""What SGX and TDX share: DCAP quotes, collateral, and their verification through ``dcap-qvl``."""
