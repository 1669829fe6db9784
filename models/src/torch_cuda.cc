// CUDA through interfaces of libtorch that need none of CUDA's headers to compile against: device guards, the
// allocator's interface and the hooks that libtorch_cuda.so installs when it is loaded. For CUDA graphs there is no
// such interface, so at::cuda::CUDAGraph's members are looked up by name in the library that was loaded.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <utility>

namespace {

using c10::impl::VirtualGuardImpl;

c10::Device cuda(int index) { return {at::kCUDA, static_cast<c10::DeviceIndex>(index)}; }

// Runs `work`; the first line of what it throws goes to `error`.
template <typename Work> int guarded(char *error, size_t length, Work work) {
  try {
    work();
    return 0;
  } catch (const c10::Error &thrown) {
    std::snprintf(error, length, "%s", thrown.what_without_backtrace());
  } catch (const std::exception &thrown) {
    std::snprintf(error, length, "%s", thrown.what());
  } catch (...) {
    std::snprintf(error, length, "unknown exception");
  }
  return 1;
}

// Members of at::cuda::CUDAGraph as libtorch 2.11 exports them.
struct GraphCalls {
  void (*construct)(void *, bool);
  void (*destroy)(void *);
  void (*begin)(void *, std::pair<unsigned long long, unsigned long long> pool, int mode);
  void (*end)(void *);
  void (*replay)(void *);

  bool complete() const { return construct && destroy && begin && end && replay; }
};

template <typename Call> void find(Call &call, const char *name) {
  call = reinterpret_cast<Call>(dlsym(RTLD_DEFAULT, name));
}

const GraphCalls &graph_calls() {
  static const GraphCalls found = [] {
    GraphCalls calls{};
    find(calls.construct, "_ZN2at4cuda9CUDAGraphC1Eb");
    find(calls.destroy, "_ZN2at4cuda9CUDAGraphD1Ev");
    find(calls.begin, "_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode");
    find(calls.end, "_ZN2at4cuda9CUDAGraph11capture_endEv");
    find(calls.replay, "_ZN2at4cuda9CUDAGraph6replayEv");
    return calls;
  }();
  return found;
}

// Other threads' calls into CUDA do not disturb a capture in this mode (cudaStreamCaptureModeThreadLocal).
constexpr int THREAD_LOCAL_MODE = 1;

struct Graph {
  // Many times what at::cuda::CUDAGraph takes, which is 104 bytes.
  alignas(std::max_align_t) unsigned char place[4096] = {};
  c10::Device device;
  c10::Stream own;
  c10::Stream before;
  bool constructed = false;
  bool entered = false;

  explicit Graph(c10::Device device)
      : device(device), own(VirtualGuardImpl(at::kCUDA).getStreamFromGlobalPool(device)),
        before(VirtualGuardImpl(at::kCUDA).getStream(device)) {}
  Graph(const Graph &) = delete;
  Graph &operator=(const Graph &) = delete;

  void enter() {
    const VirtualGuardImpl guard(at::kCUDA);
    guard.synchronizeDevice(device.index());
    before = guard.exchangeStream(own);
    entered = true;
  }

  void leave() {
    if (!entered)
      return;
    entered = false;
    const VirtualGuardImpl guard(at::kCUDA);
    guard.exchangeStream(before);
    guard.synchronizeDevice(device.index());
  }

  ~Graph() {
    if (constructed)
      graph_calls().destroy(place);
  }
};

} // namespace

extern "C" {

// Whether a CUDA device has bfloat16 units. libtorch asks the device for compute capability 8 here.
int kf_cuda_has_bfloat16(int device) {
  try {
    const c10::DeviceGuard guard(cuda(device));
    return at::detail::getCUDAHooks().supportsBFloat16ConvolutionWithCuDNNv8() ? 1 : 0;
  } catch (...) {
    return 0;
  }
}

// float32 means float32: by default cuDNN's convolutions round its products to 10 bits.
void kf_cuda_exact() {
  try {
    at::globalContext().setAllowTF32CuDNN(false);
  } catch (...) {
  }
}

// Waits for what this thread has asked of a CUDA device.
int kf_cuda_wait(int device, char *error, size_t length) {
  return guarded(error, length, [&] {
    const VirtualGuardImpl guard(at::kCUDA);
    guard.synchronizeStream(guard.getStream(cuda(device)));
  });
}

// `length` bytes as a tensor on a CUDA device; the caller owns the result. They go through memory that the device
// reads by itself, so the call does not wait for it; libtorch keeps that memory until the copy is done.
void *kf_cuda_upload(const uint8_t *bytes, int64_t length, int device, char *error, size_t space) {
  at::Tensor *made = nullptr;
  guarded(error, space, [&] {
    auto staged = at::empty({length}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
    std::memcpy(staged.data_ptr(), bytes, static_cast<size_t>(length));
    made = new at::Tensor(staged.to(cuda(device), /*non_blocking=*/true));
  });
  return made;
}

// Bytes of tensors on a CUDA device at most so far, and what the allocator took for them.
int kf_cuda_memory(int device, int64_t *tensors, int64_t *taken) {
  try {
    const auto stats = c10::getDeviceAllocator(at::kCUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(device));
    *tensors = stats.allocated_bytes[0].peak;
    *taken = stats.reserved_bytes[0].peak;
    return 0;
  } catch (...) {
    return 1;
  }
}

// Whether the libtorch that was loaded has what follows.
int kf_graph_available() { return graph_calls().complete() ? 1 : 0; }

void *kf_graph_new(int device, char *error, size_t length) {
  Graph *made = nullptr;
  guarded(error, length, [&] { made = new Graph(cuda(device)); });
  return made;
}

void kf_graph_delete(void *graph) {
  char ignored[1];
  guarded(ignored, sizeof ignored, [&] { delete static_cast<Graph *>(graph); });
}

// From here on this thread's work goes to the graph's own stream.
int kf_graph_enter(void *graph, char *error, size_t length) {
  return guarded(error, length, [&] { static_cast<Graph *>(graph)->enter(); });
}

// Back to the stream of before, all work done.
int kf_graph_leave(void *graph, char *error, size_t length) {
  return guarded(error, length, [&] { static_cast<Graph *>(graph)->leave(); });
}

// Between these two, on the own stream, work is noted instead of done.
int kf_graph_begin(void *graph, char *error, size_t length) {
  return guarded(error, length, [&] {
    auto *own = static_cast<Graph *>(graph);
    TORCH_CHECK(graph_calls().complete(), "this libtorch has no CUDA graphs that are known here");
    // Captures and replays are of the current device's current stream.
    const c10::DeviceGuard guard(own->device);
    graph_calls().construct(own->place, false);
    own->constructed = true;
    graph_calls().begin(own->place, {0, 0}, THREAD_LOCAL_MODE);
  });
}

int kf_graph_end(void *graph, char *error, size_t length) {
  return guarded(error, length, [&] {
    auto *own = static_cast<Graph *>(graph);
    const c10::DeviceGuard guard(own->device);
    graph_calls().end(own->place);
  });
}

// Does the noted work again, on the current stream.
int kf_graph_replay(void *graph, char *error, size_t length) {
  return guarded(error, length, [&] {
    auto *own = static_cast<Graph *>(graph);
    const c10::DeviceGuard guard(own->device);
    graph_calls().replay(own->place);
  });
}
}
