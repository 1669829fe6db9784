// What the kernels share.
#pragma once
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

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

// Whether a gradient will be asked for: kernels compute none.
inline bool trains(const at::Tensor &x) { return c10::GradMode::is_enabled() && x.requires_grad(); }

// Float32 on the processor, with the channels of a pixel next to each other.
inline bool interleaved(const at::Tensor &x) {
  return x.dim() == 4 && x.device().is_cpu() && x.scalar_type() == at::kFloat &&
         x.is_contiguous(at::MemoryFormat::ChannelsLast) && !trains(x);
}

inline at::Tensor interleaved_empty(at::IntArrayRef size) {
  return at::empty(size, at::TensorOptions().dtype(at::kFloat), at::MemoryFormat::ChannelsLast);
}

// Rows for one thread: less work than this is not worth waking another.
inline int64_t grain(int64_t row) {
  return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, row));
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
