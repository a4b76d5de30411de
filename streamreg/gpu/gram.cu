// The mean of a tile of rows, and the tile less its mean, for a Gram. The tile is read twice.

constexpr int THREADS = 256, WARPS = THREADS / WARP;
constexpr int CHUNK = 256;  // rows that one block of the grid adds up
constexpr int SPAN = 1024;  // values that one block of the grid writes

// For each chunk of rows, (chunks, features): Σ s·(x - origin), then 1 if an x differs from origin.
template <typename T>
__global__ void __launch_bounds__(THREADS) sum_columns(
    const T* X, const double* origin, const double* weight, long long rows, int features,
    double* partial_sums
) {
    extern __shared__ double shared[];  // (2, WARPS, WARP)
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int column_blocks = (features + WARP - 1) / WARP;
    const long long chunk = blockIdx.x / column_blocks, chunks = (rows + CHUNK - 1) / CHUNK;
    const int column = blockIdx.x % column_blocks * WARP + lane;
    const long long past = (chunk + 1) * CHUNK < rows ? (chunk + 1) * CHUNK : rows;
    double sum = 0.0, varies = 0.0;
    if (column < features) {
        const double zero = origin[column];
        #pragma unroll 4
        for (long long row = chunk * CHUNK + warp; row < past; row += WARPS) {
            const double z = widened(X[row * features + column]) - zero;
            sum = fma(weight ? weight[row] : 1.0, z, sum);
            if (z != 0.0) varies = 1.0;
        }
    }
    shared[threadIdx.x] = sum;
    shared[THREADS + threadIdx.x] = varies;
    __syncthreads();
    if (warp > 0 || column >= features) return;
    for (int w = 1; w < WARPS; ++w) {
        sum += shared[w * WARP + lane];
        if (shared[THREADS + w * WARP + lane] != 0.0) varies = 1.0;
    }
    partial_sums[chunk * features + column] = sum;
    partial_sums[(chunks + chunk) * features + column] = varies;
}

// (x - origin - mean)·√s
template <typename T>
__global__ void __launch_bounds__(THREADS) centre_rows(
    const T* X, const double* origin, const double* mean, const double* weight, unsigned count,
    unsigned features, double* out
) {
    #pragma unroll
    for (int part = 0; part < SPAN; part += THREADS) {
        const unsigned at = blockIdx.x * SPAN + part + threadIdx.x;
        if (at >= count) return;
        const unsigned row = at / features, column = at - row * features;
        const double root = weight ? sqrt(weight[row]) : 1.0;
        out[at] = (widened(X[at]) - origin[column] - mean[column]) * root;
    }
}
