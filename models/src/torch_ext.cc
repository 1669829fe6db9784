// What the C++ library offers and tch 0.24 does not: inference mode, CPU
// autocast and channels-last strides. Plain C functions over at::Tensor*.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/record_function.h>
#include <c10/core/InferenceMode.h>

#include <dlfcn.h>

#include <chrono>
#include <map>
#include <mutex>
#include <string>

namespace {

using Clock = std::chrono::steady_clock;

// What the operations of one name have cost.
struct Cost {
  uint64_t calls = 0;
  double seconds = 0;
  double flop = 0;
};

std::mutex costs_lock;
std::map<std::string, Cost> costs;
thread_local int depth = 0;

struct Running : at::ObserverContext {
  Clock::time_point started = Clock::now();
  double flop = 0;
};

int64_t elements(const c10::IValue &value) {
  return value.isTensor() && value.toTensor().defined() ? value.toTensor().numel() : 0;
}

// Multiplications and additions of the products that an operation names; 0 for others.
double flop_of(const at::RecordFunction &fn) {
  const std::string name = fn.name();
  const auto inputs = fn.inputs();
  // With packed kernels strides come behind the padding, and the form that adds has what it adds in second place.
  const bool packed = name == "mkldnn::_convolution_pointwise";
  if ((name == "aten::conv2d" || packed) && inputs.size() > 5) {
    // Output pixels are input pixels over stride squared; each needs a kernel's worth of inputs.
    const size_t moved = inputs.size() > 10 ? 1 : 0;
    const auto x = inputs[0].toTensor(), w = inputs[1 + moved].toTensor();
    const auto first = inputs[3 + moved].toIntVector(), second = inputs[4 + moved].toIntVector();
    const auto &stride = packed ? second : first, &padding = packed ? first : second;
    double pixels = static_cast<double>(x.size(0));
    for (int i = 0; i < 2; i++)
      pixels *= static_cast<double>((x.size(2 + i) + 2 * padding[i] - w.size(2 + i)) / stride[i] + 1);
    return 2.0 * pixels * static_cast<double>(w.numel());
  }
  if (name == "aten::linear" && inputs.size() > 1) {
    const auto w = inputs[1].toTensor();
    return 2.0 * static_cast<double>(elements(inputs[0])) * static_cast<double>(w.size(0));
  }
  if (name == "aten::scaled_dot_product_attention" && inputs.size() > 2)
    // Scores and weighted sum: queries times keys, each as long as a head is wide.
    return 4.0 * static_cast<double>(elements(inputs[0])) * static_cast<double>(inputs[1].toTensor().size(-2));
  if (name == "aten::matmul" && inputs.size() > 1)
    return 2.0 * static_cast<double>(elements(inputs[0])) * static_cast<double>(inputs[1].toTensor().size(-1));
  return 0;
}

} // namespace

extern "C" {

void *kf_inference_enter() { return new c10::InferenceMode(true); }
void kf_inference_leave(void *guard) { delete static_cast<c10::InferenceMode *>(guard); }

// Threads that operations called from this thread use. libtorch's own setting is the whole process's.
void kf_use_threads(int threads) {
  at::get_num_threads(); // Sets this thread up, which would undo what comes next.
  using Set = void (*)(int);
  static const auto set = reinterpret_cast<Set>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
  if (set != nullptr)
    set(threads);
}

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

// From here on every operation is counted by name, nested ones with the one that calls them.
uint64_t kf_count_begin() {
  {
    std::lock_guard<std::mutex> guard(costs_lock);
    costs.clear();
  }
  auto start = [](const at::RecordFunction &fn) -> std::unique_ptr<at::ObserverContext> {
    if (depth++ > 0)
      return nullptr;
    auto running = std::make_unique<Running>();
    running->flop = flop_of(fn);
    return running;
  };
  auto end = [](const at::RecordFunction &fn, at::ObserverContext *context) {
    depth--;
    if (context == nullptr)
      return;
    auto *running = static_cast<Running *>(context);
    const std::chrono::duration<double> took = Clock::now() - running->started;
    std::lock_guard<std::mutex> guard(costs_lock);
    auto &cost = costs[fn.name()];
    cost.calls++;
    cost.seconds += took.count();
    cost.flop += running->flop;
  };
  return at::addGlobalCallback(
      at::RecordFunctionCallback(start, end).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
}

// Ends counting and hands each name's cost to `take`.
void kf_count_end(uint64_t handle, void *to,
                  void (*take)(void *to, const char *name, uint64_t calls, double seconds, double flop)) {
  at::removeCallback(handle);
  std::lock_guard<std::mutex> guard(costs_lock);
  for (const auto &[name, cost] : costs)
    take(to, name.c_str(), cost.calls, cost.seconds, cost.flop);
  costs.clear();
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
