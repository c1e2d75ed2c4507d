// Threads that run one call together, and memory that outlives a call.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace archsmith {

inline void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Spins, since a step of a small cell takes some microseconds; yields when another thread may need the core.
class Barrier {
  public:
    void wait(int count) {
        if (count == 1) return;
        const int now = generation_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == count - 1) {
            arrived_.store(0, std::memory_order_relaxed);
            generation_.store(now + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; generation_.load(std::memory_order_acquire) == now; spins++) {
            if (spins < 4000) pause_briefly();
            else std::this_thread::yield();
        }
    }

  private:
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> generation_{0};
};

// The OpenMP runtime that torch has loaded, if it was found: its threads are awake already, and a pool of our own would
// fight with them for the cores. Else threads are started for the call.
struct OpenMP {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
    int (*team_size)();
};

// Calls body(number, count) on up to `wanted` threads; count is the same for all of them.
template <class Body>
void run_team(int wanted, OpenMP openmp, const Body& body) {
    if (wanted <= 1) {
        body(0, 1);
        return;
    }
    struct Job {
        const Body& body;
        int (*team_size)();
        std::atomic<int> next{0}, count{0};
    } job{body, openmp.team_size};
    if (openmp.parallel && openmp.team_size) {
        openmp.parallel(
            [](void* given) {
                Job& job = *static_cast<Job*>(given);
                job.body(job.next.fetch_add(1), job.team_size());
            },
            &job, static_cast<unsigned>(wanted), 0);
        return;
    }
    std::vector<std::thread> others;
    try {
        for (int i = 1; i < wanted; i++)
            others.emplace_back([&job, i] {
                int count;
                while (!(count = job.count.load(std::memory_order_acquire))) std::this_thread::yield();
                job.body(i, count);
            });
    } catch (...) {  // no more threads to be had: go on with those that there are
    }
    const int count = static_cast<int>(others.size()) + 1;
    job.count.store(count, std::memory_order_release);
    body(0, count);
    for (auto& other : others) other.join();
}

// Memory of a thread that calls: as large as its largest call. Asked for again each time, its pages would have to be
// given and zeroed each time, which costs several per cent of a call.
class Arena {
  public:
    ~Arena() { std::free(data_); }

    // The pieces that `take` hands out are laid out twice, first to learn how much there is.
    template <class Layout>
    bool lay_out(const Layout& layout) {
        measuring_ = true, used_ = 0;
        layout(*this);
        if (used_ > size_) {
            std::free(data_);
            size_ = 0;
            constexpr size_t PAGE = size_t{1} << 21;
            const size_t size = (used_ + PAGE - 1) / PAGE * PAGE;
            if (posix_memalign(&data_, PAGE, size)) {
                data_ = nullptr;
                return false;
            }
#if defined(__linux__)
            madvise(data_, size, MADV_HUGEPAGE);
#endif
            size_ = size;
        }
        measuring_ = false, used_ = 0;
        layout(*this);
        return true;
    }

    template <class T>
    T* take(size_t count) {
        T* at = measuring_ ? nullptr : reinterpret_cast<T*>(static_cast<char*>(data_) + used_);
        used_ += (count * sizeof(T) + 127) / 128 * 128 + 128;  // no two pieces share a cache line
        return at;
    }

  private:
    void* data_ = nullptr;
    size_t size_ = 0, used_ = 0;
    bool measuring_ = false;
};

}  // namespace archsmith
