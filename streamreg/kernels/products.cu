// Residuals, directions and their products with X, each row read from memory once.
//
// Block g of the grid folds the rows whose number, divided by ROWS, leaves g by the size of the
// grid, in their order, into sums of its own. So no bit depends on how many rows come at once. The
// grid's sums are added up in order at the end of a segment.

constexpr int ROWS = 4;  // that belong together
constexpr int WARP = 32;

// Sums of one block of the grid: products (M, D), then sums (M,) of s·u, then of s·r², then of s.
__host__ __device__ constexpr long long sums_of(int columns, long long features) {
    return columns * features + columns + 2;
}

// Each thread holds COLUMNS_A_THREAD columns of ROWS_AT_ONCE rows, and their sums, in registers.
template <typename T, int COLUMNS, int COLUMNS_A_THREAD, int ROWS_AT_ONCE>
__global__ void __launch_bounds__(512) fold_products(
    const T* X, const double* y, const double* weight, const double* V, const double* bias,
    long long first, long long rows, int features, double* sums
) {
    // V (COLUMNS, features), then what warps found, for two turns
    extern __shared__ double shared[];
    const int n_warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    double* found = shared + COLUMNS * features;
    for (int at = threadIdx.x; at < COLUMNS * features; at += blockDim.x) shared[at] = V[at];

    double* mine = sums + blockIdx.x * sums_of(COLUMNS, features);
    double products[COLUMNS][COLUMNS_A_THREAD];
    #pragma unroll
    for (int m = 0; m < COLUMNS; ++m)
        #pragma unroll
        for (int c = 0; c < COLUMNS_A_THREAD; ++c) {
            const int column = threadIdx.x + c * blockDim.x;
            products[m][c] = column < features ? mine[m * features + column] : 0.0;
        }
    double* totals = mine + COLUMNS * features;
    double u_sums[COLUMNS], rr = totals[COLUMNS], s_sum = totals[COLUMNS + 1];
    #pragma unroll
    for (int m = 0; m < COLUMNS; ++m) u_sums[m] = totals[m];
    __syncthreads();

    int turn = 0;
    const long long past = first + rows;
    // the first group of this block that ends after the first row
    long long group = first / ROWS;
    group += (blockIdx.x + gridDim.x - group % gridDim.x) % gridDim.x;
    for (; group * ROWS < past; group += gridDim.x)
        for (int part = 0; part < ROWS; part += ROWS_AT_ONCE) {
            T x[ROWS_AT_ONCE][COLUMNS_A_THREAD];
            double dot[ROWS_AT_ONCE][COLUMNS];
            #pragma unroll
            for (int r = 0; r < ROWS_AT_ONCE; ++r) {
                const long long row = group * ROWS + part + r;
                const bool is_there = row >= first && row < past;
                #pragma unroll
                for (int m = 0; m < COLUMNS; ++m) dot[r][m] = 0.0;
                #pragma unroll
                for (int c = 0; c < COLUMNS_A_THREAD; ++c) {
                    const int column = threadIdx.x + c * blockDim.x;
                    const bool is_mine = is_there && column < features;
                    x[r][c] = is_mine ? X[(row - first) * features + column] : T(0);
                }
            }
            #pragma unroll
            for (int r = 0; r < ROWS_AT_ONCE; ++r)
                #pragma unroll
                for (int c = 0; c < COLUMNS_A_THREAD; ++c) {
                    const int column = threadIdx.x + c * blockDim.x;
                    if (column < features)
                        #pragma unroll
                        for (int m = 0; m < COLUMNS; ++m)
                            dot[r][m] += double(x[r][c]) * shared[m * features + column];
                }
            double* here = found + turn * ROWS_AT_ONCE * COLUMNS * n_warps;
            turn = 1 - turn;
            #pragma unroll
            for (int r = 0; r < ROWS_AT_ONCE; ++r)
                #pragma unroll
                for (int m = 0; m < COLUMNS; ++m) {
                    #pragma unroll
                    for (int step = WARP / 2; step > 0; step /= 2)
                        dot[r][m] += __shfl_down_sync(0xffffffffu, dot[r][m], step);
                    if (lane == 0) here[(r * COLUMNS + m) * n_warps + warp] = dot[r][m];
                }
            // the next turn writes elsewhere, so that nobody need wait twice
            __syncthreads();
            #pragma unroll
            for (int r = 0; r < ROWS_AT_ONCE; ++r) {
                const long long row = group * ROWS + part + r;
                if (row < first || row >= past) continue;
                const double s = weight ? weight[row - first] : 1.0;
                s_sum += s;
                #pragma unroll
                for (int m = 0; m < COLUMNS; ++m) {
                    double u = 0.0;
                    for (int w = 0; w < n_warps; ++w) u += here[(r * COLUMNS + m) * n_warps + w];
                    // y - b first: they may be large and alike, and are then subtracted exactly
                    u = m == 0 ? u - (y[row - first] - bias[0]) : u + bias[m];
                    const double su = s * u;
                    u_sums[m] += su;
                    if (m == 0) rr += su * u;
                    #pragma unroll
                    for (int c = 0; c < COLUMNS_A_THREAD; ++c)
                        products[m][c] += su * double(x[r][c]);
                }
            }
        }

    #pragma unroll
    for (int m = 0; m < COLUMNS; ++m)
        #pragma unroll
        for (int c = 0; c < COLUMNS_A_THREAD; ++c) {
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
