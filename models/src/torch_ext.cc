// What the C++ library offers and tch 0.24 does not: inference mode, CPU
// autocast and channels-last strides. Plain C functions over at::Tensor*.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <c10/core/InferenceMode.h>

extern "C" {

void *kf_inference_enter() { return new c10::InferenceMode(true); }
void kf_inference_leave(void *guard) { delete static_cast<c10::InferenceMode *>(guard); }

// Autocast of the CPU to bfloat16 while the nesting is above zero.
void kf_autocast_enter() {
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  at::autocast::increment_nesting();
}
void kf_autocast_leave() {
  if (at::autocast::decrement_nesting() == 0) {
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
  }
}

// Returns a tensor with channels-last strides; the caller owns the result.
void *kf_channels_last(void *tensor) {
  try {
    auto *t = static_cast<at::Tensor *>(tensor);
    return new at::Tensor(t->contiguous(at::MemoryFormat::ChannelsLast));
  } catch (...) {
    return nullptr;
  }
}
}
