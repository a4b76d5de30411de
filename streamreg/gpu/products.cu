// Residuals, directions and their products with X, each row read from memory once.
//
// Block g of a grid of G blocks adds up, in order and into sums of its own, each row i for which
// ⌊i / ROWS⌋ mod G = g. So no bit depends on how many rows one launch gets. CuPy adds up the sums
// of the grid at the end of a segment.

constexpr int ROWS = 4;  // rows of a group, which one block adds up
constexpr unsigned ALL = 0xffffffffu;

// Sums of COUNT values over a warp: lane l gets the sum of value l / (32 / COUNT). At each step a
// lane passes on half of its values.
template <int COUNT>
__device__ inline double sum_of_warp(double (&value)[COUNT], int lane) {
    int step = WARP / 2;
    #pragma unroll
    for (int left = COUNT / 2; left > 0; left /= 2, step /= 2) {
        const bool upper = lane & step;
        #pragma unroll
        for (int v = 0; v < left; ++v) {
            const double keep = upper ? value[v + left] : value[v];
            const double give = upper ? value[v] : value[v + left];
            value[v] = keep + __shfl_xor_sync(ALL, give, step);
        }
    }
    #pragma unroll
    for (; step > 0; step /= 2) value[0] += __shfl_xor_sync(ALL, value[0], step);
    return value[0];
}

// Each thread holds, in registers, COLUMNS_PER_THREAD columns: of ROWS_AT_ONCE rows, of the next
// ROWS_AT_ONCE rows, and of the products.
template <typename T, int COLUMNS, int COLUMNS_PER_THREAD, int ROWS_AT_ONCE>
__global__ void __launch_bounds__(512) fused(
    const T* X, const double* y, const double* weight, const double* V, const double* bias,
    long long first, long long rows, int features, double* sums
) {
    constexpr int COUNT = ROWS_AT_ONCE * COLUMNS, SHARE = WARP / COUNT;
    // V (COLUMNS, columns of all threads), zeros after the features; then the sums of warps, twice
    extern __shared__ double shared[];
    const int n_warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int width = COLUMNS_PER_THREAD * blockDim.x;
    double* partial_sums = shared + COLUMNS * width;
    #pragma unroll
    for (int m = 0; m < COLUMNS; ++m)
        for (int at = threadIdx.x; at < width; at += blockDim.x)
            shared[m * width + at] = at < features ? V[(long long)m * features + at] : 0.0;

    // sums of this block: products (M, D), then sums (M,) of s·u, then of s·r², then of s
    double* mine = sums + blockIdx.x * (COLUMNS * (features + 1ll) + 2);
    double products[COLUMNS][COLUMNS_PER_THREAD];
    #pragma unroll
    for (int m = 0; m < COLUMNS; ++m)
        #pragma unroll
        for (int c = 0; c < COLUMNS_PER_THREAD; ++c) {
            const int column = threadIdx.x + c * blockDim.x;
            products[m][c] = column < features ? mine[m * features + column] : 0.0;
        }
    // only the first warp's are stored
    double* totals = mine + COLUMNS * features;
    double u_sums[COLUMNS], rr = totals[COLUMNS], s_sum = totals[COLUMNS + 1];
    #pragma unroll
    for (int m = 0; m < COLUMNS; ++m) u_sums[m] = totals[m];

    const long long past = first + rows;
    // the row, and the u of that row, which a lane computes from the sums of warps
    const int my_row = lane / SHARE / COLUMNS, my_m = lane / SHARE % COLUMNS;
    const int my_part = lane % SHARE;
    const double b = bias[my_m];

    T next[ROWS_AT_ONCE][COLUMNS_PER_THREAD];
    double next_y = 0.0, next_s = 1.0;
    auto load = [&](long long row) {
        #pragma unroll
        for (int r = 0; r < ROWS_AT_ONCE; ++r) {
            const bool is_there = row + r >= first && row + r < past;
            const T* from = X + (row + r - first) * features + threadIdx.x;
            #pragma unroll
            for (int c = 0; c < COLUMNS_PER_THREAD; ++c) {
                const int column = threadIdx.x + c * blockDim.x;
                next[r][c] = is_there && column < features ? from[c * blockDim.x] : T(0);
            }
        }
        const long long at = row + my_row;
        const bool is_there = at >= first && at < past;
        next_y = is_there && my_m == 0 ? y[at - first] : 0.0;
        // rows before the first and after the last do not count
        next_s = !is_there ? 0.0 : weight ? weight[at - first] : 1.0;
    };
    auto after = [&](long long row) {
        const long long one_more = row + ROWS_AT_ONCE;
        return one_more % ROWS ? one_more : one_more + (gridDim.x - 1ll) * ROWS;
    };
    // the first group of this block that ends after the first row
    long long group = first / ROWS;
    group += (blockIdx.x + gridDim.x - group % gridDim.x) % gridDim.x;
    int turn = 0;
    load(group * ROWS);
    __syncthreads();
    for (long long row = group * ROWS; row / ROWS * ROWS < past; row = after(row)) {
        T x[ROWS_AT_ONCE][COLUMNS_PER_THREAD];
        #pragma unroll
        for (int r = 0; r < ROWS_AT_ONCE; ++r)
            #pragma unroll
            for (int c = 0; c < COLUMNS_PER_THREAD; ++c) x[r][c] = next[r][c];
        const double here_y = next_y, s = next_s;
        load(after(row));  // zeros after the last
        double dot[COUNT] = {};
        #pragma unroll
        for (int c = 0; c < COLUMNS_PER_THREAD; ++c)
            #pragma unroll
            for (int m = 0; m < COLUMNS; ++m) {
                const double v = shared[m * width + threadIdx.x + c * blockDim.x];
                #pragma unroll
                for (int r = 0; r < ROWS_AT_ONCE; ++r)
                    dot[r * COLUMNS + m] = fma(widened(x[r][c]), v, dot[r * COLUMNS + m]);
            }
        const double of_warp = sum_of_warp<COUNT>(dot, lane);
        double* here = partial_sums + turn * COUNT * n_warps;
        // the next turn writes to the other half, so that one barrier a turn suffices
        turn = 1 - turn;
        if (my_part == 0) here[lane / SHARE * n_warps + warp] = of_warp;
        __syncthreads();
        double u = 0.0;
        for (int w = my_part; w < n_warps; w += SHARE) u += here[lane / SHARE * n_warps + w];
        #pragma unroll
        for (int step = SHARE / 2; step > 0; step /= 2) u += __shfl_xor_sync(ALL, u, step);
        // y - b first: both may be large and close, and their difference is then exact
        u = my_m == 0 ? u - (here_y - b) : u + b;
        const double su = s * u;
        #pragma unroll
        for (int r = 0; r < ROWS_AT_ONCE; ++r)
            #pragma unroll
            for (int m = 0; m < COLUMNS; ++m) {
                const double weighed = __shfl_sync(ALL, su, (r * COLUMNS + m) * SHARE);
                if (warp == 0 && m == 0) {
                    rr = fma(weighed, __shfl_sync(ALL, u, r * COLUMNS * SHARE), rr);
                    s_sum += __shfl_sync(ALL, s, r * COLUMNS * SHARE);
                }
                u_sums[m] += weighed;
                #pragma unroll
                for (int c = 0; c < COLUMNS_PER_THREAD; ++c)
                    products[m][c] = fma(weighed, widened(x[r][c]), products[m][c]);
            }
    }

    #pragma unroll
    for (int m = 0; m < COLUMNS; ++m)
        #pragma unroll
        for (int c = 0; c < COLUMNS_PER_THREAD; ++c) {
            const int column = threadIdx.x + c * blockDim.x;
            if (column < features) mine[m * features + column] = products[m][c];
        }
    if (threadIdx.x == 0) {
        #pragma unroll
        for (int m = 0; m < COLUMNS; ++m) totals[m] = u_sums[m];
        totals[COLUMNS] = rr;
        totals[COLUMNS + 1] = s_sum;
    }
}
