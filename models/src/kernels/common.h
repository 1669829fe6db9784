// What the kernels share.
#pragma once
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <dlfcn.h>

#include <algorithm>
#include <cstdint>

// One version of a function per generation of vector units, chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#define KF_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KF_CLONES
#endif

// Of such a function's parts: they must be compiled with it.
#define KF_PART __attribute__((always_inline)) inline

namespace kf {

// Whether a gradient will be asked for. Only the normalisation computes one.
inline bool trains(const at::Tensor &x) { return c10::GradMode::is_enabled() && x.requires_grad(); }

// Float32 on the processor, with the channels of a pixel next to each other.
inline bool laid_out(const at::Tensor &x) {
  return x.dim() == 4 && x.device().is_cpu() && x.scalar_type() == at::kFloat &&
         x.is_contiguous(at::MemoryFormat::ChannelsLast);
}

// As above, with no gradient asked for.
inline bool interleaved(const at::Tensor &x) { return laid_out(x) && !trains(x); }

inline at::Tensor interleaved_empty(at::IntArrayRef size) {
  return at::empty(size, at::TensorOptions().dtype(at::kFloat), at::MemoryFormat::ChannelsLast);
}

// libtorch's own pool of threads, found in the process. Compiled in, OpenMP could be another one than libtorch's.
struct Pool {
  void (*run)(void (*)(void *), void *, unsigned, unsigned);
  int (*number)();
  int (*most)();
};

inline const Pool *pool() {
  static const Pool found{
      reinterpret_cast<decltype(Pool::run)>(dlsym(RTLD_DEFAULT, "GOMP_parallel")),
      reinterpret_cast<decltype(Pool::number)>(dlsym(RTLD_DEFAULT, "omp_get_thread_num")),
      reinterpret_cast<decltype(Pool::most)>(dlsym(RTLD_DEFAULT, "omp_get_max_threads")),
  };
  return found.run != nullptr && found.number != nullptr && found.most != nullptr ? &found : nullptr;
}

// Threads that the caller's operations use.
inline int64_t threads() { return pool() == nullptr || at::in_parallel_region() ? 1 : std::max(1, pool()->most()); }

// Runs `make(from, to)` for parts of 0..count on as many threads, each part worth `row` floats an item or more than
// it costs to wake a thread. `make` must not throw.
template <typename F> void parallel(int64_t count, int64_t row, const F &make) {
  const int64_t least = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, row));
  const int64_t parts = std::min(threads(), (count + least - 1) / least);
  if (parts <= 1)
    return make(int64_t{0}, count);
  struct Job {
    const F *make;
    int64_t count, parts;
  } job{&make, count, parts};
  const auto part = [](void *data) {
    const auto &job = *static_cast<Job *>(data);
    const int64_t i = pool()->number();
    if (i < job.parts)
      (*job.make)(job.count * i / job.parts, job.count * (i + 1) / job.parts);
  };
  // All threads of the pool, for one of another size would be started anew.
  pool()->run(part, &job, 0, 0);
}

// Runs `make` for a tensor that crosses into Rust; null where libtorch throws.
template <typename F> at::Tensor *answer(F make) {
  try {
    return new at::Tensor(make());
  } catch (...) {
    return nullptr;
  }
}

} // namespace kf
