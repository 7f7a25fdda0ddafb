// What attention adds to its scores by the bucket of the distance between query and key: a number of the bucket,
// the query's product with a key of the bucket, and the key's product with a query of the bucket.
#pragma once

#include <algorithm>
#include <vector>

#include "operators.h"
#include "packing.h"
#include "tasks.h"

namespace {

// The keys and queries of all buckets, head by head, as panels.
template <class T>
class BucketPanels {
  using Number = typename Packing<T>::Number;

 public:
  explicit BucketPanels(const XENC_NAMESPACE::Attention& how)
      : keys_(packed(how, how.bias.bucket_keys, how.bias.keys_stride)),
        queries_(packed(how, how.bias.bucket_queries, how.bias.queries_stride)),
        of_head_(numbers_of_head(how)) {}

  const Number* keys(int64_t head) const { return keys_.empty() ? nullptr : keys_.data() + head * of_head_; }
  const Number* queries(int64_t head) const { return queries_.empty() ? nullptr : queries_.data() + head * of_head_; }

 private:
  static int64_t numbers_of_head(const XENC_NAMESPACE::Attention& how) {
    return rounded_up(how.bias.count, kPanel) * Packing<T>(how.size).inner();
  }

  static std::vector<Number> packed(const XENC_NAMESPACE::Attention& how, const void* rows, int64_t stride) {
    if (rows == nullptr) return {};
    const int64_t of_head = numbers_of_head(how);
    std::vector<Number> panels(how.heads * of_head);
    share(how.heads, [&](const auto& take) {
      Packing<T> packing(how.size);
      for (int64_t head = take(); head >= 0; head = take())
        packing.keys(static_cast<const T*>(rows) + head * how.size, stride, how.bias.count,
                     panels.data() + head * of_head);
    });
    return panels;
  }

  const std::vector<Number> keys_, queries_;
  const int64_t of_head_;
};

// The bias of one head of one document, for up to `tile` queries and `keys` keys at a time.
template <class T>
class BiasTask {
  using Numbers = typename NumbersOf<T>::type;
  using Number = typename Numbers::Left;
  using Rows = const Number* const (&)[kRows];

 public:
  BiasTask(const XENC_NAMESPACE::Attention& how, const BucketPanels<T>& panels, int64_t tile, int64_t keys)
      : bias_(how.bias),
        panels_(panels),
        inner_(Packing<T>(how.size).inner()),
        stride_(rounded_up(how.bias.count, kLanes) + kLanes),
        by_scale_(1.0f / how.scale),
        of_queries_(panels.keys(0) == nullptr ? 0 : tile * stride_),
        of_keys_(panels.queries(0) == nullptr ? 0 : keys * stride_) {
    for (int lane = 0; lane < kLanes; ++lane) steps_[lane] = lane * stride_;
  }

  // Only buckets of distances that a document of this length has are multiplied.
  void begin(int64_t head, int64_t length) {
    head_ = head;
    const auto [least, most] = std::minmax_element(bias_.buckets - (length - 1), bias_.buckets + length);
    from_ = *least / kLanes * kLanes, to_ = rounded_up(*most + 1, kLanes);
  }

  bool reads_keys() const { return !of_keys_.empty(); }
  // Rows of keys, counted from the first of the block.
  void take_keys(Rows keys, int64_t row) {
    multiply_panels<Numbers>(keys, panels_.queries(head_), inner_, from_, to_, of_keys_.data() + row * stride_, stride_);
  }
  // Rows of queries, counted from the first of the tile.
  void take_queries(Rows queries, int64_t row) {
    if (of_queries_.empty()) return;
    float* to = of_queries_.data() + row * stride_;
    multiply_panels<Numbers>(queries, panels_.keys(head_), inner_, from_, to_, to, stride_);
  }

  // scores: of the query in `row` of the tile, at `from` to `to` behind the block's first key, which is `ahead` of
  // the query.
  void add(int64_t row, int64_t ahead, int64_t from, int64_t to, float* scores) const {
    using Ints = at::vec::Vectorized<int32_t>;
    const Ints steps = Ints::loadu(steps_);
    const float* of_bucket = bias_.of_bucket == nullptr ? nullptr : bias_.of_bucket + head_ * bias_.count;
    for (int64_t at = from; at < to; at += kLanes) {
      const Ints buckets = Ints::loadu(bias_.buckets + ahead + at);
      Vec score = load(scores + at);
      if (!of_queries_.empty()) score = score + at::vec::gather<4>(of_queries_.data() + row * stride_, buckets);
      if (!of_keys_.empty()) score = score + at::vec::gather<4>(of_keys_.data() + at * stride_, buckets + steps);
      if (of_bucket != nullptr)
        score = at::vec::fmadd(at::vec::gather<4>(of_bucket, buckets), Vec(by_scale_), score);
      store(scores + at, score);
    }
  }

 private:
  const XENC_NAMESPACE::Bias bias_;
  const BucketPanels<T>& panels_;
  const int64_t inner_;
  const int64_t stride_;  // of rows of products; no power of two, whose rows would share sets of the cache
  const float by_scale_;  // scores are scaled after the bias
  int64_t head_ = 0, from_ = 0, to_ = 0;
  std::vector<float> of_queries_, of_keys_;
  int32_t steps_[kLanes];
};

}  // namespace
