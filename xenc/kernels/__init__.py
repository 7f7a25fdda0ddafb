"""Our own C++ operators for CPUs (packed attention, linear layers), their build, and attention on CUDA."""
