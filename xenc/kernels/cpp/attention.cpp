// Packed attention: softmax(scale Q K^T) V within each document, scores and softmax in float32.
//
// A task is a block of queries of one head of one document. It packs the keys and values that they see into
// panels, and takes twelve queries at a time: their scores with all those keys stand in the cache while the
// softmax is taken. Documents of more than kKeys tokens are taken in blocks of keys, with the running maximum
// and sum of the online softmax (Milakov and Gimelshein, arXiv:1805.02867).
// What a document gets depends on nothing but itself: blocks begin where it begins.

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "bias.h"
#include "operators.h"
#include "packing.h"
#include "product.h"
#include "tasks.h"

namespace {

using XENC_NAMESPACE::Attention;

constexpr int64_t kQueries = 256;  // of a task
constexpr int64_t kKeys = 1024;    // whose scores are held at once
// of their rows: no power of two, whose rows would share sets of the cache
constexpr int64_t kStride = kKeys + 64 / sizeof(float);
constexpr int kTile = 2 * kRows;  // queries taken at a time
constexpr int kChains = 4;        // sums side by side, so that none waits for the one before
constexpr float kLog2E = 1.44269504088896f;
constexpr float kLeast = -std::numeric_limits<float>::infinity();

struct Range {
  int64_t from, to;
  bool empty() const { return from >= to; }
};

Range meet(Range a, Range b) { return {std::max(a.from, b.from), std::min(a.to, b.to)}; }

// Which keys of a document of `length` tokens the queries [from, to) see between them.
Range seen_by(const Attention& how, int64_t from, int64_t to, int64_t length) {
  const bool all = how.window < 0;
  const int64_t first = all ? 0 : std::max<int64_t>(0, from - how.window);
  const int64_t end = how.causal ? to : (all ? length : std::min(length, to + how.window));
  return {first, end};
}

// The queries [from, to) of one head of the document whose tokens begin at `start`, and whose queries begin in
// the row `first_query`.
struct Block {
  int64_t start, length, head, first_query, from, to;
};

template <class T>
class Task {
  using Numbers = typename NumbersOf<T>::type;
  using Number = typename Numbers::Left;
  static constexpr bool kExact = std::is_same_v<T, float>;
  static constexpr int kDepth = Numbers::depth;

 public:
  Task(const Attention& how, const BucketPanels<T>& buckets)
      : how_(how),
        packing_(how.size),
        bias_(how, buckets, kTile, kKeys + kRows),
        inner_(packing_.inner()),
        columns_(packing_.columns()),
        keys_(kKeys * inner_),
        values_(kKeys * columns_),
        queries_(kTile * inner_),
        scores_(kTile * kStride),
        weights_(std::is_same_v<Number, float> ? 0 : kTile * kStride),
        sums_(kQueries * columns_),
        maxima_(kQueries),
        totals_(kQueries) {}

  void run(const Block& block) {
    const int64_t from = block.from, to = block.to;
    start_ = block.start, first_query_ = block.first_query, length_ = block.length, head_ = block.head;
    const Range seen = seen_by(how_, from, to, length_);
    const int64_t blocks = (seen.to - seen.from + kKeys - 1) / kKeys;
    if (how_.bias.buckets != nullptr) bias_.begin(head_, length_);
    fetch(how_.query, how_.query_stride, head_, {first_query_ + from, first_query_ + to});
    for (int64_t number = 0; number < blocks; ++number) {
      block_ = {seen.from + number * kKeys, std::min(seen.to, seen.from + (number + 1) * kKeys)};
      const int64_t first = start_ + block_.from, count = block_.to - block_.from;
      fetch(how_.value, how_.value_stride, key_head(), {first, first + count});
      packing_.keys(row(how_.key, how_.key_stride, first, key_head()), how_.key_stride, count, keys_.data());
      packing_.values(row(how_.value, how_.value_stride, first, key_head()), how_.value_stride, count, values_.data());
      if (bias_.reads_keys()) take_keys(first, count);
      for (int64_t query = from; query < to; query += kTile) {
        const int64_t end = std::min(query + kTile, to);
        attend_tile(query, end, query - from, number == 0);
        if (number == blocks - 1)
          for (int64_t row = query; row < end; ++row) write(row, row - from);
      }
    }
  }

 private:
  const T* row(const void* base, int64_t stride, int64_t token, int64_t head) const {
    return static_cast<const T*>(base) + token * stride + head * how_.size;
  }
  // Rows of one head lie far apart, where the processor does not look ahead by itself.
  void fetch(const void* base, int64_t stride, int64_t head, Range tokens) const {
    for (int64_t token = tokens.from; token < tokens.to; ++token)
      for (int64_t byte = 0; byte < how_.size * int64_t(sizeof(T)); byte += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(row(base, stride, token, head)) + byte);
  }
  int64_t key_head() const { return head_ / (how_.heads / how_.key_heads); }

  void attend_tile(int64_t from, int64_t to, int64_t slot, bool first_block) {
    const Range seen = meet(seen_by(how_, from, to, length_), block_);
    const Range here{(seen.from - block_.from) / kLanes * kLanes, rounded_up(seen.to - block_.from, kLanes)};
    if (seen.empty() && !first_block) return;
    if (!seen.empty()) {
      for (int64_t query = from; query < to; query += kRows) score(query, to, query - from, here);
      soften(from, to, slot, here, first_block);
    } else {
      for (int64_t query = from; query < to; ++query) begin(slot + query - from);
    }
    if (!seen.empty()) sum_values(to - from, slot, here, first_block);
  }

  void begin(int64_t slot) {
    maxima_[slot] = kLeast;
    totals_[slot] = 0.0f;
    std::fill_n(sums_.data() + slot * columns_, columns_, 0.0f);
  }

  // scores_[row .. row + 6] over the vectors of `here`.
  void score(int64_t query, int64_t end, int64_t row_in_tile, Range here) {
    const Number* left[kRows];
    for (int r = 0; r < kRows; ++r) {
      const int64_t token = std::min(query + r, end - 1);  // rows beyond the last repeat it
      left[r] = numbers_of(row(how_.query, how_.query_stride, first_query_ + token, head_), row_in_tile + r);
    }
    float* scores = scores_.data() + row_in_tile * kStride;
    multiply_panels<Numbers>(left, keys_.data(), inner_, here.from, here.to, scores, kStride);
    if (how_.bias.buckets != nullptr) {
      bias_.take_queries(left, row_in_tile);
      for (int64_t r = 0; r < std::min<int64_t>(kRows, end - query); ++r)
        bias_.add(row_in_tile + r, block_.from - query - r, here.from, here.to, scores + r * kStride);
    } else if (how_.cap > 0.0f) {
      for (int r = 0; r < kRows; ++r) cap(scores + r * kStride, here);
    }
  }

  void cap(float* scores, Range here) const {
    const Vec inwards(how_.scale / how_.cap), outwards(how_.cap / how_.scale);
    for (int64_t at = here.from; at < here.to; at += kLanes)
      store(scores + at, tanh_of(load(scores + at) * inwards) * outwards);
  }

  // Rows of keys for the bias, six at a time; those beyond the block's last repeat it.
  void take_keys(int64_t first, int64_t count) {
    for (int64_t key = 0; key < count; key += kRows) {
      const Number* rows[kRows];
      for (int r = 0; r < kRows; ++r)
        rows[r] = numbers_of(row(how_.key, how_.key_stride, first + std::min(key + r, count - 1), key_head()), r);
      bias_.take_keys(rows, key);
    }
  }

  // A row as products read it, copied into a row of the tile if need be.
  const Number* numbers_of(const T* from, int64_t row_in_tile) {
    if (packing_.direct()) return reinterpret_cast<const Number*>(from);
    Number* copy = queries_.data() + row_in_tile * inner_;
    packing_.copy(from, copy, inner_);
    return copy;
  }

  template <int Rows, int Vectors>
  __attribute__((always_inline)) static void products(const Number* const (&left)[Rows], const Number* panel,
                                                      int64_t columns, int64_t steps, Vec (&sums)[Rows][Vectors]) {
    typename Numbers::Sum raw[Rows][Vectors];
    multiply<Numbers, Rows, Vectors>(left, panel, columns, steps, raw);
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sums[r][v] = raw[r][v];
  }

  // Scores of a tile's queries -> weights, not yet divided by their total. Row by row in three passes, so that
  // no row waits for what another's numbers are reduced to.
  void soften(int64_t from, int64_t to, int64_t slot, Range here, bool first_block) {
    Range seen[kTile];
    float maximum[kTile];
    Vec total_of[kTile];
    const int64_t count = to - from;
    for (int64_t row = 0; row < count; ++row) {
      seen[row] = mask(from + row, row);
      const float before = first_block ? kLeast : maxima_[slot + row];
      const float top = largest(largest_of(scores_.data() + row * kStride, seen[row])) * how_.scale * kLog2E;
      // no lower where a row has seen but scores of -inf, which then weigh nothing
      maximum[row] = std::max({before, top, std::numeric_limits<float>::lowest()});
    }
    for (int64_t row = 0; row < count; ++row) total_of[row] = weigh(row, seen[row], here, maximum[row]);
    for (int64_t row = 0; row < count; ++row)
      keep(slot + row, maximum[row], total(total_of[row]), first_block);
  }

  // The vectors that hold the keys a query sees in this block; what else they hold does not count.
  Range mask(int64_t query, int64_t row) {
    const Range seen = meet(seen_by(how_, query, query + 1, length_), block_);
    if (seen.empty()) return {0, 0};
    float* scores = scores_.data() + row * kStride;
    const int64_t first = seen.from - block_.from, end = seen.to - block_.from;
    const Range whole{first / kLanes * kLanes, rounded_up(end, kLanes)};
    std::fill(scores + whole.from, scores + first, kLeast);
    std::fill(scores + end, scores + whole.to, kLeast);
    return whole;
  }

  Vec weigh(int64_t row, Range seen, Range here, float maximum) {
    const float* scores = scores_.data() + row * kStride;
    const Vec scale(how_.scale * kLog2E), top(maximum);
    Vec sums[kChains] = {Vec(0.0f), Vec(0.0f), Vec(0.0f), Vec(0.0f)};
    const auto weigh_at = [&](int64_t at, Vec& sum) __attribute__((always_inline)) {
      const Vec weight = exp2_of<kExact>(at::vec::fmsub(load(scores + at), scale, top));
      sum = sum + weight;
      put_weights(row, at, weight);
    };
    if (seen.empty()) seen = {here.from, here.from};
    for (int64_t at = here.from; at < seen.from; at += kLanes) put_weights(row, at, Vec(0.0f));
    int64_t at = seen.from;
    for (; at + kChains * kLanes <= seen.to; at += kChains * kLanes)
      for (int chain = 0; chain < kChains; ++chain) weigh_at(at + chain * kLanes, sums[chain]);
    for (; at < seen.to; at += kLanes) weigh_at(at, sums[0]);
    for (; at < here.to; at += kLanes) put_weights(row, at, Vec(0.0f));
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  static Vec largest_of(const float* scores, Range seen) {
    const Vec least(kLeast);
    Vec tops[kChains] = {least, least, least, least};
    int64_t at = seen.from;
    for (; at + kChains * kLanes <= seen.to; at += kChains * kLanes)
      for (int chain = 0; chain < kChains; ++chain)
        tops[chain] = larger(tops[chain], load(scores + at + chain * kLanes));
    for (; at < seen.to; at += kLanes) tops[0] = larger(tops[0], load(scores + at));
    return larger(larger(tops[0], tops[1]), larger(tops[2], tops[3]));
  }

  void put_weights(int64_t row_in_tile, int64_t at, Vec weight) {
    if constexpr (std::is_same_v<Number, float>)
      store(scores_.data() + row_in_tile * kStride + at, weight);
    else
      store(weights_.data() + row_in_tile * kStride + at, weight);
  }

  void keep(int64_t slot, float maximum, float sum, bool first_block) {
    const float before = maxima_[slot];
    maxima_[slot] = maximum;
    if (first_block) {
      totals_[slot] = sum;
      return;
    }
    const float shrunk = before == maximum ? 1.0f : std::exp2(before - maximum);
    totals_[slot] = totals_[slot] * shrunk + sum;
    float* sums = sums_.data() + slot * columns_;
    for (int64_t at = 0; at < columns_; at += kLanes) store(sums + at, load(sums + at) * Vec(shrunk));
  }

  // sums_[slot ...] (+)= weights . values
  void sum_values(int64_t queries, int64_t slot, Range here, bool first_block) {
    int64_t column = 0;
    while (column < columns_) {
      const int64_t vectors = std::min<int64_t>(kMostVectors, (columns_ - column) / kLanes);
      switch (vectors) {
        case 1: sum_columns<1>(queries, slot, here, column, first_block); break;
        case 2: sum_columns<2>(queries, slot, here, column, first_block); break;
        case 3: sum_columns<3>(queries, slot, here, column, first_block); break;
        default: sum_columns<kMostVectors>(queries, slot, here, column, first_block);
      }
      column += vectors * kLanes;
    }
  }

  template <int Vectors>
  void sum_columns(int64_t queries, int64_t slot, Range here, int64_t column, bool first_block) {
    if constexpr (Vectors <= kMostVectors) {
      constexpr int Rows = kMostVectors >= 2 * Vectors ? kTile : kRows;
      const Number* weights = [&] {
        if constexpr (std::is_same_v<Number, float>)
          return scores_.data();
        else
          return weights_.data();
      }();
      // a multiple of the depth; beyond the block's end weights are 0, and so are values
      const int64_t end = std::min(here.to, rounded_up(block_.to - block_.from, kDepth));
      for (int64_t first = 0; first < queries; first += Rows) {
        const Number* left[Rows];
        for (int r = 0; r < Rows; ++r) left[r] = weights + std::min(first + r, queries - 1) * kStride + here.from;
        Vec sums[Rows][Vectors];
        products<Rows, Vectors>(left, values_.data() + here.from * columns_ + column * kDepth, columns_,
                                (end - here.from) / kDepth, sums);
        for (int r = 0; r < Rows && first + r < queries; ++r) {
          float* kept = sums_.data() + (slot + first + r) * columns_ + column;
#pragma GCC unroll 4
          for (int v = 0; v < Vectors; ++v)
            store(kept + v * kLanes, first_block ? sums[r][v] : load(kept + v * kLanes) + sums[r][v]);
        }
      }
    }
  }

  void write(int64_t query, int64_t slot) {
    T* out = static_cast<T*>(how_.out) + (first_query_ + query) * how_.out_stride + head_ * how_.size;
    const float* sums = sums_.data() + slot * columns_;
    const Vec inverse(1.0f / totals_[slot]);
    int64_t at = 0;
    for (; at + kLanes <= how_.size; at += kLanes) store(out + at, load(sums + at) * inverse);
    for (; at < how_.size; ++at) out[at] = static_cast<T>(sums[at] / totals_[slot]);
  }

  const Attention& how_;
  Packing<T> packing_;
  BiasTask<T> bias_;
  const int64_t inner_, columns_;
  int64_t start_ = 0, first_query_ = 0, length_ = 0, head_ = 0;
  Range block_{0, 0};
  std::vector<Number> keys_, values_, queries_;
  std::vector<float> scores_;
  std::vector<Number> weights_;
  std::vector<float> sums_, maxima_, totals_;
};

std::vector<Block> blocks_of(const Attention& how) {
  std::vector<Block> blocks;
  for (int64_t document = 0; document < how.documents; ++document) {
    const int64_t start = how.cu_seqlens[document], length = how.cu_seqlens[document + 1] - start;
    const int64_t first_query = how.pooled ? document : start, queries = how.pooled ? length > 0 : length;
    for (int64_t from = 0; from < queries; from += kQueries)
      for (int64_t head = 0; head < how.heads; ++head)
        blocks.push_back({start, length, head, first_query, from, std::min(queries, from + kQueries)});
  }
  return blocks;
}

template <class T>
void attend_in(const Attention& how) {
  const std::vector<Block> blocks = blocks_of(how);
  const BucketPanels<T> buckets(how);
  share(blocks.size(), [&](const auto& take) {
    Task<T> task(how, buckets);
    for (int64_t number = take(); number >= 0; number = take()) task.run(blocks[number]);
  });
}

}  // namespace

void XENC_NAMESPACE::attend(const Attention& how, Type type) {
  switch (type) {
    case Type::float32: return attend_in<float>(how);
    case Type::bfloat16: return attend_in<BFloat16>(how);
    case Type::float16: return attend_in<Half>(how);
  }
}
