// The operators, as PyTorch knows them.

#include <algorithm>
#include <cstring>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "operators.h"

namespace {

using at::Tensor;
namespace own = XENC_NAMESPACE;

own::Type type_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return own::Type::float32;
    case at::kBFloat16: return own::Type::bfloat16;
    case at::kHalf: return own::Type::float16;
    default: TORCH_CHECK(false, "no kernel for ", tensor.scalar_type(), ": use float32, bfloat16 or float16");
  }
}

// Heads next to each other within a row, numbers within a head.
Tensor by_rows(const Tensor& part) {
  return part.stride(2) == 1 && part.stride(1) == part.size(2) ? part : part.contiguous();
}

Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& starts,
                 int64_t /*max_tokens*/, double scale, bool causal, int64_t window) {
  const Tensor q = by_rows(query), k = by_rows(key), v = by_rows(value), s = starts.contiguous();
  Tensor out = at::empty(query.sizes(), query.options().memory_format(at::MemoryFormat::Contiguous));
  own::Attention how{};
  how.query = q.const_data_ptr(), how.key = k.const_data_ptr(), how.value = v.const_data_ptr();
  how.out = out.mutable_data_ptr();
  how.query_stride = q.stride(0), how.key_stride = k.stride(0), how.value_stride = v.stride(0);
  how.out_stride = out.stride(0);
  how.starts = s.const_data_ptr<int32_t>(), how.documents = s.numel() - 1;
  how.heads = q.size(1), how.key_heads = k.size(1), how.size = q.size(2);
  how.scale = static_cast<float>(scale), how.causal = causal, how.window = window;
  own::attend(how, type_of(query));
  return out;
}

// weight: whole panels, see product.h; bias, scales and sums: of as many columns.
Tensor linear(const Tensor& left, const Tensor& weight, const Tensor& bias, const std::optional<Tensor>& scales,
              const std::optional<Tensor>& sums, int64_t outputs, int64_t activation) {
  const bool by_row = left.stride(-1) == 1 && (left.dim() == 2 || left.is_contiguous());
  const Tensor rows = by_row ? left : left.contiguous();
  auto sizes = left.sizes().vec();
  sizes.back() = outputs;
  Tensor out = at::empty(sizes, left.options().memory_format(at::MemoryFormat::Contiguous));
  own::Linear what{};
  what.left = rows.const_data_ptr(), what.weight = weight.const_data_ptr();
  what.bias = bias.const_data_ptr<float>(), what.out = out.mutable_data_ptr();
  what.inputs = left.size(-1), what.outputs = outputs, what.columns = bias.numel();
  what.rows = left.numel() / what.inputs;
  what.left_stride = left.dim() == 2 ? rows.stride(0) : what.inputs;
  what.activation = activation;
  if (scales.has_value()) what.scales = scales->const_data_ptr<float>(), what.sums = sums->const_data_ptr<float>();
  own::multiply_by_weight(what, type_of(left), scales.has_value());
  return out;
}

// A number for each of `every` interleaved shares of the parts' cache lines; only that of share `only`, unless it is
// negative. FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/) by words of eight bytes.
Tensor fingerprints(at::TensorList parts, int64_t every, int64_t only) {
  constexpr int64_t line = 64;
  Tensor out = at::empty({only < 0 ? every : 1}, at::TensorOptions().dtype(at::kLong));
  for (int64_t share = std::max<int64_t>(only, 0); share < (only < 0 ? every : only + 1); ++share) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const Tensor& part : parts) {
      const Tensor whole = part.contiguous();
      const char* bytes = static_cast<const char*>(whole.const_data_ptr());
      const int64_t size = whole.nbytes();
      for (int64_t at = share * line; at < size; at += every * line)
        for (int64_t word = at; word < std::min(size, at + line); word += 8) {
          uint64_t value = 0;
          std::memcpy(&value, bytes + word, std::min<int64_t>(8, size - word));
          hash = (hash ^ value) * 0x100000001b3u;
        }
    }
    out.mutable_data_ptr<int64_t>()[only < 0 ? share : 0] = static_cast<int64_t>(hash);
  }
  return out;
}

}  // namespace

#define XENC_TEXT_(name) #name
#define XENC_TEXT(name) XENC_TEXT_(name)

TORCH_LIBRARY(XENC_NAMESPACE, library) {
  library.def("attention(Tensor query, Tensor key, Tensor value, Tensor starts, int max_tokens, float scale, "
              "bool causal, int window) -> Tensor", {at::Tag::needs_fixed_stride_order});
  library.def("linear(Tensor left, Tensor weight, Tensor bias, Tensor? scales, Tensor? sums, int outputs, "
              "int activation) -> Tensor");
  library.def("fingerprints(Tensor[] parts, int every, int only) -> Tensor");
  library.def("panel_columns() -> int", [] { return own::panel_columns(); });
  library.def("bfloat16_depth() -> int", [] { return own::bfloat16_depth(); });
  library.def("has_int8() -> bool", [] { return own::has_int8(); });
}
TORCH_LIBRARY_IMPL(XENC_NAMESPACE, CPU, library) {
  library.impl("attention", &attention);
  library.impl("linear", &linear);
  library.impl("fingerprints", &fingerprints);
}
