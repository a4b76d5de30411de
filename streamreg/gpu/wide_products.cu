// Residuals, directions and their products with X, for rows of any width, tile by tile.
//
// One launch does two things: some blocks of the grid add up the products of a tile, which the
// launch before left in the L2 cache, while others read the next tile from memory and compute its
// dot products. The sums are divided into shares, whose count depends only on the width. One share
// adds up each group of ROWS rows, in order: no bit depends on the partition into tiles or blocks.

constexpr int ROWS = 4;  // rows of a group, which one share adds up
constexpr int THREADS = 256, WARPS = THREADS / WARP;
constexpr int SLICE = 4096;  // columns of a dot product that one block of the grid computes
constexpr int BATCH = 64;  // rows whose residuals are in shared memory at once

__host__ __device__ constexpr long long parts_of(long long length, long long each) {
    return (length + each - 1) / each;
}

// The dot products of ROWS rows with V (COLUMNS, features), over one slice of their columns.
template <typename T, int COLUMNS>
__device__ void read_rows(
    const T* X, const double* V, long long rows, int features, double* dots, long long block
) {
    extern __shared__ double shared[];
    double* partial_sums = shared;  // of each warp
    const long long slices = parts_of(features, SLICE);
    const long long row = block / slices * ROWS;
    const int slice = block % slices;
    const int past = features < (slice + 1) * SLICE ? features : (slice + 1) * SLICE;
    double dot[ROWS][COLUMNS] = {};
    #pragma unroll 4
    for (int column = slice * SLICE + threadIdx.x; column < past; column += THREADS) {
        T x[ROWS];
        #pragma unroll
        for (int r = 0; r < ROWS; ++r)
            x[r] = row + r < rows ? X[(row + r) * features + column] : T(0);
        #pragma unroll
        for (int m = 0; m < COLUMNS; ++m) {
            const double v = V[m * (long long)features + column];
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) dot[r][m] = fma(widened(x[r]), v, dot[r][m]);
        }
    }
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    #pragma unroll
    for (int r = 0; r < ROWS; ++r)
        #pragma unroll
        for (int m = 0; m < COLUMNS; ++m) {
            #pragma unroll
            for (int step = WARP / 2; step > 0; step /= 2)
                dot[r][m] += __shfl_down_sync(0xffffffffu, dot[r][m], step);
            if (lane == 0) partial_sums[(r * COLUMNS + m) * WARPS + warp] = dot[r][m];
        }
    __syncthreads();
    if (threadIdx.x >= ROWS * COLUMNS || row + threadIdx.x / COLUMNS >= rows) return;
    double total = 0.0;
    for (int w = 0; w < WARPS; ++w) total += partial_sums[threadIdx.x * WARPS + w];
    dots[(row * COLUMNS + threadIdx.x) * slices + slice] = total;
}

// The products with THREADS columns of a tile, over the rows of one share. The blocks of the first
// columns also compute the sums of s·u, of s·r² and of s.
template <typename T, int COLUMNS>
__device__ void add_rows(
    const T* X, const double* y, const double* weight, const double* bias, const double* dots,
    long long first, long long rows, int features, int targets, int shares, double* sums,
    long long block
) {
    extern __shared__ double shared[];
    double *u = shared, *su = u + BATCH * COLUMNS, *ones = su + BATCH * COLUMNS;
    const long long column_blocks = parts_of(features, THREADS), slices = parts_of(features, SLICE);
    const long long share = block / column_blocks;
    const long long column = block % column_blocks * THREADS + threadIdx.x;
    const bool is_there = column < features, is_first = block % column_blocks == 0;
    double* mine = sums + share * (COLUMNS * (long long)features + COLUMNS + targets + 1);
    double* totals = mine + COLUMNS * (long long)features;
    double products[COLUMNS];
    #pragma unroll
    for (int m = 0; m < COLUMNS; ++m)
        products[m] = is_there ? mine[m * (long long)features + column] : 0.0;
    // the sums of s·u in the first threads, of s·r² in the next, of s in the last
    const bool adds = is_first && threadIdx.x <= COLUMNS + targets;
    const bool squares = threadIdx.x >= COLUMNS, counts = threadIdx.x == COLUMNS + targets;
    const int at = squares ? threadIdx.x - COLUMNS : threadIdx.x;
    double total = adds ? totals[threadIdx.x] : 0.0;

    const long long past = first + rows;
    // the first group of this share that ends after the first row
    long long group = first / ROWS;
    group += (share + shares - group % shares) % shares;
    for (; group * ROWS < past; group += (BATCH / ROWS) * (long long)shares) {
        __syncthreads();  // the last batch has been used
        for (int entry = threadIdx.x; entry < BATCH * COLUMNS; entry += THREADS) {
            const int m = entry % COLUMNS, r = entry / COLUMNS;
            const long long row = (group + r / ROWS * (long long)shares) * ROWS + r % ROWS - first;
            double here = 0.0, s = 0.0;
            if (row >= 0 && row < rows) {
                s = weight ? weight[row] : 1.0;
                for (int slice = 0; slice < slices; ++slice)
                    here += dots[(row * COLUMNS + m) * slices + slice];
                // y - b first: both may be large and close, and their difference is then exact
                here = m < targets ? here - (y[row * targets + m] - bias[m]) : here + bias[m];
            }
            u[entry] = here;
            su[entry] = s * here;
            if (m == 0) ones[r] = s;
        }
        __syncthreads();
        T next[ROWS];
        auto load = [&](int part) {
            const long long row = (group + part / ROWS * (long long)shares) * ROWS - first;
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                const bool is_here = is_there && row + r >= 0 && row + r < rows;
                next[r] = is_here ? X[(row + r) * features + column] : T(0);
            }
        };
        load(0);
        for (int part = 0; part < BATCH; part += ROWS) {
            const long long row = (group + part / ROWS * (long long)shares) * ROWS - first;
            if (row >= rows) break;
            T x[ROWS];
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) x[r] = next[r];
            load(part + ROWS);  // after a batch's last part unused, but then cached
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                const double* here = su + (part + r) * COLUMNS;
                #pragma unroll
                for (int m = 0; m < COLUMNS; ++m)
                    products[m] = fma(here[m], widened(x[r]), products[m]);
                if (counts) total += ones[part + r];
                else if (adds) total += here[at] * (squares ? u[(part + r) * COLUMNS + at] : 1.0);
            }
        }
    }
    #pragma unroll
    for (int m = 0; m < COLUMNS; ++m)
        if (is_there) mine[m * (long long)features + column] = products[m];
    if (adds) totals[threadIdx.x] = total;
}

// Add up the `before` rows from `start` on, given their dot products, and compute those of the next
// `after` rows.
template <typename T, int COLUMNS>
__global__ void __launch_bounds__(THREADS) fused_wide(
    const T* X, const double* y, const double* weight, const double* V, const double* bias,
    long long first, long long start, long long before, long long after, int features, int targets,
    int shares, const double* dots, double* next_dots, double* sums
) {
    const long long n_adding_blocks = before ? parts_of(features, THREADS) * shares : 0;
    const T* tile = X + start * features;
    // the two kinds of blocks alternate, so that both run at any time
    const long long block = blockIdx.x * n_adding_blocks / gridDim.x;
    if ((blockIdx.x + 1ll) * n_adding_blocks / gridDim.x > block)
        add_rows<T, COLUMNS>(
            tile, y + start * targets, weight ? weight + start : nullptr, bias, dots,
            first + start, before, features, targets, shares, sums, block
        );
    else
        read_rows<T, COLUMNS>(
            tile + before * features, V, after, features, next_dots, blockIdx.x - block
        );
}
