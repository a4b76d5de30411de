// The start of every kernel's source.

constexpr int WARP = 32;

// CuPy compiles with -ftz=true, which would read float32 below 1.2e-38 as zeros.
__device__ inline double widened(double x) { return x; }
__device__ inline double widened(float x) {
#ifdef __CUDA_ARCH__
    double z;
    asm("cvt.f64.f32 %0, %1;" : "=d"(z) : "f"(x));
    return z;
#else
    return x;
#endif
}
