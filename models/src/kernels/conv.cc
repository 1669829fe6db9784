// Convolutions with kernels laid out as oneDNN computes with them, and what follows a convolution in the same pass.
#include "common.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string_view>
#include <vector>

namespace {

using Numbers = c10::List<std::optional<at::Scalar>>;
using Text = std::optional<std::string_view>;
using Bias = std::optional<at::Tensor>;
using Sides = at::IntArrayRef;

using Reorder = at::Tensor(const at::Tensor &, Sides, Sides, Sides, int64_t, at::OptionalIntArrayRef);
using Plain = at::Tensor(const at::Tensor &, const at::Tensor &, const Bias &, Sides, Sides, Sides, int64_t,
                         std::string_view, Numbers, Text);
using Adding = at::Tensor(const at::Tensor &, const at::Tensor &, const at::Tensor &, const Bias &, Sides, Sides,
                          Sides, int64_t, std::string_view, std::optional<at::Scalar>, Text, Numbers, Text);

template <typename F> auto operation(const char *name, const char *overload) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).typed<F>();
}

// Of `Activation` in mod.rs.
enum Activation { NONE = 0, SILU = 1, LEAKY = 2, RELU = 3 };

constexpr float SLOPE = 0.2f;

} // namespace

extern "C" {

// For inputs of the size of `x`. `weight` may be packed already, for another size.
at::Tensor *kf_conv_pack(const at::Tensor *weight, const at::Tensor *x, int64_t stride, int64_t padding) {
  return kf::answer([&] {
    static const auto reorder = operation<Reorder>("mkldnn::_reorder_convolution_weight", "");
    const int64_t sides[2] = {stride, stride}, around[2] = {padding, padding}, one[2] = {1, 1};
    const auto plain = weight->is_mkldnn() ? weight->to_dense() : *weight;
    return reorder.call(plain.contiguous(), around, sides, one, 1, x->sizes());
  });
}

// `add`, if any, has the answer's shape and is added to it; an activation comes without. With a kernel in bfloat16 the
// products are made in that; sums, biases and what is added stay float32.
at::Tensor *kf_conv(const at::Tensor *x, const at::Tensor *packed, const at::Tensor *bias, const at::Tensor *add,
                    int64_t stride, int64_t padding, int activation) {
  return kf::answer([&] {
    const int64_t sides[2] = {stride, stride}, around[2] = {padding, padding}, one[2] = {1, 1};
    const bool narrow = packed->scalar_type() == at::kBFloat16;
    const Bias shift = bias == nullptr ? Bias() : Bias(narrow ? bias->to(at::kBFloat16) : *bias);
    if (add != nullptr && !narrow) {
      static const auto adding = operation<Adding>("mkldnn::_convolution_pointwise", "binary");
      const auto other = add->contiguous(at::MemoryFormat::ChannelsLast);
      return adding.call(*x, other, *packed, shift, around, sides, one, 1, "add", std::nullopt, std::nullopt,
                         Numbers(), std::nullopt);
    }
    static const auto plain = operation<Plain>("mkldnn::_convolution_pointwise", "");
    Numbers numbers;
    const char *name = "none";
    if (activation == SILU)
      name = "swish";
    if (activation == RELU)
      name = "relu";
    if (activation == LEAKY) {
      name = "leaky_relu";
      numbers.push_back(at::Scalar(SLOPE));
    }
    const auto from = narrow ? x->to(at::kBFloat16) : *x;
    const auto y = plain.call(from, *packed, shift, around, sides, one, 1, name, numbers, std::nullopt);
    if (!narrow)
      return y;
    return add == nullptr ? y.to(at::kFloat) : at::add(*add, y);
  });
}
}
