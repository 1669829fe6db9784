// Moving pixels: doubling, joining along the channels, warping along a flow.
#include "common.h"

#include <cmath>
#include <cstring>

namespace {

// Copies runs of `length` floats; the common lengths are known to the compiler.
template <int64_t N> void runs_of(const float *from, int64_t from_step, float *to, int64_t to_step, int64_t count) {
  for (int64_t i = 0; i < count; i++, from += from_step, to += to_step)
    std::memcpy(to, from, N * sizeof(float));
}

void runs(const float *from, int64_t from_step, float *to, int64_t to_step, int64_t count, int64_t length) {
  switch (length) {
  case 2:
    return runs_of<2>(from, from_step, to, to_step, count);
  case 3:
    return runs_of<3>(from, from_step, to, to_step, count);
  case 8:
    return runs_of<8>(from, from_step, to, to_step, count);
  case 16:
    return runs_of<16>(from, from_step, to, to_step, count);
  case 24:
    return runs_of<24>(from, from_step, to, to_step, count);
  case 32:
    return runs_of<32>(from, from_step, to, to_step, count);
  case 56:
    return runs_of<56>(from, from_step, to, to_step, count);
  case 64:
    return runs_of<64>(from, from_step, to, to_step, count);
  default:
    for (int64_t i = 0; i < count; i++, from += from_step, to += to_step)
      std::memcpy(to, from, length * sizeof(float));
  }
}

// The four source pixels around a position and their weights; outside, the border repeats.
struct Corners {
  int64_t at[4];
  float share[4];
};

KF_PART Corners corners(float x, float y, int64_t w, int64_t h) {
  // Written so that a position that is no number ends at the border, too.
  x = x > 0.0f ? x : 0.0f;
  y = y > 0.0f ? y : 0.0f;
  x = x < static_cast<float>(w - 1) ? x : static_cast<float>(w - 1);
  y = y < static_cast<float>(h - 1) ? y : static_cast<float>(h - 1);
  const int64_t x0 = static_cast<int64_t>(x), y0 = static_cast<int64_t>(y);
  const int64_t x1 = std::min(x0 + 1, w - 1), y1 = std::min(y0 + 1, h - 1);
  const float u = x - static_cast<float>(x0), v = y - static_cast<float>(y0);
  return {{y0 * w + x0, y0 * w + x1, y1 * w + x0, y1 * w + x1},
          {(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v}};
}

template <int64_t N> KF_PART void blend(const float *image, const Corners &c, float *to, int64_t channels) {
  const int64_t n = N > 0 ? N : channels;
  const float *p = image + c.at[0] * n, *q = image + c.at[1] * n, *r = image + c.at[2] * n,
              *s = image + c.at[3] * n;
  for (int64_t i = 0; i < n; i++)
    to[i] = p[i] * c.share[0] + q[i] * c.share[1] + r[i] * c.share[2] + s[i] * c.share[3];
}

struct Warp {
  const float *image;
  const float *flow;
  float scale;
  int64_t w, h, channels;
};

template <int64_t N> KF_PART void warp_row(const Warp &job, int64_t y, float *to, int64_t to_step) {
  for (int64_t x = 0; x < job.w; x++, to += to_step) {
    const float *flow = job.flow + 2 * (y * job.w + x);
    const auto around = corners(static_cast<float>(x) + flow[0] * job.scale,
                                static_cast<float>(y) + flow[1] * job.scale, job.w, job.h);
    blend<N>(job.image, around, to, job.channels);
  }
}

// Row `y` of the warped picture, a pixel every `to_step` floats.
KF_CLONES void warp(const Warp &job, int64_t y, float *to, int64_t to_step) {
  switch (job.channels) {
  case 8:
    return warp_row<8>(job, y, to, to_step);
  case 11:
    return warp_row<11>(job, y, to, to_step);
  case 24:
    return warp_row<24>(job, y, to, to_step);
  case 27:
    return warp_row<27>(job, y, to, to_step);
  case 56:
    return warp_row<56>(job, y, to, to_step);
  case 59:
    return warp_row<59>(job, y, to, to_step);
  default:
    return warp_row<0>(job, y, to, to_step);
  }
}

// Row `y` of a flow made twice as wide and long: bilinear between pixels' centres, and vectors twice as long.
KF_CLONES void finer_row(const float *flow, int64_t w, int64_t h, int64_t y, float *to) {
  const float at = std::max(0.0f, (static_cast<float>(y) + 0.5f) * 0.5f - 0.5f);
  const int64_t y0 = static_cast<int64_t>(at), y1 = std::min(y0 + 1, h - 1);
  const float v = at - static_cast<float>(y0);
  const float *top = flow + 2 * w * y0, *bottom = flow + 2 * w * y1;
  for (int64_t x = 0; x < 2 * w; x++) {
    const float across = std::max(0.0f, (static_cast<float>(x) + 0.5f) * 0.5f - 0.5f);
    const int64_t x0 = static_cast<int64_t>(across), x1 = std::min(x0 + 1, w - 1);
    const float u = across - static_cast<float>(x0);
    for (int64_t c = 0; c < 2; c++) {
      const float above = top[2 * x0 + c] * (1 - u) + top[2 * x1 + c] * u;
      const float below = bottom[2 * x0 + c] * (1 - u) + bottom[2 * x1 + c] * u;
      to[2 * x + c] = 2.0f * (above * (1 - v) + below * v);
    }
  }
}

struct Size {
  int64_t rows, channels, h, w;
  explicit Size(const at::Tensor &t) : rows(t.size(0)), channels(t.size(1)), h(t.size(2)), w(t.size(3)) {}
  int64_t pixels() const { return h * w; }
};

// Runs `make(row, y)` for every line of every picture.
template <typename F> void lines(const Size &size, int64_t channels, F make) {
  kf::parallel(size.rows * size.h, size.w * channels, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i++)
      make(i / size.h, i % size.h);
  });
}

// Vectors for `rows` pictures of the size of `x`.
bool is_flow(const at::Tensor &flow, int64_t rows, const at::Tensor &x) {
  return kf::interleaved(flow) && x.numel() > 0 && flow.size(0) == rows && flow.size(1) == 2 &&
         flow.size(2) == x.size(2) && flow.size(3) == x.size(3);
}

} // namespace

extern "C" {

// `x` `[n, 4c, h+1, w+1]` has for each of the four pixels that a source pixel becomes c channels, upper left first.
// Pixel (2i + p, 2j + q) is found at (i + p·step + from, j + q·step + from) of part (p, q). → `[n, c, 2h, 2w]`.
at::Tensor *kf_spread(const at::Tensor *x, int64_t step, int64_t from) {
  const bool inside = from >= 0 && from <= 1 && step + from >= 0 && step + from <= 1;
  if (!kf::interleaved(*x) || !inside || x->size(1) % 4 != 0 || x->size(2) < 2 || x->size(3) < 2)
    return nullptr;
  return kf::answer([&] {
    const Size in(*x);
    const int64_t channels = in.channels / 4, h = in.h - 1, w = in.w - 1;
    auto y = kf::interleaved_empty({in.rows, channels, 2 * h, 2 * w});
    const float *source = x->const_data_ptr<float>();
    float *target = y.data_ptr<float>();
    lines(Size(y), channels, [&](int64_t row, int64_t line) {
      const int64_t p = line % 2, at = line / 2 + p * step + from;
      float *to = target + (row * 2 * h + line) * 2 * w * channels;
      for (int64_t q = 0; q < 2; q++) {
        const float *pixel = source + ((row * in.h + at) * in.w + q * step + from) * in.channels;
        runs(pixel + (2 * p + q) * channels, in.channels, to + q * channels, 2 * channels, w, channels);
      }
    });
    return y;
  });
}

// `count` tensors of equal size but for the channels, joined along these.
at::Tensor *kf_join(const at::Tensor *const *parts, int64_t count) {
  int64_t channels = 0;
  for (int64_t i = 0; i < count; i++) {
    if (!kf::interleaved(*parts[i]))
      return nullptr;
    channels += parts[i]->size(1);
  }
  return kf::answer([&] {
    const Size size(*parts[0]);
    auto y = kf::interleaved_empty({size.rows, channels, size.h, size.w});
    float *target = y.data_ptr<float>();
    lines(size, channels, [&](int64_t row, int64_t line) {
      const int64_t pixel = (row * size.h + line) * size.w;
      float *to = target + pixel * channels;
      for (int64_t i = 0; i < count; i++) {
        const int64_t own = parts[i]->size(1);
        runs(parts[i]->const_data_ptr<float>() + pixel * own, own, to, channels, size.w, own);
        to += own;
      }
    });
    return y;
  });
}

// Two halves of a batch, each with the other one's pictures warped along its `flow` behind it: `[2n, c, h, w]` and
// `[2n, 2, h, w]` → `[2n, 2c, h, w]`.
at::Tensor *kf_join_warped(const at::Tensor *x, const at::Tensor *flow) {
  if (!kf::interleaved(*x) || !is_flow(*flow, x->size(0), *x) || x->size(0) % 2 != 0)
    return nullptr;
  return kf::answer([&] {
    const Size size(*x);
    const int64_t own = size.channels, channels = 2 * own;
    const float *source = x->const_data_ptr<float>();
    auto y = kf::interleaved_empty({size.rows, channels, size.h, size.w});
    float *target = y.data_ptr<float>();
    lines(size, channels, [&](int64_t row, int64_t line) {
      const int64_t pixel = (row * size.h + line) * size.w;
      float *to = target + pixel * channels;
      runs(source + pixel * own, own, to, channels, size.w, own);
      const int64_t other = (row + size.rows / 2) % size.rows;
      const float *vectors = flow->const_data_ptr<float>() + row * size.pixels() * 2;
      warp({source + other * size.pixels() * own, vectors, 1.0f, size.w, size.h, own}, line, to + own, channels);
    });
    return y;
  });
}

// What FILM's decoder reads of one scale. `both` `[2n, c, h, w]` has the first pictures, then the second ones; the
// flows `[n, 2, h, w]` lead from the second to the first and back. → `[n, 2c + 4, h, w]`: both, warped to the time
// `t`, and the flows that did it.
at::Tensor *kf_between(const at::Tensor *both, const at::Tensor *backward, const at::Tensor *forward, double t) {
  const int64_t half = kf::interleaved(*both) ? both->size(0) / 2 : 0;
  if (half < 1 || both->size(0) % 2 != 0 || !is_flow(*backward, half, *both) || !is_flow(*forward, half, *both))
    return nullptr;
  return kf::answer([&] {
    const Size size(*both);
    const int64_t rows = size.rows / 2, channels = 2 * size.channels + 4;
    const float share[2] = {static_cast<float>(t), static_cast<float>(1.0 - t)};
    const float *flows[2] = {backward->const_data_ptr<float>(), forward->const_data_ptr<float>()};
    auto y = kf::interleaved_empty({rows, channels, size.h, size.w});
    float *target = y.data_ptr<float>();
    lines(Size(y), channels, [&](int64_t row, int64_t line) {
      float *to = target + (row * size.h + line) * size.w * channels;
      for (int64_t side = 0; side < 2; side++) {
        const float *flow = flows[side] + row * size.pixels() * 2;
        const float *image = both->const_data_ptr<float>() + (side * rows + row) * size.pixels() * size.channels;
        warp({image, flow, share[side], size.w, size.h, size.channels}, line, to + side * size.channels, channels);
        const float *vector = flow + line * size.w * 2;
        float *scaled = to + 2 * size.channels + 2 * side;
        for (int64_t x = 0; x < size.w; x++, vector += 2, scaled += channels) {
          scaled[0] = vector[0] * share[side];
          scaled[1] = vector[1] * share[side];
        }
      }
    });
    return y;
  });
}

// `flow` `[n, 2, h, w]` at twice the size, its vectors twice as long.
at::Tensor *kf_finer(const at::Tensor *flow) {
  if (!kf::interleaved(*flow) || flow->size(1) != 2 || flow->numel() == 0)
    return nullptr;
  return kf::answer([&] {
    const Size size(*flow);
    auto y = kf::interleaved_empty({size.rows, 2, 2 * size.h, 2 * size.w});
    const float *source = flow->const_data_ptr<float>();
    float *target = y.data_ptr<float>();
    lines(Size(y), 2, [&](int64_t row, int64_t line) {
      finer_row(source + row * size.pixels() * 2, size.w, size.h, line,
                target + (row * 2 * size.h + line) * 4 * size.w);
    });
    return y;
  });
}
}
