// Enough of CUDA to run a grid on the host: a thread for each of a block's, one block at a time.
#include <barrier>
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
double shared[1 << 17];

std::unique_ptr<std::barrier<>> of_block;
std::vector<std::unique_ptr<std::barrier<>>> of_warp;
std::vector<double> lanes;

inline void __syncthreads() { of_block->arrive_and_wait(); }

inline double __shfl_down_sync(unsigned, double value, int step) {
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    lanes[threadIdx.x] = value;
    of_warp[warp]->arrive_and_wait();
    const double other = lane + step < 32 ? lanes[threadIdx.x + step] : value;
    of_warp[warp]->arrive_and_wait();
    return other;
}

template <typename Kernel> void launch(unsigned blocks, unsigned threads, Kernel kernel) {
    gridDim.x = blocks;
    blockDim.x = threads;
    lanes.assign(threads, 0.0);
    of_warp.clear();
    for (unsigned warp = 0; warp < threads / 32; ++warp)
        of_warp.push_back(std::make_unique<std::barrier<>>(32));
    of_block = std::make_unique<std::barrier<>>(threads);
    for (unsigned block = 0; block < blocks; ++block) {
        blockIdx.x = block;
        std::vector<std::jthread> running;
        for (unsigned thread = 0; thread < threads; ++thread)
            running.emplace_back([=] { threadIdx.x = thread; kernel(); });
    }
}
