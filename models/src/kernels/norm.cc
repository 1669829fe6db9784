// Group normalisation, with SiLU in the same pass.
#include "common.h"

#include <torch/csrc/autograd/custom_function.h>

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

// 1 + e^−z. e^−z is 2^n · p(r), with a relative error below 1e-7, for z within ±40: beyond, sigmoid(z) is 1 or nothing,
// and quotients that are no normal numbers any more would take a hundred times as long.
KF_PART Floats inverse_sigmoid(Floats z) {
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
  return 1.0f + p * (Floats)power;
}

// SiLU: z · sigmoid(z).
KF_PART Floats activated(Floats z) { return z / inverse_sigmoid(z); }

// The slope of SiLU.
KF_PART Floats slope(Floats z) {
  const Floats s = 1.0f / inverse_sigmoid(z);
  return s * (1.0f + z * (1.0f - s));
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

// What comes back to z = x·a + b, written to `back`, its sum, and its sum weighted with what `x` differs from `mean`.
template <bool SILU>
KF_PART void come_back(const float *__restrict x, const float *__restrict dy, float *__restrict back,
                       const float *const *__restrict per_channel, float *__restrict sums,
                       float *__restrict weighted, int64_t steps, int64_t tile) {
  constexpr int64_t WIDE = sizeof(Floats) / sizeof(float);
  const float *a = per_channel[0], *b = per_channel[1], *mean = per_channel[2];
  for (int64_t s = 0; s < steps; s++, x += tile, dy += tile, back += tile) {
    int64_t i = 0;
    for (; i + WIDE <= tile; i += WIDE) {
      const auto at = [i](const float *p) { return *reinterpret_cast<const Floats *>(p + i); };
      const auto add = [i](float *p, Floats v) { *reinterpret_cast<Floats *>(p + i) += v; };
      const Floats own = SILU ? at(dy) * slope(at(x) * at(a) + at(b)) : at(dy);
      *reinterpret_cast<Floats *>(back + i) = own;
      add(sums, own);
      add(weighted, own * (at(x) - at(mean)));
    }
    for (; i < tile; i++) {
      const float own = SILU ? dy[i] * slope(Floats{x[i] * a[i] + b[i]})[0] : dy[i];
      back[i] = own;
      sums[i] += own;
      weighted[i] += own * (x[i] - mean[i]);
    }
  }
}

KF_CLONES void come_back_silu(const float *x, const float *dy, float *back, const float *const *per_channel, float *sums,
                              float *weighted, int64_t steps, int64_t tile) {
  come_back<true>(x, dy, back, per_channel, sums, weighted, steps, tile);
}

KF_CLONES void come_back_plain(const float *x, const float *dy, float *back, const float *const *per_channel,
                               float *sums, float *weighted, int64_t steps, int64_t tile) {
  come_back<false>(x, dy, back, per_channel, sums, weighted, steps, tile);
}

KF_CLONES void settle(const float *__restrict x, float *__restrict back, const float *__restrict p,
                      const float *__restrict q, const float *__restrict r, int64_t steps, int64_t tile) {
  for (int64_t s = 0; s < steps; s++, x += tile, back += tile)
    for (int64_t i = 0; i < tile; i++)
      back[i] = back[i] * p[i] - x[i] * q[i] - r[i];
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
  std::vector<float> a, b, mean, inverse;
};

// What a picture's values are multiplied with and shifted by, with their groups' means and inverse deviations, per
// channel, repeated to a tile.
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
  const std::vector<float> none(repeat * channels);
  Affine out{none, none, none, none};
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
      out.mean[c] = static_cast<float>(mean);
      out.inverse[c] = static_cast<float>(inverse);
    }
  }
  for (auto *list : {&out.a, &out.b, &out.mean, &out.inverse})
    for (int64_t i = channels; i < repeat * channels; i++)
      (*list)[i] = (*list)[i - channels];
  return out;
}

bool per_channel(const at::Tensor &t, int64_t channels) {
  return t.numel() == channels && t.is_contiguous() && t.device().is_cpu() && t.scalar_type() == at::kFloat;
}

// A picture of a batch, or what comes back to it.
struct Layout {
  int64_t rows, channels, pixels, repeat;

  explicit Layout(const at::Tensor &x)
      : rows(x.size(0)), channels(x.size(1)), pixels(x.size(2) * x.size(3)),
        repeat(std::max<int64_t>(1, TILE / x.size(1))) {}

  const float *row(const at::Tensor &x, int64_t i) const { return x.const_data_ptr<float>() + i * pixels * channels; }
  float *row(at::Tensor &x, int64_t i) const { return x.data_ptr<float>() + i * pixels * channels; }

  Affine affine(const at::Tensor &x, int64_t i, int64_t groups, const at::Tensor &weight, const at::Tensor &bias,
                double eps) const {
    return ::affine(row(x, i), pixels, channels, repeat, groups, weight.const_data_ptr<float>(),
                    bias.const_data_ptr<float>(), eps);
  }
};

at::Tensor normalised(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias, int64_t groups, double eps,
                      bool activate) {
  const Layout of(x);
  auto y = kf::interleaved_empty(x.sizes());
  for (int64_t i = 0; i < of.rows; i++) {
    const float *from = of.row(x, i);
    float *to = of.row(y, i);
    const auto norm = of.affine(x, i, groups, weight, bias, eps);
    kf::parallel(of.pixels, of.channels, [&](int64_t first, int64_t last) {
      tiles(first, last, of.channels, of.repeat, [&](int64_t at, int64_t steps, int64_t tile) {
        (activate ? scale_silu : scale)(from + at, to + at, norm.a.data(), norm.b.data(), steps, tile);
      });
    });
  }
  return y;
}

// Gradients of one picture: to `back`, and added up to those of weight and bias.
void picture_gradients(const Layout &of, const float *x, const float *dy, float *back, const Affine &norm,
                       int64_t groups, const float *weight, bool activate, double *to_weight, double *to_bias) {
  const int64_t channels = of.channels, repeated = of.repeat * channels, width = channels / groups;
  std::vector<float> s(repeated), w(repeated), p(repeated), q(repeated), r(repeated);
  std::vector<double> sums(channels), weighted(channels);
  const float *const lists[3] = {norm.a.data(), norm.b.data(), norm.mean.data()};
  tiles(0, of.pixels, channels, of.repeat, [&](int64_t at, int64_t steps, int64_t tile) {
    for (int64_t done = 0; done < steps; done += FLUSH) {
      const int64_t here = at + done * tile;
      (activate ? come_back_silu : come_back_plain)(x + here, dy + here, back + here, lists, s.data(), w.data(),
                                                    std::min(FLUSH, steps - done), tile);
      for (int64_t i = 0; i < repeated; i++) {
        sums[i % channels] += s[i];
        weighted[i % channels] += w[i];
        s[i] = w[i] = 0;
      }
    }
  });
  const double n = static_cast<double>(of.pixels * width);
  for (int64_t g = 0; g < groups; g++) {
    const double inverse = norm.inverse[g * width], mean = norm.mean[g * width];
    double all = 0, along = 0;
    for (int64_t c = g * width; c < (g + 1) * width; c++) {
      to_bias[c] += sums[c];
      to_weight[c] += weighted[c] * inverse;
      all += weight[c] * sums[c] / n;
      along += weight[c] * weighted[c] * inverse / n;
    }
    for (int64_t c = g * width; c < (g + 1) * width; c++) {
      p[c] = static_cast<float>(weight[c] * inverse);
      q[c] = static_cast<float>(along * inverse * inverse);
      r[c] = static_cast<float>(all * inverse - along * inverse * inverse * mean);
    }
  }
  for (auto *list : {&p, &q, &r})
    for (int64_t i = channels; i < repeated; i++)
      (*list)[i] = (*list)[i - channels];
  tiles(0, of.pixels, channels, of.repeat, [&](int64_t at, int64_t steps, int64_t tile) {
    settle(x + at, back + at, p.data(), q.data(), r.data(), steps, tile);
  });
}

// The same with gradients, which are computed once and have none themselves.
struct Trained : torch::autograd::Function<Trained> {
  using Context = torch::autograd::AutogradContext;
  using Tensors = torch::autograd::variable_list;

  static at::Tensor forward(Context *context, const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias,
                            int64_t groups, double eps, bool activate) {
    context->save_for_backward({x, weight, bias});
    context->saved_data["groups"] = groups;
    context->saved_data["eps"] = eps;
    context->saved_data["activate"] = activate;
    return normalised(x, weight, bias, groups, eps, activate);
  }

  static Tensors backward(Context *context, Tensors of_answer) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &bias = saved[2];
    const int64_t groups = context->saved_data["groups"].toInt();
    const double eps = context->saved_data["eps"].toDouble();
    const bool activate = context->saved_data["activate"].toBool();
    const auto dy = of_answer[0].contiguous(at::MemoryFormat::ChannelsLast);
    const Layout of(x);
    auto back = kf::interleaved_empty(x.sizes());
    std::vector<double> sums(2 * of.channels);
    for (int64_t i = 0; i < of.rows; i++)
      picture_gradients(of, of.row(x, i), of.row(dy, i), of.row(back, i), of.affine(x, i, groups, weight, bias, eps),
                        groups, weight.const_data_ptr<float>(), activate, sums.data(), sums.data() + of.channels);
    const auto both = at::tensor(sums, at::kFloat).view({2, of.channels});
    return {back, both[0].view_as(weight), both[1].view_as(bias), {}, {}, {}};
  }
};

} // namespace

extern "C" {

// Null if `x` is not laid out for it.
at::Tensor *kf_group_norm(const at::Tensor *x, const at::Tensor *weight, const at::Tensor *bias, int64_t groups,
                          double eps, bool activate) {
  if (!kf::laid_out(*x) || x->numel() == 0 || groups < 1 || x->size(1) % groups != 0 ||
      !per_channel(*weight, x->size(1)) || !per_channel(*bias, x->size(1)))
    return nullptr;
  return kf::answer([&] {
    if (kf::trains(*x) || kf::trains(*weight) || kf::trains(*bias))
      return Trained::apply(*x, *weight, *bias, groups, eps, activate);
    return normalised(*x, *weight, *bias, groups, eps, activate);
  });
}
}
