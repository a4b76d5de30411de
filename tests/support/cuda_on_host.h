// Enough of CUDA to run one grid at a time on the host. Blocks run one after another. The threads
// of a block are contexts that take turns on one thread of the host: each runs until it waits.
#include <cmath>
#include <cstddef>
#include <vector>

#include <ucontext.h>

#define __global__
#define __host__
#define __device__
#define __shared__
#define __launch_bounds__(threads)

struct Place { unsigned x; };
Place threadIdx, blockIdx, blockDim, gridDim;
using std::fma;
double shared[1 << 17];

struct Barrier {
    unsigned size, arrived = 0, generation = 0;
    void arrive_and_wait();
};

struct Context {
    ucontext_t place;
    std::vector<char> stack = std::vector<char>(1 << 17);
    bool done = false;
};

std::vector<Context> contexts;
ucontext_t scheduler;
Barrier of_block;
std::vector<Barrier> of_warp;
std::vector<double> lanes;
std::size_t steps;  // arrivals at barriers and ends of threads: without any, all wait for ever

inline void Barrier::arrive_and_wait() {
    const unsigned mine = generation;
    ++steps;
    if (++arrived == size) {
        arrived = 0;
        ++generation;
    }
    while (generation == mine) swapcontext(&contexts[threadIdx.x].place, &scheduler);
}

inline void __syncthreads() { of_block.arrive_and_wait(); }

// Return the value of another lane of the warp, or this lane's own if there is no such lane.
inline double of_lane(double value, unsigned lane) {
    const unsigned warp = threadIdx.x / 32;
    lanes[threadIdx.x] = value;
    of_warp[warp].arrive_and_wait();
    const double other = lane < 32 ? lanes[32 * warp + lane] : value;
    of_warp[warp].arrive_and_wait();
    return other;
}

inline double __shfl_down_sync(unsigned, double value, int step) {
    return of_lane(value, threadIdx.x % 32 + step);
}
inline double __shfl_xor_sync(unsigned, double value, int step) {
    return of_lane(value, threadIdx.x % 32 ^ step);
}
inline double __shfl_sync(unsigned, double value, int lane) { return of_lane(value, lane); }

template <typename Kernel>
void run_thread(const Kernel* kernel) {
    (*kernel)();
    contexts[threadIdx.x].done = true;
    ++steps;
}

// Run all threads of a block; return whether each came to its end.
//
// The first thread has the first turn in one block, the last thread in the next: a thread that
// reads what another writes, without a barrier between them, finds it written in one block only.
template <typename Kernel>
bool run_block(const Kernel& kernel, bool backwards) {
    const unsigned threads = blockDim.x;
    of_block = {threads};
    of_warp.assign(threads / 32, {32});
    for (Context& each : contexts) {
        each.done = false;
        getcontext(&each.place);
        each.place.uc_stack.ss_sp = each.stack.data();
        each.place.uc_stack.ss_size = each.stack.size();
        each.place.uc_link = &scheduler;
        void (*entry)(const Kernel*) = run_thread;
        makecontext(&each.place, reinterpret_cast<void (*)()>(entry), 1, &kernel);
    }
    for (std::size_t before = ~steps; before != steps;) {
        before = steps;
        for (unsigned turn = 0; turn < threads; ++turn) {
            threadIdx.x = backwards ? threads - 1 - turn : turn;
            Context& next = contexts[threadIdx.x];
            if (!next.done) swapcontext(&scheduler, &next.place);
        }
    }
    for (const Context& each : contexts)
        if (!each.done) return false;
    return true;
}

// Run a grid; return how many numbers were written past shared memory, or -1 if threads hang.
template <typename Kernel>
int launch(unsigned blocks, unsigned threads, unsigned n_shared, Kernel kernel) {
    const double mark = -1.2345e67;
    int broken = 0;
    gridDim.x = blocks;
    blockDim.x = threads;
    lanes.assign(threads, 0.0);
    contexts.resize(threads);
    for (unsigned block = 0; block < blocks; ++block) {
        blockIdx.x = block;
        // a block must not find what the block before it left in shared memory
        for (unsigned at = 0; at < n_shared + 4096; ++at) shared[at] = mark;
        if (!run_block(kernel, block % 2)) return -1;
        for (unsigned at = n_shared; at < n_shared + 4096; ++at) broken += shared[at] != mark;
    }
    return broken;
}
