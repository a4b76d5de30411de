// Enough of CUDA to run a grid on the host: a thread for each of a block's, one block at a time.
#include <barrier>
#include <cmath>
#include <memory>
#include <thread>
#include <vector>

#define __global__
#define __host__
#define __device__
#define __shared__
#define __launch_bounds__(threads)

struct Place { unsigned x; };
thread_local Place threadIdx;
Place blockIdx, blockDim, gridDim;
using std::fma;
double shared[1 << 17];

std::unique_ptr<std::barrier<>> of_block;
std::vector<std::unique_ptr<std::barrier<>>> of_warp;
std::vector<double> lanes;

inline void __syncthreads() { of_block->arrive_and_wait(); }

// What a lane gave, if there is such a one.
inline double of_lane(double value, unsigned lane) {
    const unsigned warp = threadIdx.x / 32;
    lanes[threadIdx.x] = value;
    of_warp[warp]->arrive_and_wait();
    const double other = lane < 32 ? lanes[32 * warp + lane] : value;
    of_warp[warp]->arrive_and_wait();
    return other;
}

inline double __shfl_down_sync(unsigned, double value, int step) {
    return of_lane(value, threadIdx.x % 32 + step);
}
inline double __shfl_xor_sync(unsigned, double value, int step) {
    return of_lane(value, threadIdx.x % 32 ^ step);
}
inline double __shfl_sync(unsigned, double value, int lane) { return of_lane(value, lane); }

// Run a grid, and return how many numbers were written after the shared ones.
template <typename Kernel>
int launch(unsigned blocks, unsigned threads, unsigned n_shared, Kernel kernel) {
    const double mark = -1.2345e67;
    int broken = 0;
    gridDim.x = blocks;
    blockDim.x = threads;
    lanes.assign(threads, 0.0);
    of_warp.clear();
    for (unsigned warp = 0; warp < threads / 32; ++warp)
        of_warp.push_back(std::make_unique<std::barrier<>>(32));
    of_block = std::make_unique<std::barrier<>>(threads);
    for (unsigned block = 0; block < blocks; ++block) {
        blockIdx.x = block;
        // what was shared before is not what the next block finds
        for (unsigned at = 0; at < n_shared + 4096; ++at) shared[at] = mark;
        std::vector<std::jthread> running;
        for (unsigned thread = 0; thread < threads; ++thread)
            running.emplace_back([=] { threadIdx.x = thread; kernel(); });
        running.clear();  // which waits for all
        for (unsigned at = n_shared; at < n_shared + 4096; ++at) broken += shared[at] != mark;
    }
    return broken;
}
