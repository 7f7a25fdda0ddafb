// The operators, as PyTorch knows them.

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
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

// What a kernel would otherwise read beyond the end of.
void check(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& cu_seqlens, double scale) {
  TORCH_CHECK(query.dim() == 3 && key.dim() == 3, "query is ", query.sizes(), " and key is ", key.sizes(),
              ": give [tokens, heads, size] for both");
  TORCH_CHECK(value.sizes() == key.sizes(), "value is ", value.sizes(), " and key is ", key.sizes(),
              ": give them one shape");
  TORCH_CHECK(query.size(2) == key.size(2), "heads of ", query.size(2), " numbers in query and of ", key.size(2),
              " in key: give them one size");
  TORCH_CHECK(key.size(1) > 0 && query.size(1) % key.size(1) == 0, query.size(1), " query heads over ", key.size(1),
              " key heads: the one must be a multiple of the other");
  TORCH_CHECK(key.scalar_type() == query.scalar_type() && value.scalar_type() == query.scalar_type(), "query is ",
              query.scalar_type(), ", key ", key.scalar_type(), " and value ", value.scalar_type(),
              ": give them one dtype");
  TORCH_CHECK(cu_seqlens.dim() == 1 && cu_seqlens.numel() > 0 && cu_seqlens.scalar_type() == at::kInt, "cu_seqlens is ",
              cu_seqlens.scalar_type(), " ", cu_seqlens.sizes(), ": give int32 [documents + 1]");
  const Tensor row = cu_seqlens.contiguous();
  const int32_t* at = row.const_data_ptr<int32_t>();
  const int64_t documents = row.numel() - 1;
  TORCH_CHECK(at[0] == 0 && at[documents] == key.size(0) && std::is_sorted(at, at + documents + 1),
              "cu_seqlens must ascend from 0 to the ", key.size(0), " tokens there are, but is ", cu_seqlens);
  TORCH_CHECK(scale > 0, "scale=", scale, " must be positive");
}

// how: what is not of the tensors.
Tensor& attend(own::Attention how, const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& cu_seqlens,
               double scale, Tensor& out) {
  const Tensor q = by_rows(query), k = by_rows(key), v = by_rows(value), s = cu_seqlens.contiguous();
  how.query = q.const_data_ptr(), how.key = k.const_data_ptr(), how.value = v.const_data_ptr();
  how.out = out.mutable_data_ptr();
  how.query_stride = q.stride(0), how.key_stride = k.stride(0), how.value_stride = v.stride(0);
  how.out_stride = out.stride(0);
  how.cu_seqlens = s.const_data_ptr<int32_t>(), how.documents = s.numel() - 1;
  how.heads = q.size(1), how.key_heads = k.size(1), how.size = q.size(2);
  how.scale = static_cast<float>(scale);
  own::attend(how, type_of(query));
  return out;
}

Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& cu_seqlens,
                 int64_t /*max_seqlen*/, double scale, bool causal, int64_t window, double cap) {
  TORCH_CHECK(cap >= 0, "cap=", cap, " must be positive, or 0 for none");
  check(query, key, value, cu_seqlens, scale);
  TORCH_CHECK(query.size(0) == key.size(0), query.size(0), " queries for ", key.size(0), " keys: give one for each");
  Tensor out = at::empty(query.sizes(), query.options().memory_format(at::MemoryFormat::Contiguous));
  own::Attention how{};
  how.causal = causal, how.window = std::min(window, key.size(0)), how.cap = static_cast<float>(cap);
  return attend(how, query, key, value, cu_seqlens, scale, out);
}

// Keys or queries of buckets, [buckets, heads, size], with heads next to each other.
Tensor by_bucket(const Tensor& rows, int64_t buckets, const Tensor& query) {
  TORCH_CHECK(rows.dim() == 3 && rows.size(0) == buckets && rows.size(1) == query.size(1) &&
                  rows.size(2) == query.size(2) && rows.scalar_type() == query.scalar_type(),
              "keys or queries of buckets are ", rows.scalar_type(), " ", rows.sizes(), ": give ", query.scalar_type(),
              " [", buckets, ", ", query.size(1), ", ", query.size(2), "]");
  return by_rows(rows);
}

// The bucket of each distance, and behind the last as many more as a vector may read.
std::vector<int32_t> checked_buckets(const Tensor& buckets, const Tensor& cu_seqlens, int64_t count) {
  TORCH_CHECK(buckets.dim() == 1 && buckets.numel() % 2 == 1 && buckets.scalar_type() == at::kInt, "buckets is ",
              buckets.scalar_type(), " ", buckets.sizes(), ": give int32, as many to either side of distance 0");
  const Tensor row = buckets.contiguous(), ends = cu_seqlens.contiguous();
  const int32_t *bucket = row.const_data_ptr<int32_t>(), *end = ends.const_data_ptr<int32_t>();
  const int64_t reach = row.numel() / 2;
  for (int64_t document = 0; document + 1 < ends.numel(); ++document)
    TORCH_CHECK(end[document + 1] - end[document] <= reach + 1, "a document of ", end[document + 1] - end[document],
                " tokens: buckets reach to ", reach, " to either side");
  const auto [least, most] = std::minmax_element(bucket, bucket + row.numel());
  TORCH_CHECK(*least >= 0 && *most < count, "buckets are ", *least, " to ", *most, ": there are ", count);
  std::vector<int32_t> padded(bucket, bucket + row.numel());
  padded.resize(row.numel() + own::kMostLanes, padded.back());
  return padded;
}

Tensor biased_attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& cu_seqlens,
                        int64_t /*max_seqlen*/, double scale, const Tensor& buckets,
                        const std::optional<Tensor>& of_bucket, const std::optional<Tensor>& bucket_keys,
                        const std::optional<Tensor>& bucket_queries) {
  check(query, key, value, cu_seqlens, scale);
  TORCH_CHECK(query.sizes() == key.sizes(), "query is ", query.sizes(), " and key is ", key.sizes(),
              ": with a bias they must have one shape");
  TORCH_CHECK(of_bucket.has_value() || bucket_keys.has_value() || bucket_queries.has_value(), "no bias: give one");
  const int64_t count = of_bucket.has_value() ? of_bucket->size(-1) : (bucket_keys ? bucket_keys : bucket_queries)->size(0);
  const std::vector<int32_t> padded = checked_buckets(buckets, cu_seqlens, count);
  own::Attention how{};
  how.window = -1;
  how.bias.buckets = padded.data() + buckets.numel() / 2, how.bias.count = count;
  Tensor numbers, keys, queries;
  if (of_bucket.has_value()) {
    TORCH_CHECK(of_bucket->dim() == 2 && of_bucket->size(0) == query.size(1) && of_bucket->scalar_type() == at::kFloat,
                "of_bucket is ", of_bucket->scalar_type(), " ", of_bucket->sizes(), ": give float32 [", query.size(1),
                " heads, buckets]");
    numbers = of_bucket->contiguous(), how.bias.of_bucket = numbers.const_data_ptr<float>();
  }
  if (bucket_keys.has_value()) {
    keys = by_bucket(*bucket_keys, count, query);
    how.bias.bucket_keys = keys.const_data_ptr(), how.bias.keys_stride = keys.stride(0);
  }
  if (bucket_queries.has_value()) {
    queries = by_bucket(*bucket_queries, count, query);
    how.bias.bucket_queries = queries.const_data_ptr(), how.bias.queries_stride = queries.stride(0);
  }
  Tensor out = at::empty(query.sizes(), query.options().memory_format(at::MemoryFormat::Contiguous));
  return attend(how, query, key, value, cu_seqlens, scale, out);
}

// An empty document's result is 0.
Tensor pooled_attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& cu_seqlens,
                        int64_t /*max_seqlen*/, double scale) {
  check(query, key, value, cu_seqlens, scale);
  TORCH_CHECK(query.size(0) == cu_seqlens.numel() - 1, query.size(0), " queries for ", cu_seqlens.numel() - 1,
              " documents: give one for each");
  Tensor out = at::zeros(query.sizes(), query.options().memory_format(at::MemoryFormat::Contiguous));
  own::Attention how{};
  how.window = -1, how.pooled = true;
  return attend(how, query, key, value, cu_seqlens, scale, out);
}

// weight: whole panels, see product.h; bias, scales and sums: of as many columns.
Tensor linear(const Tensor& left, const Tensor& weight, const Tensor& bias, const std::optional<Tensor>& scales,
              const std::optional<Tensor>& sums, int64_t outputs, int64_t activation) {
  const own::Type type = type_of(left);
  const int64_t inputs = left.dim() > 0 ? left.size(-1) : 0;
  const int64_t columns = (outputs + own::panel_columns() - 1) / own::panel_columns() * own::panel_columns();
  const bool whole = weight.numel() == inputs * columns && weight.is_contiguous();
  TORCH_CHECK(inputs > 0 && outputs > 0 && whole && bias.numel() == columns && bias.is_contiguous(), "left of ",
              left.sizes(), " for a weight of ", weight.sizes(), " and a bias of ", bias.sizes(), " with ", outputs,
              " outputs: weight and bias must be of left's inputs, in whole panels");
  TORCH_CHECK(weight.scalar_type() == (scales.has_value() ? at::kChar : left.scalar_type()),
              "a weight of ", weight.scalar_type(), " for left of ", left.scalar_type(), ": give them one dtype");
  const auto fits = [&](const std::optional<Tensor>& of_columns) {
    return of_columns.has_value() && of_columns->numel() == columns && of_columns->is_contiguous();
  };
  TORCH_CHECK(!scales.has_value() || (fits(scales) && fits(sums)), "eight bits need scales and sums of ", columns,
              " columns");
  const int64_t depth = scales.has_value() ? 4 : type == own::Type::bfloat16 ? own::bfloat16_depth() : 1;
  TORCH_CHECK(inputs % depth == 0, inputs, " inputs: they must be a multiple of ", depth);
  TORCH_CHECK(0 <= activation && activation <= 3, "activation ", activation, " is none of 0 to 3");
  const bool by_row = left.stride(-1) == 1 && (left.dim() == 2 || left.is_contiguous());
  const Tensor rows = by_row ? left : left.contiguous();
  auto sizes = left.sizes().vec();
  sizes.back() = outputs;
  Tensor out = at::empty(sizes, left.options().memory_format(at::MemoryFormat::Contiguous));
  own::Linear what{};
  what.left = rows.const_data_ptr(), what.weight = weight.const_data_ptr();
  what.bias = bias.const_data_ptr<float>(), what.out = out.mutable_data_ptr();
  what.inputs = inputs, what.outputs = outputs, what.rows = left.numel() / inputs;
  what.left_stride = left.dim() == 2 ? rows.stride(0) : inputs;
  what.activation = activation;
  if (scales.has_value()) what.scales = scales->const_data_ptr<float>(), what.sums = sums->const_data_ptr<float>();
  own::multiply_by_weight(what, type, scales.has_value());
  return out;
}

// A number for each of `every` interleaved shares of the parts' cache lines; only that of share `only`, unless it is
// negative. A part of fewer lines has one of them in every share. FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/)
// by words of eight bytes.
Tensor fingerprints(at::TensorList parts, int64_t every, int64_t only) {
  constexpr int64_t line = 64;
  TORCH_CHECK(0 < every && only < every, "share ", only, " of ", every, " shares");
  Tensor out = at::empty({only < 0 ? every : 1}, at::TensorOptions().dtype(at::kLong));
  for (int64_t share = std::max<int64_t>(only, 0); share < (only < 0 ? every : only + 1); ++share) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const Tensor& part : parts) {
      const Tensor whole = part.contiguous();
      const char* bytes = static_cast<const char*>(whole.const_data_ptr());
      const int64_t size = whole.nbytes();
      const int64_t lines = (size + line - 1) / line;
      const int64_t first = lines == 0 ? 0 : lines < every ? share % lines : share;
      for (int64_t at = first * line; at < size; at += every * line)
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
  library.def("attention(Tensor query, Tensor key, Tensor value, Tensor cu_seqlens, int max_seqlen, float scale, "
              "bool causal, int window, float cap=0.0) -> Tensor", {at::Tag::needs_fixed_stride_order});
  library.def("biased_attention(Tensor query, Tensor key, Tensor value, Tensor cu_seqlens, int max_seqlen, float scale, "
              "Tensor buckets, Tensor? of_bucket, Tensor? bucket_keys, Tensor? bucket_queries) -> Tensor",
              {at::Tag::needs_fixed_stride_order});
  library.def("pooled_attention(Tensor query, Tensor key, Tensor value, Tensor cu_seqlens, int max_seqlen, float scale) "
              "-> Tensor", {at::Tag::needs_fixed_stride_order});
  library.def("linear(Tensor left, Tensor weight, Tensor bias, Tensor? scales, Tensor? sums, int outputs, "
              "int activation) -> Tensor");
  library.def("fingerprints(Tensor[] parts, int every, int only) -> Tensor");
  library.def("panel_columns() -> int", [] { return own::panel_columns(); });
  library.def("bfloat16_depth() -> int", [] { return own::bfloat16_depth(); });
  library.def("has_int8() -> bool", [] { return own::has_int8(); });
}
TORCH_LIBRARY_IMPL(XENC_NAMESPACE, CPU, library) {
  library.impl("attention", &attention);
  library.impl("biased_attention", &biased_attention);
  library.impl("pooled_attention", &pooled_attention);
  library.impl("linear", &linear);
  library.impl("fingerprints", &fingerprints);
}
