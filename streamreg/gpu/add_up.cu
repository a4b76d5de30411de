// Add up separate sums: each warp some of them in order, then the sums of all warps.
//
// A block of the grid adds up WARP numbers of each sum.

__global__ void __launch_bounds__(1024) add_up(
    const double* sums, int n_sums, long long length, double* out
) {
    extern __shared__ double shared[];  // (warps, WARP)
    const int n_warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const long long at = blockIdx.x * (long long)WARP + lane;
    const int from = n_sums * warp / n_warps, past = n_sums * (warp + 1) / n_warps;
    double total = 0.0;
    if (at < length)
        for (int sum = from; sum < past; ++sum) total += sums[sum * length + at];
    shared[threadIdx.x] = total;
    __syncthreads();
    if (warp > 0 || at >= length) return;
    for (int w = 1; w < n_warps; ++w) total += shared[w * WARP + lane];
    out[at] = total;
}
