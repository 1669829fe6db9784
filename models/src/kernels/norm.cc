// Group normalisation, with SiLU in the same pass.
#include "common.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace {

// Floats that one step of the inner loops covers: a multiple of the channels, long enough for vectors.
constexpr int64_t TILE = 128;
// Steps after which single-precision sums go over into double precision.
constexpr int64_t FLUSH = 64;

KF_CLONES void gather(const float *__restrict x, const float *__restrict pivot, float *__restrict sums, float *__restrict squares, int64_t steps,
                      int64_t tile) {
  for (int64_t s = 0; s < steps; s++, x += tile)
    for (int64_t i = 0; i < tile; i++) {
      const float d = x[i] - pivot[i];
      sums[i] += d;
      squares[i] += d * d;
    }
}

KF_CLONES void scale(const float *__restrict x, float *__restrict y, const float *__restrict a, const float *__restrict b, int64_t steps, int64_t tile) {
  for (int64_t s = 0; s < steps; s++, x += tile, y += tile)
    for (int64_t i = 0; i < tile; i++)
      y[i] = x[i] * a[i] + b[i];
}

// Sixteen floats, in as many registers as the processor needs for them.
typedef float Floats __attribute__((vector_size(64), aligned(4)));
typedef int32_t Ints __attribute__((vector_size(64), aligned(4)));

// y = z · sigmoid(z) with z = x·a + b. e^−z is 2^n · p(r), with a relative error below 1e-7, for z within ±40: beyond,
// the answer is z or nothing, and quotients that are no normal numbers any more would take a hundred times as long.
KF_PART Floats activated(Floats z) {
  Floats v = -z;
  v = v > -40.0f ? v : v * 0.0f - 40.0f;
  v = v < 40.0f ? v : v * 0.0f + 40.0f;
  const Floats shifted = v * 1.44269504f + 12582912.0f;
  const Floats n = shifted - 12582912.0f;
  const Floats r = (v - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  // The low bits of `shifted` are n: they become an exponent.
  const Ints power = ((Ints)shifted << 23) + (127 << 23);
  return z / (1.0f + p * (Floats)power);
}

KF_CLONES void scale_silu(const float *__restrict x, float *__restrict y, const float *__restrict a,
                          const float *__restrict b, int64_t steps, int64_t tile) {
  constexpr int64_t WIDE = sizeof(Floats) / sizeof(float);
  for (int64_t s = 0; s < steps; s++, x += tile, y += tile) {
    int64_t i = 0;
    for (; i + WIDE <= tile; i += WIDE) {
      const auto at = [i](const float *p) { return *reinterpret_cast<const Floats *>(p + i); };
      *reinterpret_cast<Floats *>(y + i) = activated(at(x) * at(a) + at(b));
    }
    for (; i < tile; i++)
      y[i] = activated(Floats{x[i] * a[i] + b[i]})[0];
  }
}

// Pixels `from` to `to` of one picture in whole tiles, and the rest in a shorter one.
template <typename F> void tiles(int64_t from, int64_t to, int64_t channels, int64_t repeat, F run) {
  const int64_t whole = (to - from) / repeat, rest = (to - from) % repeat;
  if (whole > 0)
    run(from * channels, whole, repeat * channels);
  if (rest > 0)
    run((to - rest) * channels, int64_t{1}, rest * channels);
}

// Sums over pixels of what each channel differs from `pivot`, and of its square.
void channel_sums(const float *x, const float *pivot, int64_t from, int64_t to, int64_t channels, int64_t repeat,
                  double *sums, double *squares) {
  std::vector<float> s(repeat * channels), q(repeat * channels);
  const auto flush = [&] {
    for (int64_t i = 0; i < repeat * channels; i++) {
      sums[i % channels] += s[i];
      squares[i % channels] += q[i];
      s[i] = q[i] = 0;
    }
  };
  tiles(from, to, channels, repeat, [&](int64_t at, int64_t steps, int64_t tile) {
    for (int64_t done = 0; done < steps; done += FLUSH) {
      gather(x + at + done * tile, pivot, s.data(), q.data(), std::min(FLUSH, steps - done), tile);
      flush();
    }
  });
}

struct Affine {
  std::vector<float> a, b;
};

// What a picture's values are multiplied with and shifted by, per channel, repeated to a tile.
Affine affine(const float *x, int64_t pixels, int64_t channels, int64_t repeat, int64_t groups, const float *weight,
              const float *bias, double eps) {
  std::vector<float> pivot(repeat * channels);
  for (int64_t i = 0; i < repeat * channels; i++)
    pivot[i] = x[i % channels];
  const int64_t parts = pixels * channels < 2 * 32768 ? 1 : kf::threads();
  std::vector<double> sums(parts * channels), squares(parts * channels);
  kf::parallel(parts, 32768, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; p++)
      channel_sums(x, pivot.data(), pixels * p / parts, pixels * (p + 1) / parts, channels, repeat,
                   &sums[p * channels], &squares[p * channels]);
  });
  for (int64_t p = 1; p < parts; p++)
    for (int64_t c = 0; c < channels; c++) {
      sums[c] += sums[p * channels + c];
      squares[c] += squares[p * channels + c];
    }
  Affine out{std::vector<float>(repeat * channels), std::vector<float>(repeat * channels)};
  const int64_t width = channels / groups;
  const double n = static_cast<double>(pixels);
  for (int64_t g = 0; g < groups; g++) {
    double mean = 0, spread = 0;
    for (int64_t c = g * width; c < (g + 1) * width; c++)
      mean += (pivot[c] + sums[c] / n) / static_cast<double>(width);
    for (int64_t c = g * width; c < (g + 1) * width; c++) {
      const double own = pivot[c] + sums[c] / n - mean;
      spread += squares[c] - sums[c] * sums[c] / n + n * own * own;
    }
    // Rounding may leave less than nothing; what is no number must stay so.
    spread = spread < 0 ? 0 : spread;
    const double inverse = 1.0 / std::sqrt(spread / (n * static_cast<double>(width)) + eps);
    for (int64_t c = g * width; c < (g + 1) * width; c++) {
      out.a[c] = static_cast<float>(weight[c] * inverse);
      out.b[c] = static_cast<float>(bias[c] - mean * weight[c] * inverse);
    }
  }
  for (int64_t i = channels; i < repeat * channels; i++) {
    out.a[i] = out.a[i - channels];
    out.b[i] = out.b[i - channels];
  }
  return out;
}

bool per_channel(const at::Tensor &t, int64_t channels) {
  return t.numel() == channels && t.is_contiguous() && t.device().is_cpu() && t.scalar_type() == at::kFloat &&
         !kf::trains(t);
}

} // namespace

extern "C" {

// Null if `x` is not laid out for it.
at::Tensor *kf_group_norm(const at::Tensor *x, const at::Tensor *weight, const at::Tensor *bias, int64_t groups,
                          double eps, bool activate) {
  if (!kf::interleaved(*x) || x->numel() == 0 || groups < 1 || x->size(1) % groups != 0 ||
      !per_channel(*weight, x->size(1)) || !per_channel(*bias, x->size(1)))
    return nullptr;
  return kf::answer([&] {
    const int64_t rows = x->size(0), channels = x->size(1), pixels = x->size(2) * x->size(3);
    const int64_t repeat = std::max<int64_t>(1, TILE / channels);
    auto y = kf::interleaved_empty(x->sizes());
    for (int64_t row = 0; row < rows; row++) {
      const float *from = x->const_data_ptr<float>() + row * pixels * channels;
      float *to = y.data_ptr<float>() + row * pixels * channels;
      const auto [a, b] = affine(from, pixels, channels, repeat, groups, weight->const_data_ptr<float>(),
                                 bias->const_data_ptr<float>(), eps);
      kf::parallel(pixels, channels, [&, &a = a, &b = b](int64_t first, int64_t last) {
        tiles(first, last, channels, repeat, [&](int64_t at, int64_t steps, int64_t tile) {
          (activate ? scale_silu : scale)(from + at, to + at, a.data(), b.data(), steps, tile);
        });
      });
    }
    return y;
  });
}
}
